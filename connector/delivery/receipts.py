"""What is written down of an accepted batch: which records, when, and under which id of the vendor's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from connector.pipeline.batching import Batch, Delivery
from connector.records import OffsetRange, Receipt, uuid5_text
from connector.vendors.base import Response


def receipt_of(
    destination: str,
    vendor: str,
    batch: Batch,
    delivered: Sequence[Delivery],
    response: Response | None,
    request_id: str | None,
    wall: float,
) -> Receipt:
    """Return the receipt for what was `delivered` of a batch at `wall` (epoch seconds)."""
    ranges = ranges_of((d.record.topic, d.record.partition, d.record.offset) for d in delivered)
    return Receipt(
        id=uuid5_text(
            "/".join((destination, *(f"{one.topic}:{one.partition}:{one.first}-{one.last}" for one in ranges)))
        ),
        destination=destination,
        vendor=vendor,
        positions=ranges,
        records=len(delivered),
        delivered_at=wall,
        first_attempt=batch.first_attempt,
        attempts=batch.attempts,
        http_status=None if response is None else response.status,
        request_id=request_id,
    )


def ranges_of(positions: Iterable[tuple[str, int, int]]) -> tuple[OffsetRange, ...]:
    """Return places as the fewest ranges that hold them and no other, ascending."""
    ranges: list[OffsetRange] = []
    for topic, partition, offset in sorted(positions):
        last = ranges[-1] if ranges else None
        if last is not None and last[:2] == (topic, partition) and offset <= last.last + 1:
            ranges[-1] = OffsetRange(topic, partition, last.first, offset)
        else:
            ranges.append(OffsetRange(topic, partition, offset, offset))
    return tuple(ranges)
