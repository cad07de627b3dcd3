"""Structured logs: an event name and its fields, as JSON lines or for a terminal, without secrets.

`log_writer` writes the lines, so that a blocked stream never blocks the code that logs. The libraries' loggers write
the same way, from level warning. Logging belongs to the whole process, so its set-up and the secrets it hides are
module-level state. No other module has any.
"""

from __future__ import annotations

import atexit
import json
import logging
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TextIO

import orjson
import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from connector.telemetry.log_writer import LogWriter
from connector.telemetry.redaction import HIDDEN, Redactor, names_secret
from connector.telemetry.terminal import visible, visible_json

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_OURS: Final = "connector"
"""The one logger of the standard library that the connector's own events go to, whatever module logs them."""
_MANY_LINES: Final = ("exception", "stack")
"""Fields with several lines. In any other field a line break could make a record's text look like a log line."""
_FLUSH_SECONDS: Final = 1.0
"""How long the end of a process waits for its last lines to be written."""

_log = structlog.get_logger()
_redactor: Final = Redactor()


class LogChoice(Protocol):
    """The section `log` of the configuration: `level` is debug … error, `format` is auto, console or json."""

    @property
    def level(self) -> str:
        """The lowest level to log."""
        ...

    @property
    def format(self) -> str:
        """The form of a line."""
        ...

    @property
    def sample(self) -> int:
        """At level debug: follow one in this many records and requests."""
        ...


class LogSample:
    """Chooses the records and requests that are logged at level debug; a record in all of its steps or in none.

    Callers check `on` first, once for many records, so that it costs nothing at higher levels.
    """

    __slots__ = ("_count", "every", "on")

    def __init__(self) -> None:
        self.on = False
        self.every = 100
        self._count = 0

    def takes(self, topic: str, partition: int, offset: int) -> bool:
        """Whether to follow this record; every process answers the same."""
        # By position, not at random, so that a record is logged in every step, and by its next owner too.
        return zlib.crc32(b"%d/%d/%b" % (offset, partition, topic.encode())) % self.every == 0

    def takes_next(self) -> bool:
        """Whether to follow the next of several things without a name; the first one is followed."""
        self._count += 1
        return self._count % self.every == 1 % self.every


class _State:
    """The current level, the one of the configuration, and the writer of all lines."""

    def __init__(self) -> None:
        self.current = self.configured = "info"
        self.writer: LogWriter | None = None
        self.listener: Callable[[EventDict], None] | None = None
        self.least = logging.INFO


sample: Final = LogSample()
_state: Final = _State()


def register_secrets(secrets: Iterable[str]) -> None:
    """Hide these texts in every line from now on."""
    _redactor.register(secrets)


def listen(listener: Callable[[EventDict], None] | None) -> None:
    """Pass every event of level info or above to `listener`, written or not. It must be quick. None: no listener."""
    _state.listener = listener


def configure(choice: LogChoice, stream: TextIO | None = None) -> None:
    """Set up logging to `stream`, by default standard error. A second call replaces the first."""
    stream = sys.stderr if stream is None else stream
    flush()
    _state.writer = LogWriter(stream, _report_dropped)
    terminal = choice.format == "console" or (choice.format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Processor] = [_json]
    if terminal:
        renderers = [_visible, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *shared, _logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            redact,
            *renderers,
        ],
    )
    structlog.configure(
        processors=[*shared, _to_listener, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=lambda *_: logging.getLogger(_OURS),
        # Modules take their loggers when they are imported, before logging is configured.
        cache_logger_on_first_use=False,
    )
    handler = _Handler(_state.writer)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    # Replaces any other handlers, because a library's own handler would write secrets without redaction.
    root.handlers[:] = [handler]
    logging.captureWarnings(capture=True)
    sample.every = choice.sample
    _state.configured = choice.level
    _apply(choice.level)


def reconfigure(choice: LogChoice) -> None:
    """Use another configured level and sample from now on; the format of lines stays."""
    _state.configured = choice.level
    set_level(choice.level, choice.sample)


def level() -> str:
    """Return the current level."""
    return _state.current


def set_level(wanted: str, every: int | None = None) -> None:
    """Set the lowest level to log, and at level debug follow one in `every` records, until the process ends.

    Raises `ValueError` for an unknown level or a sample below 1, and names what is allowed.
    """
    if wanted not in _LEVELS:
        raise ValueError(f"unknown level {wanted!r}; known levels: {', '.join(_LEVELS)}")
    if every is not None and every < 1:
        raise ValueError("the sample must be a whole number of at least 1")
    was = _state.current
    is_more = _LEVELS[wanted] < _LEVELS[was]
    sample.every = every or sample.every
    if is_more:
        _apply(wanted)
    if wanted != was or every is not None:
        # At the lower of the two levels, so that the line is written.
        _log.warning("log.level", was=was, now=wanted, sample=sample.every)
    _apply(wanted)


def more() -> None:
    """Lower the level by one: warning, then info, then debug."""
    names = list(_LEVELS)
    set_level(names[max(0, names.index(_state.current) - 1)])


def as_configured() -> None:
    """Restore the configured level."""
    set_level(_state.configured)


def flush(timeout: float = _FLUSH_SECONDS) -> bool:
    """Wait until every line is written, at most `timeout` seconds; return whether it is."""
    return _state.writer is None or _state.writer.flush(timeout)


def dropped() -> int:
    """Return how many lines were dropped since the process started, because the stream was blocked."""
    return 0 if _state.writer is None else _state.writer.dropped


atexit.register(flush)


def _report_dropped(lines: int) -> None:
    _log.warning("log.dropped", lines=lines, message="the log stream was blocked, and its queue was full")


class _Handler(logging.Handler):
    """Formats each line in the thread that logs, and queues it for the writer."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        try:
            self._writer.put(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 -- as every handler of the standard library does
            self.handleError(record)


def _apply(wanted: str) -> None:
    """Drop lines below the level, and the libraries' below warning.

    Below warning, libraries log each request, some with headers, and none of their lines is documented.
    """
    _state.current = wanted
    least = _LEVELS[wanted]
    sample.on = wanted == "debug"
    _state.least = least
    # Events of level info reach the listener at every level; `_to_listener` drops them then.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(min(least, logging.INFO)))
    logging.getLogger(_OURS).setLevel(least)
    logging.getLogger().setLevel(max(least, logging.WARNING))


def _to_listener(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Pass the event to the listener; drop it if its level is not written."""
    if _state.listener is not None:
        _state.listener(redact(logger, method, dict(event)))
    if _LEVELS.get(event.get("level", ""), logging.ERROR) < _state.least:
        raise structlog.DropEvent
    return event


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide the values of keys that name a secret, and registered secrets in every text, exceptions included."""
    return {
        key: HIDDEN if names_secret(key) and value is not None else _redactor.value(value)
        for key, value in event.items()
    }


def _logger_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the name of the library that logs: its lines are texts, not event names."""
    record = event.get("_record")
    if record is not None:
        event["logger"] = record.name
    return event


def _visible(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape characters that control a terminal or imitate another line; lists and mappings are written by repr."""
    return {visible(key): _visible_value(key, value) for key, value in event.items()}


def _visible_value(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return visible(value) if key in _MANY_LINES else visible(value).replace("\n", "\\n")


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Return one JSON line; time, level and event name come first."""
    first = ("timestamp", "level", "event")
    ordered: dict[str, Any] = {key: event[key] for key in first if key in event}
    ordered.update(event)
    try:
        return visible_json(orjson.dumps(ordered).decode())
    except TypeError:
        # Numbers above 64 bits and broken surrogates are rare, and no reason to lose the line.
        return json.dumps(ordered)
