"""Compact sets of dead letters' ids, so that a topic of millions can be read on a small machine. Pure.

An id is kept as 8 bytes of its hash. The chance that any two of a million ids share them is 1 in 37 million.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from hashlib import blake2b
from typing import Final

_BUCKETS: Final = 4096
_FILTER_BITS: Final = 1 << 27
_PROBES: Final = 4


def hash_of(identity: str) -> tuple[int, int]:
    """Return two independent 64-bit hashes of an id."""
    digest = blake2b(identity.encode(errors="surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


class IdSet:
    """A set of ids in about 9 bytes each, and 0.5 MB: sorted arrays, one for each value of a hash's first 12 bits."""

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(_BUCKETS)]
        self._count = 0

    def add(self, identity: str) -> bool:
        """Add an id; return whether it is new."""
        value, _ = hash_of(identity)
        bucket = self._buckets[value >> 52]
        at = bisect_left(bucket, value)
        if at < len(bucket) and bucket[at] == value:
            return False
        bucket.insert(at, value)
        self._count += 1
        return True

    def __contains__(self, identity: str) -> bool:
        """Return whether the id is in the set."""
        value, _ = hash_of(identity)
        bucket = self._buckets[value >> 52]
        at = bisect_left(bucket, value)
        return at < len(bucket) and bucket[at] == value

    def __len__(self) -> int:
        """Return the number of ids."""
        return self._count


class Sieve:
    """A Bloom filter of ids, 16 MiB whatever their number.

    It always knows an id that came before. It takes 1 in a million new ids for a known one at a million ids, and 1 in
    200 at ten million: those need a second look.
    """

    def __init__(self) -> None:
        self._bits = bytearray(_FILTER_BITS // 8)

    def add(self, identity: str) -> bool:
        """Add an id; return whether it came before, which may be wrong."""
        place, step = hash_of(identity)
        bits = self._bits
        seen = True
        for _ in range(_PROBES):
            at = place % _FILTER_BITS
            mask = 1 << (at & 7)
            if not bits[at >> 3] & mask:
                bits[at >> 3] |= mask
                seen = False
            place += step | 1
        return seen
