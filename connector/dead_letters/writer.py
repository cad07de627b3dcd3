"""Writes dead letters until Kafka has them. A failed write is retried, never ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

import structlog

from connector.clock import Clock
from connector.dead_letters.dialects import Dialect
from connector.dead_letters.headers import to_headers
from connector.errors import ConnectorError
from connector.kafka.producer import DeliveryFailed
from connector.recent import Recent
from connector.records import DeadLetter, Headers
from connector.telemetry.metrics import Metrics

log = structlog.get_logger()

_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0
_TRIES_IN_A_DRAIN: Final = 4
"""Retries of a failing write within one `drain_timeout`, so that a drain rarely misses it."""
_TROUBLE_QUIET: Final = 5.0
"""Write failures are logged once in this many seconds: a batch that is given up may have a thousand dead letters."""
_QUIET: Final = 60.0
"""Dead letters of one destination, cause and code are logged once in this many seconds; the metrics count all."""
_KINDS: Final = 1000
"""How many such kinds are remembered. Bounded, because a vendor decides how many codes there are."""


class Producer(Protocol):
    """Writes a record to Kafka."""

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> object:
        """Return once Kafka has acknowledged the record. Raises a `ConnectorError` if it has not."""
        ...


class _Form(NamedTuple):
    """One form in which to write a dead letter."""

    key: bytes | None
    value: bytes | None
    headers: Headers


class DeadLetterWriter:
    """The dead-letter topic of one group. `drain_timeout` (seconds) is how long a drain waits for a dead letter."""

    def __init__(
        self,
        producer: Producer,
        topic: str,
        group: str,
        *,
        metrics: Metrics,
        clock: Clock,
        drain_timeout: float,
        dialect: Dialect | None = None,
        is_fatal: Callable[[ConnectorError], bool] = lambda _error: False,
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._group = group
        self._dialect = dialect
        self._metrics = metrics
        self._clock = clock
        self._is_fatal = is_fatal
        self._longest_wait = min(_LONGEST_WAIT, drain_timeout / _TRIES_IN_A_DRAIN)
        self._logged: Recent[tuple[str | None, str, str | None], float] = Recent(_KINDS)
        self._troubled_at = float("-inf")
        self.trouble: str | None = None
        """Why dead letters cannot be written now, or None."""

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Return once Kafka has acknowledged the dead letter; retry until then.

        If Kafka refuses it as too large, its value is left out, and if necessary its key and headers; the added headers
        have position, size and hash. So a record that is too large for the topic cannot stop its partition.

        `is_ours` returns whether this member still owns the record's partition. If it does not, the next owner reads
        the record again, and a dead letter from this member would only be a copy. Raises only errors after which the
        producer cannot be used; then the record stays uncommitted.
        """
        forms = self._forms(dead_letter)
        form = next(forms)
        wait = min(_FIRST_WAIT, self._longest_wait)
        # No limit of attempts: without its dead letter the record must not be committed.
        while is_ours():
            try:
                await self._producer.send(self._topic, key=form.key, value=form.value, headers=form.headers)
            except ConnectorError as error:
                if self._is_fatal(error):
                    raise
                if isinstance(error, DeliveryFailed) and error.too_large and (smaller := next(forms, None)) is not None:
                    form = smaller
                    self._log_left_out(dead_letter, error)
                    continue
                self._note_trouble(dead_letter, error)
                await self._clock.sleep(wait)
                wait = min(wait * 2, self._longest_wait)
            else:
                self._metrics.count_dead_letter(dead_letter.destination, dead_letter.cause)
                self._log(dead_letter)
                break
        # Other writes that still fail set it again at their next retry.
        self.trouble = None

    def _forms(self, dead_letter: DeadLetter) -> Iterator[_Form]:
        """Yield the complete dead letter, then ever smaller forms."""
        record = dead_letter.record
        yield _Form(record.key, record.value, self._headers(dead_letter))
        # Empty and not null: with a null value it would be read as a resolution.
        yield _Form(record.key, b"", self._headers(dead_letter, "value"))
        # Without the key it may go to another partition. That is better than a record that stops its partition.
        yield _Form(None, b"", self._headers(dead_letter, "value", "key", "headers"))

    def _headers(self, dead_letter: DeadLetter, *left_out: str) -> list[tuple[str, bytes | None]]:
        return to_headers(dead_letter, group=self._group, left_out=left_out, dialect=self._dialect)

    def _log_left_out(self, dead_letter: DeadLetter, error: ConnectorError) -> None:
        record = dead_letter.record
        log.warning(
            "dead_letter.left_out",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            bytes=len(record.value or b""),
            message=f"the dead letter does not fit into {self._topic} and is written without its value: {error}",
        )

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
            message=f"{self.trouble}; the records stay uncommitted and are retried",
        )

    def _log(self, dead_letter: DeadLetter) -> None:
        kind = (dead_letter.destination, dead_letter.cause, dead_letter.code)
        now = self._clock.now()
        logged = self._logged.get(kind)
        if logged is not None and now - logged < _QUIET:
            return
        self._logged.put(kind, now)
        record = dead_letter.record
        log.warning(
            "record.dead_lettered",
            destination=dead_letter.destination,
            cause=dead_letter.cause,
            code=dead_letter.code,
            # A vendor's message may repeat what the record holds.
            message=dead_letter.message
            if dead_letter.http_status is None
            else "the dead letter has the vendor's message",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            note=f"logged once a minute for each cause and code; all dead letters are in {self._topic}",
        )
