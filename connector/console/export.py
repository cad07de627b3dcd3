"""Dead letters as a file, without what `console.mask` names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Final

from connector.console.masking import HIDDEN, Mask, MaskedRecord
from connector.dead_letters.export import Content, Exporter, Format, content_of
from connector.dead_letters.inspection import Inspection
from connector.dead_letters.reader import DeadLetterEntry
from connector.errors import ConnectorError

_CHUNK: Final = 500

Decode = Callable[[DeadLetterEntry], Awaitable[Inspection]]


async def pieces(
    dead_letters: Iterator[DeadLetterEntry], form: Format, mask: Mask, decode: Decode
) -> AsyncGenerator[tuple[bytes, int], None]:
    """Yield a file piece by piece, each with its number of dead letters. A thread reads and formats them."""
    exporter = Exporter(form)

    def some() -> list[DeadLetterEntry]:
        chunk = list(islice(dead_letters, _CHUNK))
        if not mask:
            for dead_letter in chunk:
                exporter.add(dead_letter, content_of(dead_letter))
        return chunk

    while chunk := await asyncio.to_thread(some):
        if mask:
            for dead_letter in chunk:
                exporter.add(dead_letter, await masked_content(dead_letter, mask, decode))
        yield exporter.take(), len(chunk)
    yield exporter.take(last=True), 0


async def masked_content(dead_letter: DeadLetterEntry, mask: Mask, decode: Decode) -> Content:
    """Return the parts of a dead letter that the mask does not hide.

    The value is replaced by the decoded event, because its bytes contain every field. Keys and headers that may be
    shown stay unchanged.
    """
    try:
        inspection = await decode(dead_letter)
    except ConnectorError:
        inspection = None  # without its event nothing of the record is known to be harmless
    masked = MaskedRecord.of(dead_letter, inspection, mask)
    record, facts = dead_letter.record, dead_letter.facts
    return Content(
        masked.message(facts.cause, facts.field or "", facts.message),
        record.key if _shown(record.key, masked.key(record.key)) else HIDDEN,
        None,
        [(name, value if _shown(value, masked.header(name, value)) else HIDDEN) for name, value in facts.original],
        masked.event,
        masked=True,
    )


def _shown(value: bytes | None, shown: str | None) -> bool:
    """Whether a page would show all of these bytes."""
    return value is None or value.decode(errors="backslashreplace") == shown
