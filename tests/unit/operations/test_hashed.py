"""A field that a route hashes is shown nowhere in plain: not in commands, pages, dead letters, messages or settings."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from connector.clock import SystemClock
from connector.config.loader import Loaded, redacted, secret_values
from connector.config.routes import CelSource, hashed
from connector.console.state import ConsolePorts, ConsoleState
from connector.dead_letters.headers import to_headers
from connector.dead_letters.inspection import Inspection
from connector.operations.inspect import DeadLetterExaminer, without_hashed
from connector.records import DeadLetter, Record
from tests.unit.operations.test_preview import configured, record, value

PHONE = "13800138000"
PEPPER = "pepper-and-salt"
FIELDS: dict[str, Any] = {
    "cuid": "cuid",
    "eventName": {"const": "see"},
    "itime": "itime",
    "randomId": {"path": "properties.phone", "hash": "sha256"},
    "properties": {
        "map": {
            "phone": {"path": "properties.phone", "hash": "hmac-sha256", "key": PEPPER},
            "mail": {"cel": f"has(event.properties.mail) ? hmac_sha256(event.properties.mail, '{PEPPER}') : ''"},
            "also": "properties.also",
        }
    },
}
ROUTE = {"schema": "connector.events.JiguangUserEvent", "to": ["jg"], "fields": {"jiguang": FIELDS}}


def inspected(loaded: Loaded, found: Record) -> Inspection:
    """Return what today's rules make of a record."""
    return asyncio.run(DeadLetterExaminer(loaded, "cluster").inspect_record(found))


def test_commands_show_the_hash_and_not_the_value(tmp_path: Path) -> None:
    """`explain` and `dlq show` hide the value in the event, and wherever a fragment or the key repeats it."""
    loaded = configured(tmp_path, sections={"routes": [ROUTE]})
    properties = {"phone": PHONE, "also": f"call {PHONE}", "mail": "ann@example.com", "n": 5}
    found = replace(record(0, value(1, properties=properties)), key=PHONE.encode())
    shown = without_hashed(inspected(loaded, found), loaded.settings, found)
    text = json.dumps([shown.event, [each.fragment for each in shown.preparations]], ensure_ascii=False)
    assert PHONE not in text
    assert "ann@example.com" not in text
    assert hashlib.sha256(PHONE.encode()).hexdigest() in text
    assert shown.event["properties"]["n"] == 5
    assert PHONE in shown.hidden


def test_a_refusal_over_a_hashed_field_does_not_repeat_it(tmp_path: Path) -> None:
    """A value that has no text refuses the delivery; the dead letter's headers have the field and no value."""
    loaded = configured(tmp_path, sections={"routes": [ROUTE]})
    found = record(0, value(1, properties={"phone": [PHONE]}))
    (preparation,) = inspected(loaded, found).preparations
    assert preparation.rule == "mapping.properties.type"
    message = preparation.reason or ""
    headers = to_headers(
        DeadLetter(found, "invalid", preparation.rule, message, 5.0, "d", field="properties"), group="g"
    )
    assert all(PHONE.encode() not in (content or b"") for _, content in headers)


def test_the_console_masks_what_is_hashed(tmp_path: Path) -> None:
    """The console's mask has the hashed paths, also those of an expression, in addition to its own."""
    sections = {"routes": [ROUTE], "console": {"mask": ["properties.n"]}}
    settings = configured(tmp_path, sections=sections).settings
    ports: dict[str, Any] = dict.fromkeys(field.name for field in fields(ConsolePorts))
    state = ConsoleState(settings, [], ConsolePorts(**{**ports, "clock": SystemClock()}))
    assert state.mask.names == ("properties.n", "properties.mail", "properties.phone")
    event, hidden = state.mask.apply({"properties": {"phone": PHONE, "n": 5, "also": 1}})
    assert event["properties"]["also"] == 1
    assert PHONE in hidden
    assert PHONE not in json.dumps(event)


@pytest.mark.parametrize(
    ("expression", "paths"),
    [
        ("hmac_sha256(lowerAscii(event.user.email), 'k')", ["user.email"]),
        ("sha256(event.a + event.b.c.trim()) + event.d", ["a", "b.c"]),
        ("event.user.email.lowerAscii().sha256()", ["user.email"]),
        ("event.items.map(i, sha256(i.sku))", ["items.sku"]),
        ("event.items.filter(i, i.ok).map(j, sha256(j.sku))", ["sku"]),
        ("event.phones.map(p, sha256(p))", ["phones"]),
        ("""sha256(event["user"].phone + event.items[0].sku)""", ["user.phone", "items.sku"]),
        ("sha256(key) + hmac_sha256(headers['x-mail'], 'event.no')", ["$key", "$header.x-mail"]),
        ("event.phone == 'sha256(event.no)' ? 'a' : 'b'", []),
    ],
)
def test_every_form_of_a_hash_in_an_expression_is_known(expression: str, paths: list[str]) -> None:
    """What is read inside a hash is hidden, through functions, methods, loops, indexes, keys and headers."""
    assert list(hashed(CelSource(cel=expression))) == paths


def test_keys_of_hashes_are_secrets(tmp_path: Path) -> None:
    """`check` hides the key of an HMAC, also one inside an expression, and logs hide its text."""
    settings = configured(tmp_path, sections={"routes": [ROUTE]}).settings
    assert PEPPER not in json.dumps(redacted(settings))
    assert "hmac_sha256(event.properties.mail" in json.dumps(redacted(settings))
    assert PEPPER in set(secret_values(settings))


def test_dead_letters_are_shown_without_what_is_hashed(tmp_path: Path) -> None:
    """An inspection that has no event hides nothing by itself, and one without a hashing route stays as it is."""
    plain = configured(tmp_path).settings
    inspection = Inspection("x", {"properties": {"phone": PHONE}}, None, ())
    found = record(0, b"")
    assert without_hashed(inspection, plain, found) is inspection
    hashing = configured(tmp_path, sections={"routes": [ROUTE]}).settings
    assert PHONE not in str(without_hashed(inspection, hashing, found).event)
