"""The first page: what is wrong, where, since when, what to do; then figures over time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from connector.console import charts
from connector.console.advice import Advice, for_cause, for_destination, for_hold
from connector.console.formatting import ago, count, duration, short
from connector.console.index import KindCount, Query, TimeBuckets
from connector.console.links import NO_LINKS, Links
from connector.console.members import (
    UNKNOWN,
    DestinationView,
    MemberResponse,
    ReportedHold,
    ReportedWaitingRecord,
    stopped,
)
from connector.console.queries import LIST, address, member_action
from connector.console.rendering import Notice
from connector.console.sampling import DAY, HOUR, RateSample
from connector.console.timeline import Happening
from connector.errors import counted

RANGES: Final = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY}
DEFAULT_RANGE: Final = "24h"
KINDS: Final = 8
"""Kinds of dead letters that the first page lists."""
SERIES: Final = 7
"""Lines of one chart; the rest is added up as `others`."""

STOPPED: Final = "stopped"
"""Shown for a destination without trouble of its own while no member reads records."""
_COLOUR: Final = {
    "held": "bad",
    "probing": "bad",
    "retrying": "warn",
    "throttled": "warn",
    STOPPED: "warn",
    "flowing": "good",
}
_PLOT_LEAST: Final = 600.0
_NAMED: Final = 3
_OLD_SECONDS: Final = 30.0
"""If the last sample is older than this, the page says so."""
_WAITING_SHOWN: Final = 5
"""Names that a headline or notice lists; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class DeadLetterSummary:
    """Unresolved dead letters by kind, and those of the chosen range over time; `recent` failed in the last hour."""

    kinds: Sequence[KindCount]
    buckets: TimeBuckets
    recent: int
    trouble: str | None = None
    left: int = 0
    read: int = 0
    forgotten: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that the page is built from. `samples` are those of the range, oldest first."""

    now: float
    destinations: Sequence[DestinationView]
    vendors: Mapping[str, str]
    responses: Sequence[MemberResponse]
    samples: Sequence[RateSample]
    interval: float
    range: str
    dead_letters: DeadLetterSummary
    kafka_trouble: str | None = None
    sampled_at: float | None = None
    links: Links = NO_LINKS
    happenings: Sequence[Happening] = ()

    @property
    def unreachable(self) -> list[MemberResponse]:
        """The members that did not answer."""
        return [response for response in self.responses if response.trouble is not None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The headline; `kind` is bad, warn, good or calm.

    `since` is epoch seconds. `before`: it may have begun earlier, because that was the first sample.
    """

    kind: str
    headline: str
    detail: str
    since: float | None = None
    before: bool = False


@dataclass(frozen=True, slots=True)
class CardFact:
    """One fact of a destination; `at` is a time (epoch seconds) shown before the text."""

    name: str
    text: str
    at: float | None = None
    code: bool = False


@dataclass(frozen=True, slots=True)
class HoldView:
    """One hold of a destination."""

    facts: Sequence[CardFact]
    advice: Advice
    message: str | None


@dataclass(frozen=True, slots=True)
class WaitingView:
    """A record that waits alone: where, since when, why, and how to skip it (as a command, and as a page)."""

    place: str
    link: str | None
    since: float | None
    attempts: str | None
    reason: str | None
    command: str
    skip: str
    others_pass: bool


@dataclass(frozen=True, slots=True)
class Card:
    """A destination that needs attention; `advice` and `message` are for one without holds."""

    name: str
    vendor: str
    state: str
    kind: str
    advice: Advice | None
    message: str | None
    holds: Sequence[HoldView]
    waiting: Sequence[WaitingView]
    more_waiting: int
    action: str
    probed: bool


@dataclass(frozen=True, slots=True)
class DestinationRow:
    """A destination that works."""

    name: str
    vendor: str
    state: str
    kind: str
    rate: str
    in_flight: int
    note: str | None


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its title and current value."""

    name: str
    value: str
    unit: str
    chart: charts.Chart
    legend: Sequence[charts.LegendEntry]


@dataclass(frozen=True, slots=True)
class KindRow:
    """Unresolved dead letters of one kind."""

    number: str
    href: str
    cause: str
    code: str
    destination: str
    first: float
    last: float
    action: str


@dataclass(frozen=True, slots=True)
class DeadLettersPart:
    """The part of the page about dead letters."""

    total: str
    chart: charts.Chart
    legend: Sequence[charts.LegendEntry]
    rows: Sequence[KindRow]
    more: int
    """How many kinds there are, if not all are listed; otherwise 0."""


@dataclass(frozen=True, slots=True)
class OverviewView:
    """Everything that the page shows."""

    title: str
    verdict: Verdict
    notices: Sequence[Notice]
    cards: Sequence[Card]
    rows: Sequence[DestinationRow]
    figures: Sequence[Figure]
    ranges: Sequence[str]
    range: str
    dead_letters: DeadLettersPart | None
    happenings: Sequence[Happening]


def overview_view(situation: Situation) -> OverviewView:
    """Return the view of the first page."""
    ill = [each for each in situation.destinations if each.ill and situation.sampled_at is not None]
    return OverviewView(
        title=f"({len(ill)}) Overview" if ill else "Overview",
        verdict=_verdict(situation),
        notices=_notices(situation),
        cards=[_card(situation, each) for each in ill],
        rows=[_row(situation, each) for each in situation.destinations if each not in ill],
        figures=_figures(situation),
        ranges=list(RANGES),
        range=situation.range,
        dead_letters=_dead_letters(situation),
        happenings=situation.happenings,
    )


def _verdict(situation: Situation) -> Verdict:
    """Return the headline: the worst problem and the names of the others, or that there is none."""
    unresolved = sum(kind.dead_letters for kind in situation.dead_letters.kinds)
    recent = situation.dead_letters.recent
    dead_letters = (
        f"{counted(unresolved, 'unresolved dead letter')}, {recent:,} of them from the last hour."
        if unresolved
        else "No unresolved dead letters."
    )
    if situation.sampled_at is None:
        return Verdict("calm", "Asking the members…", f"The first answers arrive within seconds. {dead_letters}")
    found = find_problems(situation)
    if found:
        worst, *others = found
        also = f" Also: {'; '.join(other.headline for other in others[:_NAMED])}." if others else ""
        return Verdict(worst.kind, worst.headline, f"{worst.detail}{also} {dead_letters}", worst.since, worst.before)
    number = len(situation.destinations)
    headline = f"All {counted(number, 'destination')} deliver"
    if number == 1:
        headline = f"{situation.destinations[0].name} delivers"
    detail = "See the recent dead letters below." if recent else "Nothing to do."
    return Verdict("good", headline, f"{detail} {dead_letters}")


def find_problems(situation: Situation) -> list[Verdict]:
    """Return what is wrong, the worst first."""
    found = [*_member_problems(situation), *_destination_problems(situation), *_config_problems(situation)]
    return sorted(found, key=lambda problem: problem.kind != "bad")


def problems(responses: Sequence[MemberResponse], destinations: Sequence[DestinationView], now: float) -> list[Verdict]:
    """Return the problems that members report, the worst first; `now` is epoch seconds."""
    nothing = DeadLetterSummary((), TimeBuckets(0, 1000, {}), 0)
    return find_problems(Situation(now, destinations, {}, responses, (), HOUR, DEFAULT_RANGE, nothing, sampled_at=now))


def _member_problems(situation: Situation) -> Iterator[Verdict]:
    """Yield what is wrong with members and Kafka, the worst first."""
    responses, unreachable = situation.responses, situation.unreachable
    age = situation.now - (situation.sampled_at or situation.now)
    if age > max(_OLD_SECONDS, 4 * situation.interval):
        yield Verdict("bad", f"This page is {duration(age)} old", "Restart the console: it no longer gets samples.")
    if len(unreachable) == len(responses):
        detail = "Start the connector, or correct console.members. Records wait in Kafka."
        yield Verdict("bad", "No member is reachable", detail, *_earliest(responses))
        return
    reachable = [response for response in responses if response.trouble is None]
    unready = [response for response in reachable if response.ready is False]
    if unready:
        yield _unready(situation, unready, len(reachable))
    yield from _partial(situation, [response for response in reachable if response.ready is not False])
    owned = [response.partitions for response in reachable]
    if owned and not any(owned) and None not in owned and not unready:
        detail = "Check that the topics exist and that the group is not rebalancing."
        yield Verdict("bad", "No member owns a partition: nothing is read", detail)
    if situation.kafka_trouble and not unready:
        detail = f"The members still report that they work. {situation.kafka_trouble}."
        yield Verdict("warn", "Kafka does not answer the console", detail)
    if unreachable:
        verb = "does" if len(unreachable) == 1 else "do"
        headline = f"{len(unreachable)} of {counted(len(responses), 'member')} {verb} not answer"
        others = "" if stopped(responses) else "The others take over its partitions. "
        yield Verdict("warn", headline, f"{others}Check why it is down.", *_earliest(unreachable))


def _earliest(responses: Sequence[MemberResponse]) -> tuple[float | None, bool]:
    """Return since when one of these members has been unreachable or not ready, and whether it may be longer."""
    known = [(each.ill_since, each.ill_before) for each in responses if each.ill_since is not None]
    return min(known, default=(None, False))


def _config_problems(situation: Situation) -> Iterator[Verdict]:
    """Yield a problem if members run with an older configuration because the file is faulty now."""
    faulty = [response for response in situation.responses if response.config_fault is not None]
    if faulty:
        number = len(faulty)
        headline = (
            f"The configuration is faulty: {counted(number, 'member')} {'keeps' if number == 1 else 'keep'} the old one"
        )
        since = min((each.config_fault_since for each in faulty if each.config_fault_since is not None), default=None)
        reason = " ".join(str(faulty[0].config_fault).split())
        reason += "" if reason.endswith((".", "?")) else "."
        yield Verdict(
            "warn", headline, f"Run connector check, correct the file, then connector reload. {reason}", since
        )


def _unready(situation: Situation, unready: Sequence[MemberResponse], reachable: int) -> Verdict:
    """Return what keeps members from reading."""
    reasons = _reasons(situation, unready)
    detail = f"Records wait in Kafka, none is lost. {'; '.join(reasons) or 'No reason is given'}."
    headline = f"{len(unready)} of {counted(reachable, 'member')} {'is' if len(unready) == 1 else 'are'} not ready"
    if len(unready) == reachable:
        headline = "No member is ready"
        if any(response.refused for response in unready):
            headline = "Kafka refuses the connector: nothing is delivered"
            detail = f"Correct the credential, certificate or permission. {detail}"
        elif situation.kafka_trouble is not None or any("broker" in reason for reason in reasons):
            headline = "Kafka is not reachable: nothing is delivered"
            detail = f"Check the brokers and the network to them; it resumes by itself. {detail}"
    return Verdict("bad", headline, detail, *_earliest(unready))


def _partial(situation: Situation, ready: Sequence[MemberResponse]) -> Iterator[Verdict]:
    """Yield what ready members cannot do: read a topic, or write dead letters."""
    for reason in _reasons(situation, ready):
        scope, _, message = reason.partition(": ")
        what = f"{scope} cannot be read" if scope.startswith("topic ") else scope
        detail = "Correct what the message names. Records wait in Kafka, none is lost."
        yield Verdict("bad", what[0].upper() + what[1:], f"{detail} {message}".rstrip(". ") + ".")


def _reasons(situation: Situation, responses: Sequence[MemberResponse]) -> list[str]:
    """Return the members' reasons, each once, except those that destinations and partitions already show."""
    shown = {hold.message for each in situation.destinations for hold in each.holds}
    found = dict.fromkeys(reason for response in responses for reason in response.reasons)
    aside = ("destination ", "no partitions")
    return [reason for reason in found if reason not in shown and not reason.startswith(aside)]


def _destination_problems(situation: Situation) -> Iterator[Verdict]:
    """Yield what is wrong with destinations, the worst first."""
    held = [each for each in situation.destinations if each.held]
    waiting = [each for each in situation.destinations if each.waiting]
    slow = [each for each in situation.destinations if each.state in ("retrying", "throttled") and not each.waiting]
    if held:
        yield _held(situation, held)
    if waiting:
        first = waiting[0].waiting[0]
        number = sum(len(each.waiting) for each in waiting)
        names = ", ".join(each.name for each in waiting[:_NAMED])
        for_how_long = "" if first.since is None else f", for {duration(situation.now - first.since)}"
        headline = f"{counted(number, 'record')} of {names} {'waits' if number == 1 else 'wait'} alone{for_how_long}"
        others = " Other records are delivered." if any(_others_pass(situation, each) for each in waiting) else ""
        yield Verdict("warn", headline, f"The reason is below: fix the cause, or skip the record.{others}")
    missing = [each.name for each in situation.destinations if each.state == UNKNOWN]
    if missing and not stopped(situation.responses):
        verb = "is" if len(missing) == 1 else "are"
        headline = f"{', '.join(missing[:_NAMED])} {verb} not reported by any member"
        yield Verdict("warn", headline, "Restart the members if it was added since they started.")
    if slow:
        names = ", ".join(each.name for each in slow[:_NAMED])
        yield Verdict("warn", f"{names}: {slow[0].state}", "Nothing to do: it resumes by itself.")


def _others_pass(situation: Situation, destination: DestinationView) -> bool:
    """Whether records are delivered besides those that wait alone."""
    return not destination.held and not stopped(situation.responses)


def _held(situation: Situation, held: Sequence[DestinationView]) -> Verdict:
    names = ", ".join(each.name for each in held[:_NAMED])
    names += f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
    verb = "is" if len(held) == 1 else "are"
    first = min((each.since for each in held if each.since is not None), default=None)
    causes = ", ".join(dict.fromkeys(hold.cause for each in held for hold in each.holds if hold.cause))
    well = sum(not each.held and each.state != UNKNOWN for each in situation.destinations)
    others = f"{counted(well, 'other destination')} {'continues' if well == 1 else 'continue'}. " if well else ""
    filled = {response.filled_by for response in situation.responses} & {each.name for each in held}
    if stopped(situation.responses):
        others = ""
    elif well and filled:
        others = (
            f"The buffer is full of records of {', '.join(sorted(map(str, filled)))}: other destinations wait too. "
        )
    headline = f"{names} {verb} held ({causes})" if causes else f"{names} {verb} held"
    return Verdict("bad", headline, f"{others}Nothing is lost: the records wait uncommitted.", first)


def _notices(situation: Situation) -> list[Notice]:
    """Return what the console itself cannot see."""
    notices: list[Notice] = []
    unreachable = situation.unreachable
    if unreachable:
        names = "; ".join(f"{each.address}: {each.trouble}" for each in unreachable[:_NAMED])
        notices.append(Notice("warn", f"No answer from {names}"))
    idle = [each for each in situation.responses if each.trouble is None and each.partitions == ()]
    if idle and len(idle) < len(situation.responses) - len(unreachable):
        verb = "owns" if len(idle) == 1 else "own"
        notices.append(Notice("calm", f"{counted(len(idle), 'member')} {verb} no partition and stands by."))
    if situation.kafka_trouble:
        notices.append(Notice("warn", f"The backlog is unknown: {situation.kafka_trouble}"))
    summary = situation.dead_letters
    if summary.trouble:
        notices.append(Notice("warn", f"Dead letters cannot be read: {summary.trouble}"))
    elif summary.left:
        notices.append(Notice("calm", f"Still reading dead letters: {summary.read:,} so far."))
    if summary.forgotten:
        notices.append(
            Notice(
                "calm",
                f"{summary.forgotten:,} older unresolved dead letters are not counted here, because console.letters is "
                "smaller than their number. Run connector dlq to see all.",
            )
        )
    return notices


def _row(situation: Situation, destination: DestinationView) -> DestinationRow:
    note = None
    if destination.state != "flowing":
        advice = for_destination(destination, 0)
        probe = f" Next try: {_due(destination.next_probe, situation.now)}." if destination.next_probe else ""
        note = f"{(destination.message or advice.meaning).rstrip('.')}. {advice.action}{probe}"
    state = destination.state
    if state == "flowing" and stopped(situation.responses):
        state, note = STOPPED, "Nothing here: no member reads records. Do what the headline says."
    last = situation.samples[-1] if situation.samples else None
    rate = "–" if last is None or destination.name not in last.accepted else short(last.accepted[destination.name])
    return DestinationRow(
        name=destination.name,
        vendor=situation.vendors.get(destination.name, ""),
        state=state if situation.sampled_at else "asking",
        kind=_COLOUR.get(state, "calm"),
        rate=rate,
        in_flight=destination.in_flight,
        note=note,
    )


def _card(situation: Situation, destination: DestinationView) -> Card:
    """Return the card of a destination that is held, that no member reports, or that has a record waiting alone."""
    holds = [_hold(situation, destination, hold) for hold in destination.holds]
    advice = None if holds else for_destination(destination, len(situation.unreachable))
    kind = "bad" if destination.held else "warn"
    return Card(
        name=destination.name,
        vendor=situation.vendors.get(destination.name, ""),
        state=destination.state,
        kind=kind,
        advice=advice,
        message=destination.message if advice is not None else None,
        holds=holds,
        waiting=[_waiting(situation, destination, record) for record in destination.waiting[:_WAITING_SHOWN]],
        more_waiting=max(0, len(destination.waiting) - _WAITING_SHOWN),
        action="release" if destination.held else "hold",
        probed=any(hold.next_probe is not None for hold in destination.holds),
    )


def _hold(situation: Situation, destination: DestinationView, hold: ReportedHold) -> HoldView:
    """Return one hold with its own time, cause and advice."""
    facts: list[CardFact] = []
    if hold.since is not None:
        facts.append(CardFact("Since", f" · {duration(situation.now - hold.since)}", at=hold.since))
    facts.append(CardFact("Cause", hold.cause or "unknown"))
    if hold.code:
        facts.append(CardFact("Code", hold.code, code=True))
    if destination.state == "probing" and len(destination.holds) == 1:
        facts.append(CardFact("Next probe", "under way now"))
    elif hold.next_probe is not None:
        facts.append(CardFact("Next probe", _due(hold.next_probe, situation.now)))
    else:
        facts.append(CardFact("Next probe", "none: it waits for a person"))
    if hold.set_aside is not None:
        facts.append(CardFact("Set aside", counted(hold.set_aside, "record")))
    if destination.members > 1:
        facts.append(CardFact("Members", f"{hold.members} of {destination.members}"))
    return HoldView(facts, for_hold(destination.name, hold.cause), hold.message)


def _waiting(situation: Situation, destination: DestinationView, record: ReportedWaitingRecord) -> WaitingView:
    where = f"{record.topic} {record.partition} {record.offset}"
    return WaitingView(
        place=f"{record.topic}[{record.partition}]@{record.offset}",
        link=situation.links.record(record.topic, record.partition, record.offset),
        since=record.since,
        attempts=None if record.attempts is None else counted(record.attempts, "attempt"),
        reason=record.reason,
        command=f"connector skip {where} --destination {destination.name}",
        skip=member_action("skip", destination.name, record),
        others_pass=_others_pass(situation, destination),
    )


def _due(at: float, now: float) -> str:
    return ago(at, now) if at > now else "due now"


def _figures(situation: Situation) -> list[Figure]:
    """Return backlog and throughput over time."""
    now = situation.now
    first = situation.samples[0].at if situation.samples else now
    start = max(now - min(RANGES[situation.range], DAY), min(first, now - _PLOT_LEAST))
    gap = max(150.0 if now - start > HOUR else 0.0, situation.interval * 3 + 5)
    backlog = _series([(sample.at, sample.backlog) for sample in situation.samples])
    accepted = _series([(sample.at, sample.accepted) for sample in situation.samples])

    def figure(name: str, unit: str, series: Mapping[str, charts.Points], value: str) -> Figure:
        chart = charts.line_chart(series, start, now, label=f"{name}: {value} {unit} now", gap=gap)
        last = [short(points[-1][1]) for points in series.values()]
        legend = charts.legend(list(series), last) if len(series) > 1 else []
        return Figure(name, value if series else "–", unit, chart, legend)

    waiting = sum(points[-1][1] for points in backlog.values())
    rate = sum(points[-1][1] for points in accepted.values())
    return [
        figure("Backlog", "records waiting", backlog, count(waiting)),
        figure("Throughput", "records accepted a second", accepted, short(rate)),
    ]


def _series(samples: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, list[tuple[float, float]]]:
    """Return a line for each name, the largest first; those after the seventh are added up as `others`."""
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


def _dead_letters(situation: Situation) -> DeadLettersPart | None:
    """Return unresolved dead letters over time and by kind; None if there are none."""
    kinds, buckets = situation.dead_letters.kinds, situation.dead_letters.buckets
    if not kinds:
        return None
    causes = [cause for cause in dict.fromkeys(kind.cause for kind in kinds) if cause in buckets.counts]
    values = [count(sum(buckets.counts[cause])) for cause in causes]
    chart = charts.bar_chart(
        buckets,
        causes,
        int(situation.now * 1000),
        href=lambda since, until: address(LIST, Query(since=since, until=until)),
    )
    return DeadLettersPart(
        total=count(sum(sum(bins) for bins in buckets.counts.values())),
        chart=chart,
        legend=charts.legend(causes, values, causes=True),
        rows=[_kind(kind) for kind in kinds[:KINDS]],
        more=len(kinds) if len(kinds) > KINDS else 0,
    )


def _kind(kind: KindCount) -> KindRow:
    where = (("cause", kind.cause), ("code", kind.code), ("destination", kind.destination))
    return KindRow(
        number=count(kind.dead_letters),
        href=address(LIST, Query(where)),
        cause=kind.cause,
        code=kind.code,
        destination=kind.destination,
        first=kind.first / 1000,
        last=kind.last / 1000,
        action=for_cause(kind.cause).action,
    )
