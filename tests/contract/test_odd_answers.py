"""Answers that are odd on the wire or in form, from the simulators: what counts is what the vendor read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connector.errors import TransportError
from connector.testing import Fault
from connector.vendors.base import Accepted, Misconfigured, Refused, Retry, Verdict
from tests.contract.conftest import WALL, Connect, Wire

NOW = int(WALL * 1000)


def jiguang(number: int, **fields: Any) -> dict[str, Any]:
    """Return an event whose cuid is its number."""
    return {"cuid": number, "eventName": "view", "itime": NOW, **fields}


def question(kind: str, **fields: Any) -> dict[str, Any]:
    """Return a question as the contract schema decodes."""
    return {"id": "q", "query": (f"connector.events.{kind}", fields)}


async def outcome(wire: Wire, number: int) -> Verdict | None:
    """Return the verdict on one event; None where there was no whole answer."""
    try:
        return await wire.deliver(jiguang(number))
    except TransportError:
        return None


@pytest.mark.promise("P1")
async def test_an_answer_too_many_accepts_no_event(connect: Connect) -> None:
    """With a surplus acceptance after each answer, every event that counts as accepted was read by the vendor.

    Kills: taking the surplus answer for the next request's.
    """
    wire = await connect("jiguang")
    wire.simulator.plan.arm(Fault("surplus"))
    for number in range(8):
        # Where the surplus comes late, the request ends without an answer, and delivery would send it again.
        while not isinstance(await outcome(wire, number), Accepted):
            pass
        await asyncio.sleep(0.02)
    assert list(dict.fromkeys(event["cuid"] for event in wire.simulator.accepted)) == list(range(8))


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "utf-16", "utf-8-sig"])
async def test_jiguang_may_answer_in_another_encoding(encoding: str, connect: Connect) -> None:
    """An acceptance is one, and a refusal keeps its code, its text and its suspects."""
    wire = await connect("jiguang", account={"events": {"view": {}}})
    wire.simulator.plan.arm(Fault("encoding", body=encoding))
    assert isinstance(await wire.deliver(jiguang(1)), Accepted)
    verdict = await wire.deliver(jiguang(1), jiguang(2, eventName="unknown"))
    assert isinstance(verdict, Refused)
    assert (verdict.code, verdict.suspects) == ("4101", frozenset({1}))
    assert "不存在" in verdict.reason


async def test_mytracker_may_answer_in_cp1251(connect: Connect) -> None:
    """Its OK has a Cyrillic letter."""
    wire = await connect("mytracker")
    wire.simulator.plan.arm(Fault("encoding", body="cp1251"))
    assert isinstance(await wire.deliver({"method": "login", "customUserId": "1"}), Accepted)


async def test_an_empty_200_of_jiguang_is_what_the_setting_makes_it(connect: Connect) -> None:
    """Retried by default, a hold that names the setting after three, accepted where configured."""
    wire = await connect("jiguang", account={"empty_success": True})
    verdicts = [await wire.deliver(jiguang(number)) for number in range(3)]
    assert [type(verdict) for verdict in verdicts] == [Retry, Retry, Misconfigured]
    accepting = await connect("jiguang", account={"empty_success": True}, empty_200="accept")
    assert isinstance(await accepting.deliver(jiguang(1)), Accepted)


async def test_one_odd_entry_of_jpush_spoils_only_itself(connect: Connect) -> None:
    """A null msg_id leaves its own push missing, and the others found."""
    wire = await connect("jpush_report", account={"odd_ids": [2]})
    verdict = await wire.deliver(*(question("Received", msg_id=msg_id) for msg_id in (1, 2, 3)))
    assert isinstance(verdict, Accepted)
    assert [answer.datum["status"] for answer in verdict.answers] == ["found", "missing", "found"]


async def test_errors_of_jpush_at_top_level_are_read(connect: Connect) -> None:
    """A wrong credential is one in either form."""
    wire = await connect("jpush_report", account={"flat_errors": True}, master_secret="wrong")
    verdict = await wire.deliver(question("Received", msg_id=1))
    assert isinstance(verdict, Misconfigured)
    assert verdict.code == "3001"


async def test_a_forbidden_status_interface_is_one_hold(connect: Connect) -> None:
    """2003 names the endpoint, whatever the push and the day."""
    wire = await connect("jpush_report", account={"forbidden": ["status/message"]})
    scopes = set()
    for msg_id in (1, 2):
        verdict = await wire.deliver(
            question("MessageStatus", msg_id=msg_id, registration_ids=["a"], date="2023-11-14")
        )
        assert isinstance(verdict, Misconfigured)
        scopes.add(verdict.scope)
    assert scopes == {"status"}
    assert isinstance(await wire.deliver(question("Received", msg_id=1)), Accepted)
