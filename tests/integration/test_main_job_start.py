"""What is wrong before the first record: a configuration, a broker that does not answer, a topic that is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.ended import run_command
from tests.integration.events import good
from tests.integration.job import DESTINATION, Job, Vendor
from tools.servers import Kafka, Registry, free_ports

SETTINGS: Final[dict[str, Any]] = {
    "kafka": {"topics": ["events"], "group_id": "group", "client": {"bootstrap.servers": "127.0.0.1:1"}},
    "destinations": {
        DESTINATION: {"vendor": "jiguang", "project_id": "1", "project_secret": "a-real-secret", "app_key": "key"}
    },
    "server": {"port": 0},
}


def _change(**changes: Any) -> dict[str, Any]:
    """Return the settings with keys of the destination changed."""
    return {**SETTINGS, "destinations": {DESTINATION: {**SETTINGS["destinations"][DESTINATION], **changes}}}


def _file(folder: Path, settings: dict[str, Any]) -> str:
    path = folder / "connector.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return str(path)


BAD: Final = {
    "unknown_key": (_change(max_inflight=3), ("destinations.jg.max_inflight", "max_in_flight")),
    "missing_secret": (
        _change(project_secret="${CONNECTOR_TEST_ABSENT}"),
        ("destinations.jg.project_secret", "CONNECTOR_TEST_ABSENT"),
    ),
    "missing_secret_file": (
        _change(project_secret="${file:absent/secret}"),
        ("destinations.jg.project_secret", "absent/secret"),
    ),
    "above_the_vendor": (_change(batch={"records": 101}), ("destinations.jg.batch.records", "100", "agreed_limits")),
    "too_many_requests": (
        _change(requests_per_second=101),
        ("destinations.jg.requests_per_second", "100", "agreed_limits"),
    ),
    "wrong_type": (_change(max_in_flight="many"), ("destinations.jg.max_in_flight",)),
    "unknown_vendor": (_change(vendor="jigang"), ("destinations.jg.vendor", "jiguang")),
    "owned_property": (
        {**SETTINGS, "kafka": {**SETTINGS["kafka"], "client": {"enable.auto.commit": True}}},
        ("kafka.client.enable.auto.commit", "bootstrap.servers"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_configuration_ends_with_2_and_names_its_path(name: str, tmp_path: Path) -> None:
    """Exit 2, the path in the file and what is allowed on standard error, and never a secret's value."""
    settings, says = BAD[name]
    done = run_command("run", "-c", _file(tmp_path, settings))
    assert done.returncode == 2
    assert [text for text in says if text not in done.stderr] == []
    assert "Traceback" not in done.stderr
    assert "a-real-secret" not in done.stdout + done.stderr


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """A file with three faults is refused once, with a line for each."""
    settings = _change(max_inflight=3, project_secret="${CONNECTOR_TEST_ABSENT}", batch={"records": 101})
    for command in ("run", "check"):
        done = run_command(command, "-c", _file(tmp_path, settings))
        assert done.returncode == 2
        for path in ("max_inflight", "project_secret", "batch.records"):
            assert f"destinations.jg.{path}: " in done.stderr


def test_a_file_that_is_not_there_or_no_yaml_ends_with_2(tmp_path: Path) -> None:
    """Exit 2 and one clear line for a file that cannot be read, and for one that is no YAML."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("kafka: [", encoding="utf-8")
    for path, says in ((tmp_path / "absent.yaml", "absent.yaml: cannot be read"), (broken, "invalid YAML")):
        done = run_command("run", "-c", str(path))
        assert done.returncode == 2
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_check_shows_what_was_understood_without_secrets(tmp_path: Path) -> None:
    """`check` of a good file ends with 0, and shows the destination and not its secret."""
    done = run_command("check", "-c", _file(tmp_path, SETTINGS))
    assert done.returncode == 0
    assert DESTINATION in done.stdout
    assert "a-real-secret" not in done.stdout + done.stderr


def test_check_online_without_a_broker_ends_with_1(tmp_path: Path) -> None:
    """`check --online` says which address did not answer, and ends with 1."""
    (port,) = free_ports(1)
    settings = {**SETTINGS, "kafka": {**SETTINGS["kafka"], "client": {"bootstrap.servers": f"127.0.0.1:{port}"}}}
    done = run_command("check", "--online", "-c", _file(tmp_path, settings))
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_online_asks_broker_topics_and_registry(job: Job, vendor: Vendor, registry: Registry) -> None:
    """`check --online` ends with 0 where all is as it is needed, with 1 and the address where the registry is none."""
    for url, code in ((registry.url, 0), (f"http://127.0.0.1:{registry.port}", 1)):
        settings = job.settings(vendor.destination, schema_registry={"url": url})
        done = run_command("check", "--online", "-c", str(job.write(settings)))
        assert done.returncode == code, done.stderr
        assert (f"schema_registry: the registry at {url}" in done.stderr) == bool(code)
        assert "Traceback" not in done.stderr


def test_run_waits_for_a_broker_says_so_and_goes_on(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """Without a broker `run` logs that every 10 s, and only /readyz fails; once there is a broker, it delivers."""
    job.produce(good(range(100)))
    ends = job.ends()
    kafka.stop()
    member = job.start(job.settings(vendor.destination))
    member.wait(lambda: len(member.lines("kafka.waiting")) >= 2, "the second word about it")
    said = member.lines("kafka.waiting")
    assert {line["servers"] for line in said} == {kafka.bootstrap}
    assert said[1]["seconds"] - said[0]["seconds"] >= 9
    status, body = member.get("/readyz")
    assert status == 503
    assert kafka.bootstrap in body
    assert member.get("/healthz")[0] == 200
    assert member.status()["waiting"]

    kafka.start()
    member.wait(lambda: member.get("/readyz")[0] == 200, "readiness")
    member.wait(lambda: job.committed() == ends, "commits")
    assert vendor.cuids.total() == 100
    assert member.stop() == 0


def test_run_is_stopped_while_it_waits_for_a_broker(job: Job, vendor: Vendor) -> None:
    """SIGTERM ends a member that has not reached a broker, with exit 0."""
    (port,) = free_ports(1)
    settings = job.settings(vendor.destination)
    settings["kafka"]["client"]["bootstrap.servers"] = f"127.0.0.1:{port}"
    member = job.start(settings)
    member.wait(lambda: member.lines("kafka.waiting"), "a word about the broker")
    assert member.stop() == 0


@pytest.mark.parametrize("purpose", ["source", "dead-letter", "replay"])
def test_a_topic_that_is_missing_ends_with_1_and_its_name(
    purpose: str, kafka: Kafka, tmp_path: Path, fresh_name: Callable[[str], str], vendor: Vendor
) -> None:
    """`run` and `check --online` name the topic and the way out, and end with 1."""
    job = Job(kafka, tmp_path, fresh_name("missing"))
    try:
        own = {"dead-letter": job.dead_letters_topic, "replay": f"{job.group}.replay", "source": job.topic}
        for name in set(own.values()) - {own[purpose]}:
            kafka.create_topic(name)
        path = str(job.write(job.settings(vendor.destination)))
        for command in (("run",), ("check", "--online"))[: 2 if purpose == "source" else 1]:
            done = run_command(*command, "-c", path)
            assert done.returncode == 1
            assert own[purpose] in done.stderr
            assert ("kafka.topics" if purpose == "source" else "create_topics") in done.stderr
            assert "Traceback" not in done.stderr
    finally:
        job.close()


def test_own_topics_are_created_where_that_is_wanted(
    kafka: Kafka, tmp_path: Path, fresh_name: Callable[[str], str], vendor: Vendor
) -> None:
    """With `kafka.create_topics: true` the dead-letter and replay topics appear, and dead letters go there."""
    job = Job(kafka, tmp_path, fresh_name("created"))
    try:
        job.partitions = 2
        kafka.create_topic(job.topic, 2)
        job.produce([*good(range(10)), *(message._replace(value=b"no avro") for message in good(range(1)))])
        settings = job.settings(vendor.destination)
        settings["kafka"]["create_topics"] = True
        member = job.start(settings)
        job.until_done(member)
        assert member.stop() == 0
        assert vendor.cuids.total() == 10
        assert [dead_letter.value for dead_letter in job.dead_letters()] == [b"no avro"]
    finally:
        job.close()


def test_a_port_in_use_ends_with_1_and_says_so(job: Job, vendor: Vendor) -> None:
    """A second process on the same port ends with 1 and names `server.port`."""
    member = job.start(job.settings(vendor.destination))
    done = run_command("run", "-c", str(job.write(job.settings(vendor.destination, server={"port": member.port}))))
    assert done.returncode == 1
    assert "server.port" in done.stderr
    assert member.stop() == 0
