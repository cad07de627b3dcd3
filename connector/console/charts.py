"""Charts as SVG geometry: lines over time, and bars by cause. A template draws them. Pure.

Colours are classes of the style sheet, so that they match the light and the dark theme. Each chart has a text label for
people who cannot see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from connector.console.formatting import moment, short
from connector.console.index import TimeBuckets
from connector.errors import counted

LINE_SIZE: Final = (560, 170)
BAR_SIZE: Final = (760, 130)
_LEFT: Final = 44
_RIGHT: Final = 8
_TOP: Final = 10
_BOTTOM: Final = 22
_LINES: Final = 3
_COLOURS: Final = 8
_CAUSES: Final = ("refused", "invalid", "gave_up", "decode", "route", "unknown_outcome", "too_large")

Points = Sequence[tuple[float, float]]
"""Epoch seconds and a value, in the order of time."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A text on an axis; `anchor` is the class that aligns it."""

    x: float
    y: float
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Path:
    """A line or an area: SVG path data and its classes."""

    data: str
    classes: str


@dataclass(frozen=True, slots=True)
class Rectangle:
    """One part of a bar."""

    x: float
    y: float
    width: float
    height: float
    classes: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A stacked bar with its tooltip and, if it is a link, its address."""

    title: str
    href: str | None
    parts: Sequence[Rectangle]


@dataclass(frozen=True, slots=True)
class Chart:
    """A whole chart; `grid` are the heights of its horizontal lines."""

    label: str
    width: int
    height: int
    left: int
    right: int
    grid: Sequence[float]
    ticks: Sequence[Tick]
    paths: Sequence[Path] = ()
    bars: Sequence[Bar] = ()

    @property
    def wide(self) -> bool:
        """Whether it is as wide as the page; bar charts are."""
        return (self.width, self.height) == BAR_SIZE

    @property
    def linked(self) -> bool:
        """Whether its bars are links. Then it is a group of elements, not one image."""
        return any(bar.href is not None for bar in self.bars)


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A series or cause with its current value; `colour` is a class."""

    name: str
    value: str
    colour: str


def colour(number: int) -> str:
    """Return the class of the n-th series' colour; those after the seventh share one."""
    return f"c{min(number, _COLOURS - 1)}"


def colour_of(cause: str) -> str:
    """Return the class of a cause's colour, the same on every page."""
    return colour(_CAUSES.index(cause) if cause in _CAUSES else _COLOURS)


def legend(names: Sequence[str], values: Sequence[str], *, causes: bool = False) -> list[LegendEntry]:
    """Return the meaning of each colour, by cause or in the order of the series."""
    return [
        LegendEntry(name, value, colour_of(name) if causes else colour(number))
        for number, (name, value) in enumerate(zip(names, values, strict=True))
    ]


def line_chart(series: Mapping[str, Points], start: float, end: float, *, label: str, gap: float) -> Chart:
    """Return one line per series. A line is interrupted between points that are more than `gap` seconds apart."""
    top = _round_up(max((value for points in series.values() for _, value in points), default=0.0))
    width, height = LINE_SIZE
    across, down = _across(start, end, width), _down(top, height)
    paths: list[Path] = []
    for number, points in enumerate(series.values()):
        for piece in _pieces(points, gap):
            # A tenth of a pixel: more digits only make the page larger.
            path = "L".join(f"{across(at):.1f} {down(value):.1f}" for at, value in piece)
            if len(series) == 1 and len(piece) > 1:
                base = down(0)
                area = f"M{across(piece[0][0]):.1f} {base:.1f}L{path}L{across(piece[-1][0]):.1f} {base:.1f}Z"
                paths.append(Path(area, f"area {colour(number)}"))
            # A single point becomes a dot: a line of no length with round ends.
            close = "" if len(piece) > 1 else f"L{path}"
            paths.append(Path(f"M{path}{close}", f"line {colour(number)}"))
    return _chart(label, LINE_SIZE, top, (start, end), paths=paths)


def bar_chart(data: TimeBuckets, causes: Sequence[str], end: int, *, href: Callable[[int, int], str] | None) -> Chart:
    """Return stacked bars by cause, in the order of `causes`; `href` returns the address for a bar's time range."""
    number = max((len(bins) for bins in data.counts.values()), default=0)
    sums = [sum(bins[at] for bins in data.counts.values()) for at in range(number)]
    top = _round_up(max(sums, default=0))
    start_s, end_s = data.start / 1000, max(end, data.start + data.width * (number - 1) + 1) / 1000
    width, height = BAR_SIZE
    across, down = _across(start_s, end_s, width), _down(top, height)
    bars: list[Bar] = []
    for at, total in enumerate(sums):
        if not total:
            continue
        begin = data.start + at * data.width
        left, right = across(begin / 1000), across((begin + data.width) / 1000)
        parts, floor = [], 0
        for cause in causes:
            bins = data.counts.get(cause)
            if bins is None or not bins[at]:
                continue
            y, base = down(floor + bins[at]), down(floor)
            floor += bins[at]
            parts.append(
                Rectangle(
                    round(left + 0.5, 1),
                    round(y, 1),
                    round(max(1.0, right - left - 1), 1),
                    round(max(1.0, base - y), 1),
                    f"bar {colour_of(cause)}",
                )
            )
        shares = ", ".join(f"{bins[at]:,} {cause}" for cause, bins in data.counts.items() if bins[at])
        title = f"{moment(begin / 1000, '%d %b %H:%M')} UTC: {shares}"
        bars.append(Bar(title, None if href is None else href(begin, begin + data.width - 1), parts))
    label = f"{counted(sum(sums), 'dead letter')} over time, by cause"
    return _chart(label, BAR_SIZE, top, (start_s, end_s), bars=bars)


def _chart(
    label: str,
    size: tuple[int, int],
    top: float,
    span: tuple[float, float],
    *,
    paths: Sequence[Path] = (),
    bars: Sequence[Bar] = (),
) -> Chart:
    """Return a chart with its axes."""
    width, height = size
    down, across = _down(top, height), _across(*span, width)
    values = [top * number / (_LINES - 1) for number in range(_LINES)]
    ticks = [Tick(_LEFT - 6, round(down(value), 1) + 4, short(value), "end") for value in values]
    start, end = span
    form = "%H:%M" if end - start <= 26 * 3600 else "%d %b"
    for at, anchor in ((start, "start"), ((start + end) / 2, "middle"), (end, "end")):
        ticks.append(Tick(round(across(at)), height - 6, moment(at, form), anchor))
    grid = [round(down(value), 1) for value in values]
    return Chart(label, width, height, _LEFT, width - _RIGHT, grid, ticks, paths, bars)


def _across(start: float, end: float, width: int) -> Callable[[float], float]:
    scale = (width - _LEFT - _RIGHT) / max(end - start, 1e-9)
    return lambda at: _LEFT + (min(max(at, start), end) - start) * scale


def _down(top: float, height: int) -> Callable[[float], float]:
    scale = (height - _TOP - _BOTTOM) / top
    return lambda value: height - _BOTTOM - value * scale


def _pieces(points: Points, gap: float) -> list[list[tuple[float, float]]]:
    """Return points in pieces without a gap between them."""
    pieces: list[list[tuple[float, float]]] = []
    for point in points:
        if pieces and point[0] - pieces[-1][-1][0] <= gap:
            pieces[-1].append(point)
        else:
            pieces.append([point])
    return pieces


def _round_up(value: float) -> float:
    """Return a round number at or above a value, at least 1."""
    step = 1.0
    while True:
        for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10):
            if value <= factor * step:
                return factor * step
        step *= 10
