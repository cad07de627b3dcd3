"""The offset map: what is finished above the watermark, as the text of a Kafka commit's metadata. Pure.

Version 2, byte by byte (numbers are unsigned LEB128 varints unless stated otherwise):

    text     base64 (standard alphabet, padded) of the frame, at most 4,095 characters
    frame    0xC7, version (2), flags (bit 0: the content is zlib-compressed), CRC-32 (4 bytes, big endian) of the
             committed offset (8 bytes, big endian) and the content before compression, content
    content  number of entries, then the entries
    entry    length of the name, name (UTF-8), form (one byte), number of bytes, bytes
    name     empty: these records are finished for good; else the destination for which they are finished
    form 0   runs: lengths that alternate unfinished, finished, unfinished, … from the committed offset on
    form 1   bitset: bit i (least significant first) is the record at the committed offset + i

Offsets beyond an entry's end are unfinished. A reader that does not know the version, or whose checksum differs,
must take the map as empty: sending again beats losing.

Why is the committed offset part of the checksum? Other programs copy metadata to other offsets: MirrorMaker 2's group
sync pairs a translated offset with the original metadata, and so does a person who sets offsets with Kafka's tools.
Then every claim would be about other records, which would be skipped. Version 1 did not include the offset, so its maps
cannot be trusted and are ignored: after an upgrade from version 1, records finished above the committed offset are sent
again.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_TEXT: Final = 4095
"""Kafka takes 4,096 (offset.metadata.max.bytes); the Python client adds a NUL."""

_MAGIC: Final = 0xC7
_VERSION: Final = 2
_COMPRESSED: Final = 1
_MAX_CONTENT: Final = 1 << 20
_MOST_CONTENT: Final = 1 << 18
"""Maximum content that is written: a quarter of what a reader accepts, because packing it takes a few milliseconds."""
_LEVEL: Final = 6
"""Compression level: 9 takes several times as long for the last percent."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Ascending half-open ranges of offsets that do not touch. `bounds` alternate between begin and end."""

    bounds: tuple[int, ...] = ()

    @classmethod
    def of(cls, offsets: Iterable[int]) -> Runs:
        """Return the runs of these offsets, which ascend."""
        bounds: list[int] = []
        for offset in offsets:
            if bounds and bounds[-1] == offset:
                bounds[-1] = offset + 1
            else:
                bounds += (offset, offset + 1)
        return cls(tuple(bounds))

    @classmethod
    def complement(cls, start: int, end: int, missing: Iterable[int]) -> Runs:
        """Return [start, end) without the offsets in `missing`, which must ascend and be within it."""
        bounds: list[int] = []
        at = start
        for offset in missing:
            if offset > at:
                bounds += (at, offset)
            at = offset + 1
        if end > at:
            bounds += (at, end)
        return cls(tuple(bounds))

    @property
    def end(self) -> int:
        """One past the last offset; 0 if there is none."""
        return self.bounds[-1] if self.bounds else 0

    def contains(self, offset: int) -> bool:
        """Whether the offset lies in a run."""
        return bisect_right(self.bounds, offset) % 2 == 1

    def count(self) -> int:
        """How many offsets the runs hold."""
        return sum(self.bounds[1::2]) - sum(self.bounds[::2])

    def above(self, start: int) -> Runs:
        """Return the part at `start` or above."""
        # Bounds alternate begin, end, begin, …: an odd index lies inside of a run, so the run is cut at `start`.
        index = bisect_right(self.bounds, start)
        rest = self.bounds[index:]
        return Runs((start, *rest) if index % 2 else rest)

    def below(self, end: int) -> Runs:
        """Return the part below `end`."""
        index = bisect_right(self.bounds, end - 1)
        first = self.bounds[:index]
        return Runs((*first, end) if index % 2 else first)

    def union(self, other: Runs) -> Runs:
        """Return the offsets of both."""
        bounds: list[int] = []
        pairs = sorted([*_pairs(self.bounds), *_pairs(other.bounds)])
        for first, last in pairs:
            if bounds and first <= bounds[-1]:
                bounds[-1] = max(bounds[-1], last)
            else:
                bounds += (first, last)
        return Runs(tuple(bounds))

    def both(self, other: Runs) -> Runs:
        """Return the offsets that are in both."""
        return self._where(other, lambda mine, theirs: mine and theirs)

    def without(self, other: Runs) -> Runs:
        """Return the offsets that are not in `other`."""
        return self._where(other, lambda mine, theirs: mine and not theirs)

    def _where(self, other: Runs, keep: Callable[[bool, bool], bool]) -> Runs:
        bounds: list[int] = []
        # Membership can change only at a bound of either side. Where it does, the bound belongs to the result.
        for bound in sorted({*self.bounds, *other.bounds}):
            if keep(self.contains(bound), other.contains(bound)) is (len(bounds) % 2 == 0):
                bounds.append(bound)
        return Runs(tuple(bounds))


def _pairs(bounds: tuple[int, ...]) -> Iterable[tuple[int, int]]:
    return zip(bounds[::2], bounds[1::2], strict=True)


@dataclass(frozen=True, slots=True)
class FinishedMap:
    """The records finished above a watermark: `whole` for all destinations, `parts` for single ones."""

    whole: Runs = Runs()
    parts: Mapping[str, Runs] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """One past the last offset that the map has a claim about."""
        return max([self.whole.end, *(runs.end for runs in self.parts.values())])

    def is_empty(self) -> bool:
        """Whether nothing is claimed."""
        return not self.whole.bounds and not any(runs.bounds for runs in self.parts.values())

    def done(self, destination: str) -> Runs:
        """Return the offsets that are finished for the destination."""
        return self.whole.union(self.parts.get(destination, Runs()))

    def above(self, start: int) -> FinishedMap:
        """Return the claims at `start` or above."""
        return FinishedMap(self.whole.above(start), {name: runs.above(start) for name, runs in self.parts.items()})

    def below(self, end: int) -> FinishedMap:
        """Return the claims below `end`."""
        return FinishedMap(self.whole.below(end), {name: runs.below(end) for name, runs in self.parts.items()})

    def joined(self, other: FinishedMap) -> FinishedMap:
        """Return the claims of both."""
        names = {**self.parts, **other.parts}
        return FinishedMap(
            self.whole.union(other.whole),
            {name: self.parts.get(name, Runs()).union(other.parts.get(name, Runs())) for name in names},
        )


@dataclass(frozen=True, slots=True)
class EncodedMap:
    """A map as commit metadata. `used` is the share of the space it takes; 1.0 if its tail had to be cut."""

    text: str
    used: float


def part_of(base: int, finished: FinishedMap, destination: str) -> tuple[int, FinishedMap]:
    """Return one destination's watermark and map, from those of a group that serves several.

    Records right above `base` that the destination has finished move its watermark forward.
    """
    done = finished.done(destination)
    watermark = done.bounds[1] if done.bounds and done.bounds[0] <= base else base
    return watermark, FinishedMap(done.above(watermark))


def combined(progress: Mapping[str, Runs]) -> tuple[int, FinishedMap]:
    """Return the watermark and map of a group of several destinations, from what each has finished since offset 0."""
    everyone = list(progress.values())
    whole = everyone[0]
    for runs in everyone[1:]:
        whole = whole.both(runs)
    # Everything from 0 up to the first offset that one of them has not finished.
    watermark = whole.bounds[1] if whole.bounds and whole.bounds[0] == 0 else 0
    parts = {name: runs.without(whole).above(watermark) for name, runs in progress.items()}
    return watermark, FinishedMap(whole.above(watermark), parts)


class ForeignMetadata(ValueError):
    """The text is not a map that this version can read; the message says why."""


def encode(base: int, finished: FinishedMap, limit: int = MAX_TEXT) -> EncodedMap:
    """Return the map relative to the committed offset `base`, cut at its tail if it exceeds `limit` characters.

    An empty map gives an empty text.
    """
    if finished.is_empty():
        return EncodedMap("", 0.0)
    content = _content(base, finished)
    text = _text(base, content)
    if len(text) <= limit and len(content) <= _MOST_CONTENT:
        return EncodedMap(text, len(text) / limit)
    # Rare: `MapRoom` stops reading before this, unless the limit was lowered. Keep as large a share of the bounds as
    # the share of characters that fits, so that two or three attempts are enough: each of them compresses on the event
    # loop.
    bounds = sorted({bound for runs in (finished.whole, *finished.parts.values()) for bound in runs.bounds})
    kept = len(bounds)
    while kept:
        kept = int(0.9 * kept * min(limit / len(text), _MOST_CONTENT / len(content), 1))
        content = _content(base, finished.below(bounds[kept]))
        text = _text(base, content)
        if len(text) <= limit and len(content) <= _MOST_CONTENT:
            return EncodedMap(text if kept else "", 1.0)
    return EncodedMap("", 1.0)


def decode(base: int, text: str) -> FinishedMap:
    """Return the map that was committed together with the offset `base`. An empty text is an empty map.

    Raises `ForeignMetadata` if another program or version wrote the text, or if the checksum differs: then the map is
    broken, or was committed at another offset.
    """
    # The Python client adds a NUL to the metadata that it commits.
    text = text.rstrip("\x00")
    if not text:
        return FinishedMap()
    try:
        frame = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ForeignMetadata("not base64") from error
    if len(frame) < 7 or frame[0] != _MAGIC:
        raise ForeignMetadata("not an offset map")
    if frame[1] != _VERSION:
        raise ForeignMetadata(f"offset map of version {frame[1]}; this release reads version {_VERSION}")
    try:
        content = frame[7:]
        if frame[2] & _COMPRESSED:
            # Bounded, because any program can write metadata, and a few bytes can decompress to gigabytes.
            content = zlib.decompressobj().decompress(content, _MAX_CONTENT)
        # The checksum does not cover the flags. It need not: a wrong flag changes the content, and so the checksum.
        if _checksum(base, content) != frame[3:7]:
            raise ForeignMetadata("the checksum differs: the map is broken, or was written for another offset")
        return _read_content(base, content)
    except (zlib.error, IndexError, UnicodeDecodeError) as error:
        raise ForeignMetadata(f"broken offset map: {error}") from error


def shortened(base: int, text: str, limit: int) -> str:
    """Return commit metadata of at most `limit` characters: a map with fewer claims, or nothing if it is not a map."""
    if len(text) <= limit:
        return text
    try:
        return encode(base, decode(base, text), limit).text
    except ForeignMetadata:
        return ""


def _content(base: int, finished: FinishedMap) -> bytes:
    entries = {"": finished.whole, **finished.parts}
    content = bytearray()
    filled = {name: runs for name, runs in entries.items() if runs.bounds}
    _write_varint(content, len(filled))
    for name, runs in filled.items():
        encoded = name.encode()
        _write_varint(content, len(encoded))
        content += encoded
        # Example: offsets 3 and 4 of 8 are finished. As runs: 3, 2 (two bytes). As a bitset: 00011000 (one byte). Runs
        # are shorter if outcomes come in batches, the bitset if they are scattered.
        form, data = 0, _as_runs(base, runs)
        if runs.end - base < 8 * len(data):
            form, data = 1, _as_bitset(base, runs)
        content.append(form)
        _write_varint(content, len(data))
        content += data
    return bytes(content)


def _text(base: int, content: bytes) -> str:
    packed = zlib.compress(content, _LEVEL)
    # A few runs are shorter uncompressed, because compression adds a header.
    flags, body = (_COMPRESSED, packed) if len(packed) < len(content) else (0, content)
    head = bytes((_MAGIC, _VERSION, flags)) + _checksum(base, content)
    return base64.b64encode(head + body).decode("ascii")


def _checksum(base: int, content: bytes) -> bytes:
    return zlib.crc32(content, zlib.crc32(base.to_bytes(8, "big"))).to_bytes(4, "big")


def _as_runs(base: int, runs: Runs) -> bytes:
    data = bytearray()
    at = base
    for bound in runs.bounds:
        _write_varint(data, bound - at)
        at = bound
    return bytes(data)


def _as_bitset(base: int, runs: Runs) -> bytes:
    # Built as text, because that takes linear time: setting bits in one large number would copy it for each run.
    text: list[str] = []
    at = base
    for first, last in _pairs(runs.bounds):
        text += ("0" * (first - at), "1" * (last - first))
        at = last
    return int("".join(text)[::-1], 2).to_bytes((at - base + 7) // 8, "little")


def _read_content(base: int, content: bytes) -> FinishedMap:
    count, at = _read_varint(content, 0)
    whole, parts = Runs(), {}
    for _ in range(count):
        length, at = _read_varint(content, at)
        name = content[at : at + length].decode()
        at += length
        form = content[at]
        length, at = _read_varint(content, at + 1)
        data = content[at : at + length]
        if len(data) != length:
            raise IndexError("an entry ends early")
        at += length
        runs = _from_bitset(base, data) if form else _from_runs(base, data)
        if name:
            parts[name] = runs
        else:
            whole = runs
    return FinishedMap(whole, parts)


def _from_runs(base: int, data: bytes) -> Runs:
    bounds: list[int] = []
    at, offset = 0, base
    while at < len(data):
        length, at = _read_varint(data, at)
        offset += length
        bounds.append(offset)
    # The map is truncated or foreign. Treating the open run as finished would skip records.
    if len(bounds) % 2:
        raise IndexError("a run has no end")
    return Runs(tuple(bounds))


def _from_bitset(base: int, data: bytes) -> Runs:
    text = format(int.from_bytes(data, "little"), "b")[::-1]
    bounds: list[int] = []
    at = text.find("1")
    while at >= 0:
        end = text.find("0", at)
        end = len(text) if end < 0 else end
        bounds += (base + at, base + end)
        at = text.find("1", end)
    return Runs(tuple(bounds))


def _write_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        # Offsets have 64 bits. Without a limit, a text of 0xFF bytes would build one huge number.
        if shift > 63:
            raise IndexError("a number is too long")
