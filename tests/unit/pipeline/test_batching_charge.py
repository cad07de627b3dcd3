"""What holding a record is charged with: everything that is kept of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connector.clock import SystemClock
from connector.errors import Refusal
from connector.pipeline.batching import ANSWER_CHARGE, FIXED_CHARGE, Delivery, Offer, charge_of
from connector.pipeline.flow import Budget
from connector.pipeline.offsets import PartitionTracker, destination_bit
from connector.pipeline.preparation import Run, RunDestination
from connector.records import Answer, Item, Record
from connector.routing.table import Routed
from connector.telemetry.metrics import Metrics
from connector.vendors.base import VendorEvent
from tests.unit.delivery.delivery_rig import ModelVendor

BYTES = st.one_of(st.none(), st.binary(max_size=40), st.just(b"v" * 100_000))

NAMES = st.one_of(st.text(max_size=5), st.just("n" * 3_000), st.just("名" * 3_000))


@given(BYTES, BYTES, st.lists(st.tuples(NAMES, BYTES), max_size=5), st.text("x", max_size=40))
def test_every_byte_that_is_held_is_charged(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], text: str
) -> None:
    """Key, value, each header and the encoded item count, and a fixed charge besides. Kills: a part left out."""
    record, body = Record("t", 0, 0, -1, key, value, headers), text.encode()
    held = len(key or b"") + len(value or b"") + sum(len(name) + len(each or b"") for name, each in headers)
    assert charge_of(record) >= FIXED_CHARGE + held + 100 * len(headers)
    assert charge_of(record, body) == charge_of(record) + len(body)
    (delivery,) = _prepared(record, text)
    assert delivery.charge == charge_of(record, body)
    (question,) = _prepared(record, text, Asked())
    assert question.charge == charge_of(record, body) + ANSWER_CHARGE


class Asked(ModelVendor):
    """A query vendor: what it answers takes memory too."""

    def ended(self, item: Item, code: str | None, message: str) -> Answer | None:
        """Return no result: none of its questions ends here."""


class _Destination:
    """Keeps what it is offered."""

    def __init__(self, vendor: ModelVendor) -> None:
        self.name, self.vendor = "d", vendor
        self.offered: list[Delivery] = []

    def offer(self, offer: Offer) -> None:
        """Take note."""
        assert offer.charge == sum(one.charge for one in offer.deliveries)
        self.offered.extend(offer.deliveries)

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Fail: nothing here is refused."""
        raise AssertionError(delivery, refusal)


def _prepared(record: Record, text: str, vendor: ModelVendor | None = None) -> list[Delivery]:
    """Return the deliveries that a run makes of a record and an event, once they are charged to the budget."""
    to, budget = _Destination(vendor or ModelVendor()), Budget(1_000_000)
    run = Run(budget, Metrics(), SystemClock(), {"d": RunDestination(destination_bit(0), to)})
    tracker = PartitionTracker("t", 0, 0, ["d"])
    assert tracker.begin((0,))
    run.prepare(tracker, [record], {"d": [Routed("d", VendorEvent({"n": text}, "id"), "id")]})
    run.offer()
    assert budget.used == sum(one.charge for one in to.offered)
    return to.offered
