"""What an answer does to a batch: outcomes for its records, or another attempt in another composition.

A record is dead-lettered as refused only after it was refused alone. Everything that says nothing about a record leaves
it where it is: it waits, and the destination shows why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from connector.delivery.destination import Destination
from connector.delivery.holds import OUTAGE_AFTER, Cause
from connector.delivery.isolation import halves, take_apart
from connector.delivery.receipts import receipt_of
from connector.delivery.request import follow_delivered
from connector.errors import Refusal
from connector.pipeline.batching import Batch, Delivery
from connector.records import NO_TIMESTAMP, Answer, DeadLetter
from connector.telemetry.discretion import discreet
from connector.telemetry.logs import sample
from connector.vendors.base import (
    DESTINATION,
    Accepted,
    Misconfigured,
    Refused,
    Response,
    Retry,
    Throttled,
    TooLarge,
    Verdict,
)

log = structlog.get_logger()

HALVE_AFTER: Final = 5
"""Failures of one batch, while others are accepted, after which it is halved to find the record that causes them."""
DOUBT_AFTER: Final = 10
"""Records refused alone by an undocumented code, nothing accepted between them, after which the destination is held."""

Together = Callable[[Sequence[Coroutine[Any, Any, None]]], Awaitable[None]]


class Settlement:
    """Settles the batches of one destination; `together` awaits several works at once."""

    def __init__(self, destination: Destination, vendor_name: str, together: Together) -> None:
        self._at = destination
        self._together = together
        self._ports = destination.ports
        self._vendor_name = vendor_name

    async def settle(self, batch: Batch, verdict: Verdict, response: Response | None, *, probe: bool) -> None:
        """Carry out what the verdict means. Returns when every record of the batch has its outcome or waits again."""
        if not isinstance(verdict, Accepted):
            batch.said = verdict.reason
            if response is not None:
                verdict = replace(verdict, reason=discreet(verdict.reason, (item.body for item in batch.items)))
        match verdict:
            case Accepted():
                await self._accepted(batch, verdict, response, probe=probe)
            case Refused():
                await self._refused(batch, verdict, response, probe=probe)
            case TooLarge():
                await self._too_large(batch, verdict, response, probe=probe)
            case Throttled():
                self._throttled(batch, verdict, probe=probe)
            case Retry():
                await self._failed(batch, verdict, response, probe=probe)
            case Misconfigured():
                self._misconfigured(batch, verdict, probe=probe)

    async def _accepted(self, batch: Batch, verdict: Accepted, response: Response | None, *, probe: bool) -> None:
        at = self._at
        at.accepted += len(batch.deliveries) - len(verdict.again)
        at.vouched_at = max(at.vouched_at, batch.sent_at)
        at.doubted = at.throttles = at.holds.failures = 0
        # Replayed records are outside its window.
        at.storm.accepted([delivery.first_dedup_id for delivery in batch.deliveries].count(None))
        self._vendor_answers(batch, probe=probe, accepted=True)
        if verdict.rate is not None and verdict.rate.remaining <= 0:
            at.bucket.wait_until(self._ports.clock.now() + at.backoff.wait(1, verdict.rate.reset))
        done = batch.deliveries
        if verdict.again:
            done = [d for index, d in enumerate(batch.deliveries) if index not in verdict.again]
            self._ask_again(batch, verdict.again)
        if verdict.answers:
            await self._write_answers(done, verdict.answers)
        at.finish(done)
        self._count_delivered(done)
        if sample.on:
            follow_delivered(at.name, done, batch.attempts)
        if self._ports.receipts is not None and done:
            wall = self._ports.clock.wall()
            receipt = receipt_of(at.name, self._vendor_name, batch, done, response, verdict.request_id, wall)
            self._ports.receipts.note(receipt)

    def _ask_again(self, batch: Batch, indexes: frozenset[int]) -> None:
        left = self._at.kept(batch.part([d for index, d in enumerate(batch.deliveries) if index in indexes]))
        if left is not None:
            left.asked += 1
            left.reason = "the vendor's answer was not final"
            self._at.lane(left).put_waiting(left, self._ports.clock.now() + self._at.backoff.wait(left.asked))

    async def _refused(self, batch: Batch, verdict: Refused, response: Response | None, *, probe: bool) -> None:
        at = self._at
        at.throttles = at.holds.failures = 0
        held = at.holds.blocking(batch.group)
        # A code that is understood says that the vendor judges records, so it ends a hold that doubted that; no storm.
        doubted = held is not None and held.cause is Cause.MISCONFIGURED and verdict.documented
        if probe and held is not None and not doubted and (held.single or not verdict.documented):
            if len(batch.deliveries) == 1:
                # It counts as a first refusal, and the next probe takes another record.
                self._note_refusal(batch.deliveries[0], verdict.code)
                batch.deliveries[0].refused_alone = True
            self._put_back(batch)
            if held.single:
                at.holds.probe_failed(self._scope(batch), self._ports.clock.now())
            else:
                # It answers, but nobody knows what: from now on records are in doubt, and are asked one by one.
                self._doubt(verdict, self._scope(batch))
            return
        self._vendor_answers(batch, probe=probe, accepted=False)
        if not verdict.documented:
            for delivery in batch.deliveries:
                self._note_refusal(delivery, verdict.code)
        if len(batch.deliveries) > 1:
            sent = len(batch.deliveries)
            left = at.kept(batch)
            if left is not None:
                # The suspects are places in what was sent; where a partition left meanwhile they name others.
                suspects = verdict.suspects if len(left.deliveries) == sent else frozenset()
                self._take_apart(left, take_apart(left, suspects, ordered=at.settings.order == "key"))
            return
        if not verdict.documented and not self._believed(batch, verdict):
            return
        await self._refused_alone(batch, "refused", verdict, response)

    async def _refused_alone(
        self, batch: Batch, cause: str, verdict: Refused | TooLarge, response: Response | None
    ) -> None:
        """Dead-letter a record by its own fault, or hold the destination where too many have gone that way."""
        at = self._at
        if not batch.deliveries[0].replayed and at.storm.refused(cause, verdict.code):
            self._put_back(batch)
            at.hold(
                Cause.STORM,
                verdict.code,
                f"too many of the last records were refused with {verdict.code} ({verdict.reason}): likely a setting "
                "of this destination or of its routes is wrong, or the vendor does not know these events yet; mend it "
                "there, or set storm: off to let them go",
                single=True,
            )
            return
        if isinstance(verdict, Refused) and verdict.answers:
            await self._write_answers(batch.deliveries, verdict.answers)
        await self.dead_letter(batch, cause, verdict.code, batch.said, response, verdict.request_id)

    def storm_of_invalid(self, delivery: Delivery, refusal: Refusal) -> bool:
        """Count a record that breaks a rule; return True, and hold the destination, where too many did."""
        at = self._at
        if delivery.replayed or not at.storm.refused(refusal.cause, refusal.code):
            return False
        at.hold(
            Cause.STORM,
            refusal.code,
            f"too many of the last records break {refusal.code} ({refusal.message}): likely a mapping under routes: is "
            "wrong, or switch the rule off under rules: if the vendor takes them",
            single=True,
        )
        return True

    async def refuse_locally(self, delivery: Delivery, refusal: Refusal) -> None:
        """Dead-letter a record that was never sent; a question is answered that it was refused."""
        if refusal.answers:
            await self._write_answers([delivery], refusal.answers)
        await self.dead_letter(
            Batch(None, [delivery]), refusal.cause, refusal.code, refusal.message, field=refusal.field
        )

    def _believed(self, batch: Batch, verdict: Refused) -> bool:
        """Whether an undocumented refusal of a lone record is evidence enough; where not, it waits.

        It is when the record was refused alone before, then others were sent and accepted, and then it was sent again:
        the vendor judges what is under way in any order.
        """
        at = self._at
        delivery = batch.deliveries[0]
        first = not delivery.refused_alone
        if not first and delivery.refused is not None and batch.vouched_at > delivery.refused[1]:
            return True
        delivery.refused_alone = True
        at.doubted += 1
        left = at.kept(batch)
        if left is None:
            return False
        left.reason = f"refused with {verdict.code}, which the vendor does not document: {verdict.reason}"
        if first and at.doubted < DOUBT_AFTER:
            at.lane(left).put_waiting(left, self._ports.clock.now() + at.backoff.wait(1))
            return False
        at.lane(left).put_back(left, self._ports.clock.now())
        self._doubt(verdict, DESTINATION)
        return False

    def _note_refusal(self, delivery: Delivery, code: str) -> None:
        """Remember when this code refused the record first; what another code said before is no evidence."""
        if delivery.refused is None or delivery.refused[0] != code:
            delivery.refused = (code, self._ports.clock.now())
            delivery.refused_alone = False

    def _doubt(self, verdict: Refused, scope: object) -> None:
        """Hold until a record is accepted, or refused in a way that is understood."""
        self._at.hold(
            Cause.MISCONFIGURED,
            verdict.code,
            f"records are refused with {verdict.code}, which the vendor does not document, and none was accepted since "
            f"({verdict.reason}): check the destination's settings, or state the code's meaning under codes:",
            scope=scope,
            single=True,
        )

    async def _too_large(self, batch: Batch, verdict: TooLarge, response: Response | None, *, probe: bool) -> None:
        at = self._at
        held = at.holds.blocking(batch.group)
        if probe and held is not None and held.single:
            self._put_back(batch)
            return
        self._vendor_answers(batch, probe=probe, accepted=False)
        if len(batch.deliveries) == 1:
            await self._refused_alone(batch, "too_large", verdict, response)
            return
        limits = at.limits(batch.group)
        weight = sum(delivery.item.weight for delivery in batch.deliveries)
        size = limits.overhead + sum(len(d.item.body) + limits.separator for d in batch.deliveries) - limits.separator
        if verdict.limit == "records":
            at.shrink(batch.group, records=weight // 2)
        else:
            at.shrink(batch.group, size=size // 2)
        log.warning(
            "batch.too_large",
            destination=at.name,
            code=verdict.code,
            message=verdict.reason,
            records=weight,
            bytes=size,
        )
        left = at.kept(batch)
        if left is not None:
            self._take_apart(left, halves(left) if len(left.deliveries) > 1 else [left])

    def _throttled(self, batch: Batch, verdict: Throttled, *, probe: bool) -> None:
        at = self._at
        now = self._ports.clock.now()
        if now >= at.throttled_until:
            # Requests that were under way when the first was throttled tell nothing more.
            at.throttles += 1
        until = now + at.backoff.wait(at.throttles, verdict.after)
        at.throttled_until = max(at.throttled_until, until)
        at.bucket.wait_until(until)
        if probe:
            at.holds.probe_failed(self._scope(batch), now, verdict.reason, verdict.after)
        batch.reason = verdict.reason
        left = at.kept(batch)
        if left is not None:
            at.lane(left).put_parts([left])

    async def _failed(self, batch: Batch, verdict: Retry, response: Response | None, *, probe: bool) -> None:
        at, clock = self._at, self._ports.clock
        now = clock.now()
        batch.failures += 1
        batch.reason = verdict.reason
        if batch.failures == 1:
            batch.accepted_before = at.accepted
        if verdict.unknown_outcome:
            self._ports.metrics.unknown_outcomes.labels(at.name).inc()
        if probe:
            at.holds.probe_failed(self._scope(batch), now, verdict.reason, verdict.after)
        at.holds.failures += 1
        if await self._given_up(batch, verdict, response):
            return
        left = at.kept(batch)
        if left is None:
            return
        others_pass = at.accepted > left.accepted_before
        # Where nothing else comes only smaller probes can tell one record that hangs from a vendor that is down.
        if left.failures >= HALVE_AFTER and (others_pass or probe) and len(left.deliveries) > 1:
            parts = halves(left)
            for part in parts:
                part.failures = HALVE_AFTER - 1 if others_pass else 0
            self._take_apart(left, parts)
        else:
            at.lane(left).put_waiting(left, now + at.backoff.wait(left.failures, verdict.after))
        if at.holds.failures >= OUTAGE_AFTER and at.holds.get() is None:
            at.hold(Cause.OUTAGE, verdict.code, verdict.reason)

    async def _given_up(self, batch: Batch, verdict: Retry, response: Response | None) -> bool:
        """Dead-letter what the user asked to give up; return whether that was so."""
        settings = self._at.settings
        if verdict.unknown_outcome and settings.on_unknown_outcome == "dead_letter":
            await self.dead_letter(batch, "unknown_outcome", verdict.code, batch.said, response, verdict.request_id)
            return True
        limit = settings.retry.give_up_after
        if limit is None or batch.first_attempt is None or self._ports.clock.wall() - batch.first_attempt < limit:
            return False
        await self.dead_letter(batch, "gave_up", verdict.code, batch.said, response, verdict.request_id)
        return True

    def _misconfigured(self, batch: Batch, verdict: Misconfigured, *, probe: bool) -> None:
        at = self._at
        held = at.holds.get() if verdict.scope != DESTINATION else None
        if held is not None and (held.cause is Cause.OUTAGE or (probe and not held.single)):
            # It answers, and blames one group only: what held the whole destination is over.
            at.release(DESTINATION)
        at.hold(Cause.MISCONFIGURED, verdict.code, verdict.reason, scope=verdict.scope)
        batch.reason = verdict.reason
        self._put_back(batch)

    def _vendor_answers(self, batch: Batch, *, probe: bool, accepted: bool) -> None:
        """End the holds that this answer disproves: an outage by any answer, the others by a probe's."""
        holds = self._at.holds
        if not holds:
            return
        for scope in (batch.group, DESTINATION):
            held = holds.get(scope)
            if held is None or held.cause is Cause.OPERATOR:
                continue
            if held.cause is Cause.STORM and batch.deliveries and all(one.replayed for one in batch.deliveries):
                # It was mended for a record of the past; what comes now may go on as it did.
                continue
            disproved = accepted or not held.single or held.cause is Cause.MISCONFIGURED
            if held.cause is Cause.OUTAGE or (probe and disproved):
                self._at.release(scope)

    def _scope(self, batch: Batch) -> object:
        return DESTINATION if self._at.holds.get() is not None else batch.group

    def _put_back(self, batch: Batch) -> None:
        left = self._at.kept(batch)
        if left is not None:
            self._at.lane(left).put_back(left, self._ports.clock.now())

    def _take_apart(self, batch: Batch, parts: list[Batch]) -> None:
        for part in parts:
            part.isolating = True
        self._at.lane(batch).put_parts(parts)

    async def _write_answers(self, deliveries: Sequence[Delivery], answers: Sequence[Answer]) -> None:
        sink = self._ports.answers
        if sink is None:
            raise AssertionError("a vendor that answers needs a results topic")
        pairs = zip(deliveries, answers, strict=True)
        await sink.write([(delivery.record.key, answer) for delivery, answer in pairs])

    async def dead_letter(
        self,
        batch: Batch,
        cause: str,
        code: str | None,
        message: str,
        response: Response | None = None,
        request_id: str | None = None,
        field: str | None = None,
    ) -> None:
        """Write every record of the batch to the dead-letter topic and finish each once Kafka has it."""
        failed_at = self._ports.clock.wall()
        dead_letters = (
            DeadLetter(
                record=delivery.record,
                cause=cause,
                code=code,
                message=message,
                failed_at=failed_at,
                dedup_id=delivery.dedup_id,
                field=field,
                vendor=self._vendor_name,
                destination=self._at.name,
                http_status=None if response is None else response.status,
                request_id=request_id,
                attempts=batch.attempts,
                first_attempt=batch.first_attempt,
            )
            for delivery in batch.deliveries
        )
        # All at once: one after another a batch that is given up would take as many round trips as it has records.
        await self._together(
            [self._write_dead_letter(*one) for one in zip(batch.deliveries, dead_letters, strict=True)]
        )

    async def _write_dead_letter(self, delivery: Delivery, dead_letter: DeadLetter) -> None:
        await self._ports.dead_letters.write(dead_letter, delivery.tracker.is_ours)
        self._at.finish([delivery])

    def _count_delivered(self, deliveries: Sequence[Delivery]) -> None:
        metrics, name = self._ports.metrics, self._at.name
        metrics.records_delivered.labels(name).inc(len(deliveries))
        times = [delivery.record.timestamp for delivery in deliveries]
        if NO_TIMESTAMP in times:
            times = [time for time in times if time >= 0]
        metrics.delivery_delay.labels(name).observe_since(times, self._ports.clock.wall())
