"""What routing one event costs, in calls: the same on every machine."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from msgspec.structs import replace

from connector.records import Event
from tests.unit.routing.routes import CLUSTER, DATUM, FOREIGN, RECORD, table

HEADROOM = 1.25


@pytest.mark.parametrize(
    ("change", "made"),
    [
        ({}, 21),
        ({"where": {"platform": ["ios", "android"]}}, 27),
        ({"fields": {"alpha": {"cuid": {"path": "user.id", "default": 1}, "at": {"path": "at", "unit": "s"}}}}, 26),
        ({"where": {"cel": "event.platform == 'ios'"}}, 46),
    ],
)
def test_no_work_for_each_event_creeps_in(change: dict[str, Any], made: int) -> None:
    """A route's calls for one event stay near what was measured. Kills: compiling or looking up for each event."""
    routes = [{"schema": FOREIGN, "to": ["a"], "id": "event_id", "fields": {"alpha": {"cuid": "user.id"}}, **change}]
    plan = table(routes).plan("app-events", FOREIGN)
    event = Event(FOREIGN, DATUM)
    plan(event, RECORD, CLUSTER)
    other, calls = replace(RECORD, offset=8), 0

    def note(_frame: FrameType, kind: str, _argument: object) -> None:
        nonlocal calls
        calls += kind in ("call", "c_call")

    sys.setprofile(note)
    try:
        plan(event, other, CLUSTER)
    finally:
        sys.setprofile(None)
    assert calls <= made * HEADROOM
