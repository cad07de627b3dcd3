"""A consumed message as a record, whatever its headers are."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE

from connector.clock import SystemClock
from connector.codec.decoder import Decoder
from connector.codec.schemas import load_contracts
from connector.errors import Refusal
from connector.kafka.client import record_of
from connector.records import NO_TIMESTAMP, UNREADABLE_HEADERS, Record


class ConsumedMessage:
    """A message of a consumer, as confluent-kafka gives it."""

    def __init__(self, headers: Any, timestamp: tuple[int, int] = (TIMESTAMP_CREATE_TIME, 7)) -> None:
        self._headers, self._timestamp = headers, timestamp

    def headers(self) -> Any:
        """Return the headers, or fail as confluent-kafka 2.16 does for a name that is not UTF-8."""
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        """Return the kind of the timestamp and the timestamp."""
        return self._timestamp

    def topic(self) -> str:
        """Return the topic."""
        return "t"

    def partition(self) -> int:
        """Return the partition."""
        return 1

    def offset(self) -> int:
        """Return the offset."""
        return 2

    def key(self) -> bytes:
        """Return the key."""
        return b"k"

    def value(self) -> bytes:
        """Return the value."""
        return b"v"


def consumed(*arguments: Any) -> Record:
    """Return the record of a message."""
    return record_of(ConsumedMessage(*arguments))  # type: ignore[arg-type]


def test_a_message_becomes_a_record() -> None:
    """Every part is kept; a missing timestamp and missing headers are stated as such."""
    headers = [("a", b"\xff"), ("a", None)]
    assert consumed(headers) == Record("t", 1, 2, 7, b"k", b"v", headers)
    bare = consumed(None, (TIMESTAMP_NOT_AVAILABLE, 0))
    assert (bare.timestamp, bare.headers) == (NO_TIMESTAMP, ())


@pytest.mark.promise("P1")
def test_unreadable_headers_neither_lose_nor_block_the_record() -> None:
    """A record whose header name is not UTF-8 is refused by itself, with key and value. Kills: a lost batch."""
    record = consumed(SystemError("returned a result with an exception set"))
    assert (record.key, record.value) == (b"k", b"v")
    assert record.headers is UNREADABLE_HEADERS
    decoder = Decoder(load_contracts(), clock=SystemClock())
    with pytest.raises(Refusal, match="not UTF-8") as refused:
        decoder.event(record)
    assert refused.value.code == "decode.headers"
