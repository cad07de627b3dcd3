"""Items that compiled code writes from plain records: the same bytes as `encode` makes, or none."""

from __future__ import annotations

import io
import json
from collections.abc import Hashable
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from typing import Any, Final

import pytest
from fastavro import schemaless_writer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector import vendors
from connector.clock import SystemClock
from connector.codec.decoder import Decoder
from connector.codec.schemas import load_contracts, read_schema, without_logical_types
from connector.errors import Refusal
from connector.pipeline.batching import FIXED_CHARGE, Delivery, Offer, charge_of
from connector.pipeline.offsets import PartitionTracker, destination_bit
from connector.records import Item, Record
from connector.vendors.base import Shaped, ShapeMapping, Vendor, VendorEvent
from connector.vendors.mytracker import METHODS, NUMBERS, PLATFORMS, STRINGS

NOW: Final = int(datetime(2026, 11, 22, tzinfo=UTC).timestamp() * 1000)
DAY: Final = 24 * 3600 * 1000
CONTRACTS: Final = load_contracts()
BIT: Final = destination_bit(0)
ACCOUNTS: Final[dict[str, dict[str, Any]]] = {
    "jiguang": {"project_id": "p", "project_secret": "s", "app_key": "k"},
    "quick_audience": {
        "base_url": "https://qa.example",
        "access_id": 'a"礼',
        "access_key": "k",
        "access_secret": "s",
        "app_id": "i",
    },
    "mytracker": {"id_app": 1, "token": "t"},
    "jpush_report": {"app_key": "k", "master_secret": "s", "results_topic": "r", "vip": False},
}
KINDS: Final = {name: kind for name, kind in vendors.kinds().items() if name in ACCOUNTS}
TEXTS: Final = st.text(max_size=12) | st.sampled_from(["", '"', "\\", "\n", "\x00", "\x7f", "é", "礼", "\u2028", "😀"])
LONGS: Final = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 9, 10, -(2**63), 2**63 - 1])
SECONDS: Final = st.sampled_from([0, 946_673_999, 946_674_000, 4_294_967_295, 4_294_967_296, NOW // 1000]) | LONGS
SIZES: Final = st.sampled_from([0, 1, 15, 16, 17, 32, 36, 45, 255, 256, 1024, 2048])
SIZED: Final = st.builds(lambda size, text: text * size, SIZES, st.sampled_from(["a", "礼", "😀", '"'])) | TEXTS
TIMES: Final = st.integers(NOW - 400 * DAY, NOW + 10 * 60_000) | st.sampled_from(
    [NOW - 366 * DAY, NOW - 366 * DAY - 1, NOW + 5 * 60_000, NOW + 5 * 60_000 + 1]
)
VALUES: Final = st.none() | st.booleans() | LONGS | st.floats() | TEXTS | st.lists(TEXTS, max_size=3)
EVENTS: Final[dict[str, st.SearchStrategy[dict[str, Any]]]] = {
    "jiguang": st.fixed_dictionaries(
        {
            "cuid": LONGS,
            "eventName": TEXTS | st.just("order"),
            "itime": TIMES | st.just(NOW),
            "randomId": st.none() | TEXTS,
            "properties": st.dictionaries(st.text("abc", min_size=1, max_size=2) | TEXTS, VALUES, max_size=6),
        }
    ),
    "quick_audience": st.fixed_dictionaries(
        {
            "customerId": TEXTS | st.just("c"),
            "eventCode": TEXTS | st.just("e"),
            "eventTime": LONGS,
            **dict.fromkeys(
                ("organizationId", "workspaceId", "entityId", "comeFrom", "eventChannel"), st.none() | TEXTS
            ),
            "isOrder": st.none() | st.sampled_from(["0", "1", "", "2", "01"]),
            "extendAttributes": st.dictionaries(st.text("abc", min_size=1, max_size=2) | TEXTS, TEXTS, max_size=6),
            "customerIdList": st.just([])
            | st.lists(st.fixed_dictionaries({"customerId": TEXTS, "idMapping": TEXTS}), max_size=1),
        }
    ),
    "mytracker": st.fixed_dictionaries(
        {"method": st.sampled_from([*METHODS, "customEvent"]), "customUserId": st.none() | SIZED | st.just("u")},
        optional={
            **{
                name: st.none() | (st.sampled_from([*PLATFORMS, "x", ""]) if name == "vkPlatform" else SIZED)
                for name in STRINGS
                if name != "customUserId"
            },
            **{name: st.none() | st.integers(-1, 3) | SECONDS for name in NUMBERS},
            "customEventName": st.none() | SIZED | st.just("e"),
            "customEventParams": st.none()
            | st.dictionaries(st.text("abc", min_size=1, max_size=2) | SIZED, st.just("v") | SIZED, max_size=4),
        },
    ),
    "jpush_report": st.fixed_dictionaries(
        {
            "id": TEXTS,
            "query": st.tuples(
                st.sampled_from(["connector.events.Received", "connector.events.Messages"]),
                st.fixed_dictionaries({"msg_id": LONGS}),
            )
            | st.just(("connector.events.Users", {"time_unit": "DAY", "start": "2026-11-01", "duration": 1})),
        }
    ),
}
PLAIN: Final[dict[str, dict[str, Any]]] = {
    "jiguang": {"cuid": 1, "eventName": "order", "itime": NOW, "randomId": None, "properties": {"a": 1.5, "b": ["c"]}},
    "quick_audience": {
        "customerId": "c",
        "eventCode": "e",
        "eventTime": NOW,
        "organizationId": None,
        "workspaceId": "w",
        "entityId": None,
        "isOrder": "1",
        "comeFrom": None,
        "eventChannel": None,
        "extendAttributes": {"a": "b"},
        "customerIdList": [],
    },
    "jpush_report": {"id": "q", "query": ("connector.events.Received", {"msg_id": 7})},
    "mytracker": {
        "method": "customEvent",
        "customUserId": "u",
        "customEventName": "e",
        "customEventParams": {"a": "b"},
    },
}
"""An event of each vendor that compiled code has to write."""


def vendor_of(name: str, **more: Any) -> Vendor:
    """Return the vendor, all its rules on."""
    return KINDS[name].build(KINDS[name].settings(vendor=name, **ACCOUNTS[name], **more))


@cache
def decoder_of(name: str) -> Decoder:
    """Return a decoder that passes maps on, as it does where no route reads them."""
    kind = KINDS[name]
    return Decoder(CONTRACTS, clock=SystemClock(), as_json={(kind.schema, field) for field in kind.as_json})


def written(tree: Any, datum: dict[str, Any], fingerprint: bytes) -> bytes:
    """Return a value in single-object encoding, as fastavro writes it."""
    stream = io.BytesIO()
    schemaless_writer(stream, tree, datum)
    return b"\xc3\x01" + fingerprint + stream.getvalue()


@cache
def contract_of(name: str) -> tuple[Any, bytes]:
    """Return the vendor's contract schema and its fingerprint."""
    schema = CONTRACTS.schemas[KINDS[name].schema]
    return without_logical_types(schema.tree), schema.fingerprint


def value_of(name: str, datum: dict[str, Any]) -> bytes:
    """Return an event of the contract schema as a record's value."""
    tree, fingerprint = contract_of(name)
    return written(tree, datum, fingerprint)


def record_of(offset: int, value: bytes, key: bytes | None = b"key") -> Record:
    """Return a record with the value."""
    return Record("topic", 3, offset, NOW, key, value, ())


def at_once(
    vendor: Vendor, decoder: Decoder, records: list[Record], mapping: ShapeMapping | None = None
) -> list[tuple[Hashable, Delivery]]:
    """Return the groups and deliveries that compiled code makes of the first records, as intake asks for them."""
    assert isinstance(vendor, Shaped)
    found = decoder.plain(records[0])
    maker = None if found is None else found[1].maker(vendor.shape, mapping)
    if found is None or maker is None:
        return []
    limits, ahead = vendor.limits(None), vendor.clock_ahead
    room, tracker = limits.bytes - limits.overhead, PartitionTracker("topic", 3, 0, ["d"])
    identity, now = b"cluster/topic/3/", NOW + ahead
    ahead = min(0, ahead)
    offers = maker(records, found[0], identity, now, ahead, room, FIXED_CHARGE, Item, Delivery, Offer, tracker, BIT)
    for offer, following in pairwise(offers):
        assert offer.group != following.group
    assert all(offer.charge == sum(delivery.charge for delivery in offer.deliveries) for offer in offers)
    return [(offer.group, delivery) for offer in offers for delivery in offer.deliveries]


def step_by_step(vendor: Vendor, decoder: Decoder, record: Record) -> tuple[Hashable, Item] | str:
    """Return the group and the item that the vendor's own `encode` makes, or the code of its refusal."""
    try:
        event = decoder.event(record)
        vendor_event = VendorEvent(event.datum, f"cluster/topic/3/{record.offset}", record.timestamp)
        return vendor.group(vendor_event), vendor.encode(vendor_event, NOW)
    except Refusal as refusal:
        return refusal.code


def assert_same(vendor: Vendor, decoder: Decoder, records: list[Record]) -> int:
    """Compare both ways record by record; return how many compiled code wrote."""
    made = at_once(vendor, decoder, records)
    for record, (group, delivery) in zip(records, made, strict=False):
        assert (group, delivery.item) == step_by_step(vendor, decoder, record)
        assert delivery.record is record
        assert delivery.identity == f"cluster/topic/3/{record.offset}"
        assert delivery.charge == charge_of(record, delivery.item.body)
        assert (delivery.bit, delivery.first_dedup_id, delivery.refused) == (BIT, None, None)
    return len(made)


@pytest.mark.parametrize("name", KINDS)
def test_plain_records_are_written_at_once(name: str) -> None:
    """A whole run of plain records needs no other way. Kills: a short way that is never taken."""
    records = [record_of(number, value_of(name, PLAIN[name]), key) for number, key in enumerate((b"k", None, b""))]
    assert assert_same(vendor_of(name), decoder_of(name), records) == 3


@pytest.mark.parametrize("odd", ['"', "\\", "\x00", "\x1f", "\x7f", "\x80", "é", " ", "!", "#", "[", "]", "~"])
def test_one_odd_character_is_escaped_wherever_it_is(odd: str) -> None:
    """Compiled code looks at eight bytes at once. Kills: a byte that it overlooks, next to any other, at an end."""
    texts = [f"{fill * place}{odd}{fill * rest}" for fill in ("a", "~") for place in range(18) for rest in range(18)]
    data = [PLAIN["jiguang"] | {"properties": {"text": text}} for text in texts]
    records = [record_of(number, value_of("jiguang", datum)) for number, datum in enumerate(data)]
    made = at_once(vendor_of("jiguang"), decoder_of("jiguang"), records)
    # Not compared with `encode`, which passes on JSON of the same writer.
    assert [json.loads(delivery.item.body)["properties"]["text"] for _, delivery in made] == texts


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)).flatmap(lambda name: st.tuples(st.just(name), st.lists(EVENTS[name], max_size=4))),
    st.integers(0, 2**62),
)
@example(("jiguang", [PLAIN["jiguang"] | {"itime": NOW - 366 * DAY}, PLAIN["jiguang"] | {"itime": NOW + 300_000}]), 0)
def test_an_item_written_at_once_is_what_encode_makes(drawn: tuple[str, list[dict[str, Any]]], offset: int) -> None:
    """The same item to the byte, id and expiry included. Kills: a rule that only the slow way knows; another id."""
    name, data = drawn
    data = [PLAIN[name], *data]
    records = [record_of(offset + number, value_of(name, datum)) for number, datum in enumerate(data)]
    assert assert_same(vendor_of(name), decoder_of(name), records) >= 1


@st.composite
def near_limits(draw: st.DrawFn) -> dict[str, Any]:
    """Draw an event of MyTracker whose parameters are at a bound, or one past it in one of them."""
    datum = dict(PLAIN["mytracker"])
    names = draw(st.lists(st.sampled_from([*STRINGS, *NUMBERS, "customEventParams"]), max_size=4, unique=True))
    past = draw(st.sampled_from(["", *names]))
    for name in names:
        if name in NUMBERS:
            least, most = NUMBERS[name]
            datum[name] = draw(st.sampled_from([least or 0, most])) + (name == past)
            continue
        least, longest = STRINGS.get(name, (1, 255))
        size = draw(st.sampled_from([max(1, least), longest or 9])) + (name == past)
        text = draw(st.sampled_from(["a", "礼", "😀", '"'])) * size
        datum[name] = {draw(st.sampled_from(["n", text])): text} if name == "customEventParams" else text
        if name == "vkPlatform" and name != past:
            datum[name] = draw(st.sampled_from(PLATFORMS))
    return datum | {"method": draw(st.sampled_from(METHODS))}


@settings(max_examples=200, deadline=None)
@given(near_limits())
def test_bounds_of_lengths_and_numbers_are_those_of_encode(datum: dict[str, Any]) -> None:
    """What `encode` takes at a bound is written, and what it refuses is not. Kills: bytes counted as characters."""
    vendor, decoder, record = (
        vendor_of("mytracker"),
        decoder_of("mytracker"),
        record_of(0, value_of("mytracker", datum)),
    )
    made = assert_same(vendor, decoder, [record])
    ended = step_by_step(vendor, decoder, record)
    # What only `encode` judges: parameters that it drops, and VK's pair.
    judged = {"vkPlatform", "customPlatformUserId", "customEventName", "customEventParams"} & datum.keys()
    assert made == (not isinstance(ended, str)) or (datum["method"] != "customEvent" and judged)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(KINDS)).flatmap(lambda name: st.tuples(st.just(name), EVENTS[name])), st.data())
def test_a_spoiled_record_is_never_taken_for_another(drawn: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    """A cut or changed value is left to the slow way, or is the same item. Kills: a read past the value's end."""
    name, datum = drawn
    value = value_of(name, datum)
    place = data.draw(st.integers(0, len(value) - 1))
    spoiled = value[:place]
    if data.draw(st.booleans()):
        spoiled += bytes([data.draw(st.integers(0, 255))]) + value[place + 1 :]
    assert_same(vendor_of(name), decoder_of(name), [record_of(0, spoiled)])


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=120), st.integers(0, 2**63 - 1))
def test_its_id_is_the_dedup_id(cluster: str, offset: int) -> None:
    """A name of any length has the id that every other way gives it. Kills: a hash that is wrong past one block."""
    vendor, decoder = vendor_of("jiguang"), decoder_of("jiguang")
    assert isinstance(vendor, Shaped)
    record = record_of(offset, value_of("jiguang", PLAIN["jiguang"]))
    found = decoder.plain(record)
    assert found is not None
    maker = found[1].maker(vendor.shape)
    assert maker is not None
    tracker = PartitionTracker("topic", 3, 0, ["d"])
    fixed = (NOW, 0, 10_000, FIXED_CHARGE, Item, Delivery, Offer, tracker, BIT)
    ((made,),) = [offer.deliveries for offer in maker([record], found[0], cluster.encode(), *fixed)]
    assert f'"randomId":"{made.dedup_id}"'.encode() in made.item.body
    assert made.identity == f"{cluster}{offset}"


@pytest.mark.parametrize(
    ("changed", "wrote"),
    [
        ({"headers": (("a", b"b"),)}, 1),
        ({"value": None}, 1),
        ({"value": value_of("jiguang", PLAIN["jiguang"] | {"eventName": ""})}, 1),
        ({"value": value_of("jiguang", PLAIN["jiguang"] | {"itime": NOW - 367 * DAY})}, 1),
        ({"value": value_of("jiguang", PLAIN["jiguang"]) + b"\0"}, 1),
        ({"value": value_of("jiguang", PLAIN["jiguang"] | {"properties": {"a": None}})}, 1),
        ({"value": value_of("jiguang", PLAIN["jiguang"] | {"properties": {"a": None, "b": 1}})}, 3),
        ({"value": value_of("jiguang", PLAIN["jiguang"] | {"properties": {"a": "x" * 2**20}})}, 1),
        ({"value": value_of("jiguang", PLAIN["jiguang"] | {"properties": {}})}, 3),
    ],
    ids=["headers", "null", "no name", "old", "bytes left", "null only", "null property", "large", "no properties"],
)
def test_a_record_that_is_not_plain_ends_the_run(changed: dict[str, Any], wrote: int) -> None:
    """What needs judgement is left to `encode`, and so is what follows. Kills: a record that is passed over."""
    plain = record_of(0, value_of("jiguang", PLAIN["jiguang"]))
    fields: dict[str, Any] = {
        "topic": "topic",
        "partition": 3,
        "offset": 1,
        "timestamp": NOW,
        "key": b"k",
        "headers": (),
    }
    records = [plain, Record(**({**fields, "value": plain.value} | changed)), record_of(2, plain.value or b"")]
    assert len(at_once(vendor_of("jiguang"), decoder_of("jiguang"), records)) == wrote


@pytest.mark.parametrize(("rules", "past"), [({}, 366 * DAY), ({"jiguang.itime.past": "off"}, None)])
@pytest.mark.parametrize(("ahead", "later"), [(120_000, 0), (-120_000, 120_000)])
def test_an_item_expires_by_both_clocks(ahead: int, later: int, rules: dict[str, str], past: int | None) -> None:
    """The rule's end moves with a vendor's clock that is behind, and is not there where the rule is off.

    Kills: our own clock alone.
    """
    vendor = vendor_of("jiguang", rules=rules)
    vendor.set_clock(ahead)  # type: ignore[attr-defined]  # Jiguang is `Timed`
    records = [record_of(0, value_of("jiguang", PLAIN["jiguang"] | {"itime": NOW + 100_000}))]
    assert assert_same(vendor, decoder_of("jiguang"), records) == 1
    ((_, delivery),) = at_once(vendor, decoder_of("jiguang"), records)
    assert delivery.item.expires_at == (None if past is None else NOW + 100_000 + past + later)


def test_a_branch_that_the_contract_does_not_have_is_left_to_the_slow_way() -> None:
    """An empty string where the contract has a map is a mismatch. Kills: a zero byte taken for an empty map."""
    contract = CONTRACTS.schemas["connector.events.JiguangUserEvent"].tree
    fields = [
        {**field, "type": ["string", field["type"]]} if field["name"] == "properties" else field
        for field in contract["fields"]
    ]
    schema = read_schema(json.dumps({"type": "record", "name": contract["name"], "fields": fields}))
    decoder = Decoder(CONTRACTS, clock=SystemClock(), schemas=[schema], as_json={(contract["name"], "properties")})
    tree = without_logical_types(schema.tree)
    records = [
        record_of(number, written(tree, PLAIN["jiguang"] | {"properties": properties}, schema.fingerprint))
        for number, properties in enumerate(({"a": 1}, {}, ""))
    ]
    assert assert_same(vendor_of("jiguang"), decoder, records) == 2


def test_a_writer_of_another_version_is_written_in_the_same_order() -> None:
    """Fields in another order, of another type, new and missing ones. Kills: bodies in the order of the writer."""
    name, contract = "jiguang", CONTRACTS.schemas["connector.events.JiguangUserEvent"].tree
    by_name = {field["name"]: field for field in contract["fields"]}
    tree = {
        "type": "record",
        "name": contract["name"],
        "fields": [
            by_name["properties"],
            {"name": "unknown", "type": ["null", {"type": "array", "items": "long"}]},
            {"name": "itime", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "cuid", "type": "int"},
            {"name": "eventName", "type": ["null", "string"]},
        ],
    }
    schema = read_schema(json.dumps(tree))
    decoder = Decoder(CONTRACTS, clock=SystemClock(), schemas=[schema], as_json={(contract["name"], "properties")})
    datum = PLAIN[name] | {"itime": NOW * 1000, "unknown": [1, 2]}
    records = [
        record_of(number, written(without_logical_types(tree), datum | {"eventName": text}, schema.fingerprint))
        for number, text in enumerate(("order", "pay", None))
    ]
    assert assert_same(vendor_of(name), decoder, records) == 2
