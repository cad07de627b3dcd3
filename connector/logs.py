"""Structured logs: an event's name and its fields, as JSON lines or for a terminal, without secrets.

The standard library's loggers, which the libraries use, go the same way. Logging belongs to the process, so
its set-up and the secrets it hides do too; this module is the only one with such state.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, TextIO

import orjson
import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from connector.redaction import HIDDEN, Redactor, names_secret

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_CHATTY: Final = ("aiohttp.access", "aiohttp.client", "asyncio", "httpx", "httpcore")
"""Libraries' loggers that speak below warning about every request or loop."""

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


def register_secrets(secrets: Iterable[str]) -> None:
    """Hide these texts wherever they would appear in a line from now on."""
    _redactor.register(secrets)


def configure(choice: LogChoice, stream: TextIO | None = None) -> None:
    """Set up logging to `stream`, standard error unless given. Called again, it replaces what stood before."""
    stream = sys.stderr if stream is None else stream
    terminal = choice.format == "console" or (choice.format == "auto" and stream.isatty())
    level = _LEVELS[choice.level]
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
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)


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
