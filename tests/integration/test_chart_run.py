"""The rendered chart executed: its command and its configuration as processes, on a real Kafka."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka.admin import AdminClient

from connector.testing.faults import Fault
from tests.e2e.chart import CHART, configuration, container, of_kind, render, workloads
from tests.integration.ended import run_command
from tests.integration.events import good
from tests.integration.job import DESTINATION, Job, Vendor, wait_for
from tools.servers import ROOT, free_ports

SECRETS: Final = "/run/secrets/connector"
MAY_BE_EMPTY: Final = {
    "Dead letters and skipped",
    "Dropped parameters",
    "Extra requests and unknown outcomes",
    "Receipts",
    "Waiting for the rate limit",
}
"""Panels that have nothing to show while all is well and no limit is reached."""


def _settings(job: Job, vendor: Vendor, folder: Path) -> dict[str, Any]:
    """Return the configuration of the rendered pods, its secrets in files of ours and its port left to chance."""
    config = job.settings(vendor.destination, limits={"drain_timeout": "20s"})
    del config["server"]
    account = config["destinations"][DESTINATION]
    for key in ("project_secret", "app_key"):
        (folder / key).write_text(account[key] + "\n", encoding="utf-8")
        account[key] = f"${{file:{SECRETS}/{key}}}"
    values = folder / "values.yaml"
    values.write_text(json.dumps({"config": config, "replicaCount": 2, "partitions": 6}), encoding="utf-8")
    manifests = render(values)
    (workload,) = workloads(manifests)
    member = container(workload)
    assert member["args"] == ["run", "-c", "/etc/connector/connector.yaml"]
    assert {mount["mountPath"] for mount in member["volumeMounts"]} == {"/etc/connector", SECRETS}
    text = configuration(manifests)["connector.yaml"].replace(SECRETS, str(folder))
    settings: dict[str, Any] = json.loads(text)
    settings["server"]["port"] = 0  # pods have an address each; here two share one
    return settings


def _silent_panels(page: str) -> set[str]:
    """Return the titles of the dashboard's panels for which the member serves no series."""
    dashboard = json.loads((CHART / "dashboards" / "connector.json").read_text(encoding="utf-8"))
    served = set(re.findall(r"^(connector_\w+)", page, re.MULTILINE))
    asked = {panel["title"]: json.dumps(panel.get("targets", [])) for panel in dashboard["panels"]}
    names = {title: set(re.findall(r"connector_\w+", queries)) for title, queries in asked.items()}
    return {title for title, wanted in names.items() if not wanted <= served}


def test_a_rolling_update_of_the_rendered_pods_sends_nothing_twice(job: Job, vendor: Vendor, tmp_path: Path) -> None:
    """The old pod ends the requests that are under way while the new one takes over, and each event arrives once.

    The dashboard's panels have what to show of it. Kills: a stop that lets go of requests which the vendor accepts.
    """
    settings = _settings(job, vendor, tmp_path)
    old = job.start(settings)
    job.produce(good(range(2000)))
    old.wait(lambda: vendor.cuids.total() > 0, "the first deliveries")
    new = job.start(settings)
    new.wait(lambda: new.get("/readyz")[0] == 200, "readiness of the new pod")
    vendor.arm(Fault("latency", seconds=1.0))
    job.produce(good(range(2000, 3000)))
    old.wait(lambda: old.destination().get("in_flight", 0) > 0, "requests under way at the old pod")
    before = len(vendor.served)
    old.terminate()
    job.produce(good(range(3000, 4000)))
    assert old.exit_code() == 0
    assert len(vendor.served) > before
    vendor.recover()
    job.until_done(new)
    assert new.get("/healthz")[0] == 200
    assert _silent_panels(new.get("/metrics")[1]) <= MAY_BE_EMPTY
    assert new.stop() == 0
    assert set(vendor.cuids.values()) == {1}
    assert vendor.cuids.total() == 4000


def _rendered(job: Job, folder: Path, **values: Any) -> list[dict[str, Any]]:
    """Return the manifests over the job's Kafka, in a group that has no topics of its own yet."""
    config = job.settings({"vendor": "mytracker", "id_app": 1, "token": "${TOKEN}"})
    del config["server"]
    config["kafka"]["group_id"] += "-new"
    config["console"] = {"token": "${CONSOLE_TOKEN}"}
    file = folder / "values.yaml"
    file.write_text(json.dumps({"config": config, **values}), encoding="utf-8")
    return render(file)


def _command(manifest: dict[str, Any], text: str, folder: Path) -> list[str]:
    """Return the command of a rendered container, its configuration in a file of ours."""
    file = folder / "rendered.yaml"
    file.write_text(text, encoding="utf-8")
    return [str(file) if one == "/etc/connector/connector.yaml" else one for one in container(manifest)["args"]]


def test_the_rendered_job_creates_the_topics_that_are_missing(job: Job, tmp_path: Path, environ: None) -> None:
    """Run as the hook runs it, the command makes the connector's own topics once; a second run finds them."""
    manifests = _rendered(job, tmp_path, topicsJob={"enabled": True, "partitions": 3})
    (hook,) = of_kind(manifests, "Job")
    command = _command(hook, configuration(manifests)["connector.yaml"], tmp_path)
    for state in ("created", "there"):
        done = run_command(*command)
        assert done.returncode == 0, done.stderr
        assert [line.split()[:2] for line in done.stdout.splitlines()] == [["dead-letter", state], ["replay", state]]
    topics = AdminClient({"bootstrap.servers": job.kafka.bootstrap}).list_topics(timeout=10).topics
    assert len(topics[f"{job.group}-new.dead-letters"].partitions) == 3
    without = [one for one in command if one not in ("--create", "--partitions", "3")]
    assert run_command(*without).returncode == 0


def test_the_rendered_console_wants_its_token(job: Job, tmp_path: Path, environ: None) -> None:
    """Run as its pod runs it, the console is healthy for a probe, and shows a stranger nothing but the way in."""
    manifests = _rendered(job, tmp_path, console={"enabled": True})
    (deployment,) = (each for each in of_kind(manifests, "Deployment") if container(each)["name"] == "console")
    settings = json.loads(configuration(manifests)["connector.yaml"])
    job.kafka.create_topic(f"{settings['kafka']['group_id']}.dead-letters")
    (settings["console"]["port"],) = free_ports(1)
    command = _command(deployment, json.dumps(settings), tmp_path)
    with (tmp_path / "console.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "connector", *command], cwd=ROOT, stdout=log, stderr=log)
    try:
        ask = partial(_get, settings["console"]["port"])
        assert wait_for(lambda: process.poll() is not None or ask("/healthz"), "the console")
        assert ask("/healthz") == 200
        assert ask("/") in (302, 303, 401)
        assert ask("/", "attacker.example") in (400, 403, 421)
        assert ask("/healthz", f"10.1.2.3:{settings['console']['port']}") == 200
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _get(port: int, path: str, host: str | None = None) -> int | None:
    """Return the status of an answer, None while nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={} if host is None else {"Host": host})
        return connection.getresponse().status
    except ConnectionError:
        return None
    finally:
        connection.close()


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that the rendered configuration refers to."""
    for name, value in {"TOKEN": "a-token", "CONSOLE_TOKEN": "a-console-token", "POD_NAME": "pod-0"}.items():
        monkeypatch.setenv(name, value)
