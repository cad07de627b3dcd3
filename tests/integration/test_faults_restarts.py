"""Clean stops and starts behind what is stuck: only the stuck is sent again, however many restarts there are."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import pytest

from connector.testing.faults import Fault
from connector.testing.jiguang import JiguangApi
from tests.integration.events import FIRST_CUID, KNOWN_EVENT, good
from tests.integration.job import ATTRIBUTES, DESTINATION, Job, Vendor

COUNT: Final = 3000
SECOND: Final = "second"


@pytest.mark.promise("P3")
@pytest.mark.promise("P6")
def test_a_restart_behind_a_record_without_an_answer_repeats_nothing(job: Job, vendor: Vendor) -> None:
    """The vendor never answers one record and accepts the rest: stopped and started, it is sent nothing twice.

    Kills: a map whose end is the first unfinished record, a stop that notes what it did not wait for as delivered.
    """
    stuck = FIRST_CUID + 1234
    job.produce(good(range(COUNT)))
    vendor.arm(Fault("hang", containing=f'"cuid":{stuck},'))
    settings = job.settings({**vendor.destination, "timeout": "1s"}, limits={"drain_timeout": "4s"})
    member = job.start(settings)
    member.wait(lambda: vendor.cuids.total() >= COUNT - 1, "all but the record without an answer")
    assert member.stop() == 0
    behind = {number: end for number, end in job.ends().items() if job.committed()[number] < end}
    assert len(behind) == 1, "only the stuck record's partition waits"

    member = job.start(settings)
    before = len(vendor.served)
    member.wait(lambda: len(vendor.served) >= before + 3, "three more requests")
    assert {each.fault for each in vendor.served[before:]} == {"hang"}, "only the stuck record is sent"
    assert member.stop() == 0

    vendor.recover()
    member = job.start(settings)
    job.until_done(member)
    assert member.stop() == 0
    assert vendor.cuids == Counter(range(FIRST_CUID, FIRST_CUID + COUNT))
    assert job.dead_letters() == []


@pytest.mark.promise("P3")
def test_three_restarts_with_one_of_two_destinations_down_repeat_nothing(job: Job, vendor: Vendor) -> None:
    """Fan-out, one destination down through three restarts: each of the two accepts every event exactly once.

    Kills: a map that knows records and not destinations, or that loses a destination's part with the second restart.
    """
    with Vendor(JiguangApi(events={KNOWN_EVENT: ATTRIBUTES})) as other:
        route = {"schema": "connector.events.JiguangUserEvent", "to": [DESTINATION, SECOND]}
        settings: dict[str, Any] = job.settings(vendor.destination, routes=[route])
        settings["destinations"][SECOND] = other.destination
        other.arm(Fault("status", status=503))
        count = 0
        for restart in range(3):
            job.produce(good(range(count, count + 1000)))
            count += 1000
            member = job.start(settings)
            enough = count
            member.wait(lambda: vendor.cuids.total() >= enough, f"{enough} events at the well one")  # noqa: B023
            if restart == 1:
                # A part of the other's deliveries is done too: the map holds both, differently.
                other.recover()
                other.arm(Fault("status", status=503, when=lambda call: call.number % 3 > 0))
                member.wait(lambda: other.accepted, "events at the other one")
                other.recover()
                other.arm(Fault("status", status=503))
            assert member.stop() == 0
            assert vendor.cuids.total() == count
        assert 0 < other.cuids.total() < count
        assert job.committed() != job.ends()

        other.recover()
        member = job.start(settings)
        job.until_done(member)
        assert member.stop() == 0
        everybody = Counter(range(FIRST_CUID, FIRST_CUID + count))
        assert vendor.cuids == everybody
        assert other.cuids == everybody
        assert job.dead_letters() == []
