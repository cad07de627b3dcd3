"""Each dead letter is read once, with its state, and filters match exactly what they name."""

from __future__ import annotations

import io
import json
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from connector.dead_letters.archive import Archive
from connector.dead_letters.block import time_text as moment
from connector.dead_letters.export import export
from connector.dead_letters.filters import FIELDS, Filter, parse_time, parse_where
from connector.dead_letters.headers import replayed, to_headers
from connector.dead_letters.reader import DeadLetterNotFound, Survey, parse_resolution, read_dead_letters
from connector.dead_letters.states import States
from connector.records import DeadLetter, Headers, Record

TOPIC = "group.dead-letters"
EVERYTHING = Filter()
PASSES: list[str] = []
"""What topics were read for, in this process."""


def dead(number: int, *, cause: str = "refused", code: str | None = "4103", **changes: object) -> Record:
    """Return the dead-letter record of event `number`."""
    topic = str(changes.pop("topic", "events"))
    origin = Record(topic, 0, number, 1_700_000_000_000, b"user-%d" % (number % 3), b"v", ())
    given: dict[str, object] = {
        "record": origin,
        "cause": cause,
        "code": code,
        "message": "refused",
        "failed_at": 1_700_000_000 + number,
        "dedup_id": f"dedup-{number}",
        "vendor": "jiguang",
        "destination": "jg",
        **changes,
    }
    dead_letter = DeadLetter(**given)  # type: ignore[arg-type]
    return stored(number, dead_letter.record.key, dead_letter.record.value, to_headers(dead_letter, group="group"))


def stored(offset: int, key: bytes | None, value: bytes | None, headers: Headers) -> Record:
    """Return a record of the dead-letter topic."""
    return Record(TOPIC, 0, offset, 1_700_000_000_000, key, value, headers)


def resolution(dead_letter: Record, kind: str) -> Record:
    """Return the record that resolves a dead letter."""
    said = {"dlq-resolves": identity(dead_letter), "dlq-resolution": kind, "dlq-at": "2026-11-21T10:00:00.000Z"}
    return stored(900, dead_letter.key, None, [(name, value.encode()) for name, value in said.items()])


def identity(dead_letter: Record) -> str:
    """Return a dead letter's id."""
    return next((value or b"").decode() for name, value in dead_letter.headers if name == "dlq-id")


def archive(*records: Record) -> Archive:
    """Return an archive of these records."""
    placed = at_their_places(records)

    def read(_what: str) -> Iterator[Record]:
        PASSES.append(_what)
        return iter(placed)

    def fetch(places: Sequence[tuple[int, int]]) -> Iterator[Record]:
        return (record for record in placed if (record.partition, record.offset) in places)

    return Archive(read, fetch, "cluster")


def at_their_places(records: Iterable[Record]) -> list[Record]:
    """Return records with the offsets that they have when they are written in this order."""
    ends: Counter[int] = Counter()
    placed = []
    for record in records:
        placed.append(replace(record, offset=ends[record.partition]))
        ends[record.partition] += 1
    return placed


def offsets(records: list[Record], wanted: Filter = EVERYTHING, *, resolved: bool = False) -> list[int]:
    """Return the origin offsets of the dead letters that are read."""
    placed = at_their_places(records)
    found = read_dead_letters(placed, Survey.of(placed), wanted, resolved=resolved)
    return [entry.facts.origin.offset for entry in found]


def test_a_dead_letter_that_a_crash_wrote_twice_counts_once() -> None:
    """Two records with one id are one dead letter, wherever they are; two destinations are two dead letters.

    Kills: counting records, an id that takes no account of the destination.
    """
    records = [dead(1), dead(2), dead(1), dead(1, destination="qa"), dead(2)]
    assert offsets(records) == [1, 2, 1]
    assert sum(one.dead_letters for one in archive(*records).stats(Filter())) == 3


def test_a_dead_letter_is_what_its_first_record_says() -> None:
    """A copy with another cause is not found where the first record does not match.

    Kills: a dead letter that is shown, or replayed, under either of two causes.
    """
    once, again = dead(1, cause="refused"), dead(1, cause="invalid")
    records = [once, again]
    assert offsets(records, Filter({"cause": frozenset({"refused"})})) == [1]
    assert offsets(records, Filter({"cause": frozenset({"invalid"})})) == []


def test_a_resolution_hides_its_dead_letter_and_only_that() -> None:
    """Resolved dead letters are hidden, and shown with their state on demand."""
    first, second, third = dead(1), dead(2), dead(3)
    records = [first, resolution(first, "discarded"), second, third, resolution(third, "replayed")]
    assert offsets(records) == [2]
    assert offsets(records, resolved=True) == [1, 2, 3]
    dead_letters = archive(*records).dead_letters(Filter(), resolved=True)
    assert [one.state for one in dead_letters] == ["discarded", "open", "replayed"]


def test_a_new_failure_is_not_hidden_by_an_old_resolution() -> None:
    """A record that was discarded, read again from the earliest offset and refused again is open again.

    Kills: a resolution that closes copies behind it.
    """
    first = dead(1)
    records = [first, resolution(first, "discarded"), dead(1, cause="invalid"), dead(2)]
    assert offsets(records) == [1, 2]
    (again, _) = archive(*records).dead_letters(Filter())
    assert (again.facts.cause, again.state) == ("invalid", "open")
    assert [(count.cause, count.dead_letters) for count in archive(*records).stats(Filter())] == [
        ("invalid", 1),
        ("refused", 1),
    ]
    assert archive(*records).newest(Filter({"cause": frozenset({"invalid"})}), 5)[1] == 1
    history = archive(*records).find(identity(first))
    assert (history.dead_letter.state, len(history.resolutions)) == ("open", 1)


steps = st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from(["copy", "copy", "replayed", "discarded"]))


@given(st.lists(steps, max_size=25))
def test_a_resolution_closes_the_copies_in_front_of_it_in_its_partition(topic: list[tuple[int, int, str]]) -> None:
    """Whatever copies and resolutions are in which order in three partitions, exactly what none has closed is open.

    Kills: a resolution that closes copies behind it, or in another partition, or only one of two copies in front of it.
    """
    records = []
    for number, partition, kind in topic:
        record = dead(number) if kind == "copy" else resolution(dead(number), kind)
        records.append(replace(record, partition=partition))
    records = at_their_places(records)
    survey = Survey.of(records)
    unresolved: dict[str, dict[int, int]] = {}
    for record in records:
        resolved = parse_resolution(record)
        if resolved is None:
            unresolved.setdefault(identity(record), {}).setdefault(record.partition, record.offset)
        else:
            unresolved.get(resolved.dead_letter, {}).pop(record.partition, None)
    assert len(survey.states) == len(unresolved)
    for whole, places in unresolved.items():
        row = survey.states.row(whole)
        assert row is not None
        assert (survey.states.state(row) == "open") == bool(places)
        if places:
            partition, offset = survey.states.place(row)
            assert places[partition] == offset
            assert {partition, *survey.states.other_partitions(row)} == set(places)
    found = list(read_dead_letters(records, survey, Filter()))
    assert {entry.facts.id for entry in found} == {whole for whole, places in unresolved.items() if places}
    assert len(found) == len({entry.facts.id for entry in found})


def test_many_dead_letters_take_few_bytes() -> None:
    """20,000 dead letters take at most 60 bytes each, growth included, and every one is found.

    Kills: a table that loses rows when it grows.
    """
    ids = [str(uuid.UUID(int=number)) for number in range(20_000)]
    tracemalloc.start()
    states = States()
    rows = [states.note(each, 0, number)[0] for number, each in enumerate(ids[:20])]
    before = tracemalloc.get_traced_memory()[0]
    for number, each in enumerate(ids):
        states.note(each, 0, number)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (peak - before) / len(ids) < 60
    assert rows == list(range(20))
    assert [states.row(each) for each in ids] == list(range(len(ids)))
    assert states.row(str(uuid.UUID(int=20_001))) is None


def test_every_command_reads_the_topic_once() -> None:
    """`stats`, the newest, and one dead letter with its history take one pass each."""
    found = archive(dead(1), dead(2), resolution(dead(2), "replayed"))
    for command in (
        lambda: found.stats(Filter()),
        lambda: found.newest(Filter(), 5),
        lambda: found.find(identity(dead(2))),
    ):
        PASSES.clear()
        command()
        assert len(PASSES) == 1


def test_a_dead_letter_that_failed_again_after_a_replay_is_open() -> None:
    """The next failure of a replayed record is a new dead letter, and the history has both."""
    first = dead(1)
    origin = replace(stored(5, first.key, first.value, replayed(first.headers)), topic="group.replay")
    second = dead(1, record=origin, failed_at=1_700_000_500, replayed=True)
    records = [first, resolution(first, "replayed"), second]
    assert offsets(records) == [1]
    history = archive(*records).find(identity(second))
    assert [(one.facts.replays, one.state) for one in history.dead_letters] == [(0, "replayed"), (1, "open")]
    assert [(one.dead_letter, one.kind) for one in history.resolutions] == [(identity(first), "replayed")]


def test_what_is_no_dead_letter_is_counted_and_left_out() -> None:
    """Records without a whole block, and null values that resolve nothing, are foreign."""
    odd = [stored(0, b"k", b"v", [("dlq-cause", b"refused")]), stored(1, b"k", None, [("dlq-resolves", b"x")])]
    survey = Survey.of([*odd, dead(1)])
    assert (survey.foreign, len(survey.states)) == (2, 1)
    assert offsets([*odd, dead(1)]) == [1]
    # A source record may have such headers itself: its value shows that it is a dead letter.
    assert parse_resolution(replace(resolution(dead(1), "replayed"), value=b"")) is None


def test_filters_take_what_they_name() -> None:
    """A name given twice allows both values, different names must all match, an absent field equals empty."""
    records = [
        dead(0),
        dead(1, code="4101"),
        dead(2, cause="decode", code=None, destination=None, vendor=None),
        dead(3, topic="other", http_status=400),
    ]
    assert offsets(records, parse_where(["code=4103", "code=4101"])) == [0, 1, 3]
    assert offsets(records, parse_where(["code=4103", "http-status=400"])) == [3]
    assert offsets(records, parse_where(["code="])) == [2]
    assert offsets(records, Filter(key=b"user-1")) == [1]
    assert offsets(records, Filter(topics=frozenset({"other"}))) == [3]
    assert offsets(records, Filter(since=1_700_000_002_000)) == [2, 3]
    assert offsets(records, parse_where(["dedup-id=dedup-1"])) == [1]
    assert offsets(records, Filter(until=1_700_000_001_000)) == [0, 1]
    assert offsets(records, parse_where(["topic=events", "offset=1", "offset=2", "partition=0"])) == [1, 2]
    assert set(FIELDS) > {"cause", "code", "destination"}


def test_filters_by_headers_and_by_text_in_key_and_value() -> None:
    """A header's name and value are the record's own, an absent header is empty, and a text may be in key or value."""
    own = [("trace", b"a"), ("trace", b"b"), ("none", None)]
    traced = Record("events", 0, 5, 1_700_000_000_000, b"key-5", b"\x00caf\xc3\xa9\xff", own)
    records = [dead(0), dead(5, record=traced)]
    assert offsets(records, parse_where(["header.trace=b"])) == [5]
    assert offsets(records, parse_where(["header.trace=", "header.dlq-cause="])) == [0]
    assert offsets(records, parse_where(["header.none=", "header.trace=a"])) == [5]
    assert offsets(records, Filter(contains="café".encode())) == [5]
    assert offsets(records, Filter(contains=b"key-5")) == [5]
    assert offsets(records, Filter(contains=b"nowhere")) == []
    assert offsets(
        records, Filter(accept=lambda record, facts: record.key == b"key-5" and facts.cause == "refused")
    ) == [5]


@pytest.mark.parametrize("wrong", ["code", "cod=1", "=1", "header.=1", "event.=1", "header.x"])
def test_a_condition_that_means_nothing_is_refused(wrong: str) -> None:
    """The message names what is allowed."""
    with pytest.raises(ValueError, match="one of the names cause, code"):
        parse_where([wrong])


def test_since_is_a_duration_or_a_time() -> None:
    """Two hours before now, or a time with a zone; a time without a zone and a bare number are refused."""
    assert parse_time("--since", "2h", 10_000_000) == 2_800_000
    assert parse_time("--since", "1970-01-01T01:00:01+01:00", 0) == 1000
    for wrong in ("yesterday", "2026-11-20T00:00:00", "h", "30", "2026", "1.5", "20261120", f"{'9' * 400}d", "inf", ""):
        with pytest.raises(ValueError, match="2h or 3d"):
            parse_time("--since", wrong, 0)


def test_stats_group_by_cause_code_and_destination() -> None:
    """The most frequent kind is first, with the first and last failure of each kind."""
    counts = archive(dead(5), dead(1, code="4101"), dead(3), dead(9)).stats(Filter())
    assert [(one.code, one.dead_letters, one.first, one.last) for one in counts] == [
        ("4103", 3, 1_700_000_003_000, 1_700_000_009_000),
        ("4101", 1, 1_700_000_001_000, 1_700_000_001_000),
    ]
    assert counts[0].as_json()["first_failed_at"] == moment(1_700_000_003_000) == "2023-11-14T22:13:23.000Z"


def test_the_newest_are_those_that_failed_last() -> None:
    """The newest are first, whatever their order in the topic, with the count of all; equal times are allowed."""
    dead_letters, count = archive(dead(3), dead(9), dead(1), dead(7), dead(7, destination="qa")).newest(Filter(), 3)
    assert [one.facts.origin.offset for one in dead_letters] == [9, 7, 7]
    assert count == 5


def test_a_dead_letter_is_found_by_its_id_or_an_unambiguous_beginning() -> None:
    """A whole id or eight characters of it finds a dead letter; anything else says what to do."""
    one, two = dead(1), dead(2)
    found = archive(one, two)
    assert found.find(identity(two)).dead_letter.record == replace(two, offset=1)
    assert found.find(identity(one)[:8]).dead_letter.record == replace(one, offset=0)
    for wrong in ("00000000", identity(dead(3))):
        with pytest.raises(DeadLetterNotFound, match="no dead letter has the id"):
            found.find(wrong)
    for wrong in ("", identity(one)[:7]):
        with pytest.raises(DeadLetterNotFound, match="at least 8 characters"):
            found.find(wrong)


def test_exports_hold_the_record_byte_for_byte() -> None:
    """JSON Lines and the Avro file return key, value, headers and origin; another library reads the file."""
    headers = [("trace", b"\xff\x00"), ("none", None)]
    origin = Record("events", 2, 77, -1, None, b"\x00\xfe", headers)
    record = replace(dead(1, record=origin), key=None, value=b"\x00\xfe")
    dead_letters = list(archive(record).dead_letters(Filter()))
    lines = io.BytesIO()
    assert export(dead_letters, lines, "jsonl") == 1
    row = json.loads(lines.getvalue())
    assert (row["key"], row["value"], row["origin_timestamp"]) == (None, "AP4=", None)
    assert row["headers"] == [{"name": "trace", "value": "/wA="}, {"name": "none", "value": None}]
    assert row["origin"] == {"topic": "events", "partition": 2, "offset": 77}
    file = io.BytesIO()
    assert export(dead_letters, file, "avro") == 1
    file.seek(0)
    (read,) = fastavro.reader(file)
    assert isinstance(read, dict)
    assert (read["key"], read["value"], read["origin_offset"], read["resolved"]) == (None, b"\x00\xfe", 77, None)
    assert read["headers"] == [{"name": "trace", "value": b"\xff\x00"}, {"name": "none", "value": None}]
    assert (read["id"], read["cause"], read["code"]) == (row["id"], "refused", "4103")
    empty = io.BytesIO()
    assert export([], empty, "avro") == 0
    assert list(fastavro.reader(io.BytesIO(empty.getvalue()))) == []
