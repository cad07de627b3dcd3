"""Every exception that the connector raises on purpose, by who must act.

ConnectorError
├── ConfigurationError      the user: the file is wrong; carries every fault at once      exit 2
├── StartupError            the user or the platform: a topic is missing or unusable, …   exit 1
├── FatalError              the user: the run cannot go on (offset out of range, …)       exit 1
├── Refusal                 no one: the fault of one record, which becomes a dead letter
├── SchemaUnavailable       the platform: the registry does not answer; intake waits
└── TransportError          the network or the vendor: no complete response; the request is retried
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self


class ConnectorError(Exception):
    """Base of every exception that the connector raises on purpose."""

    def bare(self) -> Self:
        """Return it without its traceback, for keeping it: the frames refer to all records of a poll."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One fault of a configuration: its path in the file, and what to do about it.

    `line` is the line in the file, from 1, if it is known. It is not compared: two checks may find the same fault.
    """

    path: str
    message: str
    line: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """Return the fault as one line, the path first."""
        text = f"{self.path}: {self.message}" if self.path else self.message
        return text if self.line is None else f"{text} (line {self.line})"


class ConfigurationError(ConnectorError):
    """The configuration is invalid; `faults` has every fault that was found."""

    def __init__(self, faults: list[ConfigFault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class StartupError(ConnectorError):
    """Kafka or another service is not as the connector needs it, and waiting would not help."""


class LongMetadataRefused(StartupError):
    """A group's coordinator takes less metadata with an offset than was to be committed."""


class TopicRecreated(StartupError):
    """A followed topic no longer has the records that were read: it was deleted, recreated or truncated."""


class FatalError(ConnectorError):
    """The run cannot go on until a person acts; the message says what to do."""


class Refusal(ConnectorError):
    """One record cannot be delivered because of the record itself.

    `cause` is a dead letter's cause (`decode`, `route`, `invalid`, …), `code` a local rule's id or the vendor's code,
    `field` the field at fault, if there is one. The message never contains the value of a field, because messages are
    logged and fields may be personal. `answers` are written to a query vendor's results topic (`records.Answer`) before
    the dead letter.
    """

    def __init__(self, cause: str, code: str, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.code = code
        self.message = message
        self.field = field
        self.answers: tuple[Any, ...] = ()


class SchemaUnavailable(ConnectorError):
    """The writer's schema is not known yet, but may exist, so the record has to wait.

    `key` is the schema's key for the decoder's `resolve`.
    """

    def __init__(self, key: object) -> None:
        super().__init__(f"schema {key} is not resolved yet")
        self.key = key


class TransportError(ConnectorError):
    """A request got no complete response.

    `unknown_outcome` is true if the vendor may have acted on the request: part of the body was sent and no complete
    response was read. A connection that was never made has no unknown outcome.
    """

    def __init__(self, reason: str, *, unknown_outcome: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unknown_outcome = unknown_outcome


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, for messages: `1 record`, `2,000 records`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
