"""Structured logs: an event's name and its fields, as JSON lines or for a terminal, without secrets.

The standard library's loggers, which the libraries use, go the same way. Logging belongs to the process, so
its set-up and the secrets it hides do too; this module is the only one with such state.
"""

from __future__ import annotations

import json
import logging
import sys
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, TextIO

import orjson
import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from connector.telemetry.redaction import HIDDEN, Redactor, names_secret

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_CHATTY: Final = ("aiohttp.access", "aiohttp.client", "asyncio", "httpx", "httpcore")
"""Libraries' loggers that speak below warning about every request or loop."""

_log = structlog.get_logger()
_redactor: Final = Redactor()


class LogChoice(Protocol):
    """What `log:` in the configuration says: `level` is debug … error, `format` auto, console or json."""

    @property
    def level(self) -> str:
        """The lowest level logged."""
        ...

    @property
    def format(self) -> str:
        """How a line looks."""
        ...

    @property
    def sample(self) -> int:
        """At level debug: one record and one request in so many is followed."""
        ...


class Sample:
    """Which records and requests are followed at level debug: a record is, or is not, in all its steps.

    Who follows asks `on` first, once for many records, so that nothing is paid while the level is higher.
    """

    __slots__ = ("_count", "every", "on")

    def __init__(self) -> None:
        self.on = False
        self.every = 100
        self._count = 0

    def takes(self, topic: str, partition: int, offset: int) -> bool:
        """Whether this record is one of those followed, the same in every process."""
        return zlib.crc32(b"%d/%d/%b" % (offset, partition, topic.encode())) % self.every == 0

    def takes_next(self) -> bool:
        """Whether the next one of something without a name is followed; the first is."""
        self._count += 1
        return self._count % self.every == 1 % self.every


class _Levels:
    """The level that holds now, and the one of the configuration."""

    def __init__(self) -> None:
        self.current = self.configured = "info"


sample: Final = Sample()
_levels: Final = _Levels()


def register_secrets(secrets: Iterable[str]) -> None:
    """Hide these texts wherever they would appear in a line from now on."""
    _redactor.register(secrets)


def configure(choice: LogChoice, stream: TextIO | None = None) -> None:
    """Set up logging to `stream`, standard error unless given. Called again, it replaces what stood before."""
    stream = sys.stderr if stream is None else stream
    terminal = choice.format == "console" or (choice.format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = structlog.dev.ConsoleRenderer(colors=stream.isatty()) if terminal else _json
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *shared, _logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.captureWarnings(capture=True)
    sample.every = choice.sample
    _levels.configured = choice.level
    _apply(choice.level)


def level() -> str:
    """Return the level that holds now."""
    return _levels.current


def set_level(wanted: str, every: int | None = None) -> None:
    """Log from this level on, and at level debug follow one record in `every`; both hold until the process ends.

    Raises `ValueError` for an unknown level or a sample below 1, and names what is allowed.
    """
    if wanted not in _LEVELS:
        raise ValueError(f"no level is called {wanted}; allowed: {', '.join(_LEVELS)}")
    if every is not None and every < 1:
        raise ValueError("a sample is one in so many: a whole number from 1 on")
    was = _levels.current
    more = _LEVELS[wanted] < _LEVELS[was]
    sample.every = every or sample.every
    if more:
        _apply(wanted)
    if wanted != was or every is not None:
        # At the more talkative of the two levels, so that the line is seen.
        _log.warning("log.level", was=was, now=wanted, sample=sample.every)
    _apply(wanted)


def more() -> None:
    """Log one level more: warning, then info, then debug."""
    names = list(_LEVELS)
    set_level(names[max(0, names.index(_levels.current) - 1)])


def as_configured() -> None:
    """Log again from the level of the configuration on."""
    set_level(_levels.configured)


def _apply(wanted: str) -> None:
    """Let what is below the level go unwritten, whoever says it."""
    _levels.current = wanted
    least = _LEVELS[wanted]
    sample.on = wanted == "debug"
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(least))
    logging.getLogger().setLevel(least)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(least, logging.WARNING))


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide values whose key names a secret, and registered secrets in every text, exceptions included."""
    return {
        key: HIDDEN if names_secret(key) and value is not None else _redactor.value(value)
        for key, value in event.items()
    }


def _logger_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Name the library that speaks: its lines are texts, not our event names."""
    record = event.get("_record")
    if record is not None:
        event["logger"] = record.name
    return event


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Return one JSON line, the event's name, level and time first."""
    first = ("timestamp", "level", "event")
    ordered: dict[str, Any] = {key: event[key] for key in first if key in event}
    ordered.update(event)
    try:
        return orjson.dumps(ordered).decode()
    except TypeError:
        # Numbers beyond 64 bits and broken surrogates: rare, and no reason to lose the line.
        return json.dumps(ordered)
