"""Which record is to blame: what answers prove, and how a refused batch is split. Pure.

Evidence. A code that the vendor documents as the record's fault is believed once the record was refused alone. Any
other code may mean anything, such as a wrong setting or an outage. It is believed only with evidence, which is this
order of events (monotonic times):

    1. the record is refused alone
    2. a request to the same endpoint that was sent after 1 is accepted: the endpoint works and accepts such records
    3. the record is sent after that acceptance was known, and refused alone again by the same code

Why not simply "others were accepted in the meantime"? Requests overlap. The accepted request may have been sent before
the trouble began, and the refused one before the acceptance; neither proves anything. With this order a misread answer
can never drain a topic: while nothing is accepted, no refusal is believed. Why the same endpoint? One endpoint that
works proves nothing about the records of another that is switched off or misread.

If such a record is accepted later, unchanged, the code was not about the record: one of two servers behind an address
may have an old credential, or be busy, and answer half of all requests with it. The code is then contradicted: for ten
minutes a record has to be refused alone with it many times in a row, so that chance is not the reason.

A lone record that gets a 413 is also believed if it is refused again and larger than everything accepted since the
first 413: its size is the reason.

Denied access (401, 403) is treated alike. If a batch is denied again after others were sent to its endpoint and
accepted, the credential is not the reason. Then the batch is isolated as if it were refused with an undocumented code.

Isolation. A refused batch must not be sent again with the same records, or it fails for ever. Without a hint it is
halved, level by level: k bad records in n cost at most 2 × k × ⌈log2 n⌉ further requests, the blind bound. With a hint
(the answer quotes values) the suspects are one part and the rest is another, so that the rest is accepted at once.

A hint may be wrong, or point to most of the events. So hints must never cost more than 3 requests above the blind
bound: each part knows how many levels of halving the bound leaves it, and a hint is followed only if both parts can
still be halved within those levels. Only the first hint may leave the rest one level short. If that rest is refused
too, it is cut in four at once.
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
"""After this many failed batches without an acceptance in between, a destination is held as an outage."""
OWN_QUOTA_AFTER: Final = 3
"""After this many 429s for a record alone while others are accepted, its 429s no longer pause the others."""
HALVE_AFTER: Final = 5
"""After this many failures a batch is halved to find the record that causes them."""
DOUBT_AFTER: Final = 10
"""After this many records refused alone with an undocumented code, without an acceptance, the destination is held."""
DENIED_OFTEN: Final = 3
"""After this many denials without an acceptance, a batch is halved; for a lone record, the destination is held."""
_DENIED_BATCHES: Final = 2
"""This many denied batches of an endpoint, without an acceptance in between, show that no record is the reason."""
_DENIED_BY_FIREWALL: Final = 20
"""The same if records of the endpoint were blamed before: many batches may have a record that a firewall blocks."""
CONTRADICTED_FOR: Final = 600.0
"""Seconds after which a code is no longer contradicted by a record that it refused and that was accepted later."""
CONTRADICTED_TIMES: Final = 16
"""After so many refusals in a row, alone, a contradicted code is believed. If half of all requests are refused at
random, this happens to one record in 65,000."""
_CODES: Final = 100
"""How many contradicted codes are remembered."""
_NEVER: Final = float("-inf")


class Evidence:
    """What the answers to one destination's requests have shown so far.

    Failures are counted by batch, not by answer: one bad record may be the reason for every failure of one batch. The
    parts of a halved batch replace it in the count.
    """

    def __init__(self) -> None:
        self._accepted: Counter[Hashable] = Counter()
        self._accepted_sent_at: dict[Hashable, float] = {}
        self._doubted = 0
        self._failing: dict[Hashable, set[Batch]] = {}
        """The batches that failed: by endpoint, since a request was judged there; under `DESTINATION`, since any was
        judged."""
        self._denied: dict[Hashable, set[Batch]] = {}
        self._walled: set[Hashable] = set()
        """The endpoints where records were blamed for denials since the last denial that no record could explain."""
        self._renewed_at = _NEVER
        self._contradicted: Recent[tuple[Hashable, str], float] = Recent(_CODES)
        """By endpoint and code: when the record was sent that was accepted although this code had refused it before."""
        self._largest: dict[Hashable, int] = {}
        """By endpoint: bytes of the largest batch that was accepted since the first 413. No key: none came."""

    def renewed(self, now: float) -> None:
        """Note that other credentials are used from `now` on. Denials of the earlier ones blame no record."""
        self._renewed_at = now

    def sending(self, batch: Batch, now: float) -> None:
        """Note that a batch is sent at `now` (monotonic seconds), and which acceptances were known by then."""
        batch.sent_at = now
        # The acceptances known now, not those known when the answer comes: one that arrives while this request is in
        # flight may belong to an older request, and proves nothing about what the vendor accepts from now on.
        batch.vouched_at = self._accepted_sent_at.get(endpoint_of(batch.group), _NEVER)
        if batch.first_sent_at is None:
            batch.first_sent_at = now

    def accepted(self, batch: Batch, count: int) -> None:
        """Note that `count` records of a batch were accepted."""
        endpoint = endpoint_of(batch.group)
        self._accepted[endpoint] += count
        # The time of sending counts, not the time of the answer. Example: a refusal at 10, then at 11 the acceptance of
        # a request sent at 9. The vendor may have begun to refuse at 10.
        self._accepted_sent_at[endpoint] = max(self._accepted_sent_at.get(endpoint, _NEVER), batch.sent_at)
        self._doubted = 0
        self.answered(batch)
        if self._denied:
            self._denied.pop(endpoint, None)
        if endpoint in self._largest:
            self._largest[endpoint] = max(self._largest[endpoint], _bytes_of(batch))
        delivery = batch.deliveries[0]
        # What was refused alone is sent alone.
        if delivery.refused_alone and delivery.refused is not None:
            self._contradicted.put((endpoint, delivery.refused[0]), batch.sent_at)

    def answered(self, batch: Batch) -> None:
        """Note that the vendor judged a request, so the vendor and the endpoint are up."""
        if self._failing:
            self._failing.pop(DESTINATION, None)
            self._failing.pop(endpoint_of(batch.group), None)

    def hold_ended(self) -> None:
        """Note that a hold is over: earlier failures prove nothing any more."""
        self._failing.clear()

    def failed(self, batch: Batch) -> None:
        """Note that a batch got no answer, or one that says nothing about its records."""
        batch.failures += 1
        self._note_first(batch)
        # A record that fails alone while others are accepted is a poison record, not an outage. Five batches are enough
        # to tell, and more would only take memory.
        if self.fails_alone(batch):
            return
        for scope in (DESTINATION, endpoint_of(batch.group)):
            failing = self._failing.setdefault(scope, set())
            if len(failing) < OUTAGE_AFTER:
                failing.add(batch)

    def throttled(self, batch: Batch) -> bool:
        """Note a 429 for a batch; return whether others were accepted since its first 429."""
        self._note_first(batch)
        passed = self.others_pass(batch)
        batch.failures += passed
        if len(batch.deliveries) == 1:
            batch.throttled_alone += passed
        return passed

    def has_own_quota(self, batch: Batch) -> bool:
        """Whether a record is throttled alone, again and again, while others are accepted."""
        # Its other failures do not count: after an outage each of its records has failed often.
        return batch.throttled_alone >= OWN_QUOTA_AFTER

    def fails_alone(self, batch: Batch) -> bool:
        """Whether a batch is one record that fails while others are accepted, so that only the record is in doubt."""
        return len(batch.deliveries) == 1 and batch.failures >= HALVE_AFTER and self.others_pass(batch)

    def others_pass(self, batch: Batch) -> bool:
        """Whether its endpoint accepted records since the batch first failed or was throttled."""
        return batch.accepted_before is not None and self._accepted[endpoint_of(batch.group)] > batch.accepted_before

    def _note_first(self, batch: Batch) -> None:
        if batch.accepted_before is None:
            batch.accepted_before = self._accepted[endpoint_of(batch.group)]

    def halved(self, batch: Batch) -> None:
        """Note that a batch is split: its parts count in its place."""
        for failing in self._failing.values():
            failing.discard(batch)
        self._denied.get(endpoint_of(batch.group), set()).discard(batch)

    def outage(self, batch: Batch) -> Hashable | None:
        """Return the scope of an outage: so many batches failed in a row that the vendor, not a record, is the reason.

        It is the destination, or only the batch's endpoint if other endpoints answer; None if there is no outage.
        """
        scopes = (DESTINATION, endpoint_of(batch.group))
        return next((scope for scope in scopes if len(self._failing.get(scope, ())) >= OUTAGE_AFTER), None)

    def denied(self, batch: Batch) -> bool:
        """Note that access was denied for a batch; return whether to hold, because no record can be blamed."""
        batch.denials += 1
        if batch.denied_at is None or batch.denied_at < self._renewed_at:
            batch.denied_at = batch.sent_at
        endpoint = endpoint_of(batch.group)
        denied = self._denied.setdefault(endpoint, set())
        most = _DENIED_BY_FIREWALL if endpoint in self._walled else _DENIED_BATCHES
        if len(denied) < most:
            denied.add(batch)
        # If there is only this one record, no second batch can be denied. Then a hold is right: it keeps nothing else
        # back.
        alone = len(batch.deliveries) == 1 and batch.denials >= DENIED_OFTEN
        entirely = alone or len(denied) >= most
        if entirely:
            self._walled.discard(endpoint)
        return entirely

    def blames_records(self, batch: Batch, *, probing: bool) -> bool:
        """Whether a denial is about the batch's records: others were sent and accepted since its first denial.

        For a batch that is `probing` a hold, only if no other batch of its endpoint was denied.
        """
        # Example: denied at 10, another batch sent at 11 and accepted, this one sent at 12 and denied again. The
        # credential worked at 11, so the vendor, or a firewall, rejects something in the record.
        endpoint = endpoint_of(batch.group)
        # Two rotations in a row must not count: each time the old credential is denied, and the new one is accepted in
        # between.
        denied_at = batch.denied_at if batch.denied_at is not None and batch.denied_at >= self._renewed_at else None
        others_accepted = denied_at is not None and batch.vouched_at > denied_at
        blamed = others_accepted and not (probing and self._denied.get(endpoint, set()) - {batch})
        if blamed:
            self._walled.add(endpoint)
        return blamed

    def refused(self, batch: Batch, code: str, now: float) -> None:
        """Note when this code first refused the batch's records.

        Refusals by another code, or of earlier credentials, do not count as evidence.
        """
        renewed = batch.sent_at < self._renewed_at
        for delivery in batch.deliveries:
            known = delivery.refused
            if renewed:
                delivery.refused = None
            elif known is None or known[0] != code or known[1] < self._renewed_at:
                delivery.refused = (code, now)
                delivery.refused_alone = 0

    def too_large(self, batch: Batch) -> None:
        """Note that a batch's bytes were refused as too many (413): from now on, what is accepted is compared."""
        self._largest.setdefault(endpoint_of(batch.group), 0)

    def believes(self, batch: Batch, *, too_large: bool = False) -> bool:
        """Whether the refusal of a lone record by an undocumented code, already noted, can be believed.

        If it is refused as `too_large`, a size above all that was accepted is evidence too. A later acceptance, which
        may not come in a quiet topic, is not needed then.
        """
        delivery = batch.deliveries[0]
        refused = delivery.refused
        if refused is None:
            return False
        contradicted = self._contradicted.get((endpoint_of(batch.group), refused[0]))
        lately = contradicted is not None and batch.sent_at - contradicted < CONTRADICTED_FOR
        # The three steps of the theory: refused alone before (1), and since that moment (2) a request was sent that was
        # known to be accepted when this one went out (3).
        times = CONTRADICTED_TIMES - 1 if lately else 1
        proven = batch.vouched_at > refused[1] or (too_large and self._is_larger_than_accepted(batch))
        return delivery.refused_alone >= times and proven

    def _is_larger_than_accepted(self, batch: Batch) -> bool:
        # Where nothing was accepted, as at a gateway that answers 413 to everything, its size explains nothing.
        return 0 < self._largest.get(endpoint_of(batch.group), 0) < _bytes_of(batch)

    def believed(self) -> None:
        """Note that a refusal was believed: the code is about records, so the destination is not in doubt."""
        self._doubted = 0

    def refused_alone(self, delivery: Delivery) -> bool:
        """Note that a record was refused alone with an undocumented code; return whether for the first time."""
        delivery.refused_alone += 1
        return delivery.refused_alone == 1

    def doubt(self, *, first: bool) -> bool:
        """Count a lone refusal that is not believed; return whether the destination itself is now in doubt.

        `first` is what `refused_alone` returned. Refusals of one record, however many, do not put the destination in
        doubt.
        """
        self._doubted += first
        # Further refusals of the same record need another record in doubt as well: this one may simply be bad.
        return self._doubted >= (DOUBT_AFTER if first else 2)


FEW: Final = 2
"""Up to this many suspects of a first hint are each sent alone: that makes three parts, one request more than two."""


def _bytes_of(batch: Batch) -> int:
    return sum(len(delivery.item.body) for delivery in batch.deliveries)


def halves(batch: Batch) -> list[Batch]:
    """Return the two halves of a batch of two or more, the earlier first."""
    middle = (len(batch.deliveries) + 1) // 2
    return [batch.part(batch.deliveries[:middle]), batch.part(batch.deliveries[middle:])]


def take_apart(batch: Batch, suspects: frozenset[int], *, ordered: bool) -> list[Batch]:
    """Return the parts in which to send a refused batch again, in order; a lone record is the only part.

    In an ordered lane a suspect takes the later records of its key along, in order, because they must wait for it.
    """
    deliveries = batch.deliveries
    count = len(deliveries)
    if count == 1:
        return [batch]
    # Example: of 100 records 1 is bad. ⌈log2 100⌉ = 7 levels of two requests are the blind bound of 14.
    left = (_levels(count) if batch.levels is None else batch.levels) - 1
    apart = set(suspects)
    # Sent with the rest, the later records of its key would be accepted before the suspect.
    if ordered:
        apart |= _followers(deliveries, suspects)
    if _is_useful(batch, len(apart), left):
        rest = [delivery for index, delivery in enumerate(deliveries) if index not in apart]
        set_apart = [deliveries[index] for index in sorted(apart)]
        alone = batch.levels is None and len(apart) <= FEW
        groups = [rest, *([delivery] for delivery in set_apart)] if alone else [rest, set_apart]
        parts = [batch.part(group) for group in groups]
    # The followed hint used up a level without halving, and four parts make up for it.
    elif _levels(count) > left + 1:
        parts = [part for half in halves(batch) for part in (halves(half) if len(half.deliveries) > 1 else [half])]
    else:
        parts = halves(batch)
    for part in parts:
        part.levels = max(left, 0)
    return parts


def _is_useful(batch: Batch, apart: int, left: int) -> bool:
    """Return whether to follow a hint: it names some records but not all, and both parts fit in the `left` levels."""
    rest = len(batch.deliveries) - apart
    if not apart or not rest or _levels(apart) > left:
        return False
    return batch.levels is None or _levels(rest) <= left


def _levels(count: int) -> int:
    """Return how often `count` records have to be halved until each is alone."""
    return (count - 1).bit_length()


def _followers(deliveries: Sequence[Delivery], suspects: frozenset[int]) -> set[int]:
    """Return the indexes of records that come after a suspect of the same key."""
    keys: set[object] = set()
    followers = set()
    for index, delivery in enumerate(deliveries):
        key = order_key(delivery.record)
        if index in suspects:
            keys.add(key)
        elif key in keys:
            followers.add(index)
    return followers
