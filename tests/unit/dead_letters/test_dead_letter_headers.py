"""A dead letter's headers lose nothing of the original, and are read back as written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from connector.dead_letters.block import time_text as moment
from connector.dead_letters.dialects import NAMES, Dialect
from connector.dead_letters.export import facts_json
from connector.dead_letters.headers import (
    MESSAGE_LIMIT,
    TEXT_LIMIT,
    ParsedDeadLetter,
    dead_letter_id,
    parse,
    replayed,
    resolution,
    to_headers,
)
from connector.dead_letters.reader import DeadLetterEntry, parse_resolution
from connector.records import DeadLetter, Headers, Position, Record, uuid5_text

GROUP = "growth-connector"

header_names = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["dlq-version", "dlq-cause", "dlq-field", "dlq-origin-topic", "dlq-replays", "dlq-other", "trace"]),
)
values = st.one_of(st.none(), st.binary(max_size=50), st.sampled_from([b"1", b"", b"0", b"orders"]))
originals = st.lists(st.tuples(header_names, values), max_size=12)
texts = st.one_of(
    st.text(min_size=1, max_size=30),
    st.builds(
        lambda character, size: character * size,
        st.sampled_from("aé中😀\n"),
        st.sampled_from([1, 63, 64, 65, 85, 86, 128, 255, 256, 257, 341, 342, 512, 1023, 1024, 1025, 5000]),
    ),
)
# From the epoch of year 1 to past year 9999, in milliseconds, and Kafka's largest.
timestamps = st.one_of(st.integers(-1, 2**63 - 1), st.sampled_from([-1, 0, 1, 999, 253402300799999, 253402300800000]))
seconds = st.integers(0, 4_000_000_000_000).map(lambda millis: millis / 1000)


def dead_letter(headers: Headers = (), **changes: object) -> DeadLetter:
    """Return a dead letter of a record with these headers."""
    record = Record("orders", 3, 41, 1_700_000_000_123, b"key", b"value", headers)
    given_fields: dict[str, object] = {
        "record": record,
        "cause": "refused",
        "code": "4101",
        "message": "the event does not exist",
        "failed_at": 1_700_000_001.5,
        "dedup_id": "b0c4a7a2-58d8-5ad3-9f3b-0e6d3a6a6b9b",
        "vendor": "jiguang",
        "destination": "jiguang-prod",
    }
    return DeadLetter(**{**given_fields, **changes})  # type: ignore[arg-type]


def read(headers: Headers) -> ParsedDeadLetter:
    """Return a dead letter's parsed headers, which must be valid."""
    parsed = parse(headers)
    assert parsed is not None
    return parsed


dead_letters = st.builds(
    DeadLetter,
    record=st.builds(
        Record,
        topic=st.sampled_from(["orders", "user-events"]),
        partition=st.integers(0, 2**31 - 1),
        offset=st.integers(0, 2**63 - 1),
        timestamp=timestamps,
        key=st.none() | st.binary(max_size=5),
        value=st.none() | st.binary(max_size=5),
        headers=originals,
    ),
    cause=st.sampled_from(["decode", "route", "invalid", "refused", "too_large", "gave_up", "operator"]),
    code=st.none() | texts,
    message=texts,
    failed_at=seconds,
    dedup_id=st.uuids().map(str),
    field=st.none() | texts,
    vendor=st.none() | st.just("mytracker"),
    destination=st.none() | st.sampled_from(["tracker", "qa"]),
    http_status=st.none() | st.integers(100, 599),
    request_id=st.none() | texts,
    attempts=st.integers(0, 50),
    first_attempt=st.none() | seconds,
)


@pytest.mark.promise("P9")
@given(dead_letters)
def test_the_original_headers_are_kept_byte_for_byte(one: DeadLetter) -> None:
    """Names, values, nulls, duplicates and order, also of headers that look like ours, are kept in front.

    Kills: dropping every header whose name begins with dlq-, and keeping headers in a dictionary.
    """
    written = to_headers(one, group=GROUP)
    assert written[: len(one.record.headers)] == list(one.record.headers)
    assert read(written).original == tuple(one.record.headers)


@given(dead_letters)
def test_what_is_written_is_read_back(one: DeadLetter) -> None:
    """Every field of a dead letter survives the round trip, to the millisecond, texts up to their limit.

    Kills: reading the first dlq- header of a name, which may be the user's.
    """
    parsed = read(to_headers(one, group=GROUP))
    assert (parsed.cause, parsed.group, parsed.replays, parsed.attempts) == (one.cause, GROUP, 0, one.attempts)
    assert (parsed.origin, parsed.origin_timestamp) == (one.record.position, one.record.timestamp)
    assert (parsed.vendor, parsed.destination, parsed.http_status) == (one.vendor, one.destination, one.http_status)
    assert parsed.dedup_id == one.dedup_id
    assert abs(parsed.failed_at - one.failed_at * 1000) <= 1
    assert (parsed.first_attempt is None) == (one.first_attempt is None)
    for text, back in [(one.code, parsed.code), (one.field, parsed.field), (one.request_id, parsed.request_id)]:
        assert (text is None) == (back is None)
        assert text is None or (back is not None and text.startswith(back))


@given(dead_letters)
def test_the_block_is_bounded_and_cut_between_characters(one: DeadLetter) -> None:
    """A message is cut at 1 KiB and other untrusted texts at 256 bytes, always between characters.

    Kills: cutting by characters instead of bytes, and cutting inside a character.
    """
    block = dict(to_headers(one, group=GROUP)[len(one.record.headers) :])
    assert sum(len(name) + len(value or b"") for name, value in block.items()) < 3 * 1024
    limits = {"dlq-message": (one.message, MESSAGE_LIMIT)}
    limits |= {
        name: (text, TEXT_LIMIT)
        for name, text in [("dlq-code", one.code), ("dlq-field", one.field), ("dlq-request-id", one.request_id)]
        if text is not None
    }
    for name, (text, limit) in limits.items():
        data = block[name]
        assert data is not None
        kept = data.decode()
        assert text.startswith(kept)
        assert len(data) <= limit
        if kept != text:
            assert len(data) + len(text[len(kept)].encode()) > limit


@pytest.mark.promise("P9")
@given(dead_letters, dead_letters, st.integers(0, 3))
def test_a_second_failure_replaces_the_block(first: DeadLetter, second: DeadLetter, replays: int) -> None:
    """Origin, dedup id and the original headers stay those of the first failure; nothing is repeated and nothing grows.

    Kills: appending a block to a block, and taking the replay topic's position for the origin.
    """
    headers: Headers = to_headers(first, group=GROUP)
    for _ in range(replays):
        headers = replayed(headers)
    again = replace(second.record, topic="growth-connector.replay", headers=headers)
    failed = DeadLetter(
        *(again, second.cause, second.code, second.message, second.failed_at, second.dedup_id),
        destination="qa",
        replayed=True,
    )
    written = to_headers(failed, group=GROUP)
    parsed = read(written)
    assert parsed.original == tuple(first.record.headers)
    assert (parsed.origin, parsed.origin_timestamp) == (first.record.position, first.record.timestamp)
    assert (parsed.dedup_id, parsed.replays, parsed.cause) == (first.dedup_id, replays, second.cause)
    ours = [name for name, _ in written[len(first.record.headers) :]]
    assert len(ours) == len(set(ours))


@given(dead_letters, st.integers(0, 3))
def test_a_replayed_record_is_the_first_one_again(one: DeadLetter, replays: int) -> None:
    """A dead letter's headers restore the record as it was first read, so it is decoded and routed as before."""
    headers: Headers = to_headers(one, group=GROUP)
    for _ in range(replays):
        headers = replayed(headers)
    at_replay = replace(
        one.record, topic="growth-connector.replay", partition=0, offset=7, timestamp=5, headers=headers
    )
    assert read(headers).first_record(at_replay) == replace(one.record, headers=tuple(one.record.headers))


def test_the_format() -> None:
    """The documented headers, to the byte; those with nothing to say are absent."""
    written = to_headers(dead_letter([("trace", None), ("trace", b"\xff")], attempts=2, http_status=200), group=GROUP)
    dedup_id = "b0c4a7a2-58d8-5ad3-9f3b-0e6d3a6a6b9b"
    assert written == [
        ("trace", None),
        ("trace", b"\xff"),
        ("dlq-version", b"1"),
        ("dlq-id", uuid5_text('["growth-connector", "orders", 3, 41, 1700000000123, "jiguang-prod", 0]').encode()),
        ("dlq-cause", b"refused"),
        ("dlq-code", b"4101"),
        ("dlq-message", b"the event does not exist"),
        ("dlq-vendor", b"jiguang"),
        ("dlq-destination", b"jiguang-prod"),
        ("dlq-http-status", b"200"),
        ("dlq-attempts", b"2"),
        ("dlq-failed-at", b"2023-11-14T22:13:21.500Z"),
        ("dlq-origin-topic", b"orders"),
        ("dlq-origin-partition", b"3"),
        ("dlq-origin-offset", b"41"),
        ("dlq-origin-timestamp", b"2023-11-14T22:13:20.123Z"),
        ("dlq-dedup-id", dedup_id.encode()),
        ("dlq-group", b"growth-connector"),
        ("dlq-replays", b"0"),
    ]


def test_an_id_is_of_one_failure_of_one_record() -> None:
    """A dead letter that a crash wrote twice has one id; another destination or another replay has another id."""
    once, again = (
        to_headers(dead_letter(), group=GROUP),
        to_headers(dead_letter(failed_at=9.0, message="other"), group=GROUP),
    )
    assert read(once).id == read(again).id
    other = read(to_headers(dead_letter(destination="qa"), group=GROUP)).id
    failed_again = read(to_headers(dead_letter(replayed(once), replayed=True), group=GROUP)).id
    assert len({read(once).id, other, failed_again}) == 3


@pytest.mark.parametrize("dialect", ["connect", "spring"])
@given(first=dead_letters, second=dead_letters, own=originals)
def test_a_dialect_adds_headers_and_changes_no_other(
    first: DeadLetter, second: DeadLetter, own: Headers, *, dialect: Dialect
) -> None:
    """What the connector reads is the same with and without a dialect, and a second failure replaces its headers.

    Kills: a dialect's headers that become the record's own, and grow with each failure.
    """
    plain, more = (to_headers(first, group=GROUP, dialect=each) for each in (None, dialect))
    assert more[: len(plain)] == plain
    assert {name for name, _ in more[len(plain) :]} <= NAMES
    assert read(more) == read(plain)
    failed = replace(second.record, topic="growth-connector.replay", headers=replayed(more))
    again = to_headers(replace_record(second, failed), group=GROUP, dialect=dialect)
    assert read(again).original == tuple(first.record.headers)
    assert sum(name in NAMES for name, _ in again) - sum(name in NAMES for name, _ in first.record.headers) <= 9


def replace_record(dead: DeadLetter, record: Record) -> DeadLetter:
    """Return a dead letter of another record."""
    return DeadLetter(record, dead.cause, dead.code, dead.message, dead.failed_at, dead.dedup_id, replayed=True)


def test_the_dialects() -> None:
    """The documented headers of Kafka Connect and of Spring Kafka, to the byte."""
    dead = dead_letter()
    connect = dict(to_headers(dead, group=GROUP, dialect="connect"))
    assert {name: value for name, value in connect.items() if name.startswith("__connect")} == {
        "__connect.errors.topic": b"orders",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"41",
        "__connect.errors.connector.name": b"growth-connector",
        "__connect.errors.task.id": b"0",
        "__connect.errors.stage": b"TASK_PUT",
        "__connect.errors.class.name": b"connector",
        "__connect.errors.exception.class.name": b"refused: 4101",
        "__connect.errors.exception.message": b"the event does not exist",
    }
    spring = dict(to_headers(dead, group=GROUP, dialect="spring"))
    assert {name: value for name, value in spring.items() if name.startswith("kafka_dlt")} == {
        "kafka_dlt-original-topic": b"orders",
        "kafka_dlt-original-partition": b"\x00\x00\x00\x03",
        "kafka_dlt-original-offset": b"\x00\x00\x00\x00\x00\x00\x00\x29",
        "kafka_dlt-original-timestamp": (1_700_000_000_123).to_bytes(8, "big"),
        "kafka_dlt-original-timestamp-type": b"CREATE_TIME",
        "kafka_dlt-original-consumer-group": b"growth-connector",
        "kafka_dlt-exception-fqcn": b"refused: 4101",
        "kafka_dlt-exception-message": b"the event does not exist",
    }


@pytest.mark.parametrize("with_block", [False, True])
@pytest.mark.parametrize(
    "change", [{"offset": 42}, {"partition": 4}, {"topic": "clicks"}, {"timestamp": 1_700_000_000_124}]
)
def test_different_records_with_one_event_id_have_different_ids(*, with_block: bool, change: dict[str, int]) -> None:
    """Records that share a dedup id, or even a copied block, are different dead letters; so are two groups'.

    Kills: an id of the dedup id, and an id of the origin of a block that was copied to several records.
    """
    headers = to_headers(dead_letter(), group=GROUP) if with_block else []
    first = dead_letter(headers, replayed=with_block)
    second = dead_letter(headers, record=replace(first.record, **change), replayed=with_block)
    ids = {read(to_headers(each, group=GROUP)).id for each in (first, second)}
    assert len(ids) == (1 if with_block and "timestamp" in change else 2)
    assert read(to_headers(first, group="other")).id not in ids


WHOLE = to_headers(dead_letter(attempts=2, http_status=200, first_attempt=1.5, request_id="r", field="f"), group=GROUP)
odd_values = st.one_of(
    st.none(),
    st.binary(max_size=30),
    st.integers().map(lambda number: str(number).encode()),
    st.integers(-(10**40), 10**40).map(lambda number: str(number).encode()),
    st.datetimes().map(lambda time: time.isoformat().encode()),
    st.datetimes(timezones=st.timezones()).map(lambda time: time.isoformat().encode()),
    st.text(max_size=20).map(str.encode),
    st.sampled_from(
        [
            *(b"-99999999999999999999", b"9" * 5000, b"1_000", b" 7 ", b"+1", b"007", b"\xef\xbc\x91", b"NaN", b"1e9"),
            *(b"2026-11-21T09:30:00.250", b"2026-11-21", b"0000-00-00T00:00:00.000Z", b"9999-12-31T23:59:60.000Z"),
            *(b"2026-W01-1T00:00:00.0000Z", b"\xff\xfe", b"\xed\xa0\x80", b"x" * 40_000, b"2147483648", b"\x1b[2J"),
        ]
    ),
)


TIME = re.compile(rb"-?[0-9]{1,19}|[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}\.[0-9]{3}Z")
FORMS: dict[str, tuple[re.Pattern[bytes], int]] = {
    "dlq-version": (re.compile(rb"1"), 0),
    "dlq-id": (re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), 0),
    "dlq-cause": (re.compile(rb"[a-z_]{1,32}"), 0),
    "dlq-origin-topic": (re.compile(rb"[A-Za-z0-9._-]{1,249}"), 0),
    "dlq-http-status": (re.compile(rb"0|[1-9][0-9]*"), 999),
    "dlq-attempts": (re.compile(rb"0|[1-9][0-9]*"), 2**31 - 1),
    "dlq-origin-partition": (re.compile(rb"0|[1-9][0-9]*"), 2**31 - 1),
    "dlq-origin-offset": (re.compile(rb"0|[1-9][0-9]*"), 2**63 - 1),
    "dlq-replays": (re.compile(rb"0|[1-9][0-9]*"), 2**31 - 1),
    **dict.fromkeys(("dlq-first-attempt", "dlq-failed-at", "dlq-origin-timestamp"), (TIME, 2**63 - 1)),
}
TEXTS = {"dlq-message": MESSAGE_LIMIT, "dlq-vendor": 32_767, "dlq-destination": 32_767} | {
    **dict.fromkeys(("dlq-code", "dlq-field", "dlq-request-id", "dlq-edited"), TEXT_LIMIT),
    **dict.fromkeys(("dlq-dedup-id", "dlq-group"), 32_767),
}
REQUIRED = {"dlq-id", "dlq-cause", "dlq-failed-at", "dlq-dedup-id", "dlq-group"} | {
    f"dlq-origin-{name}" for name in ("topic", "partition", "offset")
}


def is_ours(headers: Headers) -> bool:
    """Return whether the headers end with a whole block, by the words of docs/dead-letters.md."""
    names = [name for name, _ in headers]
    if "dlq-version" not in names:
        return False
    start = len(names) - 1 - names[::-1].index("dlq-version")
    block = [(name, value) for name, value in headers[start:] if name in FORMS or name in TEXTS]
    if len(dict(block)) < len(block) or not dict(block).keys() >= REQUIRED:
        return False
    return all(value is not None and in_its_form(name, value) for name, value in block)


def in_its_form(name: str, value: bytes) -> bool:
    """Return whether a value is as the connector writes it."""
    if name in TEXTS:
        try:
            return 0 < len(value) <= TEXTS[name] and bool(value.decode())
        except UnicodeDecodeError:
            return False
    form, most = FORMS[name]
    if form.fullmatch(value) is None:
        return False
    if value.endswith(b"Z"):
        try:
            return datetime.fromisoformat(value.decode()).tzinfo is not None
        except ValueError:
            return False
    number = value.lstrip(b"-")
    if (most and (number != b"0" and number.startswith(b"0"))) or value == b"-0":
        return False
    if len(number) > 40:  # more digits than any limit; Python refuses to read thousands of them
        return not most
    return not most or (-most - 1 if form is TIME else 0) <= int(value) <= most


def near_values(value: bytes) -> Iterator[bytes]:
    """Yield values that differ a little from a right one."""
    yield from (value[:-1], value[1:], value + b" ", b" " + value, value + b"\n", value + b"\xff", value.upper())
    yield from (b"0" + value, b"+" + value, b"-" + value, value + b"_0", value + b"0" * 12, value + b"0" * 30)
    yield from (value.replace(b"Z", b"+00:00"), value.replace(b"Z", b"+01:00"), value.replace(b"T", b" "))
    yield from (value.replace(b".", b","), value.replace(b"-", b""), value * 40, value * 1000)


@st.composite
def blocks(draw: st.DrawFn) -> Headers:
    """Draw a whole block of ours in which some values, names and places are changed."""
    headers = [WHOLE[0], *(draw(st.permutations(WHOLE[1:])) if draw(st.booleans()) else WHOLE[1:])]
    for index in draw(st.lists(st.integers(0, len(headers) - 1), max_size=2)):
        name, value = headers[index]
        near = st.sampled_from(list(near_values(value or b"")))
        headers[index] = (name, draw(st.one_of(near, near, odd_values)))
    what = draw(st.sampled_from(["as it is", "as it is", "repeat", "leave out", "more behind"]))
    if what == "repeat":
        headers.append(draw(st.sampled_from(headers)))
    elif what == "leave out":
        del headers[draw(st.integers(0, len(headers) - 1))]
    behind = originals if what == "more behind" else st.lists(st.tuples(st.text(max_size=5), values), max_size=2)
    return [*draw(originals), *headers, *draw(behind)]


@pytest.mark.parametrize("name", [name for name, _ in WHOLE])
def test_a_value_that_differs_a_little_is_not_ours(name: str) -> None:
    """Each value of the block counts only in the form in which it is written.

    Kills: times without a zone or in another one, numbers with a sign, a space or a leading zero, text not in UTF-8.
    """
    for near in near_values(dict(WHOLE)[name] or b""):
        headers = [(each, near if each == name else value) for each, value in WHOLE]
        assert (parse(headers) is not None) == is_ours(headers), near


@pytest.mark.promise("P9")
@given(blocks())
def test_no_headers_break_the_reading_and_what_is_read_is_bounded(headers: Headers) -> None:
    """Whatever bytes are there, `parse` returns bounded values or None, and a dead letter of the record can be written.

    Kills: integers without bounds, a header of ours that comes twice.
    """
    parsed = parse(headers)
    assert (parsed is not None) == is_ours(headers)
    written = to_headers(dead_letter(headers, replayed=True), group=GROUP)
    if parsed is None:
        assert read(written).original == tuple(headers)
        return
    assert read(written).original == parsed.original
    assert (read(written).origin, read(written).dedup_id) == (parsed.origin, parsed.dedup_id)
    for number, most in (
        *((parsed.replays, 2**31), (parsed.origin.partition, 2**31), (parsed.http_status or 0, 1000)),
        *((parsed.origin.offset, 2**63), (parsed.attempts, 2**63)),
    ):
        assert 0 <= number < most
    for time in (parsed.failed_at, parsed.origin_timestamp, parsed.first_attempt or 0):
        assert -(2**63) <= time < 2**63
        assert moment(time)
    for text, limit in ((parsed.message, MESSAGE_LIMIT), (parsed.code, TEXT_LIMIT), (parsed.field, TEXT_LIMIT)):
        assert len((text or "").encode()) <= limit
    assert len(parsed.id) == 36
    replayed_again = read(replayed(headers, ["a b"]))
    assert (replayed_again.replays, replayed_again.id) == (min(parsed.replays + 1, 2**31 - 1), parsed.id)
    json.dumps(facts_json(DeadLetterEntry(dead_letter(headers).record, parsed, "open")))


@given(st.lists(st.tuples(st.sampled_from(["dlq-resolves", "dlq-resolution", "dlq-at"]), odd_values), max_size=5))
def test_no_headers_break_the_reading_of_a_resolution(headers: Headers) -> None:
    """Whatever bytes are there, a resolution names an id of our form and a time of our form, or none is read."""
    whole = resolution(read(WHOLE).id, "replayed", 5)
    for each in (headers, [*whole, *headers]):
        found = parse_resolution(Record("dlq", 0, 1, 0, None, None, tuple(each)))
        if found is not None:
            assert (len(found.dead_letter), found.kind in ("replayed", "discarded"), len(found.at) in (0, 24)) == (
                *(36, True),
                True,
            )


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("dlq-cause", b"refused")],
        [("dlq-version", b"1")],
        [("dlq-version", None)],
        [("dlq-version", b"2"), *to_headers(dead_letter(), group=GROUP)[1:]],
        [header for header in to_headers(dead_letter(), group=GROUP) if header[0] != "dlq-origin-offset"],
        [
            (name, b"x" if name == "dlq-origin-offset" else value)
            for name, value in to_headers(dead_letter(), group=GROUP)
        ],
        [(name, b"x" if name == "dlq-failed-at" else value) for name, value in to_headers(dead_letter(), group=GROUP)],
    ],
)
def test_a_block_that_is_not_whole_is_the_users(headers: Headers) -> None:
    """Headers that only look like ours belong to the record: they are kept, and it cannot be replayed."""
    assert parse(headers) is None
    assert read(to_headers(dead_letter(headers), group=GROUP)).original == tuple(headers)
    with pytest.raises(ValueError, match="not a dead letter"):
        replayed(headers)


def test_a_header_added_behind_the_block_is_kept() -> None:
    """A header that a tool adds while it copies a dead letter neither hides the block nor is lost."""
    headers = [*to_headers(dead_letter([("a", b"1")]), group=GROUP), ("tool", b"x")]
    assert read(headers).origin == Position("orders", 3, 41)
    assert read(headers).original == (("a", b"1"), ("tool", b"x"))


@given(dead_letters, originals)
def test_the_id_alone_is_the_one_of_the_whole_block(dead: DeadLetter, behind: Headers) -> None:
    """Whatever is before and behind the block, `dead_letter_id` returns the id of what `parse` reads.

    Kills: an id taken from the record's own headers, or from an earlier block.
    """
    headers = [*to_headers(dead, group=GROUP), *behind]
    parsed = parse(headers)
    if parsed is not None:
        assert dead_letter_id(headers) == parsed.id
    assert dead_letter_id(dead.record.headers) is None or any(name == "dlq-id" for name, _ in dead.record.headers)


def test_a_block_that_somebody_put_on_a_source_record_changes_nothing() -> None:
    """Whole or not, a block on a record of a source topic is the record's own: origin, id and dedup id are its own.

    Kills: taking any whole block for the dead letter's own, so that a copied one hides where a record comes from.
    """
    block = replayed(to_headers(dead_letter([("a", b"1")], destination="qa"), group=GROUP))
    place = Record("events", 1, 7, 5, b"key", b"value", block)
    one = dead_letter(record=place, dedup_id="11111111-58d8-5ad3-9f3b-0e6d3a6a6b9b")
    parsed = read(to_headers(one, group=GROUP))
    assert parsed.original == tuple(block)
    assert (parsed.origin, parsed.origin_timestamp) == (Position("events", 1, 7), 5)
    assert (parsed.dedup_id, parsed.replays) == (one.dedup_id, 0)
