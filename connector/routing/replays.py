"""A record that was a dead letter and comes back by the replay topic: where it goes, and as what. Pure."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from connector.dead_letters.headers import ParsedDeadLetter
from connector.errors import FatalError, Refusal
from connector.records import Event, Record
from connector.routing.table import Routed, RouteTable

UNROUTED: Final = "route.unrouted"
NOT_THERE: Final = "route.destination"


def reroute(
    routes: RouteTable, event: Event, first: Record, dead_letter: ParsedDeadLetter, cluster_id: str
) -> list[Routed]:
    """Return the deliveries of a replayed event, whose record came as `first`; each keeps the letter's dedup id.

    A letter of one destination goes there and nowhere else; one that was never routed goes where routes say today,
    perhaps nowhere (`unrouted: skip`). Raises `Refusal` with cause `route`, also under `unrouted: stop`: an old record
    must not end a run.
    """
    try:
        routed = routes.route(event, first, cluster_id)
    except FatalError as error:
        raise Refusal("route", UNROUTED, str(error)) from None
    wanted = dead_letter.destination
    if wanted is not None:
        routed = [one for one in routed if one.destination == wanted]
        if not routed:
            if wanted not in routes.destinations:
                raise Refusal("route", NOT_THERE, f"destination {wanted} is configured no more")
            raise Refusal("route", UNROUTED, f"no route sends such an event to {wanted} today")
    return [_kept(one, dead_letter.dedup_id) for one in routed]


def _kept(one: Routed, dedup_id: str) -> Routed:
    if isinstance(one.event, Refusal):
        return one
    return replace(one, event=replace(one.event, first_dedup_id=dedup_id))
