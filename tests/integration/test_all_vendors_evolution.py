"""Writers of several ages on one topic with a real registry: all of them are read, and arrive as the same event."""

from __future__ import annotations

import time
from typing import Any, Final

from tests.integration.accounts import SPACE, Writer, accounts, contract, quick_audience
from tests.integration.events import FIRST_CUID, Message, event, register
from tests.integration.job import Job
from tools.servers import Registry

COUNT: Final = 60


def _changed(tree: Any, change: Any) -> Any:
    """Return the envelope with every record of its body changed."""
    body = next(field for field in tree["fields"] if field["name"] == "body")
    body["type"] = [{**branch, "fields": change(branch["fields"])} for branch in body["type"]]
    return tree


def _older(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [field for field in fields if "default" not in field]


def _newer(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    late = {"type": "map", "values": {"type": "array", "items": "long"}}
    return [{"name": "trace", "type": "string"}, *fields, {"name": "late", "type": late, "default": {}}]


def test_older_and_newer_writers_of_the_envelope_are_read_side_by_side(job: Job, registry: Registry) -> None:
    """A record of each writer arrives whole: the older's with defaults, the newer's without the fields unknown here."""
    more = {"trace": "t", "late": {"a": [1, 2]}}
    now = int(time.time() * 1000)
    writers: dict[str, tuple[Any, dict[str, Any]]] = {
        "older": (_changed(contract("Event"), _older), {}),
        "today": (contract("Event"), {}),
        "newer": (_changed(contract("Event"), _newer), more),
    }
    messages: list[Message] = []
    for place, (name, (schema, extra)) in enumerate(writers.items()):
        write = Writer(schema, register(registry, f"{job.topic}-{name}", schema))
        for number in range(place, COUNT, len(writers)):
            jiguang = {**event(number, itime=now), **extra}
            audience = {**quick_audience(1), "customerId": f"c{number}", "eventTime": now, **extra}
            for vendor, record, body in (
                ("jiguang", "JiguangUserEvent", jiguang),
                ("quick_audience", "QuickAudienceEvent", audience),
            ):
                datum = {"id": f"{vendor}{number}", "target": vendor, "body": (f"{SPACE}.{record}", body)}
                messages.append(Message(write(datum), b"%d" % number))
    with accounts("jiguang", "quick_audience") as vendors:
        job.produce(messages)
        settings = job.settings({}, destinations=vendors.destinations(), schema_registry={"url": registry.url})
        member = job.start(settings)
        job.until_done(member)
        assert member.stop() == 0
        assert job.dead_letters() == []
        vendors.check_limits()
        sent = {each["cuid"] - FIRST_CUID: each for each in vendors["jiguang"].accepted}
        assert sorted(sent) == list(range(COUNT))
        assert {place: "properties" in sent[place] for place in (0, 1, 2)} == {0: False, 1: True, 2: True}
        assert {key for each in sent.values() for key in each} == {
            *("cuid", "eventName", "itime", "randomId", "properties")
        }
        customers = {each.pop("customerId"): each for each in vendors["quick_audience"].accepted}
        assert len(customers) == COUNT
        assert len({str(sorted(each.items())) for each in customers.values()}) == 1
