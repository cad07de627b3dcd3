"""`connector console` refuses to start where others could reach it, and says why."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from connector.cli import main as cli

FILE = """
kafka: {topics: [events], group_id: group, client: {bootstrap.servers: "localhost:9"}}
destinations:
  one: {vendor: mytracker, id_app: 666, token: hidden-token}
"""


@pytest.fixture(autouse=True)
def _logging_is_put_back() -> Iterator[None]:
    """Undo the set-up of logging that the command makes for its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("more", "arguments", "code", "words"),
    [
        ("console: {host: 0.0.0.0}", [], 1, "console.tokens"),
        ("console: {token: short}", [], 2, "console.token"),
        ("console: {members: [ftp://x]}", [], 2, "console.members"),
        ("console: {members: ['http://u:p@x']}", [], 2, "must not contain credentials"),
        ("console: {audit_topic: events}", [], 2, "the connector would consume events"),
        ("console: {hots: []}", [], 2, "did you mean hosts?"),
        ("server: {port: 0}", [], 2, "pass --url"),
        ("", ["--url", "localhost:8080"], 2, "--url must be http://host:port"),
    ],
)
def test_faults_are_reported_before_anything_listens(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    more: str,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    """A page that others could open, or an invalid configuration, ends the start with a message."""
    path = tmp_path / "connector.yaml"
    path.write_text(FILE + more + "\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["connector", "console", "-c", str(path), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert (ended.value.code, words in said, "hidden-token" in said) == (code, True, False), said
