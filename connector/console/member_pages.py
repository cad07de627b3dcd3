"""The tables of members and partitions, and the confirmation of an action on running members. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from connector.console.formatting import count, duration, short
from connector.console.links import Links
from connector.console.members import DestinationView, MemberResponse, PartitionReport, ReportedWaitingRecord
from connector.console.queries import member_action
from connector.console.sampling import PartitionBacklog
from connector.errors import counted

MemberAction = Literal["hold", "release", "probe", "skip"]
ACTIONS: Final[Mapping[str, MemberAction]] = {"hold": "hold", "release": "release", "probe": "probe", "skip": "skip"}
_ROWS: Final = 2000
"""Partitions that one page shows, at most; those with the largest backlog."""
_UNKNOWN: Final = "–"


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member; `state` is ready, not ready or unreachable."""

    address: str
    state: str
    kind: str
    detail: str
    version: str
    up: str
    memory: str
    partitions: str
    in_flight: str
    rate: str


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """One partition; `waiting` is its oldest record that waits alone."""

    name: str
    link: str | None
    owner: str
    watermark: str
    position: str
    end: str
    backlog: str
    map_used: str
    waiting: WaitingRow | None


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """A record that waits alone: its destination, why it waits, and the URL of the page to skip it."""

    place: str
    destination: str
    since: float | None
    reason: str | None
    skip: str


@dataclass(frozen=True, slots=True)
class MembersView:
    """Everything that the page shows."""

    members: Sequence[MemberRow]
    partitions: Sequence[PartitionRow]
    left_out: int


def members_view(
    responses: Sequence[MemberResponse],
    destinations: Sequence[DestinationView],
    kafka: Mapping[tuple[str, int], PartitionBacklog],
    rates: Mapping[str, float],
    links: Links,
    now: float,
) -> MembersView:
    """Return the tables. `kafka` has what Kafka reports of each partition, owned or not; `rates` are by address."""
    owned: dict[tuple[str, int], tuple[str, PartitionReport]] = {}
    for response in responses:
        for partition in response.partitions or ():
            owned[partition.topic, partition.partition] = (response.address, partition)
    oldest: dict[tuple[str, int], WaitingRow] = {}
    for destination in destinations:
        for record in destination.waiting:
            row = _waiting(destination.name, record)
            known = oldest.get((record.topic, record.partition))
            if known is None or (row.since or now) < (known.since or now):
                oldest[record.topic, record.partition] = row
    places = sorted({*owned, *kafka, *oldest}, key=lambda place: (-_backlog(kafka.get(place)), place))
    rows = [_partition(place, owned.get(place), kafka.get(place), oldest.get(place), links) for place in places[:_ROWS]]
    return MembersView([_member(response, rates, now) for response in responses], rows, max(0, len(places) - _ROWS))


def _member(response: MemberResponse, rates: Mapping[str, float], now: float) -> MemberRow:
    state, kind = "ready", "good"
    if response.trouble is not None:
        state, kind = "unreachable", "bad"
    elif response.ready is False:
        state, kind = "not ready", "bad"
    elif response.ready is None:
        state, kind = "unknown", "calm"
    partitions = response.partitions
    reachable = response.trouble is None
    return MemberRow(
        address=response.address,
        state=state,
        kind=kind,
        detail=response.trouble or "; ".join(response.reasons),
        version=response.version or _UNKNOWN,
        up=_UNKNOWN if response.started is None else duration(now - response.started),
        memory=_UNKNOWN if response.memory is None else f"{response.memory / (1 << 20):.0f} MiB",
        partitions=_UNKNOWN if partitions is None else count(len(partitions)),
        in_flight=count(sum(each.in_flight for each in response.destinations.values())) if reachable else _UNKNOWN,
        rate=short(rates[response.address]) if response.address in rates else _UNKNOWN,
    )


def _partition(
    place: tuple[str, int],
    owned: tuple[str, PartitionReport] | None,
    kafka: PartitionBacklog | None,
    waiting: WaitingRow | None,
    links: Links,
) -> PartitionRow:
    owner, report = owned if owned is not None else ("", None)
    watermark = report.watermark if report is not None else None
    if watermark is None and kafka is not None:
        watermark = kafka.committed
    return PartitionRow(
        name=f"{place[0]}[{place[1]}]",
        link=links.partition(*place),
        owner=owner,
        watermark=_number(watermark),
        position=_number(None if report is None else report.position),
        end=_number(None if kafka is None else kafka.end),
        backlog=_UNKNOWN if kafka is None else short(kafka.records),
        map_used=_UNKNOWN if report is None or report.map_used is None else f"{report.map_used:.0%}",
        waiting=waiting,
    )


def _waiting(destination: str, record: ReportedWaitingRecord) -> WaitingRow:
    place = f"{record.topic}[{record.partition}]@{record.offset}"
    return WaitingRow(place, destination, record.since, record.reason, member_action("skip", destination, record))


def _backlog(kafka: PartitionBacklog | None) -> float:
    return 0.0 if kafka is None else kafka.records


def _number(value: int | None) -> str:
    return _UNKNOWN if value is None else str(value)


@dataclass(frozen=True, slots=True)
class MemberQuestion:
    """The confirmation of an action on running members; `fields` are the hidden fields of its form."""

    action: MemberAction
    title: str
    button: str
    meaning: Sequence[str]
    command: str
    fields: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class MemberAnswer:
    """One member's answer to an action."""

    address: str
    done: bool
    text: str


def hold_question(destination: DestinationView) -> MemberQuestion:
    """Return the confirmation of a hold."""
    name = destination.name
    return MemberQuestion(
        "hold",
        f"Hold {name}?",
        f"Hold {name}",
        [
            f"{name} sends nothing until it is released. Its records wait uncommitted, none is lost.",
            "Other destinations continue until the shared buffer is full.",
            "Every reachable member holds it, until a release or a restart.",
            "To hold it for good, set hold: true in the configuration.",
        ],
        f"connector hold {name}",
        [("action", "hold"), ("destination", name)],
    )


def release_question(destination: DestinationView) -> MemberQuestion:
    """Return the confirmation of a release. It says what will be released."""
    name = destination.name
    meaning = []
    for hold in destination.holds:
        cause = f"{hold.cause or 'unknown'} {hold.code or ''}".rstrip()
        if hold.cause == "storm":
            number = "The records that were" if hold.set_aside is None else f"{counted(hold.set_aside, 'record')}"
            verb = "" if hold.set_aside is None else (" that was" if hold.set_aside == 1 else " that were")
            meaning.append(
                f"Ends the hold {cause}. {number}{verb} set aside are sent again. Those that are refused become dead "
                "letters. The storm guard stays open until the share of refused records is below its limit."
            )
        else:
            meaning.append(f"Ends the hold {cause}: its records are sent again at once.")
    if not meaning:
        meaning.append("It is not held now, so nothing changes.")
    meaning.append("If the cause still exists, it is held again.")
    return MemberQuestion(
        "release",
        f"Release {name}?",
        f"Release {name}",
        meaning,
        f"connector release {name}",
        [("action", "release"), ("destination", name)],
    )


def probe_question(destination: DestinationView) -> MemberQuestion:
    """Return the confirmation of a probe."""
    name = destination.name
    probed = [hold for hold in destination.holds if hold.cause != "operator"]
    if probed:
        meaning = [
            "One record is sent now, in place of the next probe. If the vendor accepts it, the hold ends.",
            "If not, nothing changes, and the next probe comes later. Secrets from files are read again first.",
        ]
    else:
        meaning = ["Nothing is probed: it is not held, or a person holds it. Release it instead."]
    return MemberQuestion(
        "probe",
        f"Probe {name} now?",
        f"Probe {name}",
        meaning,
        f"connector probe {name}",
        [("action", "probe"), ("destination", name)],
    )


def skip_question(destination: str, topic: str, partition: int, offset: int) -> MemberQuestion:
    """Return the confirmation of a skip."""
    return MemberQuestion(
        "skip",
        f"Skip {topic}[{partition}]@{offset}?",
        "Skip this record",
        [
            f"The record becomes a dead letter of {destination} (cause operator) and is not sent.",
            "It can be replayed later.",
            "If it is in a request now, it is skipped only if the answer says that it was not accepted.",
        ],
        f"connector skip {topic} {partition} {offset} --destination {destination}",
        [
            ("action", "skip"),
            ("destination", destination),
            ("topic", topic),
            ("partition", str(partition)),
            ("offset", str(offset)),
        ],
    )
