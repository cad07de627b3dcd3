"""Letters as JSON Lines, without what `console.mask` names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, Final

from connector.console.letter_page import Inspection, Masked
from connector.console.masking import HIDDEN, Mask
from connector.dead_letters.commands import record_json
from connector.dead_letters.reader import Letter

_CHUNK: Final = 200

Inspect = Callable[[Letter], Awaitable[Inspection]]


async def lines(letters: Iterator[Letter], mask: Mask, inspect: Inspect) -> AsyncGenerator[tuple[bytes, int], None]:
    """Yield JSON Lines and how many they are; the letters are read in a thread of their own."""
    while chunk := await asyncio.to_thread(lambda: list(islice(letters, _CHUNK))):
        rows = [await row(letter, mask, inspect) for letter in chunk]
        yield b"".join(json.dumps(one, ensure_ascii=False).encode(errors="replace") + b"\n" for one in rows), len(rows)


async def row(letter: Letter, mask: Mask, inspect: Inspect) -> dict[str, Any]:
    """Return what is written of a letter: the record as `connector dlq export` does, or what the mask leaves of it.

    With fields hidden there are no bytes, because they hold everything: the decoded event stands in their place.
    """
    whole = record_json(letter)
    if not mask:
        return whole
    masked = Masked.of(await inspect(letter) if mask.events else None, mask)
    key = letter.record.key
    headers = [
        {**written, "value": HIDDEN} if mask.header(name) or _holds(value, masked) else written
        for written, (name, value) in zip(whole["headers"], letter.facts.original, strict=True)
    ]
    shown = {**whole, "key": HIDDEN if mask.key or _holds(key, masked) else whole["key"], "headers": headers}
    if not mask.events:
        return shown
    message = HIDDEN if masked.unread else masked.text(letter.facts.message)
    return {**shown, "value": None, "event": masked.event, "message": message}


def _holds(value: bytes | None, masked: Masked) -> bool:
    """Whether bytes hold one of the texts that are hidden."""
    text = "" if value is None else value.decode(errors="backslashreplace")
    return masked.text(text) != text
