"""Bad records among good ones, through the real worker and sockets, before a simulator that counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pytest

from connector.delivery.states import Cause
from connector.testing.faults import Call, Fault
from connector.testing.jiguang import JiguangApi
from tests.integration.delivery import FIRST_CUID, KNOWN_EVENT, Site, jiguang_fields, site

COUNT: Final = 100
BAD: Final = {
    1: frozenset({63}),
    2: frozenset({0, 99}),
    5: frozenset({3, 4, 50, 51, 98}),
    50: frozenset(range(0, 100, 2)),
    100: frozenset(range(100)),
}
UNDER_THE_LIMIT: Final = 100
"""The vendor answers 429 to one request more in any second; the destination paces itself by its document's limit."""


def with_any(bad: Iterable[int]) -> Any:
    """Return a predicate: the request holds one of these records."""
    cuids = [str(FIRST_CUID + number).encode() for number in bad]

    def when(call: Call) -> bool:
        return any(cuid in call.body for cuid in cuids)

    return when


def refusal(bad: Iterable[int], code: int, words: str) -> Fault:
    """Return a vendor that refuses every batch with one of these records, and names no value."""
    return Fault("status", status=200, body=f'{{"code":{code},"msg":"{words}"}}', when=with_any(bad))


def offered(at: Site, bad: frozenset[int] = frozenset()) -> None:
    """Offer the records; the bad ones are of an event that the vendor does not know."""
    at.offer((n, jiguang_fields(n, "no_such_event" if n in bad else KNOWN_EVENT)) for n in range(COUNT))


def requests(at: Site) -> int:
    """Return how many requests the vendor judged. Those that it answered 429 came closer together than they left."""
    stats = at.simulator.stats()
    return int(stats["requests"]) - int(stats["verdicts"].get("throttled", 0))


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest) -> frozenset[int]:
    """The bad ones of a hundred records."""
    return BAD[request.param]


@pytest.mark.promise("P5")
async def test_hinted_exactly_the_bad_records_are_dead_letters(bad: frozenset[int]) -> None:
    """A vendor that names the event it does not know: its records alone are dead letters, one bad costs three requests.

    Kills: suspects that are dead-lettered without being refused alone, hints that are not read.
    """
    async with site(requests_per_second=UNDER_THE_LIMIT, storm="off") as at:
        offered(at, bad)
        await at.done()
        assert at.dead_letters.numbers == sorted(bad)
        assert {dead_letter.code for dead_letter in at.dead_letters.dead_letters} == {"4101"}
        assert at.accepted == sorted(set(range(COUNT)) - bad)
        assert len(bad) > 1 or requests(at) - 1 <= 3
        assert requests(at) >= len(bad)


@pytest.mark.promise("P5")
async def test_blind_exactly_the_bad_records_are_dead_letters(bad: frozenset[int]) -> None:
    """A vendor that names nothing: halves find the bad records and no other, one bad costs fourteen requests.

    Kills: a batch refused again in the same composition, a half that is not asked.
    """
    async with site(requests_per_second=UNDER_THE_LIMIT, storm="off") as at:
        at.simulator.plan.arm(refusal(bad, 4101, "event is not known"))
        offered(at)
        await at.done()
        assert at.dead_letters.numbers == sorted(bad)
        assert at.accepted == sorted(set(range(COUNT)) - bad)
        assert len(bad) > 1 or requests(at) - 1 <= 14
        assert requests(at) >= len(bad)


@pytest.mark.promise("P5")
@pytest.mark.parametrize("count", [1, 2, 5, 50])
async def test_an_undocumented_code_finds_the_bad_among_good(count: int) -> None:
    """Records refused by a code that no document has are believed once others were accepted: exactly they go.

    Kills: belief at the first refusal alone, a doubt that never ends.
    """
    wrong = BAD[count]
    async with site(requests_per_second=UNDER_THE_LIMIT, storm="off") as at:
        at.simulator.plan.arm(refusal(wrong, 4999, "no"))
        offered(at)
        await at.done()
        assert at.dead_letters.numbers == sorted(wrong)
        assert {dead_letter.code for dead_letter in at.dead_letters.dead_letters} == {"4999"}
        assert at.accepted == sorted(set(range(COUNT)) - wrong)
        assert requests(at) > count


@pytest.mark.promise("P6")
async def test_an_undocumented_code_for_all_is_a_hold() -> None:
    """A hundred of a hundred refused by an unknown code: held and said so, no dead letter; fixed, all are accepted.

    Kills: a misread answer that drains the topic.
    """
    async with site(storm="off") as at:
        at.simulator.plan.arm(refusal(BAD[100], 4999, "no"))
        offered(at)
        await at.until(lambda: at.worker.condition().cause is Cause.MISCONFIGURED)
        asked = requests(at)
        await at.until(lambda: requests(at) >= asked + 3)
        condition = at.worker.condition()
        assert condition.cause is Cause.MISCONFIGURED
        assert condition.code == "4999"
        assert "codes:" in (condition.message or "")
        assert at.dead_letters.dead_letters == []
        at.simulator.plan.clear()
        await at.done()
        assert at.accepted == list(range(COUNT))
        assert at.dead_letters.dead_letters == []


@pytest.mark.promise("P7")
async def test_a_body_that_the_vendor_calls_too_large_is_cut_and_the_limit_remembered() -> None:
    """413 halves the batch and later batches stay below; no record is blamed.

    Kills: 413 read as a refusal, a limit that is forgotten.
    """
    api = JiguangApi(largest_body=4000)
    async with site(api) as at:
        offered(at)
        await at.done()
        cut = requests(at)
        at.offer((n, jiguang_fields(n)) for n in range(COUNT, 2 * COUNT))
        await at.done()
        assert at.accepted == list(range(2 * COUNT))
        assert at.dead_letters.dead_letters == []
        later = [served for served in at.simulator.served[cut:] if served.verdict == "too_large"]
        assert later == []


@pytest.mark.parametrize(("action", "cause"), [("retry", None), ("hold", Cause.MISCONFIGURED), ("refuse", None)])
async def test_the_users_word_on_a_code_counts(action: str, cause: Cause | None) -> None:
    """`codes:` makes a documented refusal a retry or a hold, and an unknown code a refusal believed at once.

    Kills: an override that is read and not heeded.
    """
    code = 4999 if action == "refuse" else 4101
    async with site(storm="off", codes={str(code): action}) as at:
        at.simulator.plan.arm(refusal({5}, code, "no"))
        offered(at)
        if action == "refuse":
            await at.done()
            assert at.dead_letters.numbers == [5]
            return
        await at.until(lambda: requests(at) >= 3)
        assert at.dead_letters.dead_letters == []
        if cause is not None:
            await at.until(lambda: at.worker.condition().cause is cause)
        at.simulator.plan.clear()
        await at.done()
        assert at.dead_letters.dead_letters == []
        assert at.accepted == list(range(COUNT))
