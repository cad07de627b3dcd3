"""Sets of dead letters' ids in a few bytes each, so that a topic of millions can be read on a small machine. Pure.

An id is kept as 8 bytes of its hash. Two of a million different ids share them with a chance of 1 in 37 million, so a
letter is taken for another one practically never.
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
        """Put an id into the set; return whether it is new in it."""
        value, _ = hash_of(identity)
        bucket = self._buckets[value >> 52]
        at = bisect_left(bucket, value)
        if at < len(bucket) and bucket[at] == value:
            return False
        bucket.insert(at, value)
        self._count += 1
        return True

    def __contains__(self, identity: str) -> bool:
        """Tell whether the id was put into the set."""
        value, _ = hash_of(identity)
        bucket = self._buckets[value >> 52]
        at = bisect_left(bucket, value)
        return at < len(bucket) and bucket[at] == value

    def __len__(self) -> int:
        """Return how many ids there are."""
        return self._count


class Sieve:
    """Tells which ids came before, in 16 MiB however many there are: a Bloom filter.

    It is never wrong about an id that did come before. Of new ones it takes 1 in a million for a repetition at a
    million ids, 1 in 200 at ten million: who needs certainty looks at those again.
    """

    def __init__(self) -> None:
        self._bits = bytearray(_FILTER_BITS // 8)

    def add(self, identity: str) -> bool:
        """Note an id; return whether it came before, perhaps wrongly."""
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
