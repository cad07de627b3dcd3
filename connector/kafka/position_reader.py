"""Reads chosen records once, without a group. The consumer and its positions are not affected."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from connector.config.loader import KafkaSettings
from connector.errors import StartupError
from connector.kafka.client import LibrdkafkaLog, construct, consumer_config, error_text, record_of
from connector.kafka.starts import PARTITION_EOF
from connector.records import Position, Record

_QUEUE_BYTES: Final = 4 << 20
_AT_ONCE: Final = 16
"""Maximum records of one call, wanted or not: each may have a megabyte."""
_POLL_SECONDS: Final = 0.2
_PATIENCE: Final = 10.0
"""Seconds without any message after which a read gives up."""


def read_positions(settings: KafkaSettings, positions: Sequence[Position], stop: threading.Event) -> list[Record]:
    """Return the records at these positions, in order within each partition; deleted ones are left out.

    Blocks. Raises `StartupError` if Kafka does not answer, or once `stop` is set.
    """
    wanted: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for topic, partition, offset in positions:
        wanted[topic, partition].add(offset)
    config = consumer_config(settings, f"{settings.group_id}.reader", _QUEUE_BYTES)
    # Records that were deleted are skipped. This client never joins the group, so it must not use a member's identity.
    config["auto.offset.reset"] = "earliest"
    config.pop("group.instance.id", None)
    consumer = construct(Consumer, config, logger=LibrdkafkaLog("reader"))
    try:
        return _read(consumer, wanted, stop)
    except KafkaException as error:
        raise StartupError(f"records cannot be read again: {error_text(error)}") from None
    finally:
        consumer.close()


def _read(consumer: Consumer, wanted: dict[tuple[str, int], set[int]], stop: threading.Event) -> list[Record]:
    consumer.assign([TopicPartition(*partition, min(offsets)) for partition, offsets in wanted.items()])
    found: list[Message] = []
    heard = time.monotonic()
    while wanted:
        messages = consumer.consume(_AT_ONCE, _POLL_SECONDS)
        heard = time.monotonic() if messages else heard
        if stop.is_set() or time.monotonic() - heard > _PATIENCE:
            raise StartupError("records cannot be read again: Kafka did not answer")
        for message in messages:
            partition, error = (message.topic() or "", message.partition() or 0), message.error()
            if error is not None and error.code() != PARTITION_EOF:
                raise StartupError(f"{partition[0]}[{partition[1]}] cannot be read again: {error_text(error)}")
            offsets = wanted.get(partition)
            if offsets is None:
                continue
            if error is None and message.offset() in offsets:
                found.append(message)
            if error is not None or (message.offset() or 0) >= max(offsets):
                del wanted[partition]
                consumer.pause([TopicPartition(*partition)])
    return [record_of(message) for message in found]
