"""The first page: what is wrong, where, since when, what to do; then lag, throughput, dead letters over time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from connector.console import charts
from connector.console.advice import for_cause, for_destination
from connector.console.frame import Frame, address, chip, code, notice, page, table, time_field
from connector.console.index import Histogram, Kind, Query
from connector.console.markup import Child, Html, tag
from connector.console.members import UNKNOWN, Answer, Destination
from connector.console.series import DAY, HOUR, Sample
from connector.console.words import ago, count, duration, moment, plural, short, time_tag

RANGES: Final = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY}
DEFAULT_RANGE: Final = "24h"
KINDS: Final = 8
"""Kinds of dead letters that the first page lists."""
SERIES: Final = 7
"""Lines of one plot; the rest is added up to another one."""

_KIND_OF: Final = {"held": "bad", "probing": "bad", "retrying": "warn", "throttled": "warn", "flowing": "good"}
_PLOT_LEAST: Final = 600.0


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """What the first page tells of dead letters: the open ones by kind, and all of the range over time."""

    kinds: Sequence[Kind]
    histogram: Histogram
    recent: int
    trouble: str | None = None
    left: int = 0
    read: int = 0
    forgotten: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that the first page shows. `samples` are those of the range, the oldest first."""

    destinations: Sequence[Destination]
    vendors: Mapping[str, str]
    answers: Sequence[Answer]
    samples: Sequence[Sample]
    interval: float
    range: str
    dead_letters: DeadLetters
    kafka_trouble: str | None = None
    sampled_at: float | None = None


def render(frame: Frame, at: Situation) -> str:
    """Return the page."""
    return page(
        frame,
        _title(at),
        "/",
        _verdict(frame, at),
        *_troubles(at),
        _destinations(frame, at),
        _plots(frame, at),
        _dead_letters(frame, at),
        live=max(2, round(at.interval)),
    )


def _silent(at: Situation) -> list[Answer]:
    return [answer for answer in at.answers if answer.trouble is not None]


def _title(at: Situation) -> str:
    ill = sum(one.ill for one in at.destinations)
    return f"({ill}) Overview" if ill else "Overview"


def _verdict(frame: Frame, at: Situation) -> Html:
    """Return the one sentence that is read first."""
    held = [one for one in at.destinations if one.state in ("held", "probing")]
    slow = [one for one in at.destinations if one.state in ("retrying", "throttled")]
    opened = sum(kind.dead_letters for kind in at.dead_letters.kinds)
    dead_letters = (
        f"{plural(opened, 'dead dead_letter')} open, {at.dead_letters.recent:,} of the last hour."
        if opened
        else "No dead letters."
    )
    kind = "good"
    if at.sampled_at is None:
        kind, headline, detail = "calm", "Asking the members…", "The first answers come within seconds."
    elif at.answers and len(_silent(at)) == len(at.answers):
        kind, headline = "bad", "No member answers"
        detail = "The connector does not run, or console.members does not lead to it. Records wait in Kafka."
    elif held:
        kind = "bad"
        names = ", ".join(one.name for one in held[:3]) + (f" and {len(held) - 3} more" if len(held) > 3 else "")
        verb = "is" if len(held) == 1 else "are"
        first = min((one.since for one in held if one.since is not None), default=None)
        since = "" if first is None else f" since {moment(first, '%H:%M')} UTC, for {duration(frame.now - first)}"
        causes = ", ".join(dict.fromkeys(one.cause for one in held if one.cause))
        headline = f"{names} {verb} held ({causes}){since}" if causes else f"{names} {verb} held{since}"
        well = len(at.destinations) - len(held)
        others = f"{plural(well, 'other destination')} {'goes' if well == 1 else 'go'} on. " if well else ""
        detail = f"{others}Nothing is lost: its records wait uncommitted."
    elif slow:
        kind, headline = "warn", f"{', '.join(one.name for one in slow[:3])}: {slow[0].state}"
        detail = "It goes on by itself."
    else:
        headline = f"All {plural(len(at.destinations), 'destination')} deliver"
        if len(at.destinations) == 1:
            headline = f"{at.destinations[0].name} delivers"
        detail = "Nothing needs you now." if not at.dead_letters.recent else "The dead letters are below."
    return tag("section", tag("h1", headline), tag("p", detail, " ", dead_letters), class_=f"verdict {kind}")


def _troubles(at: Situation) -> list[Child]:
    """Return what the console itself cannot see."""
    said: list[Child] = []
    silent = _silent(at)
    if silent and len(silent) < len(at.answers):
        names = "; ".join(f"{one.address}: {one.trouble}" for one in silent[:3])
        said.append(notice("warn", f"{len(silent)} of {plural(len(at.answers), 'member')} do not answer. {names}"))
    elif silent:
        said.append(notice("warn", "; ".join(f"{one.address}: {one.trouble}" for one in silent[:3])))
    if at.kafka_trouble:
        said.append(notice("warn", f"Kafka does not tell the backlog: {at.kafka_trouble}"))
    if at.dead_letters.trouble:
        said.append(notice("warn", f"Dead letters cannot be read: {at.dead_letters.trouble}"))
    elif at.dead_letters.left:
        said.append(notice("calm", f"Still reading dead letters: {at.dead_letters.read:,} so far."))
    if at.dead_letters.forgotten:
        said.append(
            notice(
                "calm",
                f"{at.dead_letters.forgotten:,} older unresolved dead letters are not counted here: console.letters is "
                "smaller than their number. connector dlq sees them all.",
            )
        )
    return said


def _destinations(frame: Frame, at: Situation) -> Html:
    """Return those that need somebody in full, the others as a list."""
    ill = [one for one in at.destinations if one.ill and at.sampled_at is not None]
    well = [one for one in at.destinations if one not in ill]
    cards = [_card(frame, at, one) for one in ill]
    rows = [
        tag(
            "tr",
            tag("th", one.name, tag("span", at.vendors.get(one.name, ""), class_="sub"), scope="row"),
            tag("td", chip(one.state if at.sampled_at else "asking", _KIND_OF.get(one.state, "calm"))),
            tag("td", _rate(at, one.name), class_="number"),
            tag("td", f"{one.in_flight}", class_="number"),
            tag("td", _note(frame, one)),
        )
        for one in well
    ]
    listed = None
    if rows:
        head = ["Destination", "State", "Accepted/s", "In flight", "What to do"]
        listed = table(head, rows, label="Destinations that work", class_="quiet")
    return tag("section", tag("h2", "Destinations"), *cards, listed)


def _note(frame: Frame, one: Destination) -> Child:
    advice = for_destination(one, 0)
    if one.state == "flowing":
        return tag("span", "Nothing.", class_="dim")
    probe = "" if one.next_probe is None else f" Next try {ago(one.next_probe, frame.now)}."
    said = (one.message or advice.meaning).rstrip(".")
    return f"{said}. {advice.action}{probe}"


def _card(frame: Frame, at: Situation, one: Destination) -> Html:
    """Return a destination that is held, or of which nothing is known."""
    advice = for_destination(one, len(_silent(at)))
    facts: list[Child] = []
    if one.since is not None:
        since = tag("time", f"{moment(one.since, '%d %b %H:%M')} UTC", datetime=time_field(int(one.since * 1000)) + "Z")
        facts.append(_fact("Since", since, f" · {duration(frame.now - one.since)}"))
    facts.append(_fact("Cause", one.cause or "unknown"))
    if one.code:
        facts.append(_fact("Code", code(one.code)))
    if one.state == "probing":
        facts.append(_fact("Next probe", "under way now"))
    elif one.next_probe is not None:
        due = ago(one.next_probe, frame.now) if one.next_probe > frame.now else "due now"
        facts.append(_fact("Next probe", due))
    elif one.state == "held":
        facts.append(_fact("Next probe", "none: it waits for a person"))
    if one.members > 1:
        facts.append(_fact("Members", f"{one.affected} of {one.members}"))
    message = None if not one.message else tag("p", one.message, class_="said")
    command = None if advice.command is None else tag("pre", advice.command, class_="command")
    title = tag(
        "h3", one.name, tag("span", at.vendors.get(one.name, ""), class_="sub"), " ", chip(one.state, _state_kind(one))
    )
    return tag(
        "article",
        title,
        tag("dl", *facts, class_="facts"),
        tag("p", advice.meaning),
        message,
        tag("div", tag("h4", "What to do"), tag("p", advice.action), command, class_="todo"),
        class_=f"card {_state_kind(one)}",
    )


def _state_kind(one: Destination) -> str:
    return "warn" if one.state == UNKNOWN else "bad"


def _fact(name: str, *value: Child) -> Html:
    return tag("div", tag("dt", name), tag("dd", *value))


def _rate(at: Situation, name: str) -> str:
    last = at.samples[-1] if at.samples else None
    return "–" if last is None or name not in last.accepted else short(last.accepted[name])


def _plots(frame: Frame, at: Situation) -> Html:
    """Return backlog and throughput over time."""
    span = min(RANGES[at.range], DAY)
    first = at.samples[0].at if at.samples else frame.now
    start = max(frame.now - span, min(first, frame.now - _PLOT_LEAST))
    gap = max(150.0 if frame.now - start > HOUR else 0.0, at.interval * 3 + 5)
    backlog = _together([(one.at, one.backlog) for one in at.samples])
    accepted = _together([(one.at, one.accepted) for one in at.samples])
    waiting = sum(points[-1][1] for points in backlog.values())
    rate = sum(points[-1][1] for points in accepted.values())
    return tag(
        "section",
        tag("h2", "Over time", _ranges(at.range)),
        tag(
            "div",
            _figure("Backlog", "records waiting", backlog, count(waiting), (start, frame.now, gap)),
            _figure("Throughput", "accepted a second", accepted, short(rate), (start, frame.now, gap)),
            class_="pair",
        ),
    )


def _figure(
    name: str, unit: str, series: Mapping[str, charts.Points], now: str, over: tuple[float, float, float]
) -> Html:
    start, end, gap = over
    head = tag("figcaption", tag("h3", name), tag("b", now if series else "–", class_="big"), " ", unit)
    plot = charts.lines(series, start, end, label=f"{name}: {now} {unit} now", gap=gap)
    last = [short(points[-1][1]) for points in series.values()]
    below = charts.legend(list(series), last) if len(series) > 1 else None
    return tag("figure", head, plot, below, class_="panel")


def _together(samples: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, list[tuple[float, float]]]:
    """Return a line for each name, the largest first; those after the seventh are added up to `others`."""
    sums: dict[str, float] = {}
    for _, values in samples:
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
    names = sorted(sums, key=lambda name: (-sums[name], name))
    lines: dict[str, list[tuple[float, float]]] = {name: [] for name in names[:SERIES]}
    for name, points in lines.items():
        points += [(at, values[name]) for at, values in samples if name in values]
    if len(names) > SERIES:
        lines["others"] = [(at, sum(values.get(name, 0.0) for name in names[SERIES:])) for at, values in samples]
    return lines


def _ranges(current: str) -> Html:
    links = [
        tag("a", name, href=f"/?range={name}", aria_current="true" if name == current else None) for name in RANGES
    ]
    return tag("nav", *links, class_="ranges", aria_label="Range of time")


def _dead_letters(frame: Frame, at: Situation) -> Html:
    """Return open dead letters over time and by kind."""
    kinds = at.dead_letters.kinds
    if not kinds:
        return tag("section", tag("h2", "Dead letters"), tag("p", "None is open.", class_="empty"))
    causes = list(dict.fromkeys(kind.cause for kind in kinds))
    shown = [cause for cause in causes if cause in at.dead_letters.histogram.counts]
    total = sum(sum(bins) for bins in at.dead_letters.histogram.counts.values())
    href = lambda since, until: address("/letters", Query(since=since, until=until))  # noqa: E731
    figure = tag(
        "figure",
        tag("figcaption", tag("b", count(total), class_="big"), f" failed in the last {at.range} and are open"),
        charts.histogram(at.dead_letters.histogram, shown, int(frame.now * 1000), href=href),
        charts.legend(
            shown, [count(sum(at.dead_letters.histogram.counts[cause])) for cause in shown], charts.colour_of
        ),
        class_="panel",
    )
    told: set[str] = set()
    rows = [_kind(frame, kind, told) for kind in kinds[:KINDS]]
    head = ["Letters", "Cause and code", "Destination", "First", "Last", "What to do"]
    more = None
    if len(kinds) > KINDS:
        more = tag("p", tag("a", f"All {len(kinds)} kinds among the dead letters", href="/letters"))
    return tag(
        "section",
        tag("h2", "Dead letters"),
        figure,
        table(head, rows, label="Open dead letters by kind", class_="kinds"),
        more,
    )


def _kind(frame: Frame, kind: Kind, told: set[str]) -> Html:
    """Return one kind's row; what to do about a cause is told once."""
    again = kind.cause in told
    told.add(kind.cause)
    where = tuple((name, getattr(kind, name)) for name in ("cause", "code", "destination"))
    link = tag("a", count(kind.dead_letters), href=address("/letters", Query(where)))
    return tag(
        "tr",
        tag("td", link, class_="number"),
        tag("td", chip(kind.cause, "cause"), " ", code(kind.code) if kind.code else None),
        tag("td", kind.destination or tag("span", "none yet", class_="dim")),
        tag("td", time_tag(kind.first / 1000, frame.now, relative=True), class_="nowrap"),
        tag("td", time_tag(kind.last / 1000, frame.now, relative=True), class_="nowrap"),
        tag("td", "as above" if again else for_cause(kind.cause).action, class_="advice"),
    )
