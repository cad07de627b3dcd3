"""Headers in which other tools look for a dead letter's origin and reason, in addition to the connector's own. Pure.

`connect`: Kafka Connect's error headers (KIP-298), UTF-8 text. `spring`: those of Spring Kafka's
`DeadLetterPublishingRecoverer`, numbers as big-endian bytes. They are part of the block: when the record fails again,
they are replaced together with it.
"""

from __future__ import annotations

import struct
from typing import Final, Literal

from connector.records import NO_TIMESTAMP, Position

Dialect = Literal["connect", "spring"]

_CONNECT: Final = "__connect.errors."
_SPRING: Final = "kafka_dlt-"
NAMES: Final = frozenset(
    {
        *(f"{_CONNECT}{name}" for name in ("topic", "partition", "offset", "connector.name", "task.id", "stage")),
        *(f"{_CONNECT}{name}" for name in ("class.name", "exception.class.name", "exception.message")),
        *(f"{_SPRING}original-{name}" for name in ("topic", "partition", "offset", "timestamp", "timestamp-type")),
        *(f"{_SPRING}{name}" for name in ("original-consumer-group", "exception-fqcn", "exception-message")),
    }
)
"""Every header of every dialect."""


def dialect_headers(
    dialect: Dialect, *, origin: Position, timestamp: int, group: str, cause: str, code: str | None, message: str
) -> list[tuple[str, bytes | None]]:
    """Return a dead letter's headers in a dialect. The exception's class is the cause, with the code if any."""
    kind = cause if code is None else f"{cause}: {code}"
    if dialect == "connect":
        texts = {
            "topic": origin.topic,
            "partition": str(origin.partition),
            "offset": str(origin.offset),
            "connector.name": group,
            # Kafka Connect numbers its tasks; the connector has no such number.
            "task.id": "0",
            # Connect's own names of stages: converting a value, and putting a record into a sink.
            "stage": "VALUE_CONVERTER" if cause == "decode" else "TASK_PUT",
            "class.name": "connector",
            "exception.class.name": kind,
            "exception.message": message,
        }
        return [(f"{_CONNECT}{name}", text.encode(errors="replace")) for name, text in texts.items()]
    values = {
        "original-topic": origin.topic.encode(),
        "original-partition": struct.pack(">i", origin.partition),
        "original-offset": struct.pack(">q", origin.offset),
        "original-consumer-group": group.encode(errors="replace"),
        "exception-fqcn": kind.encode(errors="replace"),
        "exception-message": message.encode(errors="replace"),
    }
    if timestamp != NO_TIMESTAMP:
        values |= {"original-timestamp": struct.pack(">q", timestamp), "original-timestamp-type": b"CREATE_TIME"}
    return [(f"{_SPRING}{name}", value) for name, value in values.items()]
