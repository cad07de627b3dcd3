"""Writes dead letters until Kafka has them: a letter that fails is tried again, never passed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import structlog

from connector.clock import Clock
from connector.dead_letters.headers import to_headers
from connector.errors import ConnectorError
from connector.records import DeadLetter, Headers
from connector.telemetry.metrics import Metrics

log = structlog.get_logger()

_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0
_TRIES_IN_A_DRAIN: Final = 4
"""How often a letter that waits is tried again while a drain lasts, so that a drain rarely misses it."""
_TROUBLE_QUIET: Final = 5.0
"""Seconds in which failures to write are logged once: a batch that is given up has a thousand letters."""
_QUIET: Final = 60.0
"""Seconds in which a destination's dead letters of one cause and code are logged once; the metrics count all."""


class Producer(Protocol):
    """What brings a record to Kafka."""

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> object:
        """Return once Kafka has acknowledged the record. Raises a `ConnectorError` where it did not."""
        ...


class DeadLetterWriter:
    """The dead-letter topic of one group. `drain_timeout` (seconds) is how long a drain waits for a letter."""

    def __init__(
        self,
        producer: Producer,
        topic: str,
        group: str,
        *,
        metrics: Metrics,
        clock: Clock,
        drain_timeout: float,
        is_fatal: Callable[[ConnectorError], bool] = lambda _error: False,
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._group = group
        self._metrics = metrics
        self._clock = clock
        self._is_fatal = is_fatal
        self._longest_wait = min(_LONGEST_WAIT, drain_timeout / _TRIES_IN_A_DRAIN)
        self._logged: dict[tuple[str | None, str, str | None], float] = {}
        self._troubled_at = float("-inf")
        self.trouble: str | None = None
        """Why letters cannot be written now, or None."""

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Return once Kafka has acknowledged the letter; wait and try again for as long as it does not.

        `is_ours` tells whether the record's partition still is: where it has left, its next owner comes to the record
        again, and a letter from here as well would only be one more. Raises only what makes the producer useless for
        good: then the record stays uncommitted.
        """
        headers = to_headers(dead_letter, group=self._group)
        wait = min(_FIRST_WAIT, self._longest_wait)
        while is_ours():
            try:
                await self._producer.send(
                    self._topic, key=dead_letter.record.key, value=dead_letter.record.value, headers=headers
                )
            except ConnectorError as error:
                if self._is_fatal(error):
                    raise
                self._note_trouble(dead_letter, error)
                await self._clock.sleep(wait)
                wait = min(wait * 2, self._longest_wait)
            else:
                self._metrics.records_dead_lettered.labels(dead_letter.destination or "", dead_letter.cause).inc()
                self._log(dead_letter)
                break
        # Where others still wait, their next try says so again.
        self.trouble = None

    def _note_trouble(self, dead_letter: DeadLetter, error: ConnectorError) -> None:
        self.trouble = f"dead letters cannot be written to {self._topic}: {error}"
        now = self._clock.now()
        if now - self._troubled_at < _TROUBLE_QUIET:
            return
        self._troubled_at = now
        record = dead_letter.record
        log.error(
            "dead_letter.failed",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            message=f"{self.trouble}; every record whose letter waits stays uncommitted and is tried again",
        )

    def _log(self, dead_letter: DeadLetter) -> None:
        kind = (dead_letter.destination, dead_letter.cause, dead_letter.code)
        now = self._clock.now()
        if now - self._logged.get(kind, float("-inf")) < _QUIET:
            return
        self._logged[kind] = now
        record = dead_letter.record
        log.warning(
            "record.dead_lettered",
            destination=dead_letter.destination,
            cause=dead_letter.cause,
            code=dead_letter.code,
            # A vendor's words may repeat what the record holds.
            message=dead_letter.message if dead_letter.http_status is None else "the vendor's words are in the letter",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            note=f"logged once a minute for each cause and code; all are in {self._topic}",
        )
