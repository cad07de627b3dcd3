"""The JPush simulator serves the vendor's published client for Python, `jpush`, as it is installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jpush
import pytest
from jpush import common

from connector.testing import JPushReportApi, Simulator

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%d")
QUESTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bool]]] = {
    "received": (
        lambda to: to.get_received("1613113584,1229760629"),
        lambda found: found[1]["android_received"] == 629,
    ),
    "received_detail": (lambda to: to.get_received_detail("7"), lambda found: found[0]["jpush_received"] == 7),
    "messages": (lambda to: to.get_messages("269978303"), lambda found: found[0]["android"]["target"] == 307),
    "messages_detail": (lambda to: to.get_messages_detail("9"), lambda found: found[0]["jpush"]["target"] == 13),
    "status": (lambda to: to.get_status_message(3, ["a", "b"]), lambda found: found["b"] == {"status": 0}),
    "status_of_one": (lambda to: to.get_status_message(3, "a", YESTERDAY), lambda found: found == {"a": {"status": 0}}),
    "users": (lambda to: to.get_users("DAY", YESTERDAY, "1"), lambda found: found["items"] == [{"time": YESTERDAY}]),
}


@pytest.fixture
async def report(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The client's report API, at the address of a simulator; the client has no other setting for it."""
    api = JPushReportApi()
    async with Simulator(api) as simulator:
        monkeypatch.setitem(common.ZONES["DEFAULT"], "REPORT", f"{simulator.url}/v3/")
        client = jpush.JPush(api.app_key, api.master_secret, timeout=10)
        client.session.trust_env = False
        yield client.create_report()
        client.session.close()


@pytest.mark.parametrize("name", QUESTIONS)
async def test_every_question_of_the_python_client_is_answered(name: str, report: Any) -> None:
    """Every method of its report API gets figures. Kills: requests that only our own module can write."""
    ask, is_right = QUESTIONS[name]
    answer = await asyncio.to_thread(ask, report)
    assert answer.get_status_code() == 200
    assert is_right(answer.payload)


async def test_errors_are_what_the_python_client_reads(report: Any) -> None:
    """The document's form of an error gives the client its code, and a wrong credential the exception for it."""
    with pytest.raises(common.JPushFailure) as caught:
        await asyncio.to_thread(report.get_users, "MONTH", "2014-06", "1")
    assert (caught.value.error_code, caught.value.response.status_code) == (3005, 400)
    report._jpush.session.auth = ("7d431e42dfa6a6d693ac2d04", "wrong")
    with pytest.raises(common.Unauthorized):
        await asyncio.to_thread(report.get_received, "1")
