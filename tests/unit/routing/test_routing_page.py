"""The page on routing: its example is a configuration that works with the real vendors."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from connector.config.loader import DestinationSettings, Settings
from connector.records import Event, Record
from connector.routing.table import RouteTable
from connector.vendors.base import VendorEvent
from connector.vendors.jiguang import KIND as JIGUANG
from connector.vendors.mytracker import KIND as MYTRACKER

PAGE = Path(__file__).parents[3] / "docs" / "routing.md"


def test_the_pages_example_routes_and_maps() -> None:
    """The example compiles without a fault and gives both vendors their fields, in their own units."""
    example: dict[str, Any] = yaml.safe_load(PAGE.read_text().split("```yaml\n")[1].split("```")[0])
    vendors = {"jiguang-prod": "jiguang", "tracker": "mytracker"}
    settings = Settings.model_validate(
        {
            "kafka": {"topics": ["app-events"], "group_id": "g", "client": {"bootstrap.servers": "localhost:9092"}},
            "destinations": {
                name: DestinationSettings.model_construct(vendor=vendor, base_url="http://localhost")
                for name, vendor in vendors.items()
            },
            **example,
        }
    )
    table = RouteTable.compile(settings, {"jiguang": JIGUANG, "mytracker": MYTRACKER})
    datum = {
        "platform": "ios",
        "event_id": "e-1",
        "name": "open",
        "user": {"cuid": 77, "id": 4},
        "at": datetime(2026, 11, 21, 9, 30, 0, 250_000, tzinfo=UTC),
        "attributes": {"level": 3},
    }
    record = Record("app-events", 0, 1, 5, None, b"", [("env", b"prod")])
    routed = table.route(Event("com.acme.UserEvent", datum), record, "cluster")
    fields = {}
    for one in routed:
        assert isinstance(one.event, VendorEvent)
        fields[one.destination] = {name: value for name, value in one.event.fields.items() if value is not None}
    assert fields == {
        "jiguang-prod": {"cuid": 77, "eventName": "open", "itime": 1_795_253_400_250, "properties": {"level": 3}},
        "tracker": {
            "method": "customEvent",
            "customEventName": "open",
            "customUserId": "4",
            "eventTimestamp": 1_795_253_400,
        },
    }
