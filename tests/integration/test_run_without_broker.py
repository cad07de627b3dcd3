"""A member whose broker goes away once it runs: it stops in time, and says by /readyz that it does nothing."""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from connector.cli.common import read_config
from connector.kafka.starts import Starts
from connector.runtime import app
from connector.runtime import member as status
from connector.runtime.watchdog import Watchdog
from tests.integration.job import WAIT_SECONDS, Job, Vendor, wait_for
from tools.servers import Kafka, free_ports

DRAIN_SECONDS = 5.0


async def test_a_member_stops_while_its_assignment_waits_for_a_broker(
    job: Job, kafka: Kafka, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker dies between an assignment and its offsets: `run` ends well within its drain time and 5 s.

    Kills: a stop that waits for the poll in which the assignment asks Kafka again and again.
    """
    asked = asyncio.Event()
    real: Callable[..., Awaitable[Any]] = Starts.find

    async def broken(*arguments: Any) -> Any:
        kafka.kill()
        asked.set()
        return await real(*arguments)

    monkeypatch.setattr(Starts, "find", broken)
    settings = job.settings(vendor.destination, limits={"drain_timeout": f"{DRAIN_SECONDS:g}s"})
    stop = asyncio.Event()
    running = asyncio.create_task(app.serve(read_config(job.write(settings)), stop))
    done, _ = await asyncio.wait({running, asking := asyncio.create_task(asked.wait())}, return_when="FIRST_COMPLETED")
    assert asking in done
    stop.set()
    async with asyncio.timeout(DRAIN_SECONDS + app.STOP_MARGIN):
        assert await running == 0


def test_readiness_follows_the_broker(job: Job, kafka: Kafka, vendor: Vendor) -> None:
    """The broker dies: /readyz fails and says why, /healthz does not; it is back: ready again, in the same process.

    Kills: a member that is called ready for what it could do before.
    """
    member = job.start(job.settings(vendor.destination))
    member.wait(lambda: member.get("/readyz")[0] == 200, "readiness")
    assert member.lines("partitions.assigned")
    kafka.kill()
    _, body = member.wait(lambda: found if (found := member.get("/readyz"))[0] == 503 else None, "no readiness")
    assert "broker" in body
    assert member.get("/healthz")[0] == 200
    kafka.start()
    member.wait(lambda: member.get("/readyz")[0] == 200, "readiness again")
    assert member.stop() == 0


def _health(port: int) -> int | None:
    """Return the status of /healthz, None where no answer comes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.3)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    except TimeoutError:
        return None
    finally:
        connection.close()


def test_a_blocked_member_fails_its_probe_and_says_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the loop is blocked /healthz does not answer and one log line shows the place; then all is well again."""
    monkeypatch.setattr(status, "Watchdog", functools.partial(Watchdog, interval=0.02, loop_limit=0.1))
    settings = {
        "kafka": {"topics": ["t"], "group_id": "g", "client": {"bootstrap.servers": f"127.0.0.1:{free_ports(1)[0]}"}},
        "destinations": {"d": {"vendor": "mytracker", "id_app": 1, "token": "a-token"}},
        "server": {"port": 0},
    }
    path = tmp_path / "connector.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    ready, ended, gate = threading.Event(), asyncio.Event(), threading.Event()
    about: dict[str, Any] = {}

    def on_ready(port: int) -> None:
        about.update(port=port, loop=asyncio.get_running_loop())
        ready.set()

    def place_that_blocks() -> None:
        gate.wait(WAIT_SECONDS)

    with capture_logs() as lines:
        serving = threading.Thread(target=lambda: asyncio.run(app.serve(read_config(path), ended, on_ready=on_ready)))
        serving.start()
        assert ready.wait(WAIT_SECONDS)
        wait_for(lambda: _health(about["port"]) == 200, "health")
        about["loop"].call_soon_threadsafe(place_that_blocks)
        found = wait_for(lambda: [one for one in lines if one["event"] == "member.stuck"], "a word about it")
        assert _health(about["port"]) is None
        gate.set()
        wait_for(lambda: _health(about["port"]) == 200, "health again")
        about["loop"].call_soon_threadsafe(ended.set)
        serving.join(WAIT_SECONDS)
    assert len(found) == 1
    assert any("place_that_blocks" in text for text in found[0]["threads"])
    assert any("_reach" in text for text in found[0]["tasks"])
    assert "member.moving" in [one["event"] for one in lines]
