"""Dead letters as JSON Lines, without what `console.mask` names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, Final

from connector.console.masking import HIDDEN, Mask, Masked
from connector.dead_letters.export import record_json
from connector.dead_letters.inspection import Inspection
from connector.dead_letters.reader import DeadLetterEntry

_CHUNK: Final = 200

Inspect = Callable[[DeadLetterEntry], Awaitable[Inspection]]


async def lines(
    dead_letters: Iterator[DeadLetterEntry], mask: Mask, inspect: Inspect
) -> AsyncGenerator[tuple[bytes, int], None]:
    """Yield JSON Lines and their number; the dead letters are read in a thread of their own."""
    while chunk := await asyncio.to_thread(lambda: list(islice(dead_letters, _CHUNK))):
        rows = [await row(dead_letter, mask, inspect) for dead_letter in chunk]
        written = (json.dumps(each, ensure_ascii=False).encode(errors="replace") + b"\n" for each in rows)
        yield b"".join(written), len(rows)


async def row(dead_letter: DeadLetterEntry, mask: Mask, inspect: Inspect) -> dict[str, Any]:
    """Return what is written of a dead letter: as `connector dlq export` writes it, or what the mask leaves of it.

    With fields hidden the value is left out, because its bytes hold every field: the decoded event replaces it.
    """
    whole = record_json(dead_letter)
    if not mask:
        return whole
    masked = Masked.of(await inspect(dead_letter) if mask.events else None, mask)
    key = dead_letter.record.key
    headers = [
        {**written, "value": HIDDEN} if mask.header(name) or _holds(value, masked) else written
        for written, (name, value) in zip(whole["headers"], dead_letter.facts.original, strict=True)
    ]
    shown = {**whole, "key": HIDDEN if mask.key or _holds(key, masked) else whole["key"], "headers": headers}
    if not mask.events:
        return shown
    message = HIDDEN if masked.unread else masked.text(dead_letter.facts.message)
    return {**shown, "value": None, "event": masked.event, "message": message}


def _holds(value: bytes | None, masked: Masked) -> bool:
    """Whether bytes hold one of the texts that are hidden."""
    text = "" if value is None else value.decode(errors="backslashreplace")
    return masked.text(text) != text
