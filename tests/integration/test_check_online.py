"""`check` and `run` before the first record: routes against known schemas, results topics, a vendor's credential."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.accounts import accounts
from tests.integration.ended import run_command
from tests.integration.job import Job
from tools.servers import Kafka

SCHEMA = {"type": "record", "name": "Order", "namespace": "com.acme", "fields": [{"name": "id", "type": "long"}]}


def test_a_refused_token_and_a_missing_results_topic_are_told_together(job: Job, kafka: Kafka) -> None:
    """`check --online` ends with 0 where all is well, else with 1 and every fault, none of them with a secret."""
    topic = f"{job.topic}-results"
    with accounts("mytracker", "jpush_report") as vendors:
        destinations = vendors.destinations(topic)
        wrong = {**destinations, "mytracker": {**destinations["mytracker"], "token": "not-the-token"}}
        done = run_command("check", "--online", "-c", str(job.write(job.settings({}, destinations=wrong))))
        assert done.returncode == 1
        assert topic in done.stderr
        assert "destinations.mytracker: HTTP 403" in done.stderr
        assert "not-the-token" not in done.stdout + done.stderr
        kafka.create_topic(topic)
        done = run_command("check", "--online", "-c", str(job.write(job.settings({}, destinations=destinations))))
        assert done.returncode == 0, done.stderr
        assert (vendors["mytracker"].accepted, vendors["jpush_report"].served) == ([], [])
    stopped = run_command("check", "--online", "-c", str(job.write(job.settings({}, destinations=destinations))))
    assert stopped.returncode == 1
    assert "destinations.mytracker: connect to" in stopped.stderr


def test_routes_that_cannot_be_end_run_and_check_with_2_before_anything_is_reached(job: Job) -> None:
    """Both commands tell every fault of the routes, with its path; no broker is asked."""
    path = job.write({}).parent
    (path / "order.avsc").write_text(json.dumps(SCHEMA), encoding="utf-8")
    tracker = {"vendor": "mytracker", "id_app": 1, "token": "t"}
    fields: dict[str, Any] = {"method": {"const": "login"}, "customUserId": "idd", "agee": "id"}
    route = {"schema": "com.acme.Order", "where": {"kind": 1}, "to": ["tracker"], "fields": {"mytracker": fields}}
    settings = job.settings({}, destinations={"tracker": tracker}, routes=[route], schemas={"files": ["order.avsc"]})
    settings["kafka"]["client"] = {"bootstrap.servers": "127.0.0.1:1"}
    for command in ("run", "check"):
        done = run_command(command, "-c", str(job.write(settings)))
        assert done.returncode == 2
        assert "3 faults" in done.stderr
        for fault in ("where.kind", "fields.mytracker.customUserId", "fields.mytracker.agee"):
            assert f"routes[0].{fault}: " in done.stderr
        assert "did you mean" in done.stderr
