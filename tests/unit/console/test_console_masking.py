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

from connector.console.columns import DeadLetterRow
from connector.console.dead_letter_detail import Found, detail_view
from connector.console.dead_letter_list import Listing, list_view
from connector.console.export import masked_content, pieces
from connector.console.index import DeadLetterIndex, Query
from connector.console.masking import HIDDEN, Mask, MaskedRecord
from connector.console.rendering import Page, render
from connector.dead_letters.export import Format
from connector.dead_letters.headers import parse
from connector.dead_letters.reader import DeadLetterEntry
from tests.unit.dead_letters.test_dead_letter_reader import dead

PAGE = Page("growth", 1_700_000_000.0, "csrf", None)
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
    masked = MaskedRecord.of(None, inspection(event), Mask(["properties.phone"]))
    plain = json.dumps(masked.event, ensure_ascii=False)
    assert HIDDEN in plain
    assert '"city": "x1"' in plain or secret in "x1"
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        assert masked.text(f'before {form}"after') == f'before {HIDDEN}"after'
    data = secret.encode()
    for form in (quote(secret, safe=""), quote_plus(secret), base64.b64encode(data).decode(), data.hex()):
        assert form not in masked.text(f"phone={form}&x=1")


def inspection(event: Any) -> Any:
    """Return what a dead letter holds; None for one that cannot be decoded."""
    fault = "broken near 13800000000" if event is None else None
    return SimpleNamespace(schema=None if event is None else "x", event=event, fault=fault, preparations=())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (42, '{"age":42}'),
        ("m", '{"sex":"m"}'),
        (1.0, "weight=1"),
        ("2023-11-14T22:13:20+00:00", '{"born":1700000000000}'),
        (1_700_000_000, '{"born":1700000000000}'),
        (1_700_000_000_000, "born=1700000000"),
        ("Noor", "NOOR was refused"),
    ],
)
def test_a_hidden_value_is_found_in_other_forms(value: Any, text: str) -> None:
    """A short value as a word, a number without its fraction, a time in other units, and a name in other letters.

    Kills: values under three characters that are not looked for, times that are compared as they are written.
    """
    masked = MaskedRecord.of(None, inspection({"secret": value, "order": 142}), Mask(["secret"]))
    assert HIDDEN in masked.text(text)
    assert masked.event == {"secret": HIDDEN, "order": 142}


def test_the_same_value_in_another_field_is_hidden() -> None:
    """A field that repeats a hidden value, and a map whose names do, are hidden as well; so is the record's own key."""
    event = {"phone": "13800000000", "contact": "13800000000", "calls": {"13800000000": 3}, "user": "key 777"}
    masked = MaskedRecord.of(dead_letter("777"), inspection(event), Mask(["phone", "$key"]))
    assert masked.event == {"phone": HIDDEN, "contact": HIDDEN, "calls": {HIDDEN: 3}, "user": HIDDEN}


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


@pytest.mark.parametrize("names", [["phone"], ["$key"], ["$header.phone"]])
def test_a_record_that_cannot_be_decoded_shows_nothing_of_itself(names: list[str]) -> None:
    """In bytes that are not an event a hidden value may be anywhere: key, headers, value and message are hidden.

    Kills: a page that shows a broken record's key because no field of it is known to be hidden.
    """
    found = dead_letter("13800000000")
    row = row_of(found)
    for trouble in (inspection(None), None):
        view = detail_view(Found(row, found, trouble, None, [row]), Mask(names))
        shown = render("dead_letter.html", PAGE, view)
        for text in ("13800000000", b"13800000000".hex(" "), "12345"):
            assert text not in shown
        assert view.headers == [("copy", HIDDEN), ("Phone", HIDDEN), ("n", None)]
    readable = detail_view(Found(row, found, inspection({"phone": "1"}), None, [row]), Mask())
    assert "13800000000" in render("dead_letter.html", PAGE, readable)


@pytest.mark.parametrize("names", [["phone"], ["$key"], ["$header.phone"]])
def test_a_list_shows_no_key_and_no_message_that_may_hold_a_hidden_value(names: list[str]) -> None:
    """In a list no event is decoded, so nothing is known of a key or of another program's words.

    Kills: a list that shows keys although the page of the record hides them.
    """
    row = row_of(dead_letter("13800000000"))
    listing = Listing(Query(), [row], 0, 1, {}, None)
    assert "13800000000" in render("dead_letters.html", PAGE, list_view(listing, Mask()))
    assert "13800000000" not in render("dead_letters.html", PAGE, list_view(listing, Mask(names)))


def test_bytes_that_are_not_text_are_hidden() -> None:
    """A number in eight bytes may be a hidden one; without a mask the bytes are shown."""
    key = (13_800_000_000).to_bytes(8, "big")
    found = inspection({"phone": 13_800_000_000})
    assert MaskedRecord.of(None, found, Mask(["phone"])).key(key) == HIDDEN
    assert MaskedRecord.of(None, found, Mask()).key(key) != HIDDEN


def test_reasons_that_may_hold_a_value_are_hidden() -> None:
    """A replay's own rules name fields only; a decoder's or a router's words may repeat a value."""
    mask = Mask(["phone"])
    assert mask.kept_reason("route.unknown_target", "no destination is named 138") == HIDDEN
    assert mask.kept_reason("loop_guard", "replayed 3 times") == "replayed 3 times"
    assert Mask().kept_reason("route.unknown_target", "no destination is named 138").endswith("138")


def row_of(found: DeadLetterEntry) -> DeadLetterRow:
    """Return a dead letter as the index keeps it."""
    index = DeadLetterIndex(100)
    index.take([found.record])
    row = index.find(found.facts.id)
    assert row is not None
    return row


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


async def exported(one: DeadLetterEntry, mask: Mask, decode: Any, form: Format = "jsonl") -> bytes:
    """Return the file with one dead letter."""
    return b"".join([piece async for piece, _ in pieces(iter([one]), form, mask, decode)])


async def test_an_export_without_a_mask_is_byte_for_byte() -> None:
    """Key, value and headers are those of the record."""
    one = dead_letter("13800000000")
    written = json.loads(await exported(one, Mask(), _no_rules))
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

    one, mask = dead_letter(secret), Mask(["properties.phone", "$header.phone"])
    written = json.loads(await exported(one, mask, inspect))
    text = json.dumps(written)
    for form in ("csv", "avro"):
        # The same content in another form: of the container, which is compressed, what is in its records.
        assert secret.encode() not in await exported(one, mask, inspect, form) or not readable
    assert (await masked_content(one, mask, inspect)).value is None
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
        assert (
            secret
            not in base64.b64decode(
                "".join(one["value"] for one in written["headers"] if one["value"] not in (HIDDEN, None))
            ).decode()
        )
        assert (written["key"], written["event"]) == (HIDDEN, None)


async def _no_rules(_dead_letter: DeadLetterEntry) -> Any:
    raise AssertionError("without a mask nothing has to be decoded")
