"""Whether the demo's numbers add up: each record against the vendors' logs and the dead-letter topic. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from connector.demo.scenario import Planned

Place = tuple[int, int]
"""Partition and offset in the demo's topic."""


@dataclass(frozen=True, slots=True)
class DeadLetterEntry:
    """A dead letter as it was read back from its topic."""

    origin: Place
    key: bytes | None
    value: bytes | None
    destination: str | None
    cause: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was produced, and what is on record elsewhere when all is done.

    `accepted` counts, by destination, how often the vendor's log has each identity. `results` are the keys on the
    results topic. `committed` and `ends` are offsets by partition.
    """

    produced: Mapping[Place, Planned]
    accepted: Mapping[str, Counter[str]]
    dead_letters: Sequence[DeadLetterEntry]
    results: Counter[bytes]
    committed: Mapping[int, int]
    ends: Mapping[int, int]


def faults(evidence: Evidence) -> list[str]:
    """Return what does not add up, one sentence each; empty when every record ended as it had to."""
    return [
        *_arrivals(evidence),
        *_dead_letters(evidence),
        *_results(evidence),
        *_totals(evidence),
        *_commits(evidence),
    ]


def _arrivals(evidence: Evidence) -> Iterator[str]:
    wanted: dict[str, set[str]] = {name: set() for name in evidence.accepted}
    for planned in evidence.produced.values():
        if planned.identity is not None and planned.destination is not None:
            wanted.setdefault(planned.destination, set()).add(planned.identity)
    for name, identities in wanted.items():
        arrived = evidence.accepted.get(name, Counter()).keys()
        if missing := identities - arrived:
            yield f"{name}: {len(missing)} events never arrived, such as {min(missing)}"
        if strange := arrived - identities:
            yield f"{name}: {len(strange)} events arrived that must not, such as {min(strange)}"


def _dead_letters(evidence: Evidence) -> Iterator[str]:
    found: dict[Place, list[DeadLetterEntry]] = {}
    for dead_letter in evidence.dead_letters:
        found.setdefault(dead_letter.origin, []).append(dead_letter)
    for place, planned in evidence.produced.items():
        dead_letters = found.pop(place, [])
        if planned.dead is None:
            yield from (f"the good record {_at(place)} is a dead letter: {each.code}" for each in dead_letters)
        elif not dead_letters:
            yield f"the bad record {_at(place)} ({planned.dead[1]}) is no dead letter"
        for dead_letter in dead_letters:
            if planned.dead is not None and (dead_letter.cause, dead_letter.code) != planned.dead:
                found_as = f"{dead_letter.cause}/{dead_letter.code}"
                yield f"the dead letter of {_at(place)} says {found_as}, not {'/'.join(planned.dead)}"
            if (dead_letter.key, dead_letter.value) != (planned.key, planned.value):
                yield f"the dead letter of {_at(place)} does not hold the record's own bytes"
        if len(dead_letters) > 1:
            yield f"the record {_at(place)} is {len(dead_letters)} dead letters"
    yield from (f"a dead letter names {_at(place)}, where nothing was produced" for place in found)


def _results(evidence: Evidence) -> Iterator[str]:
    questions = {
        planned.key
        for planned in evidence.produced.values()
        if planned.destination == "jpush_report" and not (planned.dead is not None and planned.dead[0] == "invalid")
    }
    if missing := questions - evidence.results.keys():
        yield f"{len(missing)} questions have no result, such as {min(missing).decode()}"
    if strange := evidence.results.keys() - questions:
        yield f"{len(strange)} results belong to no question"


def _totals(evidence: Evidence) -> Iterator[str]:
    skipped = sum(1 for planned in evidence.produced.values() if planned.skipped)
    accepted = sum(len(identities) for identities in evidence.accepted.values())
    ended = accepted + len(evidence.dead_letters) + skipped
    if ended != len(evidence.produced):
        yield (
            f"{len(evidence.produced)} records were produced, but {accepted} accepted + {len(evidence.dead_letters)} "
            f"dead-lettered + {skipped} skipped are {ended}"
        )


def _commits(evidence: Evidence) -> Iterator[str]:
    for partition, end in sorted(evidence.ends.items()):
        if evidence.committed.get(partition) != end:
            yield f"partition {partition} ends at {end}, committed is {evidence.committed.get(partition)}"


def _at(place: Place) -> str:
    return f"at partition {place[0]}, offset {place[1]}"
