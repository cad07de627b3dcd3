"""The offset map as commit metadata: round trips, cuts that claim less and never more, and foreign text."""

from __future__ import annotations

import base64
import zlib
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.pipeline.offset_map import (
    MAX_TEXT,
    FinishedMap,
    ForeignMetadata,
    Runs,
    combined,
    decode,
    encode,
    part_of,
)

LENGTHS = st.sampled_from([1, 1, 1, 2, 3, 7, 8, 9, 127, 128, 129, 5_000, 2**20, 2**35])


@st.composite
def runs(draw: st.DrawFn, base: int = 0, most: int = 40) -> Runs:
    """Runs at or above `base`, with lengths near the edges of bytes and varints."""
    bounds: list[int] = []
    at = base + draw(st.sampled_from([0, 1, 7, 8, 300]))
    for _ in range(draw(st.integers(0, most))):
        end = at + draw(LENGTHS)
        bounds += (at, end)
        at = end + draw(LENGTHS)
    return Runs(tuple(bounds))


BASES = st.sampled_from([0, 1, 127, 2**31, 2**62])
NAMES = st.sampled_from(["a", "jiguang-prod", "größe", "x" * 200])


@st.composite
def maps(draw: st.DrawFn) -> tuple[int, FinishedMap]:
    """A committed offset, and a map above it with up to four destinations."""
    base = draw(BASES)
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    parts = {name: draw(runs(base)) for name in names}
    return base, FinishedMap(draw(runs(base)), parts)


def same(one: FinishedMap, other: FinishedMap) -> bool:
    """Whether two maps claim the same: an empty part claims nothing."""
    filled = [{name: part for name, part in each.parts.items() if part.bounds} for each in (one, other)]
    return one.whole == other.whole and filled[0] == filled[1]


def claims_nothing_but(finished: FinishedMap, base: int, text: str) -> bool:
    """Whether the text is refused as foreign, or reads as `finished`."""
    try:
        return same(decode(base, text), finished)
    except ForeignMetadata as error:
        return str(error) != ""


@pytest.mark.promise("P3")
@settings(max_examples=150)
@given(maps())
def test_a_map_that_fits_round_trips(given_map: tuple[int, FinishedMap]) -> None:
    """What is committed is what is read back, whatever the gaps, lengths and names.

    Kills: an off-by-one in either form, and a bitset whose last byte is cut.
    """
    base, finished = given_map
    encoded = encode(base, finished, limit=10**9)
    assert same(decode(base, encoded.text), finished)
    assert decode(base, encoded.text + "\x00") == decode(base, encoded.text)


@pytest.mark.promise("P2")
@settings(max_examples=150)
@given(given_map=maps(), limit=st.sampled_from([1, 12, 16, 20, 24, 40, 64, 100, 200, 1000]))
def test_a_map_that_is_cut_claims_a_part_of_the_truth(given_map: tuple[int, FinishedMap], limit: int) -> None:
    """Cut or not, the text is no longer than its limit, and claims nothing that is not finished.

    Kills: cutting the text instead of the map; keeping a tail whose head was cut.
    """
    base, finished = given_map
    encoded = encode(base, finished, limit)
    assert len(encoded.text) <= limit
    read = decode(base, encoded.text)
    whole = len(encode(base, finished, 10**9).text) <= limit
    assert whole == same(read, finished)
    assert (encoded.used == 1.0) or whole
    for name in ("", *finished.parts):
        true = finished.done(name)
        claimed = read.done(name)
        assert true.union(claimed) == true


def test_every_form_of_scattered_offsets_stays_below_kafkas_limit() -> None:
    """Maps far too large for Kafka are cut below 4,096 characters, and say that they are full."""
    random = Random(1)
    scattered = Runs.of(offset for offset in range(200_000) if random.random() < 0.4)
    encoded = encode(0, FinishedMap(scattered, {"a": scattered.above(1000)}))
    assert len(encoded.text) <= MAX_TEXT
    assert encoded.used == 1.0
    assert decode(0, encoded.text).whole.count() > 1000


def test_a_regular_map_is_never_larger_than_a_reader_unpacks() -> None:
    """A map that packs a hundredfold is cut before it grows beyond what is read back.

    Kills: a text that fits, and that no reader accepts.
    """
    regular = Runs(tuple(bound for n in range(150_000) for bound in (n * 100 + 1, n * 100 + 2)))
    encoded = encode(0, FinishedMap(regular, {"a": regular, "b": regular, "c": regular}))
    read = decode(0, encoded.text)
    assert read.whole.count() > 1000
    assert regular.union(read.whole) == regular


def test_nothing_finished_is_an_empty_text() -> None:
    """An empty map costs nothing and reads as empty."""
    assert encode(5, FinishedMap(Runs(), {"a": Runs()})).text == ""
    assert decode(5, "").is_empty()
    assert decode(5, "\x00").is_empty()


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode()))
def test_foreign_text_is_named_and_never_read(text: str) -> None:
    """Whatever another program committed is a `ForeignMetadata`, or empty; nothing else is raised, nothing claimed."""
    assert claims_nothing_but(FinishedMap(), 0, text)


@pytest.mark.promise("P2")
@settings(max_examples=200)
@given(given_map=maps(), place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_never_claims_anything(given_map: tuple[int, FinishedMap], place: int, bit: int) -> None:
    """A map damaged anywhere is refused or reads as it was: the checksum covers every byte that claims something.

    Kills: reading a map without its checksum.
    """
    base, finished = given_map
    text = encode(base, finished, 10**9).text
    if not text:
        return
    frame = bytearray(base64.b64decode(text))
    frame[place % len(frame)] ^= 1 << bit
    assert claims_nothing_but(finished, base, base64.b64encode(frame).decode())


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_is_ignored(version: int) -> None:
    """A later version is not guessed at, and version 1 is not believed: it does not say which offset it is about."""
    frame = bytearray(base64.b64decode(encode(0, FinishedMap(Runs((1, 2)))).text))
    frame[1] = version
    with pytest.raises(ForeignMetadata, match=f"version {version}"):
        decode(0, base64.b64encode(frame).decode())


@pytest.mark.promise("P2")
@given(given_map=maps(), other=BASES | st.integers(0, 2**62))
def test_a_map_found_at_another_offset_claims_nothing(given_map: tuple[int, FinishedMap], other: int) -> None:
    """Metadata that MirrorMaker or a person copied to another offset is refused: its claims are about other records.

    Kills: a checksum without the committed offset.
    """
    base, finished = given_map
    text = encode(base, finished, 10**9).text
    if text and other != base:
        with pytest.raises(ForeignMetadata, match="another offset"):
            decode(other, text)


@pytest.mark.parametrize("content", [b"\x01\x00\x00\x05\x01", b"\x01\x00\x00\x01\x05", b"\x01" + b"\xff" * 12, b"\x02"])
def test_content_that_ends_early_is_foreign(content: bytes) -> None:
    """A well summed frame with a broken inside is refused too, whatever made it."""
    frame = bytes((0xC7, 2, 0)) + zlib.crc32(bytes(8) + content).to_bytes(4, "big") + content
    with pytest.raises(ForeignMetadata):
        decode(0, base64.b64encode(frame).decode())


SMALL = st.sets(st.integers(0, 40))


@given(SMALL, SMALL, st.integers(0, 41))
def test_runs_are_sets_of_offsets(one: set[int], other: set[int], cut: int) -> None:
    """Union, cuts, complement, count and membership are those of the sets they stand for."""
    left, right = Runs.of(sorted(one)), Runs.of(sorted(other))
    assert left.union(right) == Runs.of(sorted(one | other))
    assert left.above(cut) == Runs.of(sorted(n for n in one if n >= cut))
    assert left.below(cut) == Runs.of(sorted(n for n in one if n < cut))
    assert Runs.complement(0, 41, sorted(one)) == Runs.of(sorted(set(range(41)) - one))
    assert left.both(right) == Runs.of(sorted(one & other))
    assert left.without(right) == Runs.of(sorted(one - other))
    assert left.count() == len(one)
    assert [n for n in range(42) if left.contains(n)] == sorted(one)
    assert left.end == max(one, default=-1) + 1


@pytest.mark.promise("P3")
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sets(st.integers(0, 25)), min_size=1))
def test_the_progress_of_several_destinations_becomes_one_map(finished: dict[str, set[int]]) -> None:
    """Watermark and map claim exactly what each destination has finished, and its part of them is that again.

    Kills: a watermark that passes what one destination has not finished.
    """
    watermark, joined = combined({name: Runs.of(sorted(offsets)) for name, offsets in finished.items()})
    for name, offsets in finished.items():
        for offset in range(27):
            assert (offset < watermark or joined.done(name).contains(offset)) == (offset in offsets)
        base, part = part_of(watermark, joined, name)
        assert {offset for offset in range(27) if offset < base or part.whole.contains(offset)} == offsets
