"""What holding a record is charged with: everything that is kept of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connector.pipeline.batching import FIXED_CHARGE, Delivery, charge_of
from connector.pipeline.offsets import PartitionTracker, destination_bit
from connector.records import Item, Record

BYTES = st.one_of(st.none(), st.binary(max_size=40), st.just(b"v" * 100_000))


@given(BYTES, BYTES, st.lists(st.tuples(st.text(max_size=5), BYTES), max_size=5), st.binary(max_size=40))
def test_every_byte_that_is_held_is_charged(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], body: bytes
) -> None:
    """Key, value, each header and the encoded item count, and a fixed charge besides. Kills: headers left out."""
    record = Record("t", 0, 0, -1, key, value, headers)
    held = len(key or b"") + len(value or b"") + sum(len(each or b"") for _, each in headers)
    assert charge_of(record) >= FIXED_CHARGE + held + 100 * len(headers)
    delivery = Delivery(record, PartitionTracker("t", 0, 0, ["d"]), destination_bit(0), Item(body), "id")
    assert delivery.charge == charge_of(record) + len(body)
