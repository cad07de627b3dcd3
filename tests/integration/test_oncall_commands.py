"""The commands of the person on call against real members: status, events, hold and release, in narrow terminals."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from connector.testing.faults import Fault
from tests.integration.ended import COMMAND
from tests.integration.events import good
from tests.integration.job import DESTINATION, Job, Member, Vendor, wait_for


def connector(*arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command of the connector with further variables."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, timeout=60, check=False, env={**os.environ, **env}
    )


def file_for(job: Job, settings: Mapping[str, Any], *members: Member) -> Path:
    """Write a configuration that names the members' ports."""
    ports = [f"http://127.0.0.1:{member.port}" for member in members]
    console = {**settings.get("console", {}), "members": ports}
    return job.write({**settings, "console": console}, "on-call")


@pytest.mark.parametrize(
    ("env", "columns"),
    [({}, 200), ({"COLUMNS": "80"}, 80), ({"COLUMNS": "40"}, 40), ({"PYTHONIOENCODING": "cp1252"}, 200)],
)
def test_status_shows_a_hold_in_every_terminal(job: Job, vendor: Vendor, env: dict[str, str], columns: int) -> None:
    """Its cause, code, the vendor's own Chinese words and the backlog fit the width, also on cp1252 and gbk.

    Kills: a traceback where the encoding has no such character; a width that is not the terminal's.
    """
    settings = job.settings({**vendor.destination, "project_secret": "wrong-secret"})
    job.produce(good(range(50)))
    member = job.start(settings)
    member.until_held("misconfigured")
    file = file_for(job, settings, member)
    encodings = [env.get("PYTHONIOENCODING", "utf-8"), *(["gbk"] if "PYTHONIOENCODING" in env else [])]
    for encoding in encodings:
        done = connector("status", "-c", str(file), **{**env, "PYTHONIOENCODING": encoding})
        text = done.stdout.decode(encoding)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
        # A command stands whole on a line of its own, so that it can be copied.
        assert max(len(line) for line in text.splitlines() if not line.strip().startswith("connector ")) <= columns
        said = " ".join(text.split())
        assert "misconfigured" in said
        assert "held" in said
        assert ("\\u9879" if encoding == "cp1252" else "项目") in said
    rows = [json.loads(line) for line in connector("status", "-c", str(file), "--json").stdout.splitlines()]
    (destination,) = (row for row in rows if row["kind"] == "destination")
    assert (destination["name"], destination["holds"][0]["cause"]) == (DESTINATION, "misconfigured")
    assert sum(row["backlog"] for row in rows if row["kind"] == "topic") == 50
    (found,) = (row for row in rows if row["kind"] == "member")
    assert found["memory"] > 1 << 20
    assert member.stop() == 0


def test_status_of_no_member_fails_in_a_sentence(job: Job, vendor: Vendor) -> None:
    """Without a member the exit code is 1, and the destination is shown as unknown."""
    file = job.write({**job.settings(vendor.destination), "server": {"port": 9}}, "none")
    done = connector("status", "-c", str(file))
    assert (done.returncode, b"unknown" in done.stdout, b"Traceback" in done.stderr) == (1, True, False)
    done = connector("events", "-c", str(file))
    assert (done.returncode, b"no member answers" in done.stderr) == (1, True)


def test_the_timeline_outlasts_its_members(job: Job, vendor: Vendor) -> None:
    """A running member reports start, assignment, hold, release and stop; after its end the topic does.

    Kills: a timeline in memory only; a hold that leaves no trace once it is over.
    """
    topic = f"{job.group}.events"
    job.kafka.create_topic(topic, 1)
    settings = {**job.settings(vendor.destination), "console": {"events_topic": topic}}
    member = job.start(settings)
    file = file_for(job, settings, member)
    job.produce(good(range(20)))
    job.until_done(member)
    address = f"http://127.0.0.1:{member.port}"
    assert connector("hold", DESTINATION, "-c", str(file), "--url", address).returncode == 0
    member.wait(lambda: member.lines("destination.state"), "the hold in the log")
    assert connector("release", DESTINATION, "-c", str(file), "--url", address).returncode == 0
    vendor.arm(Fault("status", status=503))
    job.produce(good(range(20, 40)))
    member.until_held("outage")
    wanted = [
        "Member started",
        "partitions assigned",
        f"{DESTINATION} is held: operator",
        f"{DESTINATION} delivers again",
        f"{DESTINATION} is held: outage",
    ]

    def told(file: Path) -> str | None:
        done = connector("events", "-c", str(file))
        text = " ".join(done.stdout.decode().split())
        places = [text.find(what) for what in wanted]
        return text if -1 not in places and places == sorted(places) else None

    wait_for(lambda: told(file), "the events in their order")
    # An event reaches the topic within a second of the member's memory, and a kill would be faster.
    no_member = job.write({**settings, "server": {"port": 9}}, "topic-only")
    wait_for(lambda: told(no_member), "the events in the topic")
    member.kill()
    after = wait_for(lambda: told(file), "the events of a member that is gone")
    assert after.count("Member started") == 1
    rows = [json.loads(line) for line in connector("events", "-c", str(file), "--json").stdout.splitlines()]
    assert {"at", "event", "member", "id"} <= rows[0].keys()
    stopped = job.start(settings)
    stopped.wait(lambda: stopped.lines("partitions.assigned"), "the partitions")
    assert stopped.stop() == 0
    text = " ".join(connector("events", "-c", str(file)).stdout.decode().split())
    assert (text.count("Member started"), text.count("Member stops")) == (2, 1)
