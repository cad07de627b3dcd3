"""Which lane a record's deliveries take where `order: key` is wanted. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from zlib import crc32

from connector.records import Record


def lane_of(record: Record, lanes: int) -> int:
    """Return the lane of a record: all records of a key share one, records without a key share their partition's."""
    key = record.key
    return (record.partition if key is None else crc32(key)) % lanes


def order_key(record: Record) -> Hashable:
    """Return what tells records apart whose order matters: the key, or the partition of a record without one."""
    return record.key if record.key is not None else record.partition
