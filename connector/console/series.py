"""What was sampled, for plots: every sample of the last hour, and a mean for each minute of the last day. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at everything; `at` is epoch seconds. What is unknown is left out.

    `backlog` is records not done yet by topic, `accepted` and `dead` are records a second by destination (dead letters
    without one under an empty name), `consumed` records a second in all.
    """

    at: float
    backlog: Mapping[str, float] = field(default_factory=dict)
    accepted: Mapping[str, float] = field(default_factory=dict)
    dead: Mapping[str, float] = field(default_factory=dict)
    consumed: float | None = None


class History:
    """The samples of a day, in bounded memory."""

    def __init__(self, interval: float) -> None:
        self._fine: deque[Sample] = deque(maxlen=int(HOUR / interval) + 2)
        self._coarse: deque[Sample] = deque(maxlen=int(DAY / MINUTE) + 2)
        self._minute: list[Sample] = []

    def add(self, sample: Sample) -> None:
        """Take a sample; they come in the order of time."""
        self._fine.append(sample)
        if self._minute and sample.at // MINUTE != self._minute[0].at // MINUTE:
            self._coarse.append(mean(self._minute))
            self._minute = []
        self._minute.append(sample)

    @property
    def last(self) -> Sample | None:
        """The newest sample."""
        return self._fine[-1] if self._fine else None

    def since(self, at: float) -> list[Sample]:
        """Return the samples from a time (epoch seconds) on: all of the last hour, before it minutes' means."""
        begin = self._fine[0].at if self._fine else float("inf")
        return [one for one in (*(old for old in self._coarse if old.at < begin), *self._fine) if one.at >= at]


def mean(samples: Iterable[Sample]) -> Sample:
    """Return the mean of some samples, at the time of the first."""
    samples = list(samples)
    consumed = [one.consumed for one in samples if one.consumed is not None]
    return Sample(
        samples[0].at,
        _mean([one.backlog for one in samples]),
        _mean([one.accepted for one in samples]),
        _mean([one.dead for one in samples]),
        sum(consumed) / len(consumed) if consumed else None,
    )


def _mean(values: list[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in values for name in each)
    found = {name: [each[name] for each in values if name in each] for name in names}
    return {name: sum(each) / len(each) for name, each in found.items()}
