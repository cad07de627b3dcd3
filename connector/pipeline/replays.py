"""A record that was a dead letter and comes back by the replay topic: where it goes, and as what. Pure."""

from __future__ import annotations

from typing import ClassVar, Final

from msgspec.structs import replace

from connector.dead_letters.headers import ParsedLetter
from connector.errors import FatalError, Refusal
from connector.pipeline.batching import Delivery
from connector.pipeline.offsets import PartitionTracker
from connector.pipeline.routing import Routed, RouteTable
from connector.records import Event, Item, Record

UNROUTED: Final = "route.unrouted"
NOT_THERE: Final = "route.destination"


class ReplayedDelivery(Delivery):
    """A delivery of a replayed record: outside storm windows and key order, with the dedup id that it always had."""

    __slots__ = ("_first_dedup_id",)
    replayed: ClassVar[bool] = True

    def __init__(
        self, record: Record, tracker: PartitionTracker, bit: int, item: Item, identity: str, dedup_id: str
    ) -> None:
        super().__init__(record, tracker, bit, item, identity)
        self._first_dedup_id = dedup_id

    @property
    def dedup_id(self) -> str:
        """The id that the letter carries."""
        return self._first_dedup_id


def reroute(routes: RouteTable, event: Event, first: Record, letter: ParsedLetter, cluster_id: str) -> list[Routed]:
    """Return the deliveries of a replayed event, whose record came as `first`; each keeps the letter's dedup id.

    A letter of one destination goes there and nowhere else; one that was never routed goes where routes say today,
    perhaps nowhere (`unrouted: skip`). Raises `Refusal` with cause `route`, also under `unrouted: stop`: an old record
    must not end a run.
    """
    try:
        routed = routes.route(event, first, cluster_id)
    except FatalError as error:
        raise Refusal("route", UNROUTED, str(error)) from None
    wanted = letter.destination
    if wanted is not None:
        routed = [one for one in routed if one.destination == wanted]
        if not routed:
            if wanted not in routes.destinations:
                raise Refusal("route", NOT_THERE, f"destination {wanted} is configured no more")
            raise Refusal("route", UNROUTED, f"no route sends such an event to {wanted} today")
    return [_kept(one, letter.dedup_id) for one in routed]


def _kept(one: Routed, dedup_id: str) -> Routed:
    if isinstance(one.event, Refusal):
        return one
    return replace(one, event=replace(one.event, first_dedup_id=dedup_id))
