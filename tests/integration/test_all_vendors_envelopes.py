"""One topic of envelopes for all four vendors: everything arrives, nothing is over a limit, answers are produced."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any, Final
from zlib import crc32

import pytest

from tests.integration.accounts import Accounts, Result, Writer, accounts, contract, envelope, jpush, mytracker, results
from tests.integration.events import FIRST_CUID, Message, register
from tests.integration.job import Job
from tools.servers import Kafka, Registry

COUNTS: Final = {"jiguang": 600, "quick_audience": 400, "mytracker": 400, "jpush_report": 200}
BAD: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "a": ("jiguang", "jiguang.eventName.required", {"eventName": ""}),
    "b": ("quick_audience", "quick_audience.isOrder.value", {"isOrder": "2"}),
    "c": ("mytracker", "mytracker.age.range", {"age": 129}),
    "d": ("mytracker", "mytracker.ipv4.length", {"ipv4": "1" * 16}),
    "e": ("jpush_report", "jpush_report.msg_id.range", {"query": ("connector.events.Received", {"msg_id": -1})}),
}
"""By key: events that a local rule has to catch, so that no vendor ever sees them."""


def _messages(write: Writer) -> list[Message]:
    good = [
        (f"{vendor}-{number}".encode(), envelope(vendor, number))
        for vendor, count in COUNTS.items()
        for number in range(count)
    ]
    bad = []
    for key, (vendor, _, changes) in BAD.items():
        body = envelope(vendor, 1)["body"][1]
        bad.append((key.encode(), envelope(vendor, 99_999, {**body, **changes})))
    # The vendors' events stand mixed in every partition, the bad ones among them.
    mixed = sorted([*good, *bad], key=lambda each: crc32(each[0]))
    return [Message(write(datum), key) for key, datum in mixed]


@pytest.mark.promise("P5")
@pytest.mark.promise("P7")
@pytest.mark.parametrize("encoding", ["wire", "single_object"])
def test_one_topic_of_envelopes_reaches_all_four_vendors(
    encoding: str, job: Job, kafka: Kafka, registry: Registry
) -> None:
    """Each event arrives at its vendor once, each question has its result, the locally refused are dead letters.

    Kills: a batch of two methods or over a limit, a question asked without a result, a local rule that is not applied.
    """
    schema = contract("Event")
    wire = encoding == "wire"
    write = Writer(schema, register(registry, f"{job.topic}-value", schema) if wire else None)
    topic = kafka.create_topic(f"{job.topic}-results")
    sections = {"schema_registry": {"url": registry.url}} if wire else {}
    with accounts(jpush_report={"missing": {1_000_008}, "absent": {"r5"}, "abnormal": {"r1": 2}}) as vendors:
        job.produce(_messages(write))
        destinations = vendors.destinations(topic)
        member = job.start(job.settings({}, destinations=destinations, **sections))
        job.until_done(member)
        assert member.stop() == 0
        dead_letters = {dead_letter.key: dead_letter.own for dead_letter in job.dead_letters()}
        assert {key.decode(): own["dlq-code"] for key, own in dead_letters.items() if key} == {
            key: code for key, (_, code, _) in BAD.items()
        }
        _check_arrivals(vendors)
        _check_results(vendors, results(kafka, topic, registry if wire else None))


def _check_arrivals(vendors: Accounts) -> None:
    vendors.check_limits()
    assert Counter(each["cuid"] for each in vendors["jiguang"].accepted) == Counter(
        FIRST_CUID + number for number in range(COUNTS["jiguang"])
    )
    audience = {each["customerId"]: each for each in vendors["quick_audience"].accepted}
    assert len(vendors["quick_audience"].accepted) == len(audience) == COUNTS["quick_audience"]
    assert audience["c0"]["extendAttributes"] == {"цвет": '"красный"\r\n--x', "名": "值", "n": "0"}
    assert audience["c1"].keys() == {"organizationId", "customerId", "eventCode", "eventTime"}
    assert audience["c1"]["organizationId"] == vendors["quick_audience"].account["access_id"]
    tracked = {each["customUserId"]: each for each in vendors["mytracker"].accepted}
    assert len(vendors["mytracker"].accepted) == len(tracked) == COUNTS["mytracker"]
    for number in (0, 1, 5, 7):
        wanted = {name: value for name, value in mytracker(number).items() if value is not None}
        wanted.pop("eventTimestamp", None)
        tracked[f"u{number}"].pop("eventTimestamp", None)
        assert tracked[f"u{number}"] == wanted
    # Questions about a push are asked once in a request, however many asked.
    stats = vendors["jpush_report"].stats
    assert stats["requests"] < COUNTS["jpush_report"]


def _check_results(vendors: Accounts, found: list[Result]) -> None:
    # Who asked what a local rule refuses is told so, in addition to the dead letter.
    (refused,) = [each for each in found if each.key == b"e"]
    assert (refused.datum["status"], refused.datum["answer"]["code"]) == ("refused", BAD["e"][1])
    found = [each for each in found if each is not refused]
    by_id = {each.datum["query_id"]: each for each in found}
    assert len(found) == len(by_id) == COUNTS["jpush_report"]
    assert set(by_id) == {f"q{number}" for number in range(COUNTS["jpush_report"])}
    for number in range(COUNTS["jpush_report"]):
        result = by_id[f"q{number}"]
        kind, query = jpush(number)["query"]
        assert result.key == f"jpush_report-{number}".encode()
        datum = result.datum
        assert (datum["msg_id"], datum["endpoint"]) == (query.get("msg_id"), _ENDPOINTS[kind.rpartition(".")[2]])
        assert abs(datum["asked_at"].timestamp() - time.time()) < 300
        missing = datum["msg_id"] == 1_000_008 and datum["endpoint"] != "status"
        assert datum["status"] == ("missing" if missing else "found"), datum
        if datum["endpoint"] == "received" and not missing:
            assert datum["answer"]["android_received"] == query["msg_id"] % 1000
            assert json.loads(datum["raw"])["msg_id"] == str(query["msg_id"])
        if datum["endpoint"] == "status":
            absent = number == 5
            assert datum["answer"] == {f"r{number}": "missing" if absent else 0, "r-shared": 0}
            raw = {"r-shared": {"status": 0}} | ({} if absent else {f"r{number}": {"status": 0}})
            assert json.loads(datum["raw"]) == raw
        if datum["endpoint"] == "users":
            assert json.loads(datum["raw"])["duration"] == query["duration"]


_ENDPOINTS: Final = {"Received": "received", "MessageStatus": "status", "Messages": "messages", "Users": "users"}
