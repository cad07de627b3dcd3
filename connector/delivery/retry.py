"""When to try again: exponential backoff with full jitter, and a vendor's own wish, capped. Pure."""

from __future__ import annotations

from random import Random

from connector.config.loader import RetrySettings


class Backoff:
    """Waiting times for a destination's retries and probes."""

    def __init__(self, settings: RetrySettings, random: Random) -> None:
        self._settings = settings
        self._random = random

    def wait(self, failures: int, wish: float | None = None) -> float:
        """Return the seconds to wait after the `failures`-th failure in a row (1 is the first).

        Full jitter spreads members that failed together. A vendor's `Retry-After` is honoured up to `retry.max`:
        without a cap, one wrong header would be a stall.
        """
        settings = self._settings
        if wish is not None:
            return min(max(wish, 0.0), settings.max)
        ceiling: float = min(settings.max, settings.initial * 2.0 ** min(failures - 1, 32))
        return self._random.uniform(0.0, ceiling)

    def probe(self, probes: int) -> float:
        """Return the seconds until the next probe of a held destination, `probes` of which went before.

        Without jitter down to zero: a probe interval is something a person is told.
        """
        settings = self._settings
        ceiling: float = min(settings.max, settings.initial * 2.0 ** min(probes, 32))
        return ceiling * self._random.uniform(0.75, 1.0)
