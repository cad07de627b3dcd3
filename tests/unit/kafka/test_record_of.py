"""A consumed message as a record, whatever its headers are."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, KafkaError, Message

from connector.clock import SystemClock
from connector.codec.decoder import Decoder
from connector.codec.schemas import load_contracts
from connector.errors import Refusal
from connector.kafka import client
from connector.kafka.client import record_of, records_of
from connector.kafka.consumer import to_records
from connector.records import NO_TIMESTAMP, UNREADABLE_HEADERS, Record


class ConsumedMessage(Message):
    """A message of a consumer; `headers` may be the error that confluent-kafka raises for them."""

    def __init__(self, headers: Any, timestamp: tuple[int, int] = (TIMESTAMP_CREATE_TIME, 7)) -> None:
        super().__init__(topic="t", partition=1, offset=2, key=b"k", value=b"v", timestamp=timestamp)
        self._headers = headers

    def headers(self) -> Any:
        """Return the headers, or fail as confluent-kafka 2.16 does for a name that is not UTF-8: at the first call."""
        found, self._headers = self._headers, [(None, b"a null pointer")]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture(autouse=True)
def _headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask these messages, and not the library's own method, which only a consumer can make fail."""
    monkeypatch.setattr(client, "_HEADERS_OF", ConsumedMessage.headers)


def consumed(*arguments: Any) -> Record:
    """Return the record of a message."""
    return record_of(ConsumedMessage(*arguments))


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


@pytest.mark.promise("P1")
def test_unreadable_headers_change_no_other_record_of_the_poll() -> None:
    """Each record has its own headers, and each message is asked once. Kills: headers that move to a neighbour."""
    broken = SystemError("returned a result with an exception set")
    asked: list[Any] = [broken, None, [("a", b"1")], broken, broken, [("b", None)], broken]
    wanted = [UNREADABLE_HEADERS if headers is broken else headers or () for headers in asked]
    assert [record.headers for record in records_of([ConsumedMessage(headers) for headers in asked])] == wanted


def test_errors_among_messages_are_reported_and_no_records() -> None:
    """The end of a partition comes as such a message. Kills: a comparison with the error, which raises by itself."""
    end = KafkaError(KafkaError._PARTITION_EOF)
    messages = [ConsumedMessage(None), Message(topic="t", partition=1, error=end), ConsumedMessage([("a", b"1")])]
    reported: list[Any] = []
    records = to_records(messages, lambda error, message: reported.append((error, message)))
    assert [record.headers for record in records] == [(), [("a", b"1")]]
    assert [(error.code(), message) for error, message in reported] == [(end.code(), messages[1])]
