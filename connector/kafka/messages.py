"""librdkafka's messages as records, and in words. Every record comes this way."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, Message

from connector.records import NO_TIMESTAMP, Record


def to_records(messages: Iterable[Message], on_error: Callable[[KafkaError, Message], None]) -> list[Record]:
    """Return the messages as records; `on_error` is given those that are none, and may raise."""
    records = []
    # By its stub a message may lack all of these; one without an error has them.
    record_of: Callable[..., Record] = Record
    for message in messages:
        error = message.error()
        if error is not None:
            on_error(error, message)
            continue
        kind, timestamp = message.timestamp()
        record = record_of(
            message.topic(),
            message.partition(),
            message.offset(),
            timestamp if kind != TIMESTAMP_NOT_AVAILABLE else NO_TIMESTAMP,
            message.key(),
            message.value(),
            message.headers() or (),
        )
        records.append(record)
    return records


def out_of_range(error: KafkaError, message: Message) -> str:
    """Return what to say of a partition whose next offset Kafka does not have."""
    return (
        f"the offset to read next is not in {message.topic()} [{message.partition()}] any more ({error.str()}): its "
        "records were deleted, or the topic was made anew. Going on would pass over records or repeat them: a person "
        "decides: stop the group and run `connector offsets reset`"
    )
