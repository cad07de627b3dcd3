"""Checks the demo's totals: each record against the vendors' logs and the dead-letter topic. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from connector.demo.scenario import Planned

Place = tuple[int, int]
"""Partition and offset in the demo's topic."""


@dataclass(frozen=True, slots=True)
class DemoDeadLetter:
    """A dead letter of the demo, read from its topic."""

    origin: Place
    key: bytes | None
    value: bytes | None
    destination: str | None
    cause: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What was produced, and what the vendors, Kafka and the topics have at the end.

    `accepted` counts, by destination, how often the vendor's log has each identity. `results` are the keys on the
    results topic. `committed` and `ends` are offsets by partition.
    """

    produced: Mapping[Place, Planned]
    accepted: Mapping[str, Counter[str]]
    dead_letters: Sequence[DemoDeadLetter]
    results: Counter[bytes]
    committed: Mapping[int, int]
    ends: Mapping[int, int]


def faults(evidence: DemoResult) -> list[str]:
    """Return each discrepancy as a sentence; empty when every record had the expected outcome."""
    return [
        *_arrivals(evidence),
        *_dead_letters(evidence),
        *_results(evidence),
        *_totals(evidence),
        *_commits(evidence),
    ]


def _arrivals(evidence: DemoResult) -> Iterator[str]:
    wanted: dict[str, set[str]] = {name: set() for name in evidence.accepted}
    for planned in evidence.produced.values():
        if planned.identity is not None and planned.destination is not None:
            wanted.setdefault(planned.destination, set()).add(planned.identity)
    for name, identities in wanted.items():
        arrived = evidence.accepted.get(name, Counter()).keys()
        if missing := identities - arrived:
            yield f"{name}: {_count(missing, 'event')} did not arrive, such as {min(missing)}"
        if strange := arrived - identities:
            yield f"{name}: {_count(strange, 'event')} arrived unexpectedly, such as {min(strange)}"


def _dead_letters(evidence: DemoResult) -> Iterator[str]:
    found: dict[Place, list[DemoDeadLetter]] = {}
    for dead_letter in evidence.dead_letters:
        found.setdefault(dead_letter.origin, []).append(dead_letter)
    for place, planned in evidence.produced.items():
        dead_letters = found.pop(place, [])
        if planned.dead is None:
            yield from (f"the good record {_place_text(place)} is a dead letter: {each.code}" for each in dead_letters)
        elif not dead_letters:
            yield f"the bad record {_place_text(place)} ({planned.dead[1]}) is not a dead letter"
        for dead_letter in dead_letters:
            if planned.dead is not None and (dead_letter.cause, dead_letter.code) != planned.dead:
                found_as = f"{dead_letter.cause}/{dead_letter.code}"
                expected = "/".join(planned.dead)
                yield f"the dead letter of the record {_place_text(place)} is {found_as} instead of {expected}"
            if (dead_letter.key, dead_letter.value) != (planned.key, planned.value):
                yield f"the dead letter of the record {_place_text(place)} has other bytes than the record"
        if len(dead_letters) > 1:
            yield f"the record {_place_text(place)} has {len(dead_letters)} dead letters"
    yield from (f"a dead letter is of a record {_place_text(place)}, where nothing was produced" for place in found)


def _results(evidence: DemoResult) -> Iterator[str]:
    questions = {
        planned.key
        for planned in evidence.produced.values()
        if planned.destination == "jpush_report" and not (planned.dead is not None and planned.dead[0] == "invalid")
    }
    if missing := questions - evidence.results.keys():
        yield f"no result for {_count(missing, 'question')}, such as {min(missing).decode()}"
    if strange := evidence.results.keys() - questions:
        yield f"{_count(strange, 'result')} without a question"


def _totals(evidence: DemoResult) -> Iterator[str]:
    skipped = sum(1 for planned in evidence.produced.values() if planned.skipped)
    accepted = sum(len(identities) for identities in evidence.accepted.values())
    ended = accepted + len(evidence.dead_letters) + skipped
    if ended != len(evidence.produced):
        yield (
            f"{len(evidence.produced)} records were produced, but {accepted} accepted + {len(evidence.dead_letters)} "
            f"dead-lettered + {skipped} skipped = {ended}"
        )


def _commits(evidence: DemoResult) -> Iterator[str]:
    for partition, end in sorted(evidence.ends.items()):
        committed = evidence.committed.get(partition)
        if committed != end:
            yield f"partition {partition} ends at {end}, but the committed offset is {committed}"


def _place_text(place: Place) -> str:
    return f"at partition {place[0]}, offset {place[1]}"


def _count(things: Collection[object], name: str) -> str:
    return f"{len(things):,} {name}{'' if len(things) == 1 else 's'}"
