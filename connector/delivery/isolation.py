"""How a refused batch is taken apart until only the bad records are left. Pure.

A refused batch must be sent again in another composition, or it fails for ever. With a hint (the answer names values),
the suspects are set apart and the rest is sent at once; without one, halves.
"""

from __future__ import annotations

from collections.abc import Sequence

from connector.delivery.lane import order_key
from connector.pipeline.batching import Batch, Delivery


def halves(batch: Batch) -> list[Batch]:
    """Return the two halves of a batch of two or more, the earlier first."""
    middle = (len(batch.deliveries) + 1) // 2
    return [batch.part(batch.deliveries[:middle]), batch.part(batch.deliveries[middle:])]


def take_apart(batch: Batch, suspects: frozenset[int], *, ordered: bool) -> list[Batch]:
    """Return the parts in which a refused batch is sent again, in the order of sending: a lone record alone.

    Hints that name every record, or none, tell nothing. In an ordered lane a suspect takes the later records of its key
    along: behind it, each alone, because it may hold them up.
    """
    deliveries = batch.deliveries
    if len(deliveries) == 1:
        return [batch]
    if not suspects or len(suspects) >= len(deliveries):
        return halves(batch)
    apart = set(suspects)
    if ordered:
        apart |= _followers(deliveries, suspects)
    rest = [delivery for index, delivery in enumerate(deliveries) if index not in apart]
    parts = [batch.part(rest)] if rest else []
    parts.extend(batch.part([deliveries[index]]) for index in sorted(apart))
    return parts


def _followers(deliveries: Sequence[Delivery], suspects: frozenset[int]) -> set[int]:
    """Return the indexes of records behind a suspect of the same key."""
    keys: set[object] = set()
    followers = set()
    for index, delivery in enumerate(deliveries):
        key = order_key(delivery.record)
        if index in suspects:
            keys.add(key)
        elif key in keys:
            followers.add(index)
    return followers
