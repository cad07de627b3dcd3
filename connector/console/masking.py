"""Hides the values that `console.mask` names before anything is shown or exported. Pure.

Three rules. First, what the mask names is hidden: a field by its path, the key, a header. Second, the same values are
hidden wherever else they occur: in the request (where a field may have another name), in the key, in headers, and in
messages that repeat them. Third, what is not known to be harmless is hidden completely: raw bytes, which contain every
field; everything of a record whose event cannot be decoded; and, if there is no event to compare with, keys and any
message that may repeat a value.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, quote_plus

from connector.dead_letters.filters import EVENT
from connector.dead_letters.filters import HEADER as _HEADER
from connector.dead_letters.inspection import Inspection
from connector.dead_letters.reader import DeadLetterEntry
from connector.records import Headers, Record

HIDDEN: Final = "•••"
KEY: Final = "$key"
HEADER: Final = "$header."
HARMLESS_MESSAGES: Final = frozenset({"invalid", "expired"})
"""Causes whose message comes from a local rule, which names the field and never a value. Any other message may hold
the words of a vendor, a codec or an exception, and those repeat what they like."""
_VALUES_IN_REASON: Final = frozenset({"", "decode", "edit", "route"})
"""What the codes begin with under which a replay keeps records back for reasons that may repeat a value."""
_SHORTEST: Final = 3
"""Characters from which a value is searched for inside words; a shorter one is hidden only if it is a whole word,
or it would hide half of every line."""


class Mask:
    """What to hide. A path matches anywhere in an event: `properties.phone` also inside an envelope's body."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        names = list(names)
        self._paths = [tuple(name.split(".")) for name in names if not name.startswith("$")]
        self._headers = {name.removeprefix(HEADER).lower() for name in names if name.startswith(HEADER)}
        self.key = KEY in names
        """Whether keys are hidden."""
        self.names = tuple(names)

    def __bool__(self) -> bool:
        """Whether anything is hidden."""
        return bool(self.names)

    def header(self, name: str) -> bool:
        """Whether a record's header of this name is hidden."""
        return name.lower() in self._headers

    def names_field(self, field: str) -> bool:
        """Whether a dead letter's `dlq-field` is hidden, so that its message may hold the value."""
        last = field.rpartition(".")[2].partition("[")[0].lower()
        return bool(last) and any(path[-1].lower() == last for path in self._paths)

    def apply(self, event: Any) -> tuple[Any, set[str]]:
        """Return the event without the fields that are hidden by path, and the hidden texts."""
        hidden: set[str] = set()
        return self._walk(event, (), hidden), hidden

    def check_search(self, conditions: Iterable[str], contains: str | None) -> None:
        """Refuse a search that could find hidden values by guessing. Raises `ValueError` that names them."""
        if contains is not None and self:
            raise ValueError("text in the payload cannot be searched for, because console.mask hides fields of it")
        for condition in conditions:
            name = condition.partition("=")[0]
            path = tuple(name.removeprefix(EVENT).split(".")) if name.startswith(EVENT) else ()
            if self._hides(path) or (name.startswith(_HEADER) and self.header(name.removeprefix(_HEADER))):
                raise ValueError(f"{name} cannot be searched for, because console.mask hides it")

    def _hides(self, path: tuple[str, ...]) -> bool:
        """Whether a value, something that contains it, or something in it may be hidden."""
        beginnings = [path[:count] for count in range(1, len(path) + 1)]
        inside = any(names[:count] == path[-count:] for names in self._paths for count in range(1, len(names)))
        return inside or any(each[-len(names) :] == names for each in beginnings for names in self._paths)

    def listed_key(self, key: bytes | None) -> str | None:
        """Return a key for a list. No event is decoded for lists, and the key may be the value of a hidden field."""
        if key is None or not self:
            return None if key is None else key.decode(errors="backslashreplace")
        return HIDDEN

    def listed_message(self, cause: str, field: str, message: str) -> str:
        """Return a message for a list. No event is decoded for lists, and the message may repeat a hidden value."""
        if self.names_field(field):
            return f"hidden, because it may hold the value of {field}"
        if self and cause not in HARMLESS_MESSAGES:
            return "open the dead letter to see the message"
        return message

    def kept_reason(self, code: str, reason: str) -> str:
        """Return why a dead letter was kept back; only the rules of vendors and of replays hold no values."""
        return HIDDEN if self and code.partition(".")[0] in _VALUES_IN_REASON else reason

    def _walk(self, value: Any, path: tuple[str, ...], hidden: set[str]) -> Any:
        if path and any(path[-len(names) :] == names for names in self._paths):
            hidden.update(_leaves(value))
            return HIDDEN
        if isinstance(value, Mapping):
            return {key: self._walk(child, (*path, str(key)), hidden) for key, child in value.items()}
        if isinstance(value, list):
            return [self._walk(child, path, hidden) for child in value]
        return value


@dataclass(frozen=True, slots=True)
class MaskedRecord:
    """The visible parts of a dead letter: its event and texts without what is hidden.

    `decoded` is false if there is no event to compare with. Then a mask hides the whole record.
    """

    mask: Mask
    event: Any
    hidden: tuple[str, ...]
    decoded: bool

    @classmethod
    def of(
        cls,
        dead_letter: DeadLetterEntry | None,
        inspection: Inspection | None,
        mask: Mask,
        record: Record | None = None,
    ) -> MaskedRecord:
        """Hide what the mask names, and its values wherever they occur; `record` is for one that is no dead letter."""
        key: bytes | None = None if record is None else record.key
        headers: Headers = () if record is None else record.headers
        if dead_letter is not None:
            key, headers = dead_letter.record.key, dead_letter.facts.original
        if inspection is None or inspection.schema is None:
            return cls(mask, None, (), decoded=False)
        event, found = mask.apply(inspection.event)
        if mask.key and key is not None:
            found.update(_leaves(_text(key)))
        for name, value in headers:
            if mask.header(name) and value is not None:
                found.update(_leaves(_text(value)))
        # The longest first, so that a value that contains another one is covered completely.
        hidden = tuple(sorted((text for text in found if text.strip()), key=len, reverse=True))
        return cls(mask, _cover_event(event, hidden) if hidden else event, hidden, decoded=True)

    @property
    def raw(self) -> bool:
        """Whether the record's bytes may be shown. With a mask they may not, because they contain every field."""
        return not self.mask

    @property
    def _hides_all(self) -> bool:
        return bool(self.mask) and not self.decoded

    def text(self, text: str) -> str:
        """Return a text of the record, its request or its vendor, masked."""
        return HIDDEN if self._hides_all else cover(text, self.hidden)

    def fault(self, fault: str) -> str:
        """Return why there is no event, or no destination, masked."""
        if self._hides_all:
            return "The event cannot be decoded. console.mask hides why, because the reason may hold a value."
        return self.text(fault)

    def encoded(self, value: bytes) -> str:
        """Return a key or header value, masked; with a mask, only readable text is shown at all."""
        text = _text(value)
        if self.mask and not _readable(value):
            return HIDDEN
        return self.text(text)

    def key(self, key: bytes | None) -> str | None:
        """Return the record's key, masked; None if it has none."""
        if key is None:
            return None
        return HIDDEN if self.mask.key else self.encoded(key)

    def header(self, name: str, value: bytes | None) -> str | None:
        """Return a header's value, masked; None for null."""
        if value is None:
            return None
        return HIDDEN if self.mask.header(name) else self.encoded(value)

    def message(self, cause: str, field: str, message: str) -> str:
        """Return why the record failed, masked."""
        if self.mask.names_field(field) and not self.hidden:
            return f"hidden, because it may hold the value of {field}"
        if self._hides_all and cause not in HARMLESS_MESSAGES:
            return "hidden: the event cannot be decoded, so the message may hold a value that console.mask hides"
        return cover(message, self.hidden)


def cover(text: str, hidden: tuple[str, ...]) -> str:
    """Return text without the hidden texts, including their JSON, form, base64 and hexadecimal encodings."""
    return _pattern(hidden).sub(HIDDEN, text) if hidden else text


@lru_cache(maxsize=64)
def _pattern(hidden: tuple[str, ...]) -> re.Pattern[str]:
    written = sorted({form for value in hidden for form in _written(value)}, key=len, reverse=True)
    parts = [re.escape(form) if len(form) >= _SHORTEST else rf"(?<!\w){re.escape(form)}(?!\w)" for form in written]
    return re.compile("|".join(parts), re.IGNORECASE)


def _cover_event(value: Any, hidden: tuple[str, ...]) -> Any:
    """Return an event in which no other field, nor a name in a map, repeats a hidden text."""
    if isinstance(value, Mapping):
        return {cover(str(key), hidden): _cover_event(child, hidden) for key, child in value.items()}
    if isinstance(value, list):
        return [_cover_event(child, hidden) for child in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return cover(value, hidden)
    return HIDDEN if cover(str(value), hidden) != str(value) else value


def _written(text: str) -> Iterator[str]:
    """Yield a text in each encoding."""
    yield text
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield quote(text, safe="")
    yield quote_plus(text)
    data = text.encode(errors="surrogatepass")
    if len(data) >= _SHORTEST:
        # The last character depends on what follows the value, so it is left out.
        whole = len(data) * 8 // 6
        yield base64.b64encode(data).decode()[:whole]
        yield base64.urlsafe_b64encode(data).decode()[:whole]
        yield data.hex()


def _leaves(value: Any) -> Iterator[str]:
    """Yield every single value as text, times in each form. Without true, false and null, which reveal nothing."""
    if isinstance(value, Mapping):
        for child in value.values():
            yield from _leaves(child)
    elif isinstance(value, list):
        for child in value:
            yield from _leaves(child)
    elif isinstance(value, bool) or value is None:
        return
    else:
        yield str(value)
        if isinstance(value, float) and value.is_integer():
            yield str(int(value))
        yield from _times(value)


def _times(value: Any) -> Iterator[str]:
    """Yield a time in seconds and in milliseconds: an event may have one of them, and a request the other."""
    seconds: float | None = None
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
        try:
            time = datetime.fromisoformat(value)
            seconds = (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return
    elif isinstance(value, int) and 10**8 <= value < 10**14:
        seconds = value / 1000 if value >= 10**11 else float(value)
    if seconds is not None:
        yield str(int(seconds))
        yield str(int(seconds * 1000))


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def _readable(value: bytes) -> bool:
    """Whether bytes are plain text: in other bytes a hidden value could not be found."""
    try:
        return all(character.isprintable() or character in "\t\r\n" for character in value.decode())
    except UnicodeDecodeError:
        return False
