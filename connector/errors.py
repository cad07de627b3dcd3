"""Everything the connector raises on purpose, named by who must act.

ConnectorError
├── ConfigurationError      the user: the file is wrong; carries every fault at once      exit 2
├── StartupError            the user or the platform: a topic is missing, unfit, …        exit 1
├── FatalError              the user: the run cannot go on (offset out of range, …)       exit 1
├── Refusal                 nobody's: one record's fault, ends as a dead letter
├── SchemaUnavailable       the platform: the registry does not answer; intake waits
└── TransportError          the network or the vendor: a request got no whole answer; retried
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class ConnectorError(Exception):
    """Base of every error the connector raises on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a configuration: where it stands, and what to do about it."""

    path: str
    message: str

    def __str__(self) -> str:
        """Return the fault as one line, the path first."""
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigurationError(ConnectorError):
    """The configuration cannot be used; `faults` holds every fault that was found."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class StartupError(ConnectorError):
    """The surroundings are not as the connector needs them, and waiting would not help."""


class FatalError(ConnectorError):
    """The run cannot go on without a person; the message names the way out."""


class Refusal(ConnectorError):
    """One record cannot be delivered, by its own fault.

    `cause` is a dead letter's cause (`decode`, `route`, `invalid`, …), `code` a local rule's id or the
    vendor's code, `field` the field at fault where one can be named. The message never contains the value of
    a field, because messages are logged and fields may be personal. `answers` are what a query vendor's results topic
    is told of it (`records.Answer`), before the dead letter.
    """

    def __init__(self, cause: str, code: str, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.code = code
        self.message = message
        self.field = field
        self.answers: tuple[Any, ...] = ()


class SchemaUnavailable(ConnectorError):
    """The writer's schema is not known yet and nobody can say whether it exists; the record has to wait.

    `key` names the schema for the decoder's `resolve`.
    """

    def __init__(self, key: object) -> None:
        super().__init__(f"schema {key} is not resolved yet")
        self.key = key


class TransportError(ConnectorError):
    """A request got no whole answer.

    `unknown_outcome` is true where the vendor may have acted on it: the body was begun and no whole answer
    was read. A connection that was never made has no unknown outcome.
    """

    def __init__(self, reason: str, *, unknown_outcome: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unknown_outcome = unknown_outcome
