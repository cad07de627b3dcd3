"""Writes a record byte by byte: client libraries refuse what Kafka accepts, such as a header name not in UTF-8."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from typing import Final

_PRODUCE: Final = 0
_VERSION: Final = 3
_POLYNOMIAL: Final = 0x82F63B78


def produce(bootstrap: str, topic: str, partition: int, value: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Write one record with these headers to the partition's leader, which has to be `bootstrap`."""
    batch = _batch(_record(value, headers))
    topics = struct.pack(">i", 1) + _string(topic) + struct.pack(">iii", 1, partition, len(batch)) + batch
    body = struct.pack(">hhi", -1, -1, 10_000) + topics
    request = struct.pack(">hhi", _PRODUCE, _VERSION, 1) + _string("raw") + body
    host, _, port = bootstrap.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = _exactly(connection, struct.unpack(">i", _exactly(connection, 4))[0])
    # correlation id, 1 topic with its name, 1 partition with its number, then the error code
    (error,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic.encode()) + 4 + 4)
    assert error == 0, f"Kafka answered with error {error}"


def _record(value: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    listed = b"".join(_varint(len(name)) + name + _varint(len(content)) + content for name, content in headers)
    body = b"\0" + _varint(0) + _varint(0) + _varint(-1) + _varint(len(value)) + value + _varint(len(headers)) + listed
    return _varint(len(body)) + body


def _batch(record: bytes) -> bytes:
    now = int(time.time() * 1000)
    checked = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + record
    inner = struct.pack(">ibI", -1, 2, _crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(inner)) + inner


def _varint(number: int) -> bytes:
    zigzag = (number << 1) ^ (number >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, "Kafka closed the connection"
        data += more
    return data
