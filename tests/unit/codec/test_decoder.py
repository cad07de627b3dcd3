"""The decoder gives events or refusals, and nothing else, whatever bytes and schemas come."""

import gc
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from connector.codec.decoder import Decoder
from connector.codec.encoder import Encoder, compile_write
from connector.codec.frames import SchemaKey
from connector.codec.schemas import Contracts, Schema, load_contracts, read_schema, without_logical_types
from connector.errors import Refusal, SchemaUnavailable, StartupError
from connector.records import DecodedKey, Event, Headers, LogicalType, LogicalValue, Record
from connector.testing.clock import ManualClock

JIGUANG = "connector.events.JiguangUserEvent"
CONTRACTS = load_contracts()
USER = {
    "cuid": 7,
    "eventName": "pay",
    "itime": 1_700_000_000_123,
    "randomId": None,
    "properties": {"vip": True, "n": 2**40, "price": 1.5, "name": "名", "tags": ["a", "b"], "none": None},
}


def _schema(name: str, fields: list[tuple[str, Any]], **more: Any) -> Schema:
    tree = {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields], **more}
    return read_schema(json.dumps(tree))


def _record(value: bytes, topic: str = "events") -> Record:
    return Record(topic, 0, 0, 0, None, value, ())


def _single(schema: Schema, datum: Any) -> Record:
    plain = without_logical_types(schema.tree)
    return _record(b"\xc3\x01" + schema.fingerprint + compile_write(plain)(datum))


def _decoder(*schemas: Schema, contracts: Contracts = CONTRACTS, **plain: str) -> Decoder:
    return Decoder(contracts, clock=ManualClock(), schemas=schemas, plain=plain)


def _refused(decoder: Decoder, record: Record) -> Refusal:
    with pytest.raises(Refusal) as caught:
        decoder.event(record)
    assert caught.value.cause == "decode"
    return caught.value


ENCODER = Encoder(CONTRACTS, clock=ManualClock())


def test_a_contract_event_is_decoded_unchanged() -> None:
    """A contract schema's timestamp stays a number, and its datum equals what was encoded."""
    event = _decoder().event(_record(ENCODER.single_object(JIGUANG, USER)))
    assert event.schema == JIGUANG
    assert event.datum == USER
    assert type(event.datum["itime"]) is int


def test_a_union_of_records_says_which_one_it_is() -> None:
    """The envelope's body comes out as the full name and the datum."""
    envelope = {"id": "1", "target": "jiguang", "body": (JIGUANG, USER)}
    event = _decoder().event(_record(ENCODER.single_object("connector.events.Event", envelope)))
    assert event.datum["body"] == (JIGUANG, USER)


def test_values_of_logical_types_stay_as_written() -> None:
    """A foreign schema's values stay as written until a mapping asks; a uuid in text is text.

    Kills: a value out of range in a field that no route uses, which makes its record a dead letter.
    """
    schema = _schema(
        "com.acme.Order",
        [
            ("at", {"type": "long", "logicalType": "timestamp-micros"}),
            ("time", {"type": "int", "logicalType": "time-millis"}),
            ("price", {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}),
            ("id", {"type": "string", "logicalType": "uuid"}),
            ("who", [{"type": "record", "name": n, "fields": [{"name": "x", "type": "int"}]} for n in ("A", "B")]),
        ],
    )
    written: dict[str, Any] = {"at": 9223372036825200000, "time": -1, "price": b"\x49\x96\x02\xd3", "id": "NO-UUID"}
    event = _decoder(schema).event(_single(schema, {**written, "who": ("com.acme.B", {"x": 1})}))
    assert event.datum == {
        "at": LogicalValue(LogicalType("timestamp-micros"), written["at"]),
        "time": LogicalValue(LogicalType("time-millis"), -1),
        "price": LogicalValue(LogicalType("decimal", 2), written["price"]),
        "id": "NO-UUID",
        "who": {"x": 1},
    }


def test_an_older_and_a_newer_writer_are_read_with_the_contract() -> None:
    """A field that the writer lacks has the contract's default, one that only the writer has is left out."""
    fields: list[dict[str, Any]] = CONTRACTS.schemas[JIGUANG].tree["fields"]
    older = {f["name"]: f["type"] for f in fields if f["name"] != "randomId"}
    newer = {**{f["name"]: f["type"] for f in fields}, "added": "string"}
    for types in (older, newer):
        writer = _schema(JIGUANG, list(types.items()))
        datum = {name: {**USER, "added": "x"}[name] for name in types}
        event = _decoder(writer).event(_single(writer, datum))
        assert event.datum == USER


def test_a_newer_writer_of_the_envelope_keeps_its_tags() -> None:
    """Also where schemas are resolved a union of records says which one it is."""
    tree = json.loads(CONTRACTS.schemas["connector.events.Event"].text)
    tree["fields"].insert(0, {"name": "added", "type": "int"})
    writer = read_schema(json.dumps(tree))
    event = _decoder(writer).event(_single(writer, {"added": 1, "id": "1", "target": "t", "body": (JIGUANG, USER)}))
    assert event.datum == {"id": "1", "target": "t", "body": (JIGUANG, USER)}


def test_a_contract_name_with_other_types_is_a_mismatch() -> None:
    """A writer that uses a contract's name for something else is refused, as a mismatch of schemas."""
    writer = _schema(JIGUANG, [("cuid", "string")])
    assert _refused(_decoder(writer), _single(writer, {"cuid": "x"})).code == "decode.schema_mismatch"


def test_bytes_left_over_are_refused() -> None:
    """A value that goes on after its datum was written with another schema."""
    record = _record(ENCODER.single_object(JIGUANG, USER) + b"\0")
    assert _refused(_decoder(), record).code == "decode.trailing_bytes"


@given(st.integers(10, 60))
def test_a_cut_value_is_refused(length: int) -> None:
    """Wherever a value is cut, it is refused and never an event."""
    value = ENCODER.single_object(JIGUANG, USER)
    assert _refused(_decoder(), _record(value[: min(length, len(value) - 1)])).code == "decode.payload"


@pytest.mark.promise("P14")
@given(st.binary(max_size=80))
def test_any_bytes_are_an_event_or_a_refusal(noise: bytes) -> None:
    """Noise in place of a value is a refusal or happens to be a value; no other exception leaves the decoder.

    Kills: an exception of the decoder that does not become a refusal.
    """
    head = ENCODER.single_object(JIGUANG, USER)[:10]
    try:
        event = _decoder().event(_record(head + noise))
    except Refusal as refusal:
        assert refusal.code in {"decode.payload", "decode.trailing_bytes"}  # noqa: PT017 - noise may also be a datum
    else:
        assert set(event.datum) == set(USER)


def test_a_refusal_never_shows_a_value() -> None:
    """What the decoder trips over may be personal: the message names the schema and the kind of error only."""
    schema = _schema("R", [("f", "string")])
    payload = b"\x10\xffsecret!"
    refusal = _refused(_decoder(schema), _record(b"\xc3\x01" + schema.fingerprint + payload))
    assert "secret" not in refusal.message
    assert "not UTF-8" in refusal.message


@pytest.mark.slow
@pytest.mark.parametrize(
    "value", [b"no avro", b"", b"\0\0\0\0\7", b"\xc3\x01" + CONTRACTS.schemas[JIGUANG].fingerprint + b"\x02"]
)
def test_refused_records_are_freed_without_the_cycle_collector(value: bytes) -> None:
    """The collector runs seldom (`app.GC_THRESHOLD`): until then a cycle would keep every record of a poll.

    Kills: an outcome that is kept with its traceback or context, whose frames hold the list that it is in.
    """
    decoder = _decoder()
    gc.collect()
    gc.disable()
    try:
        outcomes = decoder.decode([_record(value) for _ in range(3)])
        assert [type(outcome) for outcome in outcomes] == [Refusal] * 3
        del outcomes
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_thirty_million_nulls_are_refused_quickly() -> None:
    """Five bytes that claim 30 million items are refused before the engine builds them."""
    schema = _schema("R", [("f", {"type": "array", "items": "null"})])
    claim = compile_write({"type": "record", "name": "L", "fields": [{"name": "n", "type": "long"}]})({"n": 30_000_000})
    refusal = _refused(_decoder(schema), _record(b"\xc3\x01" + schema.fingerprint + claim + b"\0"))
    assert refusal.code == "decode.payload"
    assert "more values" in refusal.message


def test_a_schema_that_is_no_record_is_refused() -> None:
    """An event is a record; a bare string or a union at the top is not."""
    schema = read_schema('"string"')
    assert _refused(_decoder(schema), _single(schema, "x")).code == "decode.schema_mismatch"


CHOICE = read_schema(
    json.dumps(
        [
            "null",
            {"type": "record", "name": "shop.Paid", "fields": [{"name": "sum", "type": "int"}]},
            {"type": "record", "name": "shop.Sent", "fields": [{"name": "paid", "type": "shop.Paid"}]},
            json.loads(CONTRACTS.schemas[JIGUANG].text),
        ]
    )
)


@pytest.mark.parametrize(
    ("datum", "branch", "name"),
    [
        ({"sum": 5}, 1, "shop.Paid"),
        ({"paid": {"sum": 5}}, 2, "shop.Sent"),
        (USER, 3, JIGUANG),
    ],
)
def test_a_union_at_the_top_is_the_record_that_is_there(datum: Any, branch: int, name: str) -> None:
    """Several types of events in one topic: each value is an event of its own schema, a contract's too.

    Kills: a schema refused because it is a union.
    """
    decoder = _decoder(CHOICE)
    record = _record(b"\xc3\x01" + CHOICE.fingerprint + compile_write(CHOICE.tree)((name, datum)))
    assert decoder.event(record) == Event(name, datum)
    assert decoder.peek(record) == name
    tree, start = decoder.schema_of(record)
    assert (tree["name"], start) == (name, 11)
    assert (record.value or b"")[10] == 2 * branch


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        (b"\x00", "decode.schema_mismatch"),
        (b"\x08", "decode.payload"),
        (b"\x01", "decode.payload"),
        (b"", "decode.payload"),
    ],
    ids=["null", "no such branch", "branch -1", "nothing"],
)
def test_a_union_at_the_top_without_a_record_is_refused(rest: bytes, code: str) -> None:
    """A branch that is not a record, or that does not exist, is the record's own fault."""
    assert _refused(_decoder(CHOICE), _record(b"\xc3\x01" + CHOICE.fingerprint + rest)).code == code


@pytest.mark.parametrize("schema_id", [0, 2**31, 2**32 - 1])
def test_an_id_out_of_range_is_refused_at_the_frame(schema_id: int) -> None:
    """Ids are 1 to 2147483647; the registry is never asked for another. Kills: garbage that holds every destination."""
    refusal = _refused(_decoder(), _record(b"\0" + schema_id.to_bytes(4, "big") + b"x"))
    assert refusal.code == "decode.frame"
    assert "2147483647" in refusal.message


def test_an_unknown_fingerprint_is_refused() -> None:
    """No registry is asked for a fingerprint, so an unknown one is the record's fault, with where schemas come from."""
    refusal = _refused(_decoder(), _record(b"\xc3\x01" + b"?" * 8))
    assert refusal.code == "decode.schema_unknown"
    assert "schemas.files" in refusal.message


def test_an_id_without_a_registry_is_refused() -> None:
    """Without a configured registry no one could ever know the id."""
    refusal = _refused(_decoder(), _record(b"\0\0\0\0\1x"))
    assert refusal.code == "decode.schema_unknown"
    assert "schema_registry" in refusal.message


def test_plain_values_are_read_by_the_topics_schema() -> None:
    """A topic's plain values are read with the schema that the settings name."""
    schema = _schema("com.acme.Plain", [("n", "int")])
    assert _decoder(schema, events="com.acme.Plain").event(_record(b"\x02")).datum == {"n": 1}


def test_a_plain_topic_without_a_schema_stops_the_start() -> None:
    """A name that no schema has is a fault of the configuration."""
    with pytest.raises(StartupError, match=r"schemas\.plain\.events"):
        _decoder(events="no.Such")


def test_peek_names_the_schema_without_decoding() -> None:
    """`peek` knows a resolved schema's name even where the datum is broken, and None where there is none."""
    decoder = _decoder()
    assert decoder.peek(_record(ENCODER.single_object(JIGUANG, USER)[:12])) == JIGUANG
    assert decoder.peek(_record(b"\0\0\0\0\1x")) is None
    assert decoder.peek(_record(b"")) is None


async def test_the_encoder_refuses_what_is_not_the_schemas() -> None:
    """A datum with a missing field is a ValueError, not a broken value on a topic."""
    write = await ENCODER.writer("topic", JIGUANG)
    with pytest.raises(ValueError, match="cuid"):
        write({"eventName": "x"})


def test_a_map_of_a_vendors_own_schema_is_passed_on_as_json_too() -> None:
    """Whatever schema it is: a field that is not looked into comes written. Kills: a short way for our own only."""
    schema = _schema("com.acme.Event", [("m", {"type": "map", "values": "string"})])
    decoder = Decoder(Contracts({}), clock=ManualClock(), schemas=[schema], as_json={("com.acme.Event", "m")})
    event = decoder.event(_single(schema, {"m": {"a": "b"}}))
    assert orjson.dumps(event.datum) == b'{"m":{"a":"b"}}'


@pytest.mark.parametrize("topic", ["events", "plain"])
def test_a_map_that_new_routes_read_becomes_a_dictionary(topic: str) -> None:
    """After a reload a field that routes now read is no longer passed on as JSON, and the other way round.

    Kills: schemas known from the start that go on decoding for the routes of the start.
    """
    schema = _schema("com.acme.Event", [("m", {"type": "map", "values": "string"})])
    as_json, plain = {("com.acme.Event", "m")}, {"plain": "com.acme.Event"}
    decoder = Decoder(Contracts({}), clock=ManualClock(), schemas=[schema], as_json=as_json, plain=plain)
    record = _single(schema, {"m": {"a": "b"}})
    if topic == "plain":
        record = replace(record, topic=topic, value=(record.value or b"")[10:])

    def found() -> list[type]:
        (event,) = decoder.decode([record])
        assert isinstance(event, Event)
        return [type(event.datum["m"]), type(decoder.event(record).datum["m"])]

    assert found() == [orjson.Fragment, orjson.Fragment]
    decoder.look_into((), keys=False)
    assert found() == [dict, dict]
    decoder.look_into(as_json, keys=False)
    assert found() == [orjson.Fragment, orjson.Fragment]


SMALL = _schema("com.acme.Small", [("n", "int")])
TIMED = _schema("com.acme.Timed", [("at", {"type": "long", "logicalType": "timestamp-millis"})])
GUARDED = _schema("com.acme.Nulls", [("many", {"type": "array", "items": "null"})])
PLAIN = [
    ENCODER.single_object(JIGUANG, USER),
    ENCODER.single_object(JIGUANG, {**USER, "cuid": 8}),
    _single(SMALL, {"n": 5}).value,
    b"\0\0\0\0\7" + compile_write(SMALL.tree)({"n": 6}),
    _single(TIMED, {"at": 1_767_312_000_000}).value,
    _single(GUARDED, {"many": [None, None]}).value,
]
ODD = [
    _record(b""),
    replace(_record(PLAIN[0] or b""), value=None),
    _record((PLAIN[0] or b"")[:-3]),
    _record((PLAIN[0] or b"") + b"x"),
    _record((PLAIN[0] or b"")[:7]),
    _record(b"\0\0\0\0\7"),
    _record(b"\0\0\0\0\x08\x0a"),
    replace(_record(PLAIN[0] or b""), headers=(("trace", b"1"),)),
]


@given(
    st.lists(st.sampled_from([_record(value or b"") for value in PLAIN]), max_size=6),
    st.lists(st.sampled_from([*ODD, _record(PLAIN[0] or b"")]), max_size=3),
)
def test_a_run_is_decoded_as_each_of_its_records_is(plain: list[Record], rest: list[Record]) -> None:
    """Of each the same event, or the same reason why there is none.

    Kills: a payload read with the writer of the one before, one that is cut or too long, a fault that is passed over.
    """
    decoder = _decoder(SMALL, TIMED, GUARDED)
    decoder._remember(SchemaKey("id", 7), decoder._known[SchemaKey("name", SMALL.name or "")])
    records = [*plain, *rest]
    assert list(map(_shown, decoder.decode(records))) == [_shown(_alone(decoder, record)) for record in records]


def _alone(decoder: Decoder, record: Record) -> Event | Refusal | SchemaUnavailable:
    try:
        return decoder.event(record)
    except (Refusal, SchemaUnavailable) as error:
        return error


def _shown(outcome: Event | Refusal | SchemaUnavailable) -> object:
    return outcome if isinstance(outcome, Event) else repr(outcome)


KEYS = [
    read_schema('"string"'),
    read_schema('{"type":"record","name":"shop.Key","fields":[{"name":"id","type":"long"}]}'),
    read_schema('["null", "long"]'),
    read_schema('["null", ["int"]]'),
    read_schema('{"type":"fixed","name":"F","size":100000000000000000000000}'),
]


def _keyed(key: bytes | None, headers: Headers = (), *, keys: bool = True) -> Event:
    decoder = Decoder(CONTRACTS, clock=ManualClock(), schemas=[SMALL], keys=keys)
    for number, schema in enumerate(KEYS, 1):
        decoder._remember(SchemaKey("id", number), decoder._found(schema))
    record = replace(_single(SMALL, {"n": 5}), key=key, headers=headers)
    (found,) = decoder.decode([record])
    assert isinstance(found, Event)
    assert found == decoder.event(record)
    return found


@pytest.mark.parametrize(
    ("key", "headers", "datum"),
    [
        (b"\0\0\0\0\1\x04ab", (), "ab"),
        (b"\0\0\0\0\2\x0e", (), {"id": 7}),
        (b"\0\0\0\0\3\x02\x0e", (), 7),
        (b"\x0e", [("__key_schema_id", b"\0\0\0\0\2")], {"id": 7}),
    ],
    ids=["text", "record", "union", "header"],
)
def test_a_key_is_decoded_by_the_schema_that_it_names(key: bytes, headers: Headers, datum: Any) -> None:
    """A key's schema may be any, named in the key or in its header. Kills: a schema id sent as control characters."""
    event = _keyed(key, headers)
    assert event.key == DecodedKey(datum)
    assert event.datum == {"n": 5}
    assert _keyed(key, headers, keys=False).key is None


@pytest.mark.parametrize("key", [None, b"", b"user-1", b"\0\0\0"])
def test_a_key_without_a_schema_is_text(key: bytes | None) -> None:
    """Any other key is left to the route, which takes it as text."""
    assert _keyed(key).key is None


@pytest.mark.parametrize(
    "key",
    [
        b"\0\0\0\0\1\x04a",
        b"\0\0\0\0\2\x0e\0",
        b"\0\0\0\0\0abc",
        b"\0\xff\xff\xff\xffabc",
        b"\0\0\0\0\1\x02\xff",
        b"\0\0\0\0\4\0",
        b"\0\0\0\0\5\0",
    ],
    ids=["cut", "bytes left", "id 0", "id too large", "not UTF-8", "schema not valid", "fixed too large"],
)
def test_a_fault_of_the_key_is_kept_with_the_event(key: bytes) -> None:
    """A key that cannot be decoded harms only a route that reads it. Kills: a record refused for an unused key."""
    found = _keyed(key).key
    assert found is not None
    assert found.fault


@pytest.mark.parametrize(
    "header",
    [("__key_schema_id", None), ("apicurio.key.contentId", b""), ("apicurio.key.globalId", b"\0\0\0\0\0\0\0\1")],
)
def test_a_key_whose_header_names_no_schema_is_no_text(header: tuple[str, bytes | None]) -> None:
    """The key is Avro, so it is never sent as text. Kills: a length byte and the text behind it sent as an id."""
    found = _keyed(b"\x04ab", [header]).key
    assert found is not None
    assert header[0] in (found.fault or "")
