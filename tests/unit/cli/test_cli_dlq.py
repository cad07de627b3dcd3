"""`connector dlq` prints dead letters in full, and nothing in them can command a terminal."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from connector.cli import main
from connector.cli.common import emit, read_config, say
from connector.cli.dlq import dead_letter_json, show_dead_letter, show_dead_letters, show_stats
from connector.dead_letters.archive import Count, DeadLetterHistory
from connector.dead_letters.headers import parse, to_headers
from connector.dead_letters.inspection import Inspection, Preparation
from connector.dead_letters.reader import DeadLetterEntry, Resolution
from connector.operations.prepare import plain
from connector.records import DeadLetter, Record

FILE = """
kafka: {topics: [events], group_id: group, client: {bootstrap.servers: "localhost:9"}}
destinations:
  one: {vendor: mytracker, id_app: 666, token: hidden-token}
"""


def dead_letter(message: str = "event [bold]x[/bold] is unknown", key: bytes | None = b"user-1") -> DeadLetterEntry:
    """Return a dead letter with this message."""
    record = Record("events", 1, 7, 1_700_000_000_000, key, b"v", ())
    dead = DeadLetter(
        record, "refused", "4103", message, 1_700_000_001.0, "dedup", None, "jiguang", "jg", 400, "trace-1", 2, 1.7e9
    )
    headers = to_headers(dead, group="group")
    facts = parse(headers)
    assert facts is not None
    return DeadLetterEntry(Record("group.dead-letters", 0, 0, -1, key, b"v", headers), facts, "open")


def test_a_list_has_a_row_for_each_dead_letter_and_the_count(capsys: pytest.CaptureFixture[str]) -> None:
    """Id, cause, code, destination, origin and message are in a row; markup in them is only text."""
    one = dead_letter()
    show_dead_letters([one], 3)
    out = capsys.readouterr().out
    for text in (one.facts.id, "refused", "4103", "jg", "events[1]@7", "event [bold]x[/bold] is unknown"):
        assert text in out
    assert "the newest 1 of 3 dead letters" in out
    show_dead_letters([one], 1)
    assert capsys.readouterr().out.endswith("\n1 dead letter\n")


def test_ids_are_shortened_where_the_output_is_narrow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are unbroken, so that they can be copied, tell the rows apart, and leave room for the message."""
    monkeypatch.setenv("COLUMNS", "80")
    one = dead_letter()
    ids = ["0190aaaa-1111-7000-8000-000000000001", "0190aaaa-2222-7000-8000-000000000001"]
    rows = [DeadLetterEntry(one.record, msgspec.structs.replace(one.facts, id=each), "open") for each in ids]
    show_dead_letters(rows[:1], 1)
    out = capsys.readouterr().out
    assert "0190aaaa " in out
    assert "0190aaaa-" not in out
    show_dead_letters(rows, 2)
    out = capsys.readouterr().out
    assert "0190aaaa-1 " in out
    assert "0190aaaa-2 " in out
    monkeypatch.setenv("COLUMNS", "200")
    show_dead_letters(rows, 2)
    assert ids[0] in capsys.readouterr().out


def test_untrusted_text_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control and bidirectional characters in message, key and fragment are escaped, in tables and in JSON."""
    evil = dead_letter("\x1b]0;owned\x07\x9b2J \u202ereversed\u2069", b"\x1b[2J\xe2\x80\xae")
    show_dead_letters([evil], 1)
    inspection = Inspection("a.Schema", {"cuid": 1}, None, (Preparation("jg", "dedup", "a\x1b[2Jb"),))
    history = DeadLetterHistory(evil, (evil,), (), "cluster")
    show_dead_letter(history, inspection)
    emit(
        [history],
        True,
        lambda found: dead_letter_json(found, inspection),
        lambda _: None,
    )
    say(evil.facts.message)
    out, err = capsys.readouterr()
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\u2069"} & set(out + err)
    assert "\\x1b]0;owned\\x07\\x9b2J \\u202ereversed\\u2069" in out
    assert "a\\x1b[2Jb" in out
    assert json.loads(out.splitlines()[-1])["message"] == evil.facts.message


def test_show_prints_a_dead_letter_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    """Reason, answer, event, what would be sent or which rule forbids it, and the history in order of time."""
    one = dead_letter()
    inspection = Inspection(
        "a.Schema", {"cuid": 1}, None, (Preparation("jg", "dedup", None, "jiguang.itime.past", "itime is too old"),)
    )
    history = DeadLetterHistory(
        one, (one,), (Resolution(one.facts.id, "replayed", "2030-01-01T00:00:00.000Z"),), "cluster"
    )
    show_dead_letter(history, inspection)
    text = capsys.readouterr().out
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


def test_stats_prints_counts_and_their_sum(capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind has a row, an absent code is a dash, and the sum is below."""
    show_stats([Count("decode", None, None, 2, 0, 1), Count("refused", "1", "jg", 3, 0, 1)])
    assert "5 dead letters" in capsys.readouterr().out
    show_stats([])
    assert capsys.readouterr().out == "no matching dead letters\n"


@pytest.fixture
def archived(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Return what runs a `dlq` command on dead letters that are read from an iterator."""
    config = tmp_path / "connector.yaml"
    config.write_text(FILE, encoding="utf-8")

    def run(dead_letters: Iterable[DeadLetterEntry], *arguments: str) -> tuple[int, str]:
        class Stage:
            """An archive of these dead letters."""

            foreign = 0

            def dead_letters(self, _wanted: object, *, resolved: bool) -> Iterator[DeadLetterEntry]:
                """Yield them."""
                yield from dead_letters

        monkeypatch.setattr("connector.cli.dlq.open_archive", lambda _settings: nullcontext(Stage()))
        monkeypatch.setattr("connector.cli.dlq.begin", read_config)
        monkeypatch.setattr(sys, "argv", ["connector", "dlq", *arguments, "-c", str(config)])
        with pytest.raises(SystemExit) as ended:
            main.main()
        return int(ended.value.code or 0), str(config.parent)

    return run


def test_an_export_is_for_its_owner_and_replaces_nothing(
    archived: Callable[..., tuple[int, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is readable by its owner only, whatever the umask; one that exists stays as it is."""
    file = tmp_path / "dead.jsonl"
    before = os.umask(0)
    try:
        assert archived([dead_letter()], "export", str(file))[0] == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text(encoding="utf-8"))["cause"] == "refused"
    assert "1 dead letter written" in capsys.readouterr().err
    written = file.read_bytes()
    assert archived([], "export", str(file))[0] == 1
    assert f"{file} already exists" in capsys.readouterr().err
    assert file.read_bytes() == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["connector.yaml", "dead.jsonl"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write {}: No space left on device\n"),
        (KeyboardInterrupt(), "Interrupted.\n"),
    ],
)
def test_an_export_is_whole_or_not_there(
    archived: Callable[..., tuple[int, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    said: str,
) -> None:
    """A full disk and Ctrl-C end in one sentence, and leave no file."""

    def broken() -> Iterator[DeadLetterEntry]:
        yield dead_letter()
        raise error

    file = tmp_path / "dead.jsonl"
    assert archived(broken(), "export", str(file))[0] == 1
    assert capsys.readouterr().err == said.format(file)
    assert [path.name for path in tmp_path.iterdir()] == ["connector.yaml"]


@pytest.mark.parametrize("arguments", [[], ["--rate", "inf", "--all"], ["--to", "nope", "--all"]])
def test_a_replay_without_a_selection_or_with_an_invalid_rate_exits_with_2(
    archived: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Without a filter --all is needed, so that nothing is replayed or discarded by accident."""
    assert archived([], "replay", "--yes", *arguments)[0] == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert any(part in said for part in ("pass --all", "--rate must be a number", "unknown destination 'nope'"))
    if not arguments:
        assert archived([], "discard", "--yes")[0] == 2


def test_a_datum_is_converted_to_json_types() -> None:
    """Times as ISO 8601, bytes in base64, a named union by its name; everything else unchanged."""
    datum = {"at": datetime(2026, 1, 1, tzinfo=UTC), "raw": b"\x00", "body": ("a.B", {"x": [1, None, True]})}
    assert plain(datum) == {"at": "2026-01-01T00:00:00+00:00", "raw": "AA==", "body": {"a.B": {"x": [1, None, True]}}}


def test_show_explains_the_vendors_code(capsys: pytest.CaptureFixture[str]) -> None:
    """The code's meaning and solution, in English, are shown with the vendor's own text, in tables and in JSON.

    Kills: a code that only the vendor's document explains.
    """
    one = dead_letter("code 4103: cuid 22 对应的用户不存在")
    history = DeadLetterHistory(one, (one,), (), "cluster")
    inspection = Inspection("a.Schema", {"cuid": 1}, None, ())
    show_dead_letter(history, inspection)
    text = " ".join(capsys.readouterr().out.split())
    assert "对应的用户不存在" in text
    assert "There is no user with this cuid at Jiguang." in text
    assert "Register the user there or correct cuid." in text
    shown = dead_letter_json(history, inspection)
    assert shown["solution"] == "Register the user there or correct cuid."
