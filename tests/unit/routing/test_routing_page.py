"""The page on routing: its example is a configuration that works with the real vendors."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from connector.config.loader import DestinationSettings, Settings
from connector.records import Event, Record
from connector.routing.table import RouteTable, Skipped
from connector.vendors.base import VendorEvent, VendorKind
from connector.vendors.jiguang import KIND as JIGUANG
from connector.vendors.mytracker import KIND as MYTRACKER
from connector.vendors.quick_audience import KIND as QUICK_AUDIENCE

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


ORDER: dict[str, Any] = {
    "order_id": "o-1",
    "platform": "ios",
    "user": {"consent": True, "phone": None, "email": "Ann@Example.com"},
    "channel": "APP",
    "country": "DE",
    "name": "login",
    "total": 120.5,
    "currency": "EUR",
    "items": [{"sku": "tea", "qty": 2, "price": 4.5}, {"sku": "cup", "qty": 1, "price": 10.0}],
}


def blocks(beginning: str) -> dict[str, Any]:
    """Return the page's YAML block that begins with a key."""
    found = [block.split("```")[0] for block in PAGE.read_text().split("```yaml\n")[1:]]
    (text,) = [block for block in found if block.startswith(beginning)]
    content: dict[str, Any] = yaml.safe_load(text.replace("${PEPPER}", "pepper"))
    return content


def mapped(vendor: VendorKind, fields: dict[str, Any], datum: dict[str, Any]) -> Any:
    """Return what a vendor's optional field becomes."""
    kind = replace(vendor, fields={name: replace(each, required=False) for name, each in vendor.fields.items()})
    settings = Settings.model_validate(
        {
            "kafka": {"topics": ["orders"], "group_id": "g", "client": {"bootstrap.servers": "localhost:9092"}},
            "destinations": {"d": DestinationSettings.model_construct(vendor=vendor.name, base_url="http://localhost")},
            "routes": [{"schema": "com.shop.Order", "to": ["d"], "fields": {vendor.name: fields}}],
        }
    )
    table = RouteTable.compile(settings, {vendor.name: kind})
    (routed,) = table.route(Event("com.shop.Order", datum), Record("orders", 0, 1, 5, None, b"", ()), "cluster")
    assert isinstance(routed.event, VendorEvent), routed.event
    return {name: routed.event.fields[name] for name in fields}


def test_the_pages_mappings_give_what_the_page_says() -> None:
    """The examples of maps, lists and hashes compile, and leave out the identifier that the event does not have."""
    fields = blocks("fields:")["fields"]
    properties = mapped(JIGUANG, fields["jiguang"], ORDER)["properties"]
    assert properties == {
        "order": "o-1",
        "skus": ["tea", "cup"],
        "buyer": hashlib.sha256(b"ann@example.com").hexdigest(),
        "total": 120.5,
    }
    audience = mapped(QUICK_AUDIENCE, fields["quick_audience"], ORDER)
    assert audience["customerIdList"] == [{"customerId": "Ann@Example.com", "idMapping": "email"}]
    assert "user" not in audience["extendAttributes"]
    assert audience["extendAttributes"]["items"].startswith('[{"sku":"tea"')


def test_the_pages_expressions_give_values() -> None:
    """Each example of an expression evaluates for an order."""
    properties = {"map": blocks("total: {cel")}
    assert mapped(JIGUANG, {"properties": properties}, ORDER)["properties"] == {
        "total": "120.5 EUR",
        "pieces": 3,
        "value": 19.0,
        "segment": "large",
        "contact": "none",
        "visitor": hmac.digest(b"pepper", b"ann@example.com", "sha256").hex(),
    }


def test_the_pages_conditions_compile() -> None:
    """The example of conditions is one `where`, and all of it can match one event."""
    where = blocks("where:")["where"]
    settings = Settings.model_validate(
        {
            "kafka": {"topics": ["orders"], "group_id": "g", "client": {"bootstrap.servers": "localhost:9092"}},
            "destinations": {},
            "routes": [{"where": where, "to": []}],
        }
    )
    table = RouteTable.compile(settings, {})
    record = Record("orders", 0, 1, 5, None, b"", [("env", b"prod")])
    event = Event("com.shop.Order", ORDER | {"user": ORDER["user"] | {"phone": "1"}})
    assert isinstance(table.route(event, record, "cluster"), Skipped)
