"""What Jiguang Growth's answers mean: `{"code", "msg", "data"?}`, and which events an error's words are about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from connector.records import Item
from connector.vendors.answers import Action, Codes, Words, by_setting, by_status, parsed, request_id, unread, whole
from connector.vendors.base import Accepted, Misconfigured, Refused, Response, Retry, TooLarge, Verdict

RECORD_FAULTS: Final = frozenset({"4001", "4002", "4003", "4004", "4101", "4102", "4103", "4104", "4105"})
"""The codes that the document explains by what is in an event."""

_SEVERAL: Final = "4000"
_APP_KEY: Final = "4100"
_NUMBER: Final = re.compile(r"(?<![A-Za-z0-9_.-])-?\d+(?![A-Za-z0-9_])")
_DATA: Final = re.compile(r"(?<![A-Za-z0-9_.])data(?![A-Za-z0-9_.\[])")


class _Entry(NamedTuple):
    """One error: its code as text, and the vendor's words."""

    code: str
    msg: str


class _Event(NamedTuple):
    """What of an event an error's words may quote."""

    cuid: int | None
    itime: int | None
    name: str
    random_id: str
    properties: frozenset[str]


def read(response: Response, items: Sequence[Item], codes: Codes, words: Words) -> Verdict:
    """Return what an answer means for the items that were sent. Never raises."""
    answer = parsed(response.body)
    fields = answer if isinstance(answer, dict) else {}
    code = whole(fields.get("code"))
    name = None if code is None or code == 0 else str(code)
    verdict = by_status(response, words, codes, code=name, said=_text(fields))
    if verdict is not None:
        return verdict
    if code is None:
        return unread(response, words, codes)
    if code == 0:
        if response.status < 300:
            return Accepted(request_id=request_id(response.headers))
        return Retry(f"HTTP {response.status} with code 0: neither success nor failure")
    entry = _Entry(str(code), _text(fields))
    entries = (_entries(fields.get("data")) if entry.code == _SEVERAL else None) or [entry]
    return _judge(entries, items, codes, words, request_id(response.headers))


def _text(fields: Mapping[str, Any], name: str = "msg") -> str:
    text = fields.get(name)
    return text if isinstance(text, str) else ""


def _entries(data: object) -> list[_Entry]:
    """Return the listed errors, each once; the vendor repeats one for every event that has it."""
    found: dict[_Entry, None] = {}
    for member in data if isinstance(data, list) else []:
        code = whole(member.get("code")) if isinstance(member, dict) else None
        if code:
            found[_Entry(str(code), _text(member))] = None
    return list(found)


def _judge(entries: Sequence[_Entry], items: Sequence[Item], codes: Codes, words: Words, rid: str | None) -> Verdict:
    """Return the verdict of the gravest error: a hold before a refusal before a retry, the user's `codes:` first."""
    held = next((entry for entry in entries if codes.get(entry.code, _default(entry.code)) == "hold"), None)
    if held is not None:
        return Misconfigured(held.code, _reason(held, words), request_id=rid)
    blamed = [entry for entry in entries if codes.get(entry.code) != "retry"]
    if not blamed:
        return by_setting("retry", entries[0].code, _reason(entries[0], words), request_id=rid)
    events = [_event(item) for item in items]
    for entry in blamed:
        verdict = _whole_request(entry, events, words, rid)
        if verdict is not None:
            return verdict
    known = [entry for entry in blamed if entry.code in RECORD_FAULTS or entry.code in codes]
    first = (known or blamed)[0]
    suspects = frozenset(index for entry in blamed for index in _suspects(entry, events))
    return Refused(first.code, _reason(first, words), suspects, documented=bool(known), request_id=rid)


def _default(code: str) -> Action:
    return "hold" if code == _APP_KEY else "refuse"


def _reason(entry: _Entry, words: Words) -> str:
    return words(f"code {entry.code}: {entry.msg}")


def _event(item: Item) -> _Event:
    """Return what of an item an error may quote; a value of another type (its rule may be off) is quoted by nothing."""
    event = parsed(item.body)
    fields = event if isinstance(event, dict) else {}
    properties = fields.get("properties")
    return _Event(
        whole(fields.get("cuid")),
        whole(fields.get("itime")),
        _text(fields, "eventName"),
        _text(fields, "randomId"),
        frozenset(properties) if isinstance(properties, dict) else frozenset(),
    )


def _whole_request(entry: _Entry, events: Sequence[_Event], words: Words, rid: str | None) -> Verdict | None:
    """Return the verdict of an error about the request itself: too many members of `data`, or the appKey.

    Events that have a property of that name are asked first: the error may be theirs.
    """
    if entry.code == "4002" and len(events) > 1 and _DATA.search(entry.msg) and not _with_property(events, "data"):
        return TooLarge(entry.code, _reason(entry, words), "records", rid)
    if entry.code in ("4001", "4003", "4004") and _names(entry.msg, "appKey") and not _with_property(events, "appKey"):
        return Misconfigured(entry.code, _reason(entry, words), request_id=rid)
    return None


def _with_property(events: Sequence[_Event], name: str) -> bool:
    return any(name in event.properties for event in events)


def _suspects(entry: _Entry, events: Sequence[_Event]) -> set[int]:
    """Return the events whose values an error's words quote, by what the code is about."""
    msg = entry.msg
    numbers = {int(text) for text in _NUMBER.findall(msg) if len(text) < 21}
    if entry.code == "4104":
        return {index for index, event in enumerate(events) if event.itime in numbers}
    if entry.code == "4103":
        return {index for index, event in enumerate(events) if event.cuid in numbers}
    named = _longest({event.name for event in events}, msg)
    by_event = {index for index, event in enumerate(events) if event.name in named}
    if entry.code == "4101":
        return by_event
    attributes = _longest({name for event in events for name in event.properties}, msg)
    by_attribute = {index for index, event in enumerate(events) if not attributes.isdisjoint(event.properties)}
    if entry.code == "4102" and by_event & by_attribute:
        return by_event & by_attribute
    if by_attribute or entry.code in ("4102", "4105"):
        return by_attribute
    quoted = {
        index
        for index, event in enumerate(events)
        if event.itime in numbers or event.cuid in numbers or _names(msg, event.random_id)
    }
    return quoted | by_event


def _names(msg: str, name: str) -> bool:
    """Tell whether the words hold the name and not only as a part of a longer one."""
    return bool(name) and re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", msg) is not None


def _longest(names: set[str], msg: str) -> set[str]:
    """Return the names that the words hold, without those that only stand inside another one of them."""
    held = {name for name in names if _names(msg, name)}
    return {name for name in held if not any(name != other and name in other for other in held)}
