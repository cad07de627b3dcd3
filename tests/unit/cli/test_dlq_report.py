"""What people are shown of a dead letter is whole, and nothing in it can act on their terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from connector.cli.dlq_report import dead_letter_json, show_dead_letter, show_dead_letters, show_stats
from connector.dead_letters.commands import Count, History
from connector.dead_letters.headers import parse, to_headers
from connector.dead_letters.reader import DeadLetterEntry, Resolution
from connector.operations.inspect import Inspection, Preparation, plain
from connector.records import DeadLetter, Record


def dead_letter(message: str = "event [bold]x[/bold] is unknown", key: bytes | None = b"user-1") -> DeadLetterEntry:
    """Return a letter with this message."""
    record = Record("events", 1, 7, 1_700_000_000_000, key, b"v", ())
    dead = DeadLetter(
        record, "refused", "4103", message, 1_700_000_001.0, "dedup", None, "jiguang", "jg", 400, "trace-1", 2, 1.7e9
    )
    headers = to_headers(dead, group="group")
    facts = parse(headers)
    assert facts is not None
    return DeadLetterEntry(Record("group.dead-letters", 0, 0, -1, key, b"v", headers), facts, "open")


def test_a_list_names_each_dead_letter_and_how_many_there_are() -> None:
    """Id, cause, code, destination, origin and message stand in a row; markup in them is text."""
    out = io.StringIO()
    one = dead_letter()
    show_dead_letters([one], 3, out)
    for text in (one.facts.id, "refused", "4103", "jg", "events[1]@7", "event [bold]x[/bold] is unknown"):
        assert text in out.getvalue()
    assert "the newest 1 of 3" in out.getvalue()


def test_nothing_from_outside_commands_the_terminal() -> None:
    """Escape sequences in message, key and fragment are written out, in lists and in full."""
    evil = dead_letter("\x1b]0;owned\x07\x9b2J", b"\x1b[2J")
    out = io.StringIO()
    show_dead_letters([evil], 1, out)
    inspection = Inspection("a.Schema", {"cuid": 1}, None, (Preparation("jg", "dedup", "a\x1b[2Jb"),))
    show_dead_letter(History(evil, (evil,), (), "cluster"), inspection, out)
    assert not {"\x1b", "\x07", "\x9b"} & set(out.getvalue())
    assert "\\x1b]0;owned\\x07\\x9b2J" in out.getvalue()
    assert "a\\x1b[2Jb" in out.getvalue()


def test_one_dead_letter_in_full() -> None:
    """Why, the answer, the event, what would be sent or which rule forbids it, and the history, in order of time."""
    one = dead_letter()
    inspection = Inspection(
        "a.Schema", {"cuid": 1}, None, (Preparation("jg", "dedup", None, "jiguang.itime.past", "itime is too old"),)
    )
    history = History(one, (one,), (Resolution(one.facts.id, "replayed", "2030-01-01T00:00:00.000Z"),), "cluster")
    out = io.StringIO()
    show_dead_letter(history, inspection, out)
    text = out.getvalue()
    for shown in (
        *("HTTP 400, request trace-1", "events, partition 1, offset 7", '"cuid": 1', "user-1"),
        *("not sent, jiguang.itime.past: itime is too old", "dead-lettered for jg: refused 4103"),
    ):
        assert shown in text
    assert text.index("dead-lettered for jg") < text.index("2030-01-01T00:00:00.000Z  replayed")
    row = dead_letter_json(history, inspection)
    assert row["destinations_today"][0]["rule"] == "jiguang.itime.past"
    assert row["resolutions"] == [
        {"id": one.facts.id, "resolution": "replayed", "at": "2030-01-01T00:00:00.000Z"},
    ]


def test_counts_are_summed() -> None:
    """Each kind has a row, an absent code is a dash, and the sum stands below."""
    out = io.StringIO()
    show_stats([Count("decode", None, None, 2, 0, 1), Count("refused", "1", "jg", 3, 0, 1)], out)
    assert "5 dead letters" in out.getvalue()
    show_stats([], out)
    assert out.getvalue().endswith("no dead letters that fit\n")


def test_a_datum_is_shown_in_the_types_of_json() -> None:
    """Times as ISO 8601, bytes in base64, a named union by its name; everything else as it is."""
    datum = {"at": datetime(2026, 1, 1, tzinfo=UTC), "raw": b"\x00", "body": ("a.B", {"x": [1, None, True]})}
    assert plain(datum) == {"at": "2026-01-01T00:00:00+00:00", "raw": "AA==", "body": {"a.B": {"x": [1, None, True]}}}
