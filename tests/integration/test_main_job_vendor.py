"""A vendor that refuses the account, fails, or never answers: the destination waits, shows why, and recovers."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import pytest

from connector.testing.faults import Fault
from tests.integration.events import FIRST_CUID, good
from tests.integration.job import Job, Vendor

COUNT: Final = 2000
WELL: Final = 5
"""Requests that are answered well before the trouble begins."""


class Trouble(NamedTuple):
    """What the vendor does, and what /status has to say."""

    fault: Fault
    cause: str
    says: str


def _after_a_while(fault: Fault) -> Fault:
    """Return the fault, shown from the sixth request on."""
    return Fault(fault.effect, status=fault.status, body=fault.body, when=lambda call: call.number > WELL)


TROUBLES: Final = {
    "401": Trouble(Fault("status", status=401, body="Unauthorized"), "misconfigured", "401"),
    "4100": Trouble(Fault("status", status=200, body='{"code":4100,"msg":"appKey invalid"}'), "misconfigured", "4100"),
    "503": Trouble(Fault("status", status=503), "outage", "503"),
    "hang": Trouble(Fault("hang"), "outage", "1 s"),
    "cut": Trouble(Fault("cut"), "outage", "connection"),
    "html": Trouble(Fault("garbage"), "outage", "200"),
}


@pytest.mark.promise("P6")
@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_at_the_vendor_holds_shows_its_cause_and_ends_by_itself(name: str, job: Job, vendor: Vendor) -> None:
    """While the vendor is in trouble nothing is dead-lettered or passed; once it is well every event is accepted once.

    Kills: a 401 or 5xx read as the records' fault, a hold that shows no cause, a hold that is never probed.
    """
    trouble = TROUBLES[name]
    job.produce(good(range(COUNT)))
    vendor.arm(_after_a_while(trouble.fault))
    # Short where the time-out is what happens; elsewhere a machine that pauses must not make it happen.
    timeout = "1s" if name == "hang" else "10s"
    member = job.start(job.settings({**vendor.destination, "timeout": timeout}))
    status = member.until_held(trouble.cause)
    assert status["state"] in ("held", "probing")
    assert trouble.says in status["message"]
    assert status["since"]
    assert member.get("/readyz")[0] == 200
    served = len(vendor.served)
    member.wait(lambda: len(vendor.served) >= served + 2, "two probes")
    assert sum(job.committed().values()) <= vendor.cuids.total() < COUNT
    assert job.dead_letters() == []

    vendor.recover()
    job.until_done(member)
    assert vendor.cuids.keys() == {FIRST_CUID + number for number in range(COUNT)}
    assert vendor.cuids.total() == COUNT
    assert member.wait(lambda: member.destination()["state"] == "flowing", "the state flowing")
    assert job.dead_letters() == []
    assert member.stop() == 0


@pytest.mark.promise("P6")
def test_a_rotated_secret_mends_a_hold(job: Job, vendor: Vendor, tmp_path: Path) -> None:
    """A wrong secret from a file holds; once the file is right deliveries go on, and neither secret is ever shown.

    Kills: a probe that signs with the secret of the start.
    """
    right = vendor.destination["project_secret"]
    secret = tmp_path / "secret"
    secret.write_text("a-wrong-secret", encoding="utf-8")
    job.produce(good(range(COUNT)))
    member = job.start(job.settings({**vendor.destination, "project_secret": f"${{file:{secret}}}"}))
    status = member.until_held("misconfigured")
    secret.write_text(right, encoding="utf-8")
    job.until_done(member)
    assert vendor.cuids.total() == COUNT
    assert job.dead_letters() == []
    shown = member.text + str(status) + member.get("/status")[1] + member.get("/metrics")[1]
    assert "a-wrong-secret" not in shown
    assert right not in shown
