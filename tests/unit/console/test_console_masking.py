"""What `console.mask` names appears in nothing that is shown or exported, in whatever form it is written."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from connector.console.export import row
from connector.console.masking import HIDDEN, Mask, Masked, cover
from connector.dead_letters.headers import parse
from connector.dead_letters.reader import DeadLetterEntry
from tests.unit.dead_letters.test_dead_letter_reader import dead

secrets = st.text(st.characters(codec="utf-8", exclude_characters="•"), min_size=3, max_size=30).filter(
    lambda text: text.strip() == text
)


@given(secrets, st.sampled_from([(), ("body",), ("body", "connector.events.JiguangUserEvent")]), st.integers(0, 3))
def test_a_hidden_field_is_nowhere_in_what_is_shown(secret: str, around: tuple[str, ...], lists: int) -> None:
    """Under any envelope, in lists and nested, the value is hidden; and in texts as JSON and forms write it.

    Kills: a path that is compared from the event's root only, a fragment in which the value is left escaped.
    """
    value: Any = {"name": secret, "more": [secret]}
    for _ in range(lists):
        value = [value]
    event: Any = {"properties": {"phone": value, "city": "x1"}, "id": 7}
    for name in around:
        event = {name: event}
    masked, hidden = Mask(["properties.phone"]).apply(event)
    plain = json.dumps(masked, ensure_ascii=False)
    assert HIDDEN in plain
    assert '"city": "x1"' in plain
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        assert cover(f'before {form}"after', hidden) == f'before {HIDDEN}"after'
    for form in (quote(secret, safe=""), quote_plus(secret)):
        assert form not in cover(f"phone={form}&x=1", hidden)


@pytest.mark.parametrize(
    ("names", "field", "hidden"),
    [
        (["properties.phone"], "properties.phone", True),
        (["properties.phone"], "phone", True),
        (["properties.phone"], "events[3].Phone[0]", True),
        (["properties.phone"], "phones", False),
        (["properties.phone"], "", False),
        (["$key"], "phone", False),
    ],
)
def test_a_message_about_a_hidden_field_is_hidden_with_it(names: list[str], field: str, hidden: bool) -> None:
    """A vendor's message about a hidden field may repeat its value, so the list does not show it."""
    assert Mask(names).names_field(field) is hidden


def test_an_event_that_cannot_be_read_shows_none_of_its_bytes() -> None:
    """In bytes that are not an event a hidden field may be anywhere."""
    broken: Any = SimpleNamespace(schema=None, event=None)
    assert Masked.of(broken, Mask(["phone"])).unread
    assert Masked.of(None, Mask(["phone"])).unread
    assert not Masked.of(broken, Mask(["$key"])).unread


def dead_letter(secret: str) -> DeadLetterEntry:
    """Return a dead letter whose key, headers and message hold a secret."""
    record = dead(1, message=f"{secret} is refused")
    record = replace(
        record,
        key=f"key {secret}".encode(),
        value=f"bytes {secret}".encode(),
        headers=[("copy", secret.encode()), ("Phone", b"12345"), ("n", None), *record.headers],
    )
    facts = parse(record.headers)
    assert facts is not None
    return DeadLetterEntry(record, facts, "open")


async def test_an_export_without_a_mask_is_byte_for_byte() -> None:
    """Key, value and headers are those of the record."""
    one = dead_letter("13800000000")
    written = await row(one, Mask(), _no_rules)
    assert base64.b64decode(written["key"]) == one.record.key
    assert base64.b64decode(written["value"]) == one.record.value
    assert [header["value"] and base64.b64decode(header["value"]) for header in written["headers"]] == [
        value for _, value in one.facts.original
    ]
    assert "event" not in written


@pytest.mark.parametrize("readable", [True, False])
async def test_an_export_with_a_mask_holds_none_of_it(readable: bool) -> None:
    """Neither as text nor in base64: the event stands in place of the bytes, or nothing where it cannot be read.

    Kills: an export that writes the record's own bytes although a field of them is hidden.
    """
    secret = "13800000000"
    event = {"properties": {"phone": secret, "city": "Wuhan"}}
    found = SimpleNamespace(schema="x" if readable else None, event=event if readable else None)

    async def inspect(_dead_letter: DeadLetterEntry) -> Any:
        return found

    written = await row(dead_letter(secret), Mask(["properties.phone", "$header.phone"]), inspect)
    text = json.dumps(written)
    decoded = [base64.b64decode(one["value"]) for one in written["headers"] if one["value"] and one["name"] == "n"]
    assert decoded == []
    assert written["value"] is None
    assert base64.b64encode(b"12345").decode() not in text
    if readable:
        assert secret not in text
        assert base64.b64encode(f"key {secret}".encode()).decode() not in text
        assert base64.b64encode(secret.encode()).decode() not in text
        assert written["event"]["properties"] == {"phone": HIDDEN, "city": "Wuhan"}
    else:
        assert (written["event"], written["message"]) == (None, HIDDEN)


async def _no_rules(_dead_letter: DeadLetterEntry) -> Any:
    raise AssertionError("without a mask nothing has to be decoded")
