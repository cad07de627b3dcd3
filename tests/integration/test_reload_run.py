"""A running member reads its configuration again: what can change does, the rest is named, a fault changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.integration.ended import COMMAND
from tests.integration.events import FIRST_CUID, good
from tests.integration.job import DESTINATION, Job, Member, Vendor


def connector(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the connector."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)


def reload(member: Member, file: Path) -> subprocess.CompletedProcess[str]:
    """Have the member read its file again."""
    return connector("reload", "-c", str(file), "--url", f"http://127.0.0.1:{member.port}")


def write(file: Path, settings: Mapping[str, Any]) -> None:
    """Put another configuration in the member's file."""
    file.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")


def changed(settings: dict[str, Any], **destination: Any) -> dict[str, Any]:
    """Return the configuration with changed keys of its destination."""
    return {**settings, "destinations": {DESTINATION: {**settings["destinations"][DESTINATION], **destination}}}


def test_a_faulty_file_changes_nothing_under_load(job: Job, vendor: Vendor, tmp_path: Path) -> None:
    """While records flow, broken YAML, a wrong value and a wrong route are refused with their path; all is delivered.

    Kills: settings that are applied one by one until the fault; a reload that stops or restarts deliveries.
    """
    settings = job.settings({**vendor.destination, "batch": {"records": 5}})
    member = job.start(settings)
    file = tmp_path / "member-0.yaml"
    job.produce(good(range(3000)))
    member.wait(lambda: vendor.cuids.total() > 100, "some deliveries")
    served = len(vendor.served)
    for text, said in (
        ("kafka: [", ""),
        (yaml.safe_dump(changed(settings, requests_per_second=-1)), f"destinations.{DESTINATION}.requests_per_second"),
        (yaml.safe_dump({**settings, "routes": [{"to": ["nowhere"]}]}), "routes[0].to"),
    ):
        file.write_text(text, encoding="utf-8")
        done = reload(member, file)
        assert done.returncode == 1, done.stderr
        assert "nothing has changed" in done.stdout
        assert said in done.stdout.replace("\n", " ")
    assert member.metric("connector_config_reload_failed") == 1
    assert member.metric('connector_config_reloads_total{result="failed"}') == 3
    assert len(vendor.served) > served
    write(file, settings)
    done = reload(member, file)
    assert (done.returncode, "the configuration is the same" in done.stdout) == (0, True), done.stdout + done.stderr
    assert member.metric("connector_config_reload_failed") == 0
    job.until_done(member)
    assert vendor.cuids == dict.fromkeys(range(FIRST_CUID, FIRST_CUID + 3000), 1)
    assert member.stop() == 0


def test_what_can_change_does_and_the_rest_is_named(job: Job, vendor: Vendor, tmp_path: Path) -> None:
    """Batch limits, the rate, storm and codes change at once; a group and connections are named and left.

    Kills: a limit that is read at the start only; a change that is neither applied nor named.
    """
    settings = job.settings({**vendor.destination, "batch": {"records": 2, "linger": "10ms"}})
    member = job.start(settings)
    job.produce(good(range(10)))
    job.until_done(member)
    assert max(request.records for request in vendor.served) <= 2
    file = tmp_path / "member-0.yaml"
    new = changed(
        settings,
        batch={"records": 50, "linger": "10ms"},
        requests_per_second=77,
        storm="off",
        codes={"4101": "retry"},
        max_in_flight=3,
    )
    new["kafka"] = {**settings["kafka"], "group_id": "another"}
    write(file, new)
    done = reload(member, file)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.replace("\n", " ")
    applied, _, left = said.partition("left until a restart:")
    for path in ("batch.records", "requests_per_second", "storm", "codes"):
        assert f"destinations.{DESTINATION}.{path}" in applied
    assert f"destinations.{DESTINATION}.max_in_flight" in left
    assert "kafka.group_id" in left
    assert member.destination()["requests_per_second"] == 77
    before = len(vendor.served)
    job.produce(good(range(10, 500)))
    job.until_done(member)
    assert max(request.records for request in vendor.served[before:]) > 2
    assert member.stop() == 0


def test_routes_change_while_it_runs(job: Job, vendor: Vendor, tmp_path: Path) -> None:
    """A route without an id is replaced by one with another mapping: later records are sent by it, earlier ones not.

    Kills: a plan of the old routes that is kept for a known schema.
    """

    def route(name: str) -> dict[str, Any]:
        fields = {"cuid": "cuid", "eventName": {"const": name}, "itime": "itime", "properties": "properties"}
        return {
            "topics": [job.topic],
            "schema": "connector.events.JiguangUserEvent",
            "to": [DESTINATION],
            "fields": {"jiguang": fields},
        }

    vendor.learn("before")
    vendor.learn("after")
    settings = {**job.settings(vendor.destination), "routes": [route("before")]}
    member = job.start(settings)
    job.produce(good(range(10)))
    job.until_done(member)
    file = tmp_path / "member-0.yaml"
    write(file, {**settings, "routes": [route("after")]})
    done = reload(member, file)
    assert (done.returncode, "applied: routes." in done.stdout) == (0, True), done.stdout + done.stderr
    job.produce(good(range(10, 20)))
    job.until_done(member)
    names = {event["cuid"] - FIRST_CUID: event["eventName"] for event in vendor.accepted}
    assert names == {**dict.fromkeys(range(10), "before"), **dict.fromkeys(range(10, 20), "after")}
    assert member.stop() == 0


def test_a_corrected_account_ends_the_hold_at_once(job: Job, vendor: Vendor, tmp_path: Path) -> None:
    """A wrong key in the file holds, and a reload with the right one ends the hold.

    Kills: a probe that signs with the settings of the start.
    """
    right = vendor.destination["project_secret"]
    settings = job.settings({**vendor.destination, "project_secret": "wrong-secret"})
    job.produce(good(range(50)))
    member = job.start(settings)
    member.until_held("misconfigured")
    write(tmp_path / "member-0.yaml", changed(settings, project_secret=right))
    done = reload(member, tmp_path / "member-0.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"destinations.{DESTINATION}.project_secret" in done.stdout.replace("\n", " ")
    member.wait(lambda: member.destination()["state"] == "flowing", "the end of the hold", 20)
    job.until_done(member)
    assert right not in member.text
    assert member.stop() == 0


def test_a_hangup_reads_the_configuration_again(job: Job, vendor: Vendor, tmp_path: Path) -> None:
    """Without a terminal SIGHUP ends nothing: it applies the file, and a faulty one changes nothing and says why."""
    settings = job.settings(vendor.destination)
    member = job.start(settings)
    job.produce(good(range(5)))
    job.until_done(member)
    write(tmp_path / "member-0.yaml", changed(settings, requests_per_second=33))
    os.kill(member.pid, signal.SIGHUP)
    member.wait(lambda: member.destination()["requests_per_second"] == 33, "the new rate", 20)
    (tmp_path / "member-0.yaml").write_text("kafka: [", encoding="utf-8")
    os.kill(member.pid, signal.SIGHUP)
    member.wait(lambda: member.status()["config_fault"], "the fault", 20)
    # A thread writes the log, so the line may come a moment later.
    (line,) = member.wait(lambda: member.lines("config.reload_failed"), "the line about it")
    assert line["by"] == "signal"
    job.produce(good(range(5, 10)))
    job.until_done(member)
    assert member.stop() == 0


def test_a_changed_file_is_read_where_that_is_on(job: Job, vendor: Vendor, tmp_path: Path) -> None:
    """With `reload.watch` a change of the file, and one of a secret that it names, are applied without a command."""
    secret = tmp_path / "secret"
    secret.write_text(vendor.destination["project_secret"], encoding="utf-8")
    settings = job.settings({**vendor.destination, "project_secret": f"${{file:{secret}}}"}, reload={"watch": True})
    member = job.start(settings)
    job.produce(good(range(5)))
    job.until_done(member)
    write(tmp_path / "member-0.yaml", changed(settings, requests_per_second=33))
    member.wait(lambda: member.destination()["requests_per_second"] == 33, "the new rate", 20)
    assert member.lines("config.reloaded")[-1]["by"] == "watch"
    secret.write_text("another-secret", encoding="utf-8")
    member.wait(lambda: len(member.lines("config.reloaded")) == 2, "the new secret", 20)
    assert member.stop() == 0
