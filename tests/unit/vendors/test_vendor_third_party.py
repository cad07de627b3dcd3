"""The vendor that docs/vendors.md shows is complete: it is registered and does what its words say."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import orjson
import pytest

from connector.errors import Refusal
from connector.vendors import kinds
from connector.vendors.base import Accepted, Misconfigured, Refused, Response, Retry, Vendor, VendorEvent, VendorKind


@pytest.fixture
def kind() -> VendorKind:
    """The documented vendor, loaded through an entry point."""
    return kinds([EntryPoint("acme", "tests.contract.acme_vendor:KIND", "connector.vendors")])["acme"]


@pytest.fixture
def vendor(kind: VendorKind) -> Vendor:
    """An account at the documented vendor."""
    return kind.build(kind.settings.model_validate({"vendor": "acme", "token": "t0ken"}))


def test_entry_point_adds_a_vendor_to_the_built_in_vendors(kind: VendorKind) -> None:
    """The entry point adds one vendor and removes none."""
    assert kind.name == "acme"
    assert kind.rules == {"acme.name.required", "acme.amount.type", "acme.amount.range"}


def test_it_encodes_and_frames_to_the_byte(vendor: Vendor) -> None:
    """Its items make a body as long as its limits say."""
    events = [VendorEvent({"name": name, "amount": 5}, name) for name in ("a", "字")]
    items = [vendor.encode(event, 0) for event in events]
    body = vendor.request(None, items, 0).body or b""
    limits = vendor.limits(None)
    assert [orjson.loads(line)["name"] for line in body.splitlines()] == ["a", "字"]
    assert len(body) == limits.overhead + sum(len(item.body) for item in items) + limits.separator
    assert orjson.loads(items[0].body)["id"] == events[0].dedup_id


def test_its_rules_refuse(vendor: Vendor) -> None:
    """A broken rule is a refusal under the vendor's own id."""
    with pytest.raises(Refusal, match="name must be given") as caught:
        vendor.encode(VendorEvent({"amount": 1}, "x"), 0)
    assert caught.value.code == "acme.name.required"


def test_it_reads_its_answers(vendor: Vendor) -> None:
    """Success, a refused line, a wrong token and a proxy's page have different verdicts."""
    item = vendor.encode(VendorEvent({"name": "a"}, "x"), 0)
    answers = [(200, b'{"ok":true}'), (422, b'{"ok":false,"line":1,"why":"no"}'), (401, b""), (200, b"<html>")]
    verdicts = [vendor.read(Response(status, {}, body), None, [item, item], 0) for status, body in answers]
    assert [type(each) for each in verdicts] == [Accepted, Refused, Misconfigured, Retry]
    assert isinstance(verdicts[1], Refused)
    assert verdicts[1].suspects == {1}
