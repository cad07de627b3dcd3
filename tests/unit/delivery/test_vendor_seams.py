"""What delivery does for vendors with more than the five methods: clocks, dropped parameters, results, endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from structlog.testing import capture_logs

from connector.config.loader import RetrySettings
from connector.delivery.pacing import Backoff
from connector.delivery.states import DestinationState, Holds, Kind
from connector.records import Answer, Item
from connector.testing.loop import run_virtual
from connector.vendors.base import Accepted, Response, Verdict
from tests.unit.delivery.delivery_rig import OK, Call, ModelVendor, Reply, Rig, played


class Seamed(ModelVendor):
    """A vendor with every optional method."""

    clock: int | None = None
    dropped = 3

    def set_clock(self, ahead: int) -> None:
        """Keep the difference."""
        self.clock = ahead

    def take_dropped(self) -> Mapping[str, int]:
        """Return three of one name, once."""
        count, self.dropped = self.dropped, 0
        return {"odd": count} if count else {}

    def ended(self, item: Item, code: str | None, message: str) -> Answer | None:
        """Return the item's number with the code."""
        return Answer("model.Ended", {"n": int(item.body), "code": code})


class Remembering(ModelVendor):
    """A vendor that remembers its verdicts, which all accept."""

    def __init__(self, records: int) -> None:
        super().__init__(records)
        self.accepted: list[Accepted] = []

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return the verdict that the answer spells out."""
        verdict = super().read(response, group, items, asked)
        assert isinstance(verdict, Accepted)
        self.accepted.append(verdict)
        return verdict


@pytest.mark.parametrize(("seconds", "used"), [(0, False), (59, False), (600, True), (-600, True)])
def test_a_vendor_gets_its_own_clock_where_ours_is_wrong(seconds: int, used: bool) -> None:
    """More than a minute of difference is used, and warned of once; less is the answer's own way.

    Kills: a rule about the present time that only our clock decides.
    """

    async def play() -> tuple[int | None, list[str]]:
        def behave(_call: Call) -> Reply:
            date = datetime.fromtimestamp(rig.clock.wall() + seconds, UTC)
            return Reply(200, {}, {"date": format_datetime(date, usegmt=True)})

        rig = Rig(behave, batch={"records": 1})
        vendor = Seamed(1)
        rig.destination.vendor = vendor
        with capture_logs() as logs:
            async with rig.running():
                rig.offer(range(5))
                await rig.done()
        return vendor.clock, [line["event"] for line in logs if line["event"] == "destination.clock_differs"]

    clock, warnings = run_virtual(play())
    assert clock is not None
    assert (abs(clock - seconds * 1000) <= 1000) if used else clock == 0
    assert len(warnings) == (1 if used else 0)


def test_dropped_parameters_are_counted_by_name() -> None:
    """A parameter that a vendor leaves out is seen in a metric, once."""

    async def play() -> float:
        rig = Rig(batch={"records": 1})
        rig.destination.vendor = Seamed(1)
        async with rig.running():
            rig.offer(range(3))
            await rig.done()
        return float(rig.metrics.parameters_dropped.labels("d", "odd")._value.get())

    assert run_virtual(play()) == 3.0


@pytest.mark.parametrize(
    ("reply", "settings", "code"),
    [
        (Reply(413), {}, "413"),
        (Reply(500), {"retry": {"give_up_after": "1s"}}, None),
        (Reply(502), {"on_unknown_outcome": "dead_letter"}, None),
        (Reply(400, {"code": "B1"}), {}, "B1"),
    ],
    ids=["too large", "given up", "unknown outcome", "refused"],
)
def test_a_question_that_ends_without_an_answer_has_a_result(
    reply: Reply, settings: dict[str, Any], code: str | None
) -> None:
    """The one who asked learns of it on the results topic, before the dead letter.

    Kills: results for answers and refusals only.
    """

    async def play() -> tuple[list[Answer], list[int]]:
        rig = Rig(lambda call: reply if 3 in call.numbers else OK, batch={"records": 1}, storm="off", **settings)
        rig.destination.vendor = Seamed(1)
        async with rig.running():
            rig.offer(range(5))
            await rig.done()
        return rig.answers.written, rig.dead_letters.numbers

    written, numbers = run_virtual(play())
    assert numbers == [3]
    assert [answer.datum for answer in written] == [{"n": 3, "code": code}]


def test_answers_that_wait_for_kafka_keep_their_request_s_place() -> None:
    """While Kafka takes no result, as many batches as may be in flight are asked, and their answers are let go.

    Kills: a place that is free once the vendor has answered, so that the answers of a whole buffer wait in memory.
    """

    async def play() -> tuple[int, list[int], int]:
        rig = Rig(lambda _call: Reply(said={"answers": True}), batch={"records": 10}, max_in_flight=3)
        rig.destination.vendor = vendor = Remembering(10)
        kafka_works, write = asyncio.Event(), rig.answers.write

        async def wait(answers: Iterable[tuple[bytes | None, Answer]]) -> list[int]:
            given = list(answers)
            await kafka_works.wait()
            return await write(given)

        with patch.object(rig.answers, "write", wait):
            async with rig.running():
                rig.offer(range(100))
                await asyncio.sleep(60)
                asked, kept = len(rig.transport.calls), [len(verdict.answers) for verdict in vendor.accepted]
                kafka_works.set()
                await rig.done()
        return asked, kept, len(rig.answers.written)

    assert run_virtual(play()) == (3, [0, 0, 0], 100)


class Tupled(ModelVendor):
    """Gives its answers in a tuple."""

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return the model's verdict with a tuple."""
        verdict = super().read(response, group, items, asked)
        assert isinstance(verdict, Accepted)
        return replace(verdict, answers=tuple(verdict.answers))


@played
async def test_a_vendor_may_give_its_answers_in_any_sequence() -> None:
    """Kills: answers that are taken out of what is no list, which ends the run with a fault, again and again."""
    rig = Rig(lambda _call: Reply(said={"answers": True}))
    rig.destination.vendor = Tupled()
    async with rig.running():
        rig.offer(range(10))
        await rig.done()
    assert [answer.datum["n"] for answer in rig.answers.written] == list(range(10))


@played
async def test_a_person_sees_that_answers_wait_for_kafka() -> None:
    """A results topic that takes nothing is the destination's state, until it takes the answers again.

    Kills: a destination that asks nothing more and is shown as flowing.
    """
    rig = Rig()
    rig.destination.note_answers("not enough replicas")
    shown = rig.worker.condition()
    assert (shown.state, shown.message) == (DestinationState.RETRYING, "the vendor's answers wait: not enough replicas")
    rig.destination.note_answers(None)
    assert rig.worker.condition().state is DestinationState.FLOWING


def test_a_hold_of_an_endpoint_blocks_every_group_of_it() -> None:
    """3,000 pushes of a refused interface are one hold, probed by one request; other interfaces go on.

    Kills: a hold for each group.
    """
    holds = Holds(Backoff(RetrySettings(initial=1.0, max=60.0), Random(1)))
    holds.begin(Kind.DENIED, "2003", "not authorized", now=100.0, wall=1000.0, scope="status")
    assert all(holds.blocking(("status", msg_id, "2023-11-14")) for msg_id in range(3000))
    assert not holds.blocking("received")
    assert len(holds.shown(now=100.0, wall=1000.0)) == 1
    due = holds.next_probe(100.0)
    assert due is not None
    holds.start_probe(("status", 1, "2023-11-14"))
    assert not holds.probe_is_due(("status", 2, "2023-11-14"), due)
