"""Dead letters as JSON Lines, without what `console.mask` names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, Final

from connector.console.masking import HIDDEN, Mask, MaskedRecord
from connector.dead_letters.export import record_json
from connector.dead_letters.inspection import Inspection
from connector.dead_letters.reader import DeadLetterEntry
from connector.errors import ConnectorError

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

    With a mask the value is left out, because its bytes hold every field: the decoded event replaces it. Keys and
    headers that may be shown are written as they are.
    """
    whole = record_json(dead_letter)
    if not mask:
        return whole
    try:
        inspection = await inspect(dead_letter)
    except ConnectorError:
        inspection = None  # without its event nothing of the record is known to be harmless
    masked = MaskedRecord.of(dead_letter, inspection, mask)
    record, facts = dead_letter.record, dead_letter.facts
    headers = [
        written if _shown(value, masked.header(name, value)) else {**written, "value": HIDDEN}
        for written, (name, value) in zip(whole["headers"], facts.original, strict=True)
    ]
    return {
        **whole,
        "key": whole["key"] if _shown(record.key, masked.key(record.key)) else HIDDEN,
        "headers": headers,
        "value": None,
        "event": masked.event,
        "message": masked.message(facts.cause, facts.field or "", facts.message),
    }


def _shown(value: bytes | None, shown: str | None) -> bool:
    """Whether a page would show all of these bytes."""
    return value is None or value.decode(errors="backslashreplace") == shown
