"""One record for several vendors has one offset: what one of them holds up is not made again for the others."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import pytest

from connector.testing.faults import Fault
from tests.integration.accounts import accounts
from tests.integration.events import FIRST_CUID, good
from tests.integration.job import Job

COUNT: Final = 900
ROUTE: Final[dict[str, Any]] = {
    "schema": "connector.events.JiguangUserEvent",
    "to": ["jiguang", "mytracker", "quick_audience"],
    "fields": {
        "mytracker": {
            "method": {"const": "customEvent"},
            "customEventName": "eventName",
            "customUserId": "cuid",
            "eventTimestamp": {"path": "itime", "unit": "ms"},
        },
        "quick_audience": {"customerId": "cuid", "eventCode": "eventName", "eventTime": "itime"},
    },
}


@pytest.mark.promise("P3")
@pytest.mark.promise("P6")
def test_a_held_vendor_holds_the_offset_and_repeats_nothing_for_the_others(job: Job) -> None:
    """While one vendor refuses the token the others get everything; after a restart only that one gets the records.

    Kills: an offset committed for the first acceptance, and a map that forgets which destination has finished.
    """
    everybody = Counter(str(FIRST_CUID + number) for number in range(COUNT))
    with accounts("jiguang", "mytracker", "quick_audience") as vendors:
        vendors["mytracker"].arm(Fault("credential"))
        job.produce(good(range(COUNT)))
        settings = job.settings({}, destinations=vendors.destinations(), routes=[ROUTE])
        member = job.start(settings)
        others = (vendors["jiguang"], vendors["quick_audience"])
        member.wait(lambda: all(len(vendor.accepted) == COUNT for vendor in others), "all at the others")
        held = member.wait(
            lambda: (each := member.status()["destinations"]["mytracker"])["cause"] and each, "a hold of mytracker"
        )
        assert (held["cause"], held["code"]) == ("misconfigured", "http_403")
        assert member.stop() == 0
        assert set(job.committed().values()) == {0}

        vendors["mytracker"].recover()
        member = job.start(settings)
        job.until_done(member)
        assert member.stop() == 0
        assert job.dead_letters() == []
        assert Counter(each["customUserId"] for each in vendors["mytracker"].accepted) == everybody
        assert Counter(str(each["cuid"]) for each in vendors["jiguang"].accepted) == everybody
        assert Counter(each["customerId"] for each in vendors["quick_audience"].accepted) == everybody
        times = {each["cuid"]: each["itime"] for each in vendors["jiguang"].accepted}
        for each in vendors["mytracker"].accepted:
            assert each["eventTimestamp"] == times[int(each["customUserId"])] // 1000


def test_an_unrouted_record_ends_the_run_where_that_is_wanted(job: Job) -> None:
    """With `unrouted: stop` the run ends with 1, names the record and the way out, and commits nothing past it."""
    tracker = {"vendor": "mytracker", "id_app": 1, "token": "t", "base_url": "http://127.0.0.1:9"}
    job.produce(good(range(10), partition=0))
    member = job.start(job.settings({}, destinations={"tracker": tracker}, unrouted="stop"))
    assert member.exit_code() == 1
    assert f"schema connector.events.JiguangUserEvent in topic {job.topic}" in member.text
    assert "offset 0" in member.text
    assert "unrouted" in member.text
    assert set(job.committed().values()) == {0}
    assert job.dead_letters() == []
