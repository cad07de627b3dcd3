"""The rarer things that a seed draws, each of its own source of randomness, so that no other draw depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from connector.dead_letters.headers import replayed, to_headers
from connector.records import DeadLetter, Headers, Record

BUGS: Final = ("bug_decoded", "bug_prepared")
"""Kinds of records over which our own code raises, and the step at which it does."""
BUG: Final = "bug"
"""The header that a decoder with a fault cannot bear."""
FORWARD: Final = 7200.0
"""Seconds by which a clock is set forward, where it is."""
CLOCKS: Final = 240.0
"""Seconds by which a member's clock may be off; less than the vendors' rules about times in the future allow."""
_ODD_VALUES: Final = (
    *(
        None,
        b"",
        b"\xff\xfe",
        b"0",
        b"-1",
        b"01",
        b"1.5",
        b"-99999999999999999999",
        b"99999999999999999999",
        b"x" * 3000,
    ),
    *(b"2024-01-01T00:00:00", b"2024-13-01T00:00:00.000Z", b"2024-01-01T00:00:00.000+02:00", "２".encode()),
)
_FORGED: Final = to_headers(
    DeadLetter(
        record=Record("events", 0, 0, 1, b"k", b"v", ()),
        cause="refused",
        code="4103",
        message="forged",
        failed_at=1.5,
        dedup_id="b0c4a7a2-58d8-5ad3-9f3b-0e6d3a6a6b9b",
        destination="alpha",
        attempts=3,
        first_attempt=1.0,
    ),
    group="g",
)


@dataclass(frozen=True, slots=True)
class Unusual:
    """What a seed draws of these things; nothing by default."""

    events: tuple[tuple[float, str], ...] = ()
    """When, and which of `grow` (a partition more in every topic), `hold`, `unhold`, `rotate` (the secrets) and
    `recreate` (a topic, once)."""
    forged: float = 0.0
    """The share of records that carry headers which look like a dead letter's, whole or broken."""
    bugs: float = 0.0
    """The share of records over which our own code raises."""
    hanging: float = 0.0
    """How likely a commit of a leaving partition hangs through the rebalance and then fails."""
    clocks: bool = False
    """Whether the members' clocks differ by minutes, and one of them is set forward by two hours."""
    slow: str | None = None
    """A destination that takes seconds for every request while faults last."""
    tight: bool = False
    """Whether maps are near their limit."""
    absent: str | None = None
    """A destination that some members do not have in their configuration."""

    @property
    def recreated(self) -> bool:
        """Whether a topic is deleted and recreated."""
        return any(what == "recreate" for _, what in self.events)


def draw_unusual(seed: int, end: float, names: Sequence[str]) -> Unusual:
    """Return what a seed draws; about half of all seeds draw none of it."""
    events: list[tuple[float, str]] = []
    for what, likely in (("grow", 0.15), ("hold", 0.2), ("rotate", 0.15)):
        random = Random(f"{what} {seed}")
        if random.random() < likely:
            for _ in range(random.choice((1, 1, 2, 3))):
                at = random.uniform(0.1, random.choice((end, 2.0)))
                events.append((at, what))
                if what == "hold":
                    events.append((random.uniform(at, end), "unhold"))
    random = Random(f"recreate {seed}")
    if random.random() < 0.1:
        events.append((random.uniform(0.1, random.choice((end, 3.0))), "recreate"))
    random, absent = Random(f"absent {seed}"), None
    if "beta" in names and random.random() < 0.25:
        absent = random.choice(("alpha", "beta"))
    random = Random(f"unusual {seed}")
    return Unusual(
        events=tuple(events),
        forged=random.choice((0.0, 0.0, 0.1, 0.5)),
        bugs=random.choice((0.0, 0.0, 0.02, 0.3)),
        hanging=random.choice((0.0, 0.0, 0.3, 0.8)),
        clocks=random.random() < 0.3,
        slow=random.choice(names) if random.random() < 0.15 else None,
        tight=random.random() < 0.15,
        absent=absent,
    )


def odd_headers(random: Random) -> Headers:
    """Return headers that look like a dead letter's: a whole block that is forged, or one that is broken somewhere."""
    block = list(_FORGED)
    for _ in range(random.choice((0, 0, 1, 3))):
        block = replayed(block)
    kind = random.random()
    if kind < 0.3:
        return tuple(block)
    if kind < 0.7:
        at = random.randrange(len(block))
        block[at] = (block[at][0], random.choice(_ODD_VALUES))
    elif kind < 0.9:
        del block[random.randrange(len(block))]
    else:
        block = [(f"dlq-{random.randrange(5)}", random.choice(_ODD_VALUES)), ("", None), *block[3:], *block[:4]]
    return tuple(block)
