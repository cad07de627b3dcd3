"""The simulator as a server: what a client sees of each fault, and what the simulator knows afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connector.testing import SIMULATORS, Call, Fault, ManualClock, Reply, Simulator, simulate
from connector.testing.simulator import AcceptedEvent, json_reply


@dataclass
class Echo:
    """An API that accepts whatever JSON list it is sent; equal events are repetitions."""

    name = "echo"

    def answer(self, call: Call) -> Reply:
        """Accept every event."""
        events = [AcceptedEvent({"value": each}, each) for each in json.loads(call.body)]
        return json_reply(200, {"ok": len(events)}, "accepted", events=events, records=len(events))

    def refused_credential(self) -> Reply:
        """Refuse."""
        return json_reply(401, {"who": "you"}, "credential")

    def throttled(self, retry_after: str | None) -> Reply:
        """Refuse one too many."""
        return json_reply(429, {}, "throttled", headers={} if retry_after is None else {"Retry-After": retry_after})

    def failed(self, status: int) -> Reply:
        """Fail."""
        return json_reply(status, {"failed": status}, f"status_{status}")

    def destination(self, url: str) -> dict[str, Any]:
        """Return nothing but the address."""
        return {"base_url": url}


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that never reuses a connection, so that each request stands for itself."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


async def post(client: aiohttp.ClientSession, url: str, *values: int) -> tuple[int, dict[str, str], bytes]:
    """Send events and return status, headers and body."""
    async with client.post(url, json=list(values)) as answer:
        return answer.status, dict(answer.headers), await answer.read()


async def test_counts_of_what_was_accepted(client: aiohttp.ClientSession) -> None:
    """Events, repetitions, the largest batch and body are counted, and each request is on record."""
    async with Simulator(Echo()) as simulator:
        await post(client, simulator.url + "/path?secret=1", 1, 2, 3)
        await post(client, simulator.url, 3, 4)
        stats = simulator.stats()
    assert simulator.accepted == [{"value": n} for n in (1, 2, 3, 3, 4)]
    assert (stats["requests"], stats["accepted"], stats["duplicates"], stats["distinct"]) == (2, 5, 1, 4)
    assert (stats["largest_batch"], stats["largest_body"]) == (3, len(b"[1, 2, 3]"))
    assert [(each.path, each.verdict, each.accepted) for each in simulator.served] == [
        ("/path", "accepted", 3),
        ("/", "accepted", 2),
    ]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        ({"effect": "status", "status": 503, "retry_after": "7"}, 503, b'{"failed":503}'),
        ({"effect": "status", "status": 500, "body": "oops"}, 500, b"oops"),
        ({"effect": "status", "status": 429, "retry_after": "7"}, 429, b"{}"),
        ({"effect": "garbage", "body": "<html>"}, 200, b"<html>"),
        ({"effect": "credential"}, 401, b'{"who":"you"}'),
        ({"effect": "too_large", "limit": 1}, 413, b"Request Entity Too Large"),
    ],
)
async def test_faults_that_are_answers(
    client: aiohttp.ClientSession, fault: dict[str, Any], status: int, body: bytes, *, after: bool
) -> None:
    """The client sees the fault, and the events count only where the vendor acted first."""
    async with Simulator(Echo(), faults=[Fault(**fault, after=after, times=1)]) as simulator:
        seen, headers, content = await post(client, simulator.url, 1)
        assert (seen, content) == (status, body)
        assert headers.get("Retry-After") == fault.get("retry_after")
        assert simulator.accepted == [{"value": 1}] * after
        assert (await post(client, simulator.url, 2))[0] == 200


@pytest.mark.parametrize("after", [False, True])
async def test_a_cut_connection(client: aiohttp.ClientSession, *, after: bool) -> None:
    """The client gets no answer, and the events count only where the vendor acted first."""
    async with Simulator(Echo(), faults=[Fault("cut", after=after, times=1)]) as simulator:
        with pytest.raises(aiohttp.ClientError):
            await post(client, simulator.url, 1)
        assert simulator.accepted == [{"value": 1}] * after


async def test_an_answer_that_breaks_off(client: aiohttp.ClientSession) -> None:
    """The vendor accepted, and the client reads a part of the answer only."""
    async with Simulator(Echo(), faults=[Fault("truncate")]) as simulator:
        with pytest.raises(aiohttp.ClientPayloadError):
            await post(client, simulator.url, 1)
    assert simulator.accepted == [{"value": 1}]


async def test_a_wrong_content_type_keeps_the_body(client: aiohttp.ClientSession) -> None:
    """The right answer comes under a wrong name."""
    async with Simulator(Echo(), faults=[Fault("content_type")]) as simulator:
        _, headers, body = await post(client, simulator.url, 1)
    assert (headers["Content-Type"], body) == ("text/plain", b'{"ok":1}')


async def test_what_hangs_is_let_go_when_the_simulator_stops(client: aiohttp.ClientSession) -> None:
    """A request that hangs has no answer as long as the simulator runs, and is reset with it."""
    async with Simulator(Echo(), faults=[Fault("hang")]) as simulator:
        hanging = asyncio.create_task(post(client, simulator.url, 1))
        await simulator.until_served(1)
        assert not hanging.done()
    with pytest.raises(aiohttp.ClientError):
        await hanging
    assert (simulator.accepted, simulator.served[0].verdict) == ([], "unanswered")


@pytest.mark.parametrize(("after", "accepted"), [(False, 0), (True, 1)])
async def test_a_late_answer(client: aiohttp.ClientSession, *, after: bool, accepted: int) -> None:
    """The answer comes when the time has passed; with `after` the vendor has acted long before."""
    clock = ManualClock()
    async with Simulator(Echo(), faults=[Fault("latency", seconds=30, after=after)], clock=clock) as simulator:
        late = asyncio.create_task(post(client, simulator.url, 1))
        await clock.until_sleeping()
        assert len(simulator.accepted) == accepted
        clock.advance(30)
        assert (await late)[0] == 200
    assert len(simulator.accepted) == 1


async def test_the_rate_limit_admits_so_many_in_any_second(client: aiohttp.ClientSession) -> None:
    """One more than the limit within a second is throttled, counted, and accepts nothing."""
    clock = ManualClock()
    async with Simulator(Echo(), requests_per_second=2, clock=clock) as simulator:
        statuses = []
        for pause in (0.0, 0.5, 0.25, 0.25, 0.0):
            clock.advance(pause)
            statuses.append((await post(client, simulator.url, 1))[0])
    assert statuses == [200, 200, 429, 200, 429]
    assert simulator.stats()["max_per_second"] == 4
    assert len(simulator.accepted) == 3


async def test_it_is_steered_while_it_runs(client: aiohttp.ClientSession) -> None:
    """Faults are armed, listed and cleared over HTTP, and the counts are read there."""
    async with Simulator(Echo()) as simulator:
        control = simulator.url + "/_simulator/"
        armed = [{"effect": "status", "status": 502}, {"effect": "cut", "every": 9}]
        async with client.post(control + "faults", json=armed) as answer:
            assert [each["effect"] for each in await answer.json()] == ["status", "cut"]
        assert (await post(client, simulator.url, 1))[0] == 502
        async with client.delete(control + "faults") as answer:
            assert await answer.json() == []
        assert (await post(client, simulator.url, 2))[0] == 200
        async with client.get(control + "accepted") as answer:
            assert await answer.json() == [{"value": 2}]
        async with client.get(control + "stats") as answer:
            assert (await answer.json())["verdicts"] == {"accepted": 1, "status_502": 1}
        async with client.get(control + "served") as answer:
            assert [each["fault"] for each in await answer.json()] == ["status", None]
        async with client.get(control + "nothing") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("body", [b"{", b"3", b'{"effect":"explode"}', b'[{"effect":"cut"},{"effect":"cut","x":1}]'])
async def test_a_wrong_fault_arms_nothing(client: aiohttp.ClientSession, body: bytes) -> None:
    """A fault that cannot be read is 400 with what is allowed, and none of its list is armed."""
    async with Simulator(Echo()) as simulator:
        async with client.post(simulator.url + "/_simulator/faults", data=body) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]
        assert simulator.plan.describe() == []


async def test_the_log_holds_every_request_and_event(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    """The file has a line of JSON for each request, with the events that it accepted."""
    log = tmp_path / "log.jsonl"
    async with Simulator(Echo(), log=log, keep=False) as simulator:
        await asyncio.gather(*(post(client, simulator.url, n) for n in range(20)))
        assert simulator.accepted == []
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(each["events"][0]["value"] for each in lines) == list(range(20))
    assert {each["status"] for each in lines} == {200}


@pytest.mark.parametrize("vendor", SIMULATORS)
async def test_each_vendor_is_served_until_it_is_stopped(vendor: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`simulate` says where it listens and how to speak to it, and stops when cancelled."""
    serving = asyncio.create_task(simulate(vendor))
    printed = ""
    while "Schedules" not in printed:
        await asyncio.sleep(0)
        printed += capsys.readouterr().out
    assert f"{vendor} is simulated at http://127.0.0.1:" in printed
    assert f'vendor: "{vendor}"' in printed
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_vendor_without_a_simulator() -> None:
    """An unknown vendor is refused with those that there are."""
    with pytest.raises(ValueError, match="jiguang, jpush_report, mytracker, quick_audience"):
        await simulate("nobody")
