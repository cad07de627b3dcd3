"""How a refused batch is taken apart until only the bad records are left. Pure.

A refused batch must be sent again in another composition, or it fails for ever. Without a hint it is halved, level by
level: k bad records in n cost at most 2 × k × ⌈log2 n⌉ further requests, the blind bound. With a hint (the answer names
values) the suspects are sent as one part and halved, so that the rest is accepted at once.

A hint may be wrong, and an attribute that most events have names most of them. So hints never cost more than 3 requests
above the blind bound: each part knows how many levels of halving the bound leaves it, and a hint is followed only where
both parts can still be halved within them. Only the first hint may leave the rest one level short; where that rest is
refused too, it is cut in four at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from connector.delivery.lane import order_key
from connector.pipeline.batching import Batch, Delivery

FEW: Final = 2
"""So many suspects of a first hint are sent alone: three parts, one request more than two."""


def halves(batch: Batch) -> list[Batch]:
    """Return the two halves of a batch of two or more, the earlier first."""
    middle = (len(batch.deliveries) + 1) // 2
    return [batch.part(batch.deliveries[:middle]), batch.part(batch.deliveries[middle:])]


def take_apart(batch: Batch, suspects: frozenset[int], *, ordered: bool) -> list[Batch]:
    """Return the parts in which a refused batch is sent again, in the order of sending: a lone record alone.

    In an ordered lane a suspect takes the later records of its key along, in their order, because it may hold them up.
    """
    deliveries = batch.deliveries
    count = len(deliveries)
    if count == 1:
        return [batch]
    left = (_levels(count) if batch.levels is None else batch.levels) - 1
    apart = set(suspects)
    if ordered:
        apart |= _followers(deliveries, suspects)
    if _is_useful(batch, len(apart), left):
        rest = [delivery for index, delivery in enumerate(deliveries) if index not in apart]
        set_apart = [deliveries[index] for index in sorted(apart)]
        alone = batch.levels is None and len(apart) <= FEW
        groups = [rest, *([delivery] for delivery in set_apart)] if alone else [rest, set_apart]
        parts = [batch.part(group) for group in groups]
    elif _levels(count) > left + 1:
        parts = [part for half in halves(batch) for part in (halves(half) if len(half.deliveries) > 1 else [half])]
    else:
        parts = halves(batch)
    for part in parts:
        part.levels = max(left, 0)
    return parts


def _is_useful(batch: Batch, apart: int, left: int) -> bool:
    """Return whether a hint is followed: it names some but not all, and both parts fit in the `left` levels."""
    rest = len(batch.deliveries) - apart
    if not apart or not rest or _levels(apart) > left:
        return False
    return batch.levels is None or _levels(rest) <= left


def _levels(count: int) -> int:
    """Return how often so many records have to be halved until each is alone."""
    return (count - 1).bit_length()


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
