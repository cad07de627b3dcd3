"""`check --online`: a refused credential is reported, no event is sent, other vendors are not called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from connector.runtime.checks import probe
from connector.testing import Fault
from connector.vendors import kinds
from connector.vendors.base import Probed

Connect = Callable[..., Awaitable[Any]]


async def test_mytrackers_token_is_probed_without_an_event(connect: Connect) -> None:
    """A valid token is no fault; an invalid one is a fault that does not show it; no event arrives."""
    wire = await connect("mytracker")
    assert await probe("tracker", wire.settings, kinds()) is None
    wrong = await connect("mytracker", token="not-the-token")
    fault = await probe("tracker", wrong.settings, kinds())
    assert fault is not None
    assert "403" in fault
    assert "not-the-token" not in fault
    assert [(served.method, served.path) for served in wire.simulator.served] == [("POST", "/v1/test-app-access")]
    assert wire.simulator.accepted == wrong.simulator.accepted == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("status", status=503), "503"),
        (Fault("status", status=302, body=""), "302"),
        (Fault("status", status=404, body=""), "base_url"),
        (Fault("cut"), "connection"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_probe_that_gets_no_answer_says_why(fault: Fault, said: str, connect: Connect) -> None:
    """A vendor in trouble, a wrong address and a broken connection are faults as well, each in its words."""
    wire = await connect("mytracker")
    wire.simulator.plan.arm(fault)
    assert said in (await probe("tracker", wire.settings, kinds()) or "")


@pytest.mark.parametrize("name", sorted(set(kinds()) - {"mytracker"}))
async def test_a_vendor_without_such_a_question_is_not_asked(name: str, connect: Connect) -> None:
    """Jiguang, Quick Audience and JPush have nothing that may be asked, so nothing is sent to them."""
    wire = await connect(name)
    assert not isinstance(wire.vendor, Probed)
    assert await probe("other", wire.settings, kinds()) is None
    assert wire.simulator.stats()["requests"] == 0
    nowhere = wire.settings.model_copy(update={"base_url": "http://127.0.0.1:1"})
    assert await probe("other", nowhere, kinds()) == "connect to 127.0.0.1:1 failed: Connection refused"
