"""The faults of a simulator: what goes wrong, and when. Pure: the randomness is an argument.

A `Fault` is one effect and its schedule. For each request all armed faults are checked in order: every `latency` that
applies is added up, and the first other fault that applies takes effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from random import Random
from typing import Any, Final, Literal, get_args

Effect = Literal[
    "latency",
    "status",
    "hang",
    "cut",
    "truncate",
    "content_type",
    "encoding",
    "garbage",
    "surplus",
    "credential",
    "too_large",
]

EFFECTS: Final[Mapping[str, str]] = {
    "latency": "delays the answer by `seconds`",
    "status": "answers `status` with `body`, and with `retry_after` as Retry-After if set",
    "hang": "never answers",
    "cut": "resets the connection instead of answering",
    "truncate": "resets the connection in the middle of the answer",
    "content_type": "gives the right answer as text/plain",
    "encoding": "gives the right answer in GBK, or in the encoding that `body` names",
    "surplus": "gives the right answer, and an accepting one too many on the same connection",
    "garbage": "answers status 200 with `body`, by default a proxy's HTML page",
    "credential": "answers as to a wrong credential",
    "too_large": "answers 413 if the body is longer than `limit` bytes",
}
"""Each effect and what it does. With `after: true` the vendor accepts the request first."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it arrived. `at` is monotonic seconds, `wall` epoch seconds; header names are lower-case."""

    number: int
    at: float
    wall: float
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """One effect and its schedule; without a schedule it applies to every request.

    `every` selects each Nth matching request, `probability` selects at random, `times` ends the fault after so many,
    `containing` selects requests with the text in their path or body, `when` is any predicate (in Python only).
    """

    effect: Effect
    every: int | None = None
    probability: float | None = None
    times: int | None = None
    containing: str | None = None
    when: Callable[[Call], bool] | None = None
    after: bool = False
    seconds: float = 0.0
    status: int = 503
    retry_after: str | None = None
    limit: int = 0
    body: str | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for an impossible schedule."""
        if self.effect not in get_args(Effect):
            raise ValueError(f"effect: must be one of {', '.join(get_args(Effect))}")
        if self.every is not None and self.every < 1:
            raise ValueError("every: must be at least 1 (each request)")
        if self.times is not None and self.times < 1:
            raise ValueError("times: must be at least 1")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError("probability: must be between 0 and 1")
        if not 100 <= self.status <= 599:
            raise ValueError("status: must be an HTTP status from 100 to 599")

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values; a predicate as the string `set`."""
        described = {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}
        if "when" in described:
            described["when"] = "set"
        return described


_TYPE_NAMES: Final = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "effect": (str,),
    "every": (int,),
    "probability": (int, float),
    "times": (int,),
    "containing": (str,),
    "after": (bool,),
    "seconds": (int, float),
    "status": (int,),
    "retry_after": (str, int),
    "limit": (int,),
    "body": (str,),
}


def parse_fault(data: object) -> Fault:
    """Return the fault in a JSON object. Raises `ValueError` with the key and what is allowed."""
    if not isinstance(data, Mapping):
        raise ValueError('a fault must be a JSON object such as {"effect": "status", "status": 503, "every": 10}')
    given: dict[str, Any] = dict(data)
    if "effect" not in given:
        raise ValueError(f"effect: missing; must be one of {', '.join(EFFECTS)}")
    for key, value in given.items():
        if key not in _KINDS:
            raise ValueError(f"{key}: unknown key; known keys: {', '.join(_KINDS)}")
        if not isinstance(value, _KINDS[key]) or (isinstance(value, bool) and key != "after"):
            raise ValueError(f"{key}: must be {' or '.join(_TYPE_NAMES[kind] for kind in _KINDS[key])}")
    if "retry_after" in given:
        given["retry_after"] = str(given["retry_after"])
    return Fault(**given)


@dataclass(slots=True)
class _Armed:
    fault: Fault
    matched: int = 0
    shown: int = 0


class FaultPlan:
    """The armed faults. The same seed and the same requests give the same faults."""

    def __init__(self, faults: Iterable[Fault] = (), *, random: Random | None = None) -> None:
        self._armed = [_Armed(fault) for fault in faults]
        self._random = random or Random(0)

    def arm(self, *faults: Fault) -> None:
        """Add faults after the armed ones."""
        self._armed.extend(_Armed(fault) for fault in faults)

    def clear(self) -> None:
        """Remove all faults: the vendor works again."""
        self._armed.clear()

    def choose(self, call: Call) -> list[Fault]:
        """Return the faults of this request: any number of latencies, then at most one other."""
        chosen: list[Fault] = []
        for armed in self._armed:
            if not self._applies(armed, call):
                continue
            armed.shown += 1
            chosen.append(armed.fault)
            if armed.fault.effect != "latency":
                break
        return chosen

    def describe(self) -> list[dict[str, Any]]:
        """Return the armed faults, each with how often it took effect."""
        return [{**armed.fault.describe(), "shown": armed.shown} for armed in self._armed]

    def _applies(self, armed: _Armed, call: Call) -> bool:
        fault = armed.fault
        if fault.times is not None and armed.shown >= fault.times:
            return False
        if fault.containing is not None and not _contains(call, fault.containing):
            return False
        if fault.when is not None and not fault.when(call):
            return False
        if fault.effect == "too_large" and len(call.body) <= fault.limit:
            return False
        armed.matched += 1
        if fault.every is not None and armed.matched % fault.every:
            return False
        return fault.probability is None or self._random.random() < fault.probability


def _contains(call: Call, text: str) -> bool:
    return text in call.path or text.encode() in call.body
