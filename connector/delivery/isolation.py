"""Which record is to blame: what answers prove, and how a refused batch is taken apart. Pure.

Evidence. A code that the vendor documents as the record's fault is believed once the record was refused alone. Any
other code may mean anything: a wrong setting, an outage with a strange face. It is believed only with evidence, which
is this order of events (monotonic times):

    1. the record is refused alone
    2. a request to the same endpoint that was sent after 1 is accepted: it works, and takes such records
    3. the record is sent after that acceptance was known, and refused alone again by the same code

Why not simply "others were accepted meanwhile"? Requests overlap: an acceptance may be of a request from before the
trouble began, and a second refusal may be of one sent before the acceptance. Neither says anything. So a misunderstood
answer can never drain a topic: while nothing is accepted, nothing is believed. And why to the same
endpoint? One that is switched off, or misread, proves nothing about the records of another.

And where such a record is accepted later, just as it is, the code was not about it: one of two servers behind an
address has an old credential, or is busy, and answers half of all requests so. That code is contradicted. For a while
a record has to be refused alone by it many times in a row, which chance does not do.

Denied access (401, 403) is the same question. If a batch is denied again after others were sent to its endpoint and
accepted, the credential is not the reason: the batch is isolated as if it were refused by an undocumented code.

Isolation. A refused batch must be sent again in another composition, or it fails for ever. Without a hint it is
halved, level by level: k bad records in n cost at most 2 × k × ⌈log2 n⌉ further requests, the blind bound. With a hint
(the answer names values) the suspects are sent as one part and halved, so that the rest is accepted at once.

A hint may be wrong, and an attribute that most events have names most of them. So hints never cost more than 3 requests
above the blind bound: each part knows how many levels of halving the bound leaves it, and a hint is followed only where
both parts can still be halved within them. Only the first hint may leave the rest one level short; where that rest is
refused too, it is cut in four at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final

from connector.delivery.lane import order_key
from connector.pipeline.batching import Batch, Delivery
from connector.recent import Recent
from connector.vendors.base import DESTINATION, endpoint_of

OUTAGE_AFTER: Final = 5
"""Batches that failed, none accepted between them, after which a destination is held as an outage."""
HALVE_AFTER: Final = 5
"""Failures of one batch after which it is halved to find the record that causes them."""
DOUBT_AFTER: Final = 10
"""Records refused alone by an undocumented code, nothing accepted between them, after which the destination is held."""
DENIED_OFTEN: Final = 3
"""Denials of one batch, none accepted between, after which it is halved; of a lone record, the destination is held."""
_DENIED_BATCHES: Final = 2
"""Batches of an endpoint that are denied, none accepted between, which show that no record is the reason."""
_DENIED_BY_FIREWALL: Final = 20
"""The same, where records of the endpoint were blamed before: most batches may hold one that a firewall dislikes."""
CONTRADICTED_FOR: Final = 600.0
"""Seconds after which a code is no longer contradicted by a record that it refused and that was accepted later."""
CONTRADICTED_TIMES: Final = 16
"""Refusals in a row, alone, after which a contradicted code is believed: by chance one record in 65,000, where the
vendor refuses every second request."""
_CODES: Final = 100
"""For how many codes this is remembered."""
_NEVER: Final = float("-inf")


class Evidence:
    """What the answers to one destination's requests have shown so far.

    Failures count by batch, not by answer: however often one batch fails, it may be for one record's sake. The parts of
    a halved batch count in its place.
    """

    def __init__(self) -> None:
        self._accepted: Counter[Hashable] = Counter()
        self._accepted_sent_at: dict[Hashable, float] = {}
        self._doubted = 0
        self._failing: dict[Hashable, set[Batch]] = {}
        """Batches that failed, by endpoint since one was judged there, and with `DESTINATION` since any was."""
        self._denied: dict[Hashable, set[Batch]] = {}
        self._walled: set[Hashable] = set()
        """Endpoints at which records were blamed for denials since access was last denied entirely."""
        self._renewed_at = _NEVER
        self._contradicted: Recent[tuple[Hashable, str], float] = Recent(_CODES)
        """By endpoint and code, when a record was sent that was refused by it before and was accepted then."""

    def renewed(self, now: float) -> None:
        """Note that other credentials are used from `now` on: what the earlier ones were denied blames no record."""
        self._renewed_at = now

    def sending(self, batch: Batch, now: float) -> None:
        """Note that a batch is sent at `now` (monotonic seconds), and what was known by then."""
        batch.sent_at = now
        # What is known now, not when the answer comes: an acceptance that arrives while this request is under way may
        # be of an older one. It proves nothing about what the vendor takes from here on.
        batch.vouched_at = self._accepted_sent_at.get(endpoint_of(batch.group), _NEVER)
        if batch.first_sent_at is None:
            batch.first_sent_at = now

    def accepted(self, batch: Batch, count: int) -> None:
        """Note that `count` records of a batch were accepted."""
        endpoint = endpoint_of(batch.group)
        self._accepted[endpoint] += count
        # When it was sent, not when it was answered. Example: a refusal at 10, and at 11 an acceptance of a request
        # that was sent at 9: the vendor may have changed its mind at 10.
        self._accepted_sent_at[endpoint] = max(self._accepted_sent_at.get(endpoint, _NEVER), batch.sent_at)
        self._doubted = 0
        self.answered(batch)
        if self._denied:
            self._denied.pop(endpoint, None)
        delivery = batch.deliveries[0]
        # What was refused alone is sent alone.
        if delivery.refused_alone and delivery.refused is not None:
            self._contradicted.put((endpoint, delivery.refused[0]), batch.sent_at)

    def answered(self, batch: Batch) -> None:
        """Note that the vendor judged a request: it is up, and so is the endpoint."""
        if self._failing:
            self._failing.pop(DESTINATION, None)
            self._failing.pop(endpoint_of(batch.group), None)

    def hold_ended(self) -> None:
        """Note that a hold is over: what failed before shows nothing any more."""
        self._failing.clear()

    def failed(self, batch: Batch) -> None:
        """Note an answer that shows nothing about the records of a batch, or none."""
        batch.failures += 1
        self._note_first(batch)
        # A record that fails alone while others pass is a poison, not an outage. And five batches are enough to know:
        # more would only hold memory.
        if self.fails_alone(batch):
            return
        for scope in (DESTINATION, endpoint_of(batch.group)):
            failing = self._failing.setdefault(scope, set())
            if len(failing) < OUTAGE_AFTER:
                failing.add(batch)

    def throttled(self, batch: Batch) -> bool:
        """Note a 429 for a batch; return whether others were accepted since its first: it may be about its records."""
        self._note_first(batch)
        passed = self.others_pass(batch)
        batch.failures += passed
        return passed

    def fails_alone(self, batch: Batch) -> bool:
        """Whether a batch is one record that fails while others are accepted: its failures show nothing else."""
        return len(batch.deliveries) == 1 and batch.failures >= HALVE_AFTER and self.others_pass(batch)

    def others_pass(self, batch: Batch) -> bool:
        """Whether its endpoint accepted records since the batch first failed or was throttled."""
        return batch.accepted_before is not None and self._accepted[endpoint_of(batch.group)] > batch.accepted_before

    def _note_first(self, batch: Batch) -> None:
        if batch.accepted_before is None:
            batch.accepted_before = self._accepted[endpoint_of(batch.group)]

    def halved(self, batch: Batch) -> None:
        """Note that a batch is taken apart: its parts fail or not in its place."""
        for failing in self._failing.values():
            failing.discard(batch)
        self._denied.get(endpoint_of(batch.group), set()).discard(batch)

    def outage(self, batch: Batch) -> Hashable | None:
        """Return what is out, as a batch shows: so many failed in a row that the vendor, not a record, is the reason.

        That is the destination, or the batch's endpoint where others of the destination answer; None: neither.
        """
        scopes = (DESTINATION, endpoint_of(batch.group))
        return next((scope for scope in scopes if len(self._failing.get(scope, ())) >= OUTAGE_AFTER), None)

    def denied(self, batch: Batch) -> bool:
        """Note that access was denied for a batch; return whether no record can be the reason."""
        batch.denials += 1
        if batch.denied_at is None or batch.denied_at < self._renewed_at:
            batch.denied_at = batch.sent_at
        endpoint = endpoint_of(batch.group)
        denied = self._denied.setdefault(endpoint, set())
        most = _DENIED_BY_FIREWALL if endpoint in self._walled else _DENIED_BATCHES
        if len(denied) < most:
            denied.add(batch)
        # Where one record is all there is, no second batch can be denied. Held is then right: nothing else suffers.
        alone = len(batch.deliveries) == 1 and batch.denials >= DENIED_OFTEN
        entirely = alone or len(denied) >= most
        if entirely:
            self._walled.discard(endpoint)
        return entirely

    def blames_records(self, batch: Batch, *, probing: bool) -> bool:
        """Whether access was denied for a batch before, and others were sent and accepted since: not the credential.

        For a batch that is `probing` a hold, only if the hold is for its own sake.
        """
        # Example: denied at 10, another batch sent at 11 and accepted, this one sent at 12 and denied again. The
        # credential worked at 11, so the record is what the vendor, or a firewall, dislikes.
        endpoint = endpoint_of(batch.group)
        # Not by two rotations: each time the old credential is denied, and the new one is accepted in between.
        denied_at = batch.denied_at if batch.denied_at is not None and batch.denied_at >= self._renewed_at else None
        others_accepted = denied_at is not None and batch.vouched_at > denied_at
        blamed = others_accepted and not (probing and self._denied.get(endpoint, set()) - {batch})
        if blamed:
            self._walled.add(endpoint)
        return blamed

    def refused(self, batch: Batch, code: str, now: float) -> None:
        """Note when this code refused records first.

        What another code showed before is no evidence, nor what was sent with earlier credentials.
        """
        renewed = batch.sent_at < self._renewed_at
        for delivery in batch.deliveries:
            known = delivery.refused
            if renewed:
                delivery.refused = None
            elif known is None or known[0] != code or known[1] < self._renewed_at:
                delivery.refused = (code, now)
                delivery.refused_alone = 0

    def believes(self, batch: Batch) -> bool:
        """Whether the refusal of a lone record by an undocumented code, already noted, can be believed."""
        delivery = batch.deliveries[0]
        refused = delivery.refused
        if refused is None:
            return False
        contradicted = self._contradicted.get((endpoint_of(batch.group), refused[0]))
        lately = contradicted is not None and batch.sent_at - contradicted < CONTRADICTED_FOR
        # The three steps of the theory: refused alone before (1), and since that moment (2) a request was sent that was
        # known to be accepted when this one went out (3).
        times = CONTRADICTED_TIMES - 1 if lately else 1
        return delivery.refused_alone >= times and batch.vouched_at > refused[1]

    def believed(self) -> None:
        """Note that a refusal was believed: the code is about records, so that far nothing else is in doubt."""
        self._doubted = 0

    def refused_alone(self, delivery: Delivery) -> bool:
        """Note that a record was refused alone by such a code; return whether that is the first time."""
        delivery.refused_alone += 1
        return delivery.refused_alone == 1

    def doubt(self, *, first: bool) -> bool:
        """Count a lone refusal that is not believed; return whether the destination itself is in doubt now.

        `first` is what `refused_alone` returned. One record's refusals, however many, put nothing else in doubt.
        """
        self._doubted += first
        # A second refusal of the same record needs one more record in doubt: alone it may be as bad as it seems.
        return self._doubted >= (DOUBT_AFTER if first else 2)


FEW: Final = 2
"""So many suspects of a first hint are sent alone: three parts, one request more than two."""


def halves(batch: Batch) -> list[Batch]:
    """Return the two halves of a batch of two or more, the earlier first."""
    middle = (len(batch.deliveries) + 1) // 2
    return [batch.part(batch.deliveries[:middle]), batch.part(batch.deliveries[middle:])]


def take_apart(batch: Batch, suspects: frozenset[int], *, ordered: bool) -> list[Batch]:
    """Return the parts in which a refused batch is sent again, in the order of sending: a lone record alone.

    In an ordered lane a suspect takes the later records of its key along, in their order, because it may hold them up.
    """
    deliveries = batch.deliveries
    count = len(deliveries)
    if count == 1:
        return [batch]
    # Example: of 100 records 1 is bad. ⌈log2 100⌉ = 7 levels of two requests are the blind bound of 14.
    left = (_levels(count) if batch.levels is None else batch.levels) - 1
    apart = set(suspects)
    # Sent with the rest, the later records of its key would be accepted before the suspect, which is sent again.
    if ordered:
        apart |= _followers(deliveries, suspects)
    if _is_useful(batch, len(apart), left):
        rest = [delivery for index, delivery in enumerate(deliveries) if index not in apart]
        set_apart = [deliveries[index] for index in sorted(apart)]
        alone = batch.levels is None and len(apart) <= FEW
        groups = [rest, *([delivery] for delivery in set_apart)] if alone else [rest, set_apart]
        parts = [batch.part(group) for group in groups]
    # A followed hint has used a level without halving: four parts make up for it.
    elif _levels(count) > left + 1:
        parts = [part for half in halves(batch) for part in (halves(half) if len(half.deliveries) > 1 else [half])]
    else:
        parts = halves(batch)
    for part in parts:
        part.levels = max(left, 0)
    return parts


def _is_useful(batch: Batch, apart: int, left: int) -> bool:
    """Return whether a hint is followed: it names some but not all, and both parts fit in the `left` levels."""
    rest = len(batch.deliveries) - apart
    if not apart or not rest or _levels(apart) > left:
        return False
    return batch.levels is None or _levels(rest) <= left


def _levels(count: int) -> int:
    """Return how often so many records have to be halved until each is alone."""
    return (count - 1).bit_length()


def _followers(deliveries: Sequence[Delivery], suspects: frozenset[int]) -> set[int]:
    """Return the indexes of records behind a suspect of the same key."""
    keys: set[object] = set()
    followers = set()
    for index, delivery in enumerate(deliveries):
        key = order_key(delivery.record)
        if index in suspects:
            keys.add(key)
        elif key in keys:
            followers.add(index)
    return followers
