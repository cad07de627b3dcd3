"""A bounded cache of look-ups. Records and vendors choose the keys, so there may be any number of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps values by key: at least the `most` that were used last, at most twice as many.

    There are two generations. A value that is put or found goes into the young one. When that is full, it becomes the
    old one, the former old one is dropped, and `on_turn` is called. So a look-up does not have to maintain an order, as
    an LRU cache would.
    """

    __slots__ = ("_most", "_old", "_on_turn", "_young")

    def __init__(self, most: int, on_turn: Callable[[], None] = lambda: None) -> None:
        self._most = most
        self._on_turn = on_turn
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None if there is none or it was forgotten."""
        found = self._young.get(key)
        if found is None and key in self._old:
            found = self._old[key]
            self.put(key, found)
        return found

    def put(self, key: K, value: V) -> None:
        """Keep a value."""
        if key not in self._young and len(self._young) >= self._most:
            self._young, self._old = {}, self._young
            self._on_turn()
        self._young[key] = value

    def change(self, change: Callable[[V], V]) -> None:
        """Replace every value by the result of `change`."""
        self._young = {key: change(value) for key, value in self._young.items()}
        self._old = {key: change(value) for key, value in self._old.items()}

    def pop(self, key: K) -> None:
        """Forget a key, if it is there."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}

    def __contains__(self, key: object) -> bool:
        """Whether a key is remembered."""
        return key in self._young or key in self._old

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._young | self._old)
