"""A log line is an event and its fields, in the wanted form, without secrets; the libraries' lines go the same way."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from connector.config.loader import LogSettings
from connector.telemetry.logs import configure, flush, register_secrets

SECRET = "pass-7f3a-word"


@pytest.fixture(autouse=True)
def _logging_is_put_back() -> Iterator[None]:
    """Undo what `configure` does to the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the JSON lines of a stream."""
    assert flush()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(level: str = "info") -> io.StringIO:
    """Configure JSON lines to a stream and return it."""
    stream = io.StringIO()
    configure(LogSettings.model_validate({"level": level}), stream)
    return stream


def test_a_line_is_json_where_no_one_looks() -> None:
    """Without a terminal a line is one JSON object: time in UTC, level, event, fields."""
    stream = configured()
    structlog.get_logger().info("batch.refused", destination="one", records=3)
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {"level": "info", "event": "batch.refused", "destination": "one", "records": 3}


def test_a_terminal_gets_text() -> None:
    """`auto` on a terminal is for reading, `json` stays JSON there, and `console` is text in a file."""
    for form, stream, is_json in (
        ("auto", Terminal(), False),
        ("json", Terminal(), True),
        ("console", io.StringIO(), False),
    ):
        configure(LogSettings.model_validate({"format": form}), stream)
        structlog.get_logger().info("batch.refused", destination="one")
        assert flush()
        assert stream.getvalue().startswith("{") is is_json
        assert "batch.refused" in stream.getvalue()


@pytest.mark.parametrize(("level", "seen"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(level: str, seen: int) -> None:
    """What is below the level is not written; a library's lines below warning never are.

    Kills: a library that logs each of its requests, some with their headers.
    """
    for log, expected in ((structlog.get_logger, seen), (lambda: logging.getLogger("library"), min(seen, 2))):
        stream = configured(level)
        for name in ("debug", "info", "warning", "error"):
            getattr(log(), name)("event")
        assert len(lines(stream)) == expected


def test_libraries_speak_the_same_form() -> None:
    """The standard library's records, their arguments, warnings and loggers' names become fields of a line."""
    stream = configured()
    logging.getLogger("library.part").warning("waited %d s for %s", 3, "kafka")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        configure(LogSettings(), stream)
        warnings.warn("old", stacklevel=1)
        logging.captureWarnings(capture=False)
    first, second = lines(stream)
    assert (first["event"], first["level"], first["logger"]) == ("waited 3 s for kafka", "warning", "library.part")
    assert "old" in second["event"]


def fail() -> None:
    """Raise an error that holds a secret."""
    raise RuntimeError(f"cannot log in with {SECRET}")


def test_secrets_are_in_no_line() -> None:
    """By key or by text, nested, in an exception, in a library's argument or in a URL: no secret is written."""
    register_secrets([SECRET])
    for form in ("json", "console"):
        stream = io.StringIO()
        configure(LogSettings.model_validate({"format": form}), stream)
        log = structlog.get_logger()
        log.info(SECRET, authorization="Basic abc123", nested={"password": "abc123", "list": [SECRET.encode()]})
        log.info("url", proxy="http://user:abc123@proxy")
        logging.getLogger("library").error("sent %s", SECRET)
        try:
            fail()
        except RuntimeError:
            log.exception("failed")
            logging.getLogger("library").exception("failed")
        assert flush()
        text = stream.getvalue()
        assert "cannot log in with ***" in text
        assert SECRET not in text
        assert "abc123" not in text


def test_an_exception_is_one_line_of_json() -> None:
    """A traceback is a field, so that a line stays a line."""
    stream = configured()
    try:
        fail()
    except RuntimeError:
        structlog.get_logger().exception("failed", destination="one")
    (line,) = lines(stream)
    assert line["exception"].startswith("Traceback")
    assert "in fail" in line["exception"]


def test_no_value_loses_the_line() -> None:
    """Values that JSON has no form for are written somehow: the line matters more."""
    stream = configured()
    structlog.get_logger().info(
        "odd", huge=2**80, surrogate="\ud800", data=b"\xff", what=object(), keys={1: float("nan")}
    )
    (line,) = lines(stream)
    assert line["huge"] == 2**80
    assert line["data"] == "\\xff"


def test_configured_twice_writes_once() -> None:
    """A second set-up replaces the first."""
    first, second = configured(), configured()
    structlog.get_logger().info("event")
    logging.getLogger("library").error("event")
    assert first.getvalue() == ""
    assert len(lines(second)) == 2


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_log_line_commands_a_terminal(form: str) -> None:
    """Control and bidirectional characters in an event, a field, a nested value, a key or an exception are escaped.

    Kills: a renderer that writes texts from records and vendors as they are.
    """
    evil = "\x1b[2J\x07\r\x7f\x9b31m\u202egnp.exe\u2066\u200f"
    stream = io.StringIO()
    configure(LogSettings.model_validate({"format": form}), stream)
    fields = {evil: 1, "message": evil, "nested": [evil, {"a": evil}]}
    structlog.get_logger().error("batch.refused", exc_info=ValueError(evil), **fields)
    logging.getLogger("library").warning("answered %s", evil)
    assert flush()
    text = stream.getvalue()
    assert [character for character in text if character != "\n" and not character.isprintable()] == []
    assert "gnp.exe" in text


def test_no_text_looks_like_another_line() -> None:
    """A line end inside a field is escaped on a terminal. Kills: a vendor's answer that forges a log line."""
    stream = io.StringIO()
    configure(LogSettings.model_validate({"format": "console"}), stream)
    structlog.get_logger().error("batch.refused", message="no\n2026-01-01T00:00:00Z [info] all is well")
    logging.getLogger("library").warning("answered %s", "a\nb")
    assert flush()
    assert len(stream.getvalue().splitlines()) == 2
