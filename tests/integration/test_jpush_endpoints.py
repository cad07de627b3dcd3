"""JPush's questions through the whole job: one endpoint that is not granted, the newer ones, and a results topic."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the stub forgets to export some of them
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from tests.integration.accounts import SPACE, Writer, accounts, contract, results
from tests.integration.events import Message
from tests.integration.job import Job
from tools.servers import Kafka

COUNT: Final = 40


def _question(number: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"id": f"{kind}-{number}", "query": (f"{SPACE}.{kind}", {"msg_id": number, **fields})}


@pytest.mark.promise("P6")
def test_an_endpoint_that_is_not_granted_waits_and_the_others_go_on(job: Job, kafka: Kafka) -> None:
    """Questions to a VIP interface stay uncommitted and no dead letters, while the delivery counts are answered.

    Kills: code 2003 read as the question's fault, or as the whole account's.
    """
    write = Writer(contract("JPushReportQuery"))
    topic = kafka.create_topic(f"{job.topic}-results")
    job.produce(
        Message(write(_question(number, kind)), b"%d" % number, (), place)
        for number in range(COUNT)
        for place, kind in enumerate(("Received", "Messages"))
    )
    with accounts("jpush_report", jpush_report={"vip": False}) as vendors:
        member = job.start(job.settings({}, destinations=vendors.destinations(topic)))
        member.wait(lambda: job.committed()[0] == COUNT, "commits of the questions that are answered")
        status = member.wait(
            lambda: next((each for each in member.status()["destinations"].values() if each["code"] == "2003"), None),
            "a hold with code 2003",
        )
        assert status["cause"] == "misconfigured"
        assert member.stop() == 0
        assert job.committed()[1] == 0
        assert job.dead_letters() == []
        found = results(kafka, topic, None)
        assert {(each.datum["endpoint"], each.datum["status"]) for each in found} == {("received", "found")}
        assert {each.datum["query_id"] for each in found} == {f"Received-{number}" for number in range(COUNT)}
        assert {each.key for each in found} == {b"%d" % number for number in range(COUNT)}


def test_a_results_topic_that_refuses_the_answers_is_shown_until_it_takes_them(job: Job, kafka: Kafka) -> None:
    """The questions stay uncommitted, the state says why, and everything goes on once Kafka takes the answers.

    Kills: a destination that asks nothing more and is shown as flowing.
    """
    write = Writer(contract("JPushReportQuery"))
    # Every record is older than that.
    topic = kafka.create_topic(f"{job.topic}-results", config={"message.timestamp.before.max.ms": "0"})
    job.produce(
        Message(write(_question(number, "Received")), b"%d" % number, (), number % 6) for number in range(COUNT)
    )
    with accounts("jpush_report") as vendors:
        destinations = vendors.destinations(topic)
        destinations["jpush_report"] |= {"max_in_flight": 1, "batch": {"records": 10}}
        member = job.start(job.settings({}, destinations=destinations))

        def state() -> dict[str, Any]:
            (found,) = member.status()["destinations"].values() or ({},)
            return dict(found)

        status = member.wait(lambda: found if (found := state()).get("message") else None, "a message")
        assert status["state"] == "retrying"
        assert f"the vendor's answers wait: cannot write to topic {topic}: " in status["message"]
        assert len(vendors["jpush_report"].accepted) == 10
        assert not any(job.committed().values())
        change = ConfigEntry("message.timestamp.before.max.ms", None, incremental_operation=AlterConfigOpType.DELETE)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[change])
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        for done in admin.incremental_alter_configs([resource]).values():
            done.result(30)
        job.until_done(member)
        member.wait(lambda: state()["state"] == "flowing", "that it flows again")
        assert member.stop() == 0
        assert len(results(kafka, topic, None)) == COUNT


def test_the_newer_endpoints_and_a_thousand_devices(job: Job, kafka: Kafka) -> None:
    """With `detail: true` the newer forms are asked; devices of several questions share a request of at most 1,000."""
    write = Writer(contract("JPushReportQuery"))
    topic = kafka.create_topic(f"{job.topic}-results")
    day = "2026-01-31"
    questions = [_question(number, kind) for number in range(COUNT) for kind in ("Received", "Messages")]
    questions += [
        {
            "id": f"s{number}",
            "query": (
                f"{SPACE}.MessageStatus",
                {"msg_id": 7, "registration_ids": [f"d{number * 90 + n}" for n in range(100)], "date": day},
            ),
        }
        for number in range(COUNT)
    ]
    job.produce(Message(write(each), each["id"].encode(), (), 0) for each in questions)
    with accounts("jpush_report") as vendors:
        destinations = vendors.destinations(topic)
        destinations["jpush_report"]["detail"] = True
        member = job.start(job.settings({}, destinations=destinations))
        job.until_done(member)
        assert member.stop() == 0
        assert job.dead_letters() == []
        vendors.check_limits()
        asked = vendors["jpush_report"].accepted
        assert {each["endpoint"] for each in asked} == {"received/detail", "messages/detail", "status/message"}
        assert {each["date"] for each in asked if each["endpoint"] == "status/message"} == {day}
        found = {each.datum["query_id"]: each.datum for each in results(kafka, topic, None)}
        assert len(found) == len(questions)
        assert {each["status"] for each in found.values()} == {"found"}
        assert found["Messages-5"]["answer"]["android_pns.pns_target"] == 5
        assert json.loads(found["Messages-5"]["raw"])["jpush"]["target"] == 9
        devices = [set(found[f"s{number}"]["answer"]) for number in range(COUNT)]
        assert devices == [{f"d{number * 90 + n}" for n in range(100)} for number in range(COUNT)]
