"""What a simulator can be told to do wrong, and when. Pure: the randomness is given.

A `Fault` is one effect and its schedule. Faults that are armed together are asked in their order for each request:
every `latency` that applies is added up, and of the others the first that applies is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from random import Random
from typing import Any, Final, Literal, get_args

Effect = Literal["latency", "status", "hang", "cut", "truncate", "content_type", "garbage", "credential", "too_large"]

EFFECTS: Final[Mapping[str, str]] = {
    "latency": "the answer is kept back for `seconds`",
    "status": "the answer is `status` with `body`, and `retry_after` as its Retry-After where given",
    "hang": "no answer ever comes",
    "cut": "the connection is reset instead of an answer",
    "truncate": "the answer breaks off half-way and the connection is reset",
    "content_type": "the right answer, called text/plain",
    "garbage": "status 200 and `body`, by default the page of a proxy",
    "credential": "the vendor's answer to a wrong credential",
    "too_large": "413 where the body is longer than `limit` bytes",
}
"""Each effect and what it does. `after: true` lets the vendor act on the request first, as if it had accepted it."""


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
    """One effect and when it is shown; without any schedule it is shown for every request.

    `every` takes each Nth request that otherwise matches, `probability` draws, `times` ends it after so many,
    `containing` takes requests with the text in their path or body, `when` is any predicate (in Python only).
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
        """Raise `ValueError` for a schedule that could never be meant."""
        if self.effect not in get_args(Effect):
            raise ValueError(f"effect: one of {', '.join(get_args(Effect))} is allowed")
        if self.every is not None and self.every < 1:
            raise ValueError("every: at least 1 is needed (each request)")
        if self.times is not None and self.times < 1:
            raise ValueError("times: at least 1 is needed")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError("probability: between 0 and 1")
        if not 100 <= self.status <= 599:
            raise ValueError("status: an HTTP status from 100 to 599")

    def describe(self) -> dict[str, Any]:
        """Return what was set, as it would be written in JSON; a predicate only as the word `set`."""
        described = {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}
        if "when" in described:
            described["when"] = "set"
        return described


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
    """Return the fault that a JSON object describes. Raises `ValueError` that names the key and what is allowed."""
    if not isinstance(data, Mapping):
        raise ValueError('a fault is a JSON object such as {"effect": "status", "status": 503, "every": 10}')
    given: dict[str, Any] = dict(data)
    if "effect" not in given:
        raise ValueError(f"effect: missing; one of {', '.join(EFFECTS)}")
    for key, value in given.items():
        if key not in _KINDS:
            raise ValueError(f"{key}: unknown; the keys are {', '.join(_KINDS)}")
        if not isinstance(value, _KINDS[key]) or (isinstance(value, bool) and key != "after"):
            raise ValueError(f"{key}: {' or '.join(kind.__name__ for kind in _KINDS[key])} is wanted")
    if "retry_after" in given:
        given["retry_after"] = str(given["retry_after"])
    return Fault(**given)


@dataclass(slots=True)
class _Armed:
    fault: Fault
    matched: int = 0
    shown: int = 0


class FaultPlan:
    """The faults that are armed now. The same seed and the same requests show the same faults."""

    def __init__(self, faults: Iterable[Fault] = (), *, random: Random | None = None) -> None:
        self._armed = [_Armed(fault) for fault in faults]
        self._random = random or Random(0)

    def arm(self, *faults: Fault) -> None:
        """Add faults behind those that are armed already."""
        self._armed.extend(_Armed(fault) for fault in faults)

    def clear(self) -> None:
        """Forget all faults: the vendor is well again."""
        self._armed.clear()

    def choose(self, call: Call) -> list[Fault]:
        """Return what to do to this request: any number of latencies, then at most one other fault."""
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
        """Return the armed faults, each with how often it was shown."""
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
