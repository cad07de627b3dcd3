"""Hides what `console.mask` names before anything is shown or exported. Pure.

An event's own values are hidden by their path. The same values are then hidden wherever else they occur: in the
fragment of a request, where a field may have another name, in the key, and in a vendor's message that repeats them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, quote_plus

from connector.dead_letters.inspection import Inspection

HIDDEN: Final = "•••"
KEY: Final = "$key"
HEADER: Final = "$header."
VENDOR_MESSAGES: Final = frozenset({"refused", "too_large", "gave_up", "unknown_outcome"})
"""Causes whose message may come from a vendor and repeat any value; the connector's own messages hold no values."""
_SHORTEST: Final = 3
"""The least characters of a value that is searched for in other texts: shorter ones would hide half of every line."""


class Mask:
    """What is hidden. A path matches wherever an event has it: `properties.phone` also inside an envelope's body."""

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

    @property
    def events(self) -> bool:
        """Whether fields of events are hidden, so that an event that cannot be read cannot be shown at all."""
        return bool(self._paths)

    def header(self, name: str) -> bool:
        """Whether a record's header of this name is hidden."""
        return name.lower() in self._headers

    def names_field(self, field: str) -> bool:
        """Whether a dead letter's `dlq-field` is hidden, so that its message may hold the value."""
        last = field.rpartition(".")[2].partition("[")[0].lower()
        return bool(last) and any(path[-1].lower() == last for path in self._paths)

    def apply(self, event: Any) -> tuple[Any, tuple[str, ...]]:
        """Return the event without what is hidden, and the texts that were hidden, the longest first."""
        hidden: set[str] = set()
        shown = self._walk(event, (), hidden)
        found = sorted((text for text in hidden if len(text) >= _SHORTEST), key=len, reverse=True)
        return shown, tuple(found)

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
class Masked:
    """An event as it may be shown, and the texts to hide elsewhere. `unread`: show nothing of the record's bytes."""

    event: Any
    hidden: tuple[str, ...]
    unread: bool

    @classmethod
    def of(cls, inspection: Inspection | None, mask: Mask) -> Masked:
        """Hide what the mask names. If the event cannot be decoded, its bytes may hold a hidden field anywhere."""
        if inspection is None or inspection.schema is None:
            return cls(None, (), mask.events)
        event, hidden = mask.apply(inspection.event)
        return cls(event, hidden, unread=False)

    def text(self, text: str) -> str:
        """Return a text without what is hidden."""
        return cover(text, self.hidden)


def cover(text: str, hidden: Sequence[str]) -> str:
    """Return a text without the hidden ones, as JSON and forms write them too."""
    if not hidden:
        return text
    written = {form for value in hidden for form in _written(value)}
    return re.sub("|".join(map(re.escape, sorted(written, key=len, reverse=True))), HIDDEN, text)


def _written(text: str) -> Iterator[str]:
    yield text
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield quote(text, safe="")
    yield quote_plus(text)


def _leaves(value: Any) -> Iterator[str]:
    """Yield every single value as text, except true, false and null, which tell nothing."""
    if isinstance(value, Mapping):
        for child in value.values():
            yield from _leaves(child)
    elif isinstance(value, list):
        for child in value:
            yield from _leaves(child)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
