"""The demo's plan and its tally: what is produced, and that no wrong outcome adds up."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from rich.console import Console

from connector.clock import SystemClock
from connector.codec.encoder import Encoder
from connector.codec.schemas import load_contracts
from connector.demo.check import DemoDeadLetter, DemoResult, Place, faults
from connector.demo.display import Display, Progress, dead_letters, summary
from connector.demo.scenario import GOOD, IDENTITY, Planned, plan
from connector.vendors import kinds

NOW = 1_700_000_000_000


@pytest.fixture(scope="module")
def records() -> list[Planned]:
    """The demo's records."""
    return plan(Encoder(load_contracts(), clock=SystemClock()).single_object, NOW, Random(1))


def perfect(records: list[Planned]) -> DemoResult:
    """Return what is on record when every one of the records ended as it has to."""
    produced: dict[Place, Planned] = {(number % 4, number // 4): each for number, each in enumerate(records)}
    accepted: dict[str, Counter[str]] = {name: Counter() for name in IDENTITY}
    dead_letters = []
    for place, each in produced.items():
        if each.identity is not None and each.destination is not None:
            accepted[each.destination][each.identity] += 1
        if each.dead is not None:
            dead_letters.append(DemoDeadLetter(place, each.key, each.value, each.destination, *each.dead, "wrong"))
    results = Counter(each.key for each in records if each.destination == "jpush_report")
    ends = Counter(partition for partition, _ in produced)
    return DemoResult(produced, accepted, dead_letters, results, dict(ends), dict(ends))


def test_the_plan_shows_its_vendors_and_every_kind_of_fault(records: list[Planned]) -> None:
    """Each of the demo's vendors has good events, distinct by identity, and each cause of a dead letter occurs."""
    assert set(GOOD) <= set(kinds())
    for vendor, count in GOOD.items():
        identities = [each.identity for each in records if each.destination == vendor and each.identity is not None]
        assert len(identities) == len(set(identities)) == count
    causes = Counter(each.dead[0] for each in records if each.dead is not None)
    assert set(causes) == {"decode", "route", "invalid", "refused"}
    assert sum(1 for each in records if each.skipped) == 3
    assert sum(len(each.value or b"") for each in records) < 2 * 2**20


def test_good_records_follow_the_last_bad_one(records: list[Planned]) -> None:
    """An undocumented refusal is believed on evidence only, so good records stand behind every bad one."""
    last_bad = max(place for place, each in enumerate(records) if each.dead is not None)
    assert len(records) - last_bad > 500


def test_the_same_seed_plans_the_same(records: list[Planned]) -> None:
    """The demo does the same each time."""
    encode = Encoder(load_contracts(), clock=SystemClock()).single_object
    assert plan(encode, NOW, Random(1)) == records
    assert plan(encode, NOW, Random(2)) != records


def test_what_is_right_adds_up(records: list[Planned]) -> None:
    """Nothing is complained of where every record ended as it has to, even where the vendor counted one twice."""
    evidence = perfect(records)
    evidence.accepted["mytracker"]["user-1"] += 1
    assert faults(evidence) == []


def _lose_event(evidence: DemoResult) -> DemoResult:
    del evidence.accepted["jiguang"]["10000000001"]
    return evidence


def _accept_bad(evidence: DemoResult) -> DemoResult:
    evidence.accepted["jiguang"]["20000000001"] += 1
    return evidence


def _lose_dead_letter(evidence: DemoResult) -> DemoResult:
    return replace(evidence, dead_letters=evidence.dead_letters[1:])


def _double_dead_letter(evidence: DemoResult) -> DemoResult:
    return replace(evidence, dead_letters=[*evidence.dead_letters, evidence.dead_letters[0]])


def _blame_good(evidence: DemoResult) -> DemoResult:
    place = next(place for place, each in evidence.produced.items() if each.identity is not None)
    return replace(evidence, dead_letters=[*evidence.dead_letters, replace(evidence.dead_letters[0], origin=place)])


def _wrong_code(evidence: DemoResult) -> DemoResult:
    return replace(evidence, dead_letters=[replace(evidence.dead_letters[0], code="other"), *evidence.dead_letters[1:]])


def _other_bytes(evidence: DemoResult) -> DemoResult:
    return replace(
        evidence, dead_letters=[replace(evidence.dead_letters[0], value=b"changed"), *evidence.dead_letters[1:]]
    )


def _invent_dead_letter(evidence: DemoResult) -> DemoResult:
    return replace(evidence, dead_letters=[*evidence.dead_letters, replace(evidence.dead_letters[0], origin=(9, 9))])


def _lose_result(evidence: DemoResult) -> DemoResult:
    del evidence.results[next(iter(evidence.results))]
    return evidence


def _strange_result(evidence: DemoResult) -> DemoResult:
    evidence.results[b"nobody's"] += 1
    return evidence


def _commit_less(evidence: DemoResult) -> DemoResult:
    return replace(evidence, committed={**evidence.committed, 2: evidence.committed[2] - 1})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_lose_event, "1 event did not arrive, such as 10000000001"),
        (_accept_bad, "1 event arrived unexpectedly, such as 20000000001"),
        (_lose_dead_letter, "is not a dead letter"),
        (_double_dead_letter, "has 2 dead letters"),
        (_blame_good, "the good record at partition"),
        (_wrong_code, " instead of "),
        (_other_bytes, "has other bytes than the record"),
        (_invent_dead_letter, "partition 9, offset 9, where nothing was produced"),
        (_lose_result, "no result for 1 question"),
        (_strange_result, "1 result without a question"),
        (_commit_less, "partition 2 ends at"),
    ],
)
def test_whatever_is_wrong_does_not_add_up(
    spoil: Callable[[DemoResult], DemoResult], says: str, records: list[Planned]
) -> None:
    """Each wrong event, dead letter, result or offset is reported."""
    found = faults(spoil(perfect(records)))
    assert any(says in sentence for sentence in found), found


def _page(**options: bool | int) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    terminal = bool(options.get("terminal"))
    # The terminal is the test's own: a continuous integration's is a dumb one, which draws nothing.
    environ = {"TERM": "xterm"}
    return Console(file=text, force_terminal=terminal, width=120, color_system=None, _environ=environ), text


PROGRESS = Progress(
    seconds=1.5,
    planned=10,
    produced=9,
    settled=8,
    dead_letters=1,
    status={"destinations": {"jiguang": {"state": "held", "cause": "storm", "in_flight": 2}}},
    stats={"jiguang": {"accepted": 7, "requests": 3, "max_per_second": 2, "verdicts": {"refused": 1}}},
)


def test_without_a_terminal_there_is_one_line_a_second() -> None:
    """Plain output is made of lines that say what happened and which destination is in trouble."""
    console, text = _page()
    with Display(console) as display:
        for tenth in range(25):
            display.show(replace(PROGRESS, seconds=tenth / 10))
    lines = text.getvalue().splitlines()
    assert len(lines) == 3
    assert " ".join(lines[0].split()) == "0.0 s produced 9 done 8 accepted 7 dead letters 1 (jiguang held)"


def test_on_a_terminal_the_state_of_each_destination_is_drawn() -> None:
    """The live table shows state, cause and counts."""
    console, text = _page(terminal=True)
    with Display(console) as display:
        display.show(PROGRESS)
    shown = text.getvalue()
    assert "held: storm" in shown
    assert "9 of 10" in shown


def test_dead_letters_that_are_alike_share_a_row() -> None:
    """The tables name cause, code, destination and count, and vendors' text is taken as text."""
    dead_letter = DemoDeadLetter(
        (2, 7), b"k", b"v", "jiguang", "refused", "4101", "[bold]事件 x 不存在[/bold] " + "y" * 200
    )
    console, text = _page()
    console.print(dead_letters([dead_letter, replace(dead_letter, origin=(1, 3))]))
    lines = text.getvalue().splitlines()
    place = next(number for number, line in enumerate(lines) if "4101" in line)
    assert lines[place].split() == ["refused", "2", "×", "4101", "jiguang", "1:3"]
    assert "[bold]事件 x 不存在[/bold]" in lines[place + 1]
    assert len(lines[place + 1]) <= 120
    stats = {"jiguang": {"accepted": 12, "requests": 3, "max_per_second": 2, "largest_batch": 9}}
    console.print(summary(stats, [dead_letter], {"jiguang": 10}, Counter({"jiguang": 4})))
    row = next(line for line in reversed(text.getvalue().splitlines()) if line.strip().startswith("jiguang"))
    assert row.split() == ["jiguang", "10", "2", "1", "3", "4", "9", "2"]
