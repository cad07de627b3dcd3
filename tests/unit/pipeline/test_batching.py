"""Batches: never over a limit, and as large as the real body to the byte."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.errors import Refusal
from connector.pipeline.batching import FIXED_CHARGE, Delivery, OpenBatch, charge_of, size_alone
from connector.pipeline.offsets import PartitionTracker
from connector.records import Item, Record
from connector.vendors.base import Limits, Vendor, VendorEvent
from connector.vendors.jiguang import Jiguang, JiguangSettings
from connector.vendors.mytracker import MyTracker, MyTrackerSettings

NOW = 1_700_000_000_000
TRACKER = PartitionTracker("t", 0, 0, ["d"])


def delivery(item: Item, offset: int = 0) -> Delivery:
    """Return the delivery of an item."""
    return Delivery(Record("t", 0, offset, -1, b"key", b"value", ()), TRACKER, 2, item, f"id-{offset}", 1)


def fill(items: list[Item], limits: Limits) -> list[OpenBatch]:
    """Fill batches as a lane does: a new one where the item would pass a limit."""
    batches = [OpenBatch(None, limits, 0.0)]
    for item in items:
        if not batches[-1].fill([delivery(item)]):
            batches.append(OpenBatch(None, limits, 0.0))
            assert batches[-1].fill([delivery(item)])
    return batches


@st.composite
def loads(draw: st.DrawFn) -> tuple[Limits, list[Item]]:
    """Limits, and items whose sizes and weights lie near them."""
    overhead, separator = draw(st.sampled_from([0, 1, 2, 40])), draw(st.sampled_from([0, 1, 2]))
    limit = overhead + draw(st.sampled_from([1, 10, 64, 1000]))
    limits = Limits(draw(st.sampled_from([1, 2, 20, 100])), limit, overhead, separator)
    room = limit - overhead
    near = sorted({size for n in (1, 2, 3) for size in (room // n - 2, room // n - 1, room // n) if 0 < size <= room})
    sizes = st.sampled_from([*near, 1])
    weights = st.sampled_from([1, 1, 1, 2, limits.records])
    keys = st.sampled_from([None, None, "k1", "k2"])
    drawn = draw(st.lists(st.tuples(sizes, weights, keys), min_size=1, max_size=60))
    return limits, [Item(b"x" * size, min(weight, limits.records), key) for size, weight, key in drawn]


@pytest.mark.promise("P7")
@settings(max_examples=300)
@given(loads())
def test_no_batch_is_over_a_limit_and_none_is_closed_early(given_load: tuple[Limits, list[Item]]) -> None:
    """Size and weight are exact, never above the limits, and a batch is closed only where the next item would not fit.

    Kills: testing a limit after adding; forgetting the separator; charging an item that merges.
    """
    limits, items = given_load
    batches = fill(items, limits)
    assert [d.item for batch in batches for d in batch.deliveries] == items
    for number, batch in enumerate(batches):
        seen: dict[Any, Item] = {}
        for place, one in enumerate(batch.deliveries):
            seen.setdefault(place if one.item.merge_key is None else one.item.merge_key, one.item)
        bodies = [item.body for item in seen.values()]
        size = limits.overhead + sum(map(len, bodies)) + limits.separator * (len(bodies) - 1)
        weight = sum(item.weight for item in seen.values())
        assert (batch.size, batch.weight) == (size, weight)
        assert size <= limits.bytes
        assert weight <= limits.records
        assert batch.full == (size >= limits.bytes or weight >= limits.records)
        if number + 1 < len(batches):
            following = batches[number + 1].deliveries[0].item
            assert (
                size + limits.separator + len(following.body) > limits.bytes
                or weight + following.weight > limits.records
            )


def test_the_first_item_is_always_taken() -> None:
    """An item too large alone opens a batch of its own: the sender refuses it, the batch never loses it."""
    limits = Limits(2, 10, 2, 1)
    item = Item(b"x" * 50, weight=9)
    batch = OpenBatch(None, limits, 0.0)
    assert batch.fill([delivery(item)]) == 1
    assert batch.fill([delivery(Item(b"y"))]) == 0
    assert batch.size == size_alone(item, limits) == 52


def jiguang(limit: int) -> Vendor:
    """Return the real vendor with a small limit of bytes."""
    return Jiguang(
        JiguangSettings.model_validate(
            {
                "vendor": "jiguang",
                "project_id": "1",
                "project_secret": "s",
                "app_key": "ключ",
                "batch": {"bytes": limit},
            }
        )
    )


def mytracker(limit: int) -> Vendor:
    """Return the real vendor with a small limit of bytes."""
    return MyTracker(
        MyTrackerSettings.model_validate({"vendor": "mytracker", "id_app": 1, "token": "t", "batch": {"bytes": limit}})
    )


def jiguang_event(text: str, number: int) -> VendorEvent:
    """Return an event with a text of any length."""
    fields = {"cuid": number, "eventName": "e", "itime": NOW, "properties": {"p": text}}
    return VendorEvent(fields, f"id-{number}")


def mytracker_event(text: str, number: int) -> VendorEvent:
    """Return an event with a text of any length."""
    fields = {"method": "customEvent", "customUserId": str(number), "customEventName": "e"}
    return VendorEvent({**fields, "customEventParams": {"p": text or "-"}}, f"id-{number}")


@pytest.mark.promise("P7")
@pytest.mark.parametrize(("make", "event"), [(jiguang, jiguang_event), (mytracker, mytracker_event)])
@settings(max_examples=60)
@given(
    texts=st.lists(st.text(alphabet='aé漢\U0001f600"\\\n', max_size=80), min_size=1, max_size=60),
    limit=st.sampled_from([400, 401, 799, 1500, 10_000]),
)
def test_a_batchs_size_is_that_of_the_real_body(make: Any, event: Any, texts: list[str], limit: int) -> None:
    """What a batch counts is to the byte what the vendor's request sends, and neither passes the limit.

    Kills: counting characters for bytes; a prefix or suffix that the limits do not know.
    """
    vendor = make(limit)
    group = vendor.group(event("x", 0))
    limits = vendor.limits(group)
    items = []
    for number, text in enumerate(texts):
        try:
            items.append(vendor.encode(event(text, number), NOW))
        except Refusal:
            continue
    items = [item for item in items if size_alone(item, limits) <= limits.bytes]
    for batch in fill(items, limits):
        if batch.deliveries:
            body = vendor.request(group, [d.item for d in batch.deliveries], NOW).body
            assert len(body) == batch.size <= limit
            assert batch.weight <= limits.records


def test_a_part_of_a_batch_keeps_its_history() -> None:
    """What is taken apart keeps attempts, failures and times, so that giving up counts from the first attempt."""
    opened = OpenBatch("g", Limits(10, 1000, 0, 0), 0.0)
    opened.fill([delivery(Item(b"x"), n) for n in range(3)])
    batch = opened.close("linger")
    batch.attempts, batch.failures, batch.first_attempt, batch.asked, batch.reason = 3, 2, 17.0, 1, "HTTP 500"
    part = batch.part(batch.deliveries[1:])
    assert (part.attempts, part.failures, part.first_attempt, part.asked) == (3, 2, 17.0, 1)
    assert (part.group, part.closed_by, part.reason) == ("g", "linger", "HTTP 500")
    assert [d.record.offset for d in part.deliveries] == [1, 2]


def test_a_delivery_charges_all_that_it_holds() -> None:
    """The charge is a fixed part, and the bytes of key, value and item."""
    assert charge_of(delivery(Item(b"")).record, b"12345") == FIXED_CHARGE + 3 + 5 + 5


def test_a_deliverys_text_holds_no_value() -> None:
    """What a traceback or a log shows of a delivery is its place. Kills: the text that a struct makes of its fields."""
    assert repr(delivery(Item(b"body"))) == "<Delivery of t[0]@0>"
