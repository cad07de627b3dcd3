"""Plots as SVG, drawn here and not in the browser: lines over time, and a histogram of dead letters by cause. Pure.

Colours come by class from the style sheet, so that they fit light and dark; a plot says in words what it shows, for
those who do not see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from connector.console.index import Histogram
from connector.console.markup import Child, Html, tag
from connector.console.words import moment, plural, short

WIDTH: Final = 560
HEIGHT: Final = 170
WIDE: Final = (760, 130)
_LEFT: Final = 44
_RIGHT: Final = 8
_TOP: Final = 10
_BOTTOM: Final = 22
_LINES: Final = 3
_COLOURS: Final = 8
_CAUSES: Final = ("refused", "invalid", "gave_up", "decode", "route", "unknown_outcome", "too_large")

Points = Sequence[tuple[float, float]]
"""Epoch seconds and a value, in the order of time."""


def colour(number: int) -> str:
    """Return the class of the n-th series' colour; those after the seventh share one."""
    return f"c{min(number, _COLOURS - 1)}"


def colour_of(cause: str) -> str:
    """Return the class of a cause's colour, the same on every page."""
    return colour(_CAUSES.index(cause) if cause in _CAUSES else _COLOURS)


def lines(series: Mapping[str, Points], start: float, end: float, *, label: str, gap: float) -> Html:
    """Return one line for each series. Where two points are further apart than `gap` seconds the line is broken."""
    top = _nice(max((value for points in series.values() for _, value in points), default=0.0))
    across, down = _across(start, end, WIDTH), _down(top)
    drawn: list[Child] = []
    for number, points in enumerate(series.values()):
        for piece in _pieces(points, gap):
            path = "L".join(f"{across(at):.1f} {down(value):.1f}" for at, value in piece)
            if len(series) == 1 and len(piece) > 1:
                base = down(0)
                area = f"M{across(piece[0][0]):.1f} {base:.1f}L{path}L{across(piece[-1][0]):.1f} {base:.1f}Z"
                drawn.append(tag("path", d=area, class_=f"area {colour(number)}"))
            # A lone point is a dot: a line of no length with round ends.
            end_ = "" if len(piece) > 1 else f"L{path}"
            drawn.append(tag("path", d=f"M{path}{end_}", class_=f"line {colour(number)}"))
    return _plot([*_axis(top, WIDTH), *_times(start, end, WIDTH), *drawn], label, (WIDTH, HEIGHT))


def histogram(data: Histogram, causes: Sequence[str], end: int, *, href: Callable[[int, int], str] | None) -> Html:
    """Return stacked bars by cause, in the order of `causes`; `href` gives where a bar of some time leads."""
    number = max((len(bins) for bins in data.counts.values()), default=0)
    sums = [sum(bins[at] for bins in data.counts.values()) for at in range(number)]
    top = _nice(max(sums, default=0))
    start_s, end_s = data.start / 1000, max(end, data.start + data.width * (number - 1) + 1) / 1000
    width, height = WIDE
    across, down = _across(start_s, end_s, width), _down(top, height)
    bars: list[Child] = []
    for at, total in enumerate(sums):
        if not total:
            continue
        begin = data.start + at * data.width
        left, right = across(begin / 1000), across((begin + data.width) / 1000)
        rects, floor = [], 0
        for cause in causes:
            bins = data.counts.get(cause)
            if bins is None or not bins[at]:
                continue
            y, base = down(floor + bins[at]), down(floor)
            floor += bins[at]
            rects.append(
                tag(
                    "rect",
                    x=round(left + 0.5, 1),
                    y=round(y, 1),
                    width=round(max(1.0, right - left - 1), 1),
                    height=round(max(1.0, base - y), 1),
                    class_=f"bar {colour_of(cause)}",
                )
            )
        said = ", ".join(f"{bins[at]:,} {cause}" for cause, bins in data.counts.items() if bins[at])
        title = tag("title", f"{moment(begin / 1000, '%d %b %H:%M')} UTC: {said}")
        group = tag("g", title, *rects)
        bars.append(group if href is None else tag("a", group, href=href(begin, begin + data.width - 1)))
    label = f"{plural(sum(sums), 'dead dead_letter')} over time, by cause"
    content = [*_axis(top, width, height), *_times(start_s, end_s, width, height), *bars]
    return _plot(content, label, WIDE, role="group" if href else "img")


def legend(names: Sequence[str], values: Sequence[str], colours: Callable[[str], str] | None = None) -> Html:
    """Return what each colour means, with its value; `colours` gives them by name, without it they go by order."""
    items = [
        tag("li", tag("span", class_=f"key {colours(name) if colours else colour(number)}"), name, " ", tag("b", value))
        for number, (name, value) in enumerate(zip(names, values, strict=True))
    ]
    return tag("ul", *items, class_="legend")


def _plot(content: Sequence[Child], label: str, size: tuple[int, int], role: str = "img") -> Html:
    class_ = "plot wide" if size == WIDE else "plot"
    return tag("svg", *content, viewBox=f"0 0 {size[0]} {size[1]}", role=role, aria_label=label, class_=class_)


def _across(start: float, end: float, width: int) -> Callable[[float], float]:
    scale = (width - _LEFT - _RIGHT) / max(end - start, 1e-9)
    return lambda at: _LEFT + (min(max(at, start), end) - start) * scale


def _down(top: float, height: int = HEIGHT) -> Callable[[float], float]:
    scale = (height - _TOP - _BOTTOM) / top
    return lambda value: height - _BOTTOM - value * scale


def _axis(top: float, width: int, height: int = HEIGHT) -> list[Child]:
    """Return horizontal lines with their values."""
    down = _down(top, height)
    drawn: list[Child] = []
    for number in range(_LINES):
        value = top * number / (_LINES - 1)
        y = round(down(value), 1)
        drawn.append(tag("line", x1=_LEFT, x2=width - _RIGHT, y1=y, y2=y, class_="grid"))
        drawn.append(tag("text", short(value), x=_LEFT - 6, y=y + 4, class_="tick end"))
    return drawn


def _times(start: float, end: float, width: int, height: int = HEIGHT) -> list[Child]:
    """Return the times below: at the beginning, in the middle, at the end."""
    form = "%H:%M" if end - start <= 26 * 3600 else "%d %b"
    across = _across(start, end, width)
    y = height - 6
    places = ((start, "start"), ((start + end) / 2, "middle"), (end, "end"))
    return [tag("text", moment(at, form), x=round(across(at)), y=y, class_=f"tick {where}") for at, where in places]


def _pieces(points: Points, gap: float) -> list[list[tuple[float, float]]]:
    """Return points in pieces without a gap between them."""
    pieces: list[list[tuple[float, float]]] = []
    for point in points:
        if pieces and point[0] - pieces[-1][-1][0] <= gap:
            pieces[-1].append(point)
        else:
            pieces.append([point])
    return pieces


def _nice(value: float) -> float:
    """Return a round number at or above a value, one at least."""
    step = 1.0
    while True:
        for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10):
            if value <= factor * step:
                return factor * step
        step *= 10
