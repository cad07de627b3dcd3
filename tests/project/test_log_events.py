"""docs/logs.md lists every logged event with its meaning, and no event has personal data."""

from __future__ import annotations

import ast
from pathlib import Path

from tools.log_events import MEANINGS, PAGE, current, events, logged
from tools.source import ROOT, Module

PERSONAL = {"key", "value", "headers", "body", "payload", "datum", "event", "fields", "properties", "url", "request"}


def test_page_is_current() -> None:
    """docs/logs.md is what `make docs` would write."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert text == current(text), "run make docs"


def test_every_event_has_a_meaning() -> None:
    """Each event has a meaning in tools/log_events.py, and each meaning there has an event."""
    found = events()
    assert sorted(found.keys() - MEANINGS.keys()) == [], "say in tools/log_events.py what these events mean"
    assert sorted(MEANINGS.keys() - found.keys()) == []


def test_no_event_has_a_field_for_content() -> None:
    """No log call passes a record, a part of one, or a request under any of their usual names."""
    wrong = [
        f"{call.module}:{call.line} {field}"
        for calls in events().values()
        for call in calls
        for field in call.fields
        if field in PERSONAL
    ]
    assert wrong == []


def test_every_form_of_log_call_is_found() -> None:
    """A method of the logger, a choice of two, an alias, and a level by name are all found.

    Kills: an event that no document lists because its call looks different.
    """
    source = """
def f(quiet, name):
    log.info("a.plain", one=1)
    method = log.debug if quiet else _log.warning
    method("a.choice", **{"two": 2}, **more)
    getattr(_log, name)("a.level")
    other.info("no.log")
    log.error(f"{name}")
log.error("a.module")
"""
    module = Module(Path("connector/made_up.py"))
    module.__dict__["tree"] = ast.parse(source)
    found = {one.event: (one.levels, one.fields) for one in logged(module)}
    assert found == {
        "a.plain": (("info",), ("one",)),
        "a.choice": (("debug", "warning"), ("two", "…")),
        "a.level": (("debug", "info", "warning", "error"), ()),
        "a.module": (("error",), ()),
    }
