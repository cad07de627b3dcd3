"""Each dead letter is read once, with its state, and filters match exactly what they name."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import fastavro
import pytest
from msgspec.structs import replace

from connector.dead_letters.archive import Archive, DeadLetterNotFound
from connector.dead_letters.export import export, moment
from connector.dead_letters.filters import FIELDS, Filter, parse_since, parse_where
from connector.dead_letters.headers import replayed, to_headers
from connector.dead_letters.reader import Survey, parse_resolution, read_dead_letters
from connector.records import DeadLetter, Headers, Record

TOPIC = "group.dead-letters"
EVERYTHING = Filter()


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

    def read(_what: str) -> Iterator[Record]:
        return iter(records)

    return Archive(read, "cluster")


def offsets(records: list[Record], wanted: Filter = EVERYTHING, *, resolved: bool = False) -> list[int]:
    """Return the origin offsets of the dead letters that are read."""
    survey = Survey.of(records)
    return [one.facts.origin.offset for one in read_dead_letters(records, survey, wanted, resolved=resolved)]


def test_a_dead_letter_that_a_crash_wrote_twice_counts_once() -> None:
    """Two records with one id are one dead letter, wherever they are; two destinations are two dead letters.

    Kills: counting records, an id that takes no account of the destination.
    """
    records = [dead(1), dead(2), dead(1), dead(1, destination="qa"), dead(2)]
    assert offsets(records) == [1, 2, 1]
    assert sum(one.dead_letters for one in archive(*records).stats(Filter())) == 3


def test_a_dead_letter_is_what_its_first_record_says() -> None:
    """A copy with another cause is not found where the first record does not match.

    Kills: a letter that is shown, or replayed, under either of two causes.
    """
    once, again = dead(1, cause="refused"), dead(1, cause="invalid")
    records = [replace(once, offset=0), replace(again, offset=1)]
    assert offsets(records, Filter({"cause": frozenset({"refused"})})) == [1]
    assert offsets(records, Filter({"cause": frozenset({"invalid"})})) == []


def test_a_resolution_hides_its_dead_letter_and_only_that() -> None:
    """Resolved letters are hidden, wherever their resolution stands, and shown with what became of them on demand."""
    first, second, third = dead(1), dead(2), dead(3)
    records = [resolution(first, "discarded"), first, second, third, resolution(third, "replayed")]
    assert offsets(records) == [2]
    assert offsets(records, resolved=True) == [1, 2, 3]
    dead_letters = archive(*records).dead_letters(Filter(), resolved=True)
    assert [one.state for one in dead_letters] == ["discarded", "open", "replayed"]


def test_a_dead_letter_that_failed_again_after_a_replay_is_open() -> None:
    """The next failure of a replayed record is a new dead letter, and the history has both."""
    first = dead(1)
    origin = replace(stored(5, first.key, first.value, replayed(first.headers)), topic="group.replay")
    second = dead(1, record=origin, failed_at=1_700_000_500)
    records = [first, resolution(first, "replayed"), second]
    assert offsets(records) == [1]
    history = archive(*records).find(identity(second))
    assert [(one.facts.replays, one.state) for one in history.dead_letters] == [(0, "replayed"), (1, "open")]
    assert [(one.dead_letter, one.kind) for one in history.resolutions] == [(identity(first), "replayed")]


def test_what_is_no_dead_letter_is_counted_and_left_out() -> None:
    """Records without a whole block, and null values that resolve nothing, are foreign."""
    odd = [stored(0, b"k", b"v", [("dlq-cause", b"refused")]), stored(1, b"k", None, [("dlq-resolves", b"x")])]
    survey = Survey.of([*odd, dead(1)])
    assert (survey.foreign, survey.dead_letters) == (2, 1)
    assert offsets([*odd, dead(1)]) == [1]
    # A source record may carry such headers itself: its value tells that it is a letter.
    assert parse_resolution(replace(resolution(dead(1), "replayed"), value=b"")) is None


def test_filters_take_what_they_name() -> None:
    """A name given twice allows both values, different names must all match, an absent field equals empty."""
    records = [
        dead(0),
        dead(1, code="4101"),
        dead(2, cause="decode", code=None, destination=None, vendor=None),
        dead(3, topic="other", http_status=400),
    ]
    assert offsets(records, Filter(parse_where(["code=4103", "code=4101"]))) == [0, 1, 3]
    assert offsets(records, Filter(parse_where(["code=4103", "http-status=400"]))) == [3]
    assert offsets(records, Filter(parse_where(["code="]))) == [2]
    assert offsets(records, Filter(key=b"user-1")) == [1]
    assert offsets(records, Filter(topics=frozenset({"other"}))) == [3]
    assert offsets(records, Filter(since=1_700_000_002_000)) == [2, 3]
    assert offsets(records, Filter(parse_where(["dedup-id=dedup-1"]))) == [1]
    assert set(FIELDS) > {"cause", "code", "destination"}


@pytest.mark.parametrize("wrong", ["code", "cod=1", "=1"])
def test_a_condition_that_means_nothing_is_refused(wrong: str) -> None:
    """The message names what is allowed."""
    with pytest.raises(ValueError, match="one of the names cause, code"):
        parse_where([wrong])


def test_since_is_a_duration_or_a_time() -> None:
    """Two hours before now, or a time with its zone; a time without a zone is refused."""
    assert parse_since("2h", 10_000_000) == 2_800_000
    assert parse_since("1970-01-01T01:00:01+01:00", 0) == 1000
    for wrong in ("yesterday", "2026-11-20T00:00:00", "h"):
        with pytest.raises(ValueError, match="2h or 3d"):
            parse_since(wrong, 0)


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
    assert found.find(identity(two)).dead_letter.record == two
    assert found.find(identity(one)[:8]).dead_letter.record == one
    for wrong in ("", identity(one)[:7], "00000000"):
        with pytest.raises(DeadLetterNotFound, match="no dead letter has the id"):
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
