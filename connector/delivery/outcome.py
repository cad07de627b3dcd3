"""What an answer does to a batch: vendor → verdict → action.

A record is dead-lettered as refused only after it was refused alone. An answer that says nothing about the record
changes nothing for it: the record waits, and the destination shows why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from connector.delivery.destination import Destination
from connector.delivery.isolation import DENIED_OFTEN, HALVE_AFTER, halves, take_apart
from connector.delivery.lane import skip_command
from connector.delivery.request import follow_delivered
from connector.delivery.states import HoldEvent, Kind, Probe
from connector.errors import Refusal
from connector.pipeline.batching import Batch, Delivery
from connector.pipeline.storms import Place
from connector.records import NO_TIMESTAMP, Answer, DeadLetter, OffsetRange, Receipt, uuid5_text
from connector.telemetry.logs import sample
from connector.telemetry.redaction import hide_record_values
from connector.vendors.base import (
    DESTINATION,
    Accepted,
    Answering,
    Misconfigured,
    Refused,
    Response,
    Retry,
    Throttled,
    TooLarge,
    Verdict,
)

log = structlog.get_logger()

_EVENTS: Final[Mapping[type, HoldEvent]] = {
    Accepted: HoldEvent.ACCEPTED,
    Refused: HoldEvent.JUDGED,
    TooLarge: HoldEvent.TOO_LARGE,
    Throttled: HoldEvent.THROTTLED,
    Retry: HoldEvent.FAILED,
    Misconfigured: HoldEvent.DENIED,
}

_Refusal = Refused | TooLarge
"""What a vendor may say of one record alone."""
Together = Callable[[Sequence[Coroutine[Any, Any, None]]], Awaitable[None]]
_Action = Callable[[Batch, Any, Response | None, Probe], Coroutine[Any, Any, None]]


class Outcomes:
    """Carries out what the answers to one destination's requests mean; `together` awaits several coroutines at once."""

    def __init__(self, destination: Destination, together: Together) -> None:
        self._destination = destination
        self._together = together
        self._ports = destination.ports
        self._vendor_name = destination.settings.vendor
        self._records_delivered = destination.ports.metrics.records_delivered.labels(destination.name)
        self._delivery_delay = destination.ports.metrics.delivery_delay.labels(destination.name)
        self._actions: Mapping[type, _Action] = {
            Accepted: self._accepted,
            Refused: self._refused,
            TooLarge: self._too_large,
            Throttled: self._throttled,
            Retry: self._failed,
            Misconfigured: self._denied,
        }

    async def settle(self, batch: Batch, verdict: Verdict, response: Response | None, probe: Probe) -> None:
        """Carry out what the verdict means. Returns when every record of the batch has its outcome or waits again.

        `probe` names the holds that the batch probed, if any.
        """
        if not isinstance(verdict, Accepted):
            self._destination.may_differ()
            batch.said = verdict.reason
            if response is not None:
                verdict = replace(
                    verdict, reason=hide_record_values(verdict.reason, (item.body for item in batch.items))
                )
        answer, blamed = verdict, False
        if isinstance(verdict, Misconfigured) and self._destination.settings.codes.get(verdict.code) != "hold":
            # A firewall may block a record's content: it answers 403 to every request that has the record.
            blamed = self._destination.evidence.blames_records(batch, probing=bool(probe))
            if blamed or self._in_storm(batch, "refused", verdict.code):
                verdict = Refused(verdict.code, verdict.reason, documented=False, request_id=verdict.request_id)
        # First the holds, then the batch. The batch's own action asks what still holds, and must see the new state.
        if self._destination.holds.active:
            # One more refusal in a storm says nothing about a denied credential.
            self._apply_to_holds(batch, verdict if blamed else answer, probe)
        # This judges the record, not the hold. So the batch may be isolated; as a probe it would only be put back.
        if blamed:
            probe = ()
        await self._actions[type(verdict)](batch, verdict, response, probe)

    def _apply_to_holds(self, batch: Batch, verdict: Verdict, probe: Probe) -> None:
        event = _EVENTS[type(verdict)]
        if isinstance(verdict, Refused) and not verdict.documented:
            event = HoldEvent.BAFFLING
        scope = verdict.scope if isinstance(verdict, Misconfigured) else DESTINATION
        message, wish = (verdict.reason, verdict.after) if isinstance(verdict, Retry | Throttled) else (None, None)
        self._destination.apply(event, batch.group, probe, scope=scope, message=message, wish=wish)

    async def _accepted(self, batch: Batch, verdict: Accepted, response: Response | None, probe: Probe) -> None:
        destination = self._destination
        destination.evidence.accepted(batch, len(batch.deliveries) - len(verdict.again))
        destination.throttle.accepted()
        if not destination.storms.quiet:
            # Replayed records are outside the window.
            destination.storms.accepted([delivery.first_dedup_id for delivery in batch.deliveries].count(None))
        # The vendor says that it would refuse the next request. Waiting now costs less than a 429 and its back-off.
        if verdict.rate is not None and verdict.rate.remaining <= 0:
            destination.bucket.wait_until(self._ports.clock.now() + destination.backoff.wait(1, verdict.rate.reset))
        done = batch.deliveries
        if verdict.again:
            done = [d for index, d in enumerate(batch.deliveries) if index not in verdict.again]
            self._ask_again(batch, verdict.again)
        if verdict.answers:
            # Written before the outcome. If a crash comes in between, the question is asked again and its answer
            # written twice, but never lost.
            lost = await self._write_answers(done, _taken_from(verdict.answers))
            if lost:
                await self._dead_letter_unanswered(batch.part([done[index] for index in lost]), response)
                done = [delivery for index, delivery in enumerate(done) if index not in lost]
        if not destination.storms.quiet:
            destination.storms.passed(map(_place_of, done))
        destination.buffer.finish(done)
        self._records_delivered.inc(len(done))
        times = [delivery.record.timestamp for delivery in done]
        if NO_TIMESTAMP in times:
            times = [time for time in times if time >= 0]
        self._delivery_delay.observe_since(times, self._ports.clock.wall())
        if sample.on:
            follow_delivered(destination.name, done, batch.attempts)
        if self._ports.receipts is not None and done:
            wall = self._ports.clock.wall()
            receipt = receipt_of(destination.name, self._vendor_name, batch, done, response, verdict.request_id, wall)
            self._ports.receipts.note(receipt)

    async def _dead_letter_unanswered(self, batch: Batch, response: Response | None) -> None:
        """Dead-letter questions whose answers the results topic can never take. Waiting would block partitions."""
        message = "the vendor's answer is larger than a record of the results topic may be; raise its max.message.bytes"
        await self.dead_letter(batch, "too_large", "results.too_large", message, response, answered=True)

    def _ask_again(self, batch: Batch, indexes: frozenset[int]) -> None:
        destination = self._destination
        left = destination.buffer.kept(batch.part([d for index, d in enumerate(batch.deliveries) if index in indexes]))
        if left is not None:
            destination.may_differ()
            left.asked += 1
            left.reason = "the vendor's answer was not final"
            due = self._ports.clock.now() + destination.backoff.wait(left.asked)
            destination.lanes.of(left).put_waiting(left, due)

    async def _refused(self, batch: Batch, verdict: _Refusal, response: Response | None, probe: Probe) -> None:
        destination = self._destination
        destination.evidence.answered(batch)
        if verdict.documented:
            destination.throttle.answered()
        else:
            # A record that waits for evidence is refused again and again, which says nothing about the others' 429s.
            destination.evidence.refused(batch, verdict.code, self._ports.clock.now())
        # Checked after `apply`: a documented refusal has ended the hold by then, and the record is judged at once.
        lasts = destination.holds.lasts(probe)
        judged = len(batch.deliveries) == 1 and self._judges(batch, verdict)
        if not judged and (lasts or (probe and not verdict.documented)):
            # A probe only tests whether the hold can end: its record goes back, and the next probe takes another. If an
            # undocumented code ended the hold, the records themselves are in doubt from now on.
            if len(batch.deliveries) == 1:
                destination.evidence.refused_alone(batch.deliveries[0])
            self._put_back(batch)
            if not lasts:
                self._doubt(verdict, DESTINATION if any(hold.scope == DESTINATION for hold in probe) else batch.group)
        elif len(batch.deliveries) > 1:
            sent = len(batch.deliveries)
            left = destination.buffer.kept(batch)
            if left is not None:
                # The suspects are indexes into the batch as sent. If a partition was revoked since, they would point to
                # other records.
                whole = len(left.deliveries) == sent
                suspects = verdict.suspects if whole and isinstance(verdict, Refused) else frozenset()
                self._isolate(left, take_apart(left, suspects, ordered=destination.settings.order == "key"))
        elif judged or verdict.documented:
            await self._refused_alone(batch, verdict, response)
        else:
            await self._wait_for_evidence(batch, verdict, response)

    def _judges(self, batch: Batch, verdict: _Refusal) -> bool:
        """Whether to act on the refusal of a lone record by an undocumented code, even during a hold.

        An acceptance between its refusals stays evidence whatever came later. And in a storm of this code the record is
        only set aside.
        """
        if verdict.documented:
            return False
        if self._destination.evidence.believes(batch, too_large=isinstance(verdict, TooLarge)):
            self._destination.evidence.believed()
            return True
        return self._in_storm(batch, _cause_of(verdict), verdict.code)

    def _in_storm(self, batch: Batch, cause: str, code: str) -> bool:
        """Whether the batch is one record, and a storm of refusals with this code sets it aside."""
        alone = len(batch.deliveries) == 1 and not batch.deliveries[0].replayed
        return alone and self._destination.storms.lasts(cause, code)

    async def _refused_alone(self, batch: Batch, verdict: _Refusal, response: Response | None) -> None:
        """Dead-letter a record that is itself at fault, or set it aside in a storm of such records."""
        cause = _cause_of(verdict)
        why = (
            f"too many of the last records are refused with {verdict.code} ({verdict.reason}). Probable cause: a "
            "setting of this destination or its routes is wrong, or the vendor does not know the events. Fix it, run "
            "`connector release`, or set storm: off to dead-letter them"
        )
        # Checked before the dead letter is written. Otherwise a storm would fill the dead-letter topic with good
        # records.
        if self._sets_aside(batch.deliveries[0], cause, verdict.code, why):
            return
        answered = isinstance(verdict, Refused) and bool(verdict.answers)
        if isinstance(verdict, Refused) and verdict.answers:
            await self._write_answers(batch.deliveries, verdict.answers)
        await self.dead_letter(batch, cause, verdict.code, batch.said, response, verdict.request_id, answered=answered)

    def sets_aside_invalid(self, delivery: Delivery, refusal: Refusal) -> bool:
        """Count a record that breaks a local rule; return True if a storm sets it aside."""
        why = (
            f"too many of the last records break {refusal.code} ({refusal.message}). Probable cause: a mapping under "
            "routes: is wrong. If the vendor accepts such values, switch the rule off under rules:. Or run `connector "
            "release`, or set storm: off to dead-letter them"
        )
        return self._sets_aside(delivery, refusal.cause, refusal.code, why)

    def _sets_aside(self, delivery: Delivery, cause: str, code: str, why: str) -> bool:
        """Count a refusal; return True if a storm sets the record aside, which releases its memory."""
        destination = self._destination
        if delivery.replayed or not destination.storms.refused(cause, code, why, _place_of(delivery)):
            return False
        destination.buffer.forget([delivery])
        destination.lanes.let_pass(delivery)
        return True

    async def refuse_locally(self, delivery: Delivery, refusal: Refusal) -> None:
        """Dead-letter a record that was never sent. A question gets the result `refused`."""
        if refusal.answers:
            await self._write_answers([delivery], refusal.answers)
        await self.dead_letter(
            Batch(None, [delivery]),
            refusal.cause,
            refusal.code,
            refusal.message,
            field=refusal.field,
            answered=bool(refusal.answers),
        )

    async def _wait_for_evidence(self, batch: Batch, verdict: _Refusal, response: Response | None) -> None:
        """Let a lone record wait whose refusal is not believed; where others are refused too, hold the destination."""
        destination, now = self._destination, self._ports.clock.now()
        first = destination.evidence.refused_alone(batch.deliveries[0])
        in_doubt = destination.evidence.doubt(first=first)
        # Only where the record waits for its own sake: with others in doubt too, a setting may be wrong.
        if not (in_doubt or destination.holds.blocking(batch.group)) and self._tried_for_long(batch):
            await self.dead_letter(batch, "gave_up", verdict.code, batch.said, response, verdict.request_id)
            return
        left = destination.buffer.kept(batch)
        if left is None:
            return
        left.reason = f"refused with {verdict.code}, which the vendor does not document: {verdict.reason}"
        # The first wait is short: others are usually accepted soon, and later records of its key wait for it.
        wait = destination.backoff.wait(1 if first else left.attempts)
        destination.lanes.put_alone(left, now if in_doubt else now + wait)
        if first:
            self._log_waiting(left)
        if in_doubt:
            self._doubt(verdict, DESTINATION)

    def _doubt(self, verdict: _Refusal, scope: object) -> None:
        """Hold until a record is accepted, or refused in a way that is understood."""
        self._destination.hold(
            Kind.DOUBT,
            verdict.code,
            f"records are refused with {verdict.code}, which the vendor does not document, and none was accepted since "
            f"({verdict.reason}): check the destination's settings, or state the code's meaning under codes:",
            scope=scope,
        )

    async def _too_large(self, batch: Batch, verdict: TooLarge, response: Response | None, probe: Probe) -> None:
        destination = self._destination
        if verdict.limit == "bytes":
            destination.evidence.too_large(batch)
        if len(batch.deliveries) == 1:
            if batch.isolating:
                # This record was the reason why the batches that it was in were too large, and they prove no limit.
                destination.limits.forget(batch.group)
            # A gateway may answer 413 for any reason, so a lone record is judged as one that is refused.
            await self._refused(batch, verdict, response, probe)
            return
        weight, size = destination.limits.too_large(batch, verdict.limit)
        log.warning(
            "batch.too_large",
            destination=destination.name,
            code=verdict.code,
            message=verdict.reason,
            records=weight,
            bytes=size,
        )
        left = destination.buffer.kept(batch)
        if left is not None:
            self._isolate(left, halves(left) if len(left.deliveries) > 1 else [left])

    async def _throttled(self, batch: Batch, verdict: Throttled, response: Response | None, probe: Probe) -> None:
        destination, until = self._destination, self._ports.clock.now()
        others_pass, alone = destination.evidence.throttled(batch), destination.evidence.has_own_quota(batch)
        # A record that is throttled alone, again and again, while others are accepted has a quota of its own, and waits
        # for that by itself. Ten of them that each pause all requests for a minute would stop the destination.
        if not alone:
            until = destination.throttle.begin(until, verdict.after)
            destination.bucket.wait_until(until)
        batch.reason = verdict.reason
        if self._tried_for_long(batch):
            await self.dead_letter(batch, "gave_up", verdict.code, batch.said, response, verdict.request_id)
        elif (left := destination.buffer.kept(batch)) is None:
            return
        elif others_pass:
            # A vendor may throttle by what is in a record, such as its user: then the others go first.
            self._try_again(left, until, verdict.after if alone else None)
        elif len(left.deliveries) == 1 and destination.throttle.stuck:
            # With order the record is parked, so that the next try takes a record of another key.
            destination.lanes.put_alone(left, until)
        else:
            destination.lanes.of(left).put_waiting(left, until)

    async def _failed(self, batch: Batch, verdict: Retry, response: Response | None, probe: Probe) -> None:
        destination, evidence = self._destination, self._destination.evidence
        batch.reason = verdict.reason
        evidence.failed(batch)
        if verdict.unknown_outcome:
            self._ports.metrics.unknown_outcomes.labels(destination.name).inc()
        cause = self._given_up(batch, verdict)
        if cause is not None:
            await self.dead_letter(batch, cause, verdict.code, batch.said, response, verdict.request_id)
            return
        if (left := destination.buffer.kept(batch)) is not None:
            self._try_again(left, self._ports.clock.now(), verdict.after)
        if (scope := evidence.outage(batch)) is not None:
            # Held only once the batch is back in its lane, so that the probe can take it or another one.
            destination.hold(Kind.OUTAGE, verdict.code, verdict.reason, scope=scope)

    def _try_again(self, batch: Batch, since: float, wish: float | None) -> None:
        """Put a failed batch back: whole, or in halves if it failed often; a lone record waits alone.

        It waits from `since`, for at least `wish` seconds if the vendor asks for that.
        """
        destination, evidence = self._destination, self._destination.evidence
        # In an ordered lane everything behind the batch waits, so halve it sooner.
        halve_after = 2 if destination.lanes.ordered else HALVE_AFTER
        if batch.failures >= halve_after and len(batch.deliveries) > 1 and not destination.holds.blocking(batch.group):
            parts = halves(batch)
            evidence.halved(batch)
            for part in parts:
                part.failures = HALVE_AFTER - 1
            self._isolate(batch, parts)
            return
        # The wait grows with the batch's own failures: a vendor that fails for one record must not slow the others
        # down.
        due = since + destination.backoff.wait(batch.failures, wish)
        if len(batch.deliveries) == 1:
            destination.lanes.put_alone(batch, due)
            self._log_waiting(batch)
        else:
            destination.lanes.of(batch).put_waiting(batch, due)

    def _given_up(self, batch: Batch, verdict: Retry) -> str | None:
        """Return the cause to dead-letter a failed batch, if the settings ask for that; None if it is tried again.

        `on_unknown_outcome` does not apply in an outage or during a hold: if every batch fails, it would drain the
        topic into dead letters, and so would a hold's probes, record by record.
        """
        asked = verdict.unknown_outcome and self._destination.settings.on_unknown_outcome == "dead_letter"
        evidence, holds = self._destination.evidence, self._destination.holds
        if asked and evidence.outage(batch) is None and not holds.blocking(batch.group):
            return "unknown_outcome"
        return "gave_up" if self._tried_for_long(batch) else None

    def _tried_for_long(self, batch: Batch) -> bool:
        """Whether `give_up_after` is over for a batch, by the monotonic clock, which no one can set."""
        limit, since = self._destination.settings.retry.give_up_after, batch.first_sent_at
        over = limit is not None and since is not None and self._ports.clock.now() - since >= limit
        # While others are accepted, one record may be the reason. The batch is taken apart until that one is alone.
        return over and not (len(batch.deliveries) > 1 and self._destination.evidence.others_pass(batch))

    async def _denied(self, batch: Batch, verdict: Misconfigured, response: Response | None, probe: Probe) -> None:
        destination, now = self._destination, self._ports.clock.now()
        batch.reason = verdict.reason
        entirely = destination.evidence.denied(batch) or destination.settings.codes.get(verdict.code) == "hold"
        left = destination.buffer.kept(batch)
        held = destination.holds.get(Kind.DENIED, verdict.scope) is not None
        if left is not None:
            due = now if held or entirely else now + destination.backoff.wait(left.denials)
            if left.denials >= DENIED_OFTEN and len(left.deliveries) > 1 and not (held or entirely):
                # If no other batch comes, only smaller parts can tell a denied record from a wrong credential.
                destination.evidence.halved(left)
                parts = halves(left)
                for part in parts:
                    part.denials = 0
                self._isolate(left, parts)
            elif len(left.deliveries) == 1:
                destination.lanes.put_alone(left, due)
            else:
                destination.lanes.of(left).put_waiting(left, due)
        if held or entirely:
            destination.hold(Kind.DENIED, verdict.code, verdict.reason, scope=verdict.scope)

    def _log_waiting(self, batch: Batch) -> None:
        """Log the place of a record that waits alone, and the command that skips it; less and less often."""
        times, rest = divmod(batch.failures, HALVE_AFTER)
        if batch.failures and (rest or times.bit_count() != 1):
            return
        topic, partition, offset = batch.deliveries[0].record.position
        log.warning(
            "record.waiting",
            destination=self._destination.name,
            topic=topic,
            partition=partition,
            offset=offset,
            attempts=batch.attempts,
            message=batch.reason,
            command=skip_command(batch.deliveries[0].record.position, self._destination.name),
        )

    def _put_back(self, batch: Batch) -> None:
        """Put a batch back to be probed again after others. A lone record that was refused lets other keys pass."""
        destination, now = self._destination, self._ports.clock.now()
        left = destination.buffer.kept(batch)
        if left is not None and len(left.deliveries) == 1 and left.deliveries[0].refused_alone:
            destination.lanes.put_alone(left, now)
        elif left is not None:
            destination.lanes.of(left).put_back(left, now)

    def _isolate(self, batch: Batch, parts: list[Batch]) -> None:
        for part in parts:
            part.isolating = True
        self._destination.lanes.of(batch).put_parts(parts)

    async def _answer_ended(self, batch: Batch, code: str | None, message: str) -> None:
        """Write a result for each question that ends without an answer, so that readers of the topic see it."""
        vendor = self._destination.vendor
        if not isinstance(vendor, Answering) or self._ports.answers is None:
            return
        ended = [(delivery, vendor.ended(delivery.item, code, message)) for delivery in batch.deliveries]
        known = [(delivery, answer) for delivery, answer in ended if answer is not None]
        await self._write_answers([delivery for delivery, _ in known], [answer for _, answer in known])

    async def _write_answers(self, deliveries: Sequence[Delivery], answers: Iterable[Answer]) -> Collection[int]:
        sink = self._ports.answers
        if sink is None:
            raise AssertionError("a vendor that answers needs a results topic")
        return await sink.write(zip([delivery.record.key for delivery in deliveries], answers, strict=True))

    async def dead_letter(
        self,
        batch: Batch,
        cause: str,
        code: str | None,
        message: str,
        response: Response | None = None,
        request_id: str | None = None,
        field: str | None = None,
        *,
        answered: bool = False,
    ) -> None:
        """Write every record of the batch to the dead-letter topic and finish each once Kafka has it.

        `answered`: the results topic already has the results of these questions.
        """
        if not answered:
            await self._answer_ended(batch, code, message)
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
                destination=self._destination.name,
                http_status=None if response is None else response.status,
                request_id=request_id,
                attempts=batch.attempts,
                first_attempt=batch.first_attempt,
                replayed=delivery.replayed,
            )
            for delivery in batch.deliveries
        )
        # All at once: one after another, a batch would take as many round trips as it has records.
        pairs = zip(batch.deliveries, dead_letters, strict=True)
        await self._together([self._write_dead_letter(delivery, dead_letter) for delivery, dead_letter in pairs])

    async def _write_dead_letter(self, delivery: Delivery, dead_letter: DeadLetter) -> None:
        # It retries until Kafka has it. If the partition is no longer ours, its new owner will write its own.
        await self._ports.dead_letters.write(dead_letter, delivery.tracker.is_ours)
        self._destination.buffer.finish([delivery])


def _taken_from(answers: Sequence[Answer]) -> Iterator[Answer]:
    """Yield answers in order and take them out: an encoded one needs a fifth of the memory, and may wait for Kafka."""
    # A vendor's module may give any sequence.
    if not isinstance(answers, list):
        yield from answers
        return
    answers.reverse()
    while answers:
        yield answers.pop()


def _cause_of(verdict: _Refusal) -> str:
    return "too_large" if isinstance(verdict, TooLarge) else "refused"


def _place_of(delivery: Delivery) -> Place:
    return Place(delivery.tracker, delivery.record.offset, delivery.bit)


def receipt_of(
    destination: str,
    vendor: str,
    batch: Batch,
    delivered: Sequence[Delivery],
    response: Response | None,
    request_id: str | None,
    wall: float,
) -> Receipt:
    """Return the receipt for what was `delivered` of a batch at `wall` (epoch seconds)."""
    ranges = ranges_of((d.record.topic, d.record.partition, d.record.offset) for d in delivered)
    return Receipt(
        id=uuid5_text(
            "/".join(
                (destination, *(f"{found.topic}:{found.partition}:{found.first}-{found.last}" for found in ranges))
            )
        ),
        destination=destination,
        vendor=vendor,
        positions=ranges,
        records=len(delivered),
        delivered_at=wall,
        first_attempt=batch.first_attempt,
        attempts=batch.attempts,
        http_status=None if response is None else response.status,
        request_id=request_id,
    )


def ranges_of(positions: Iterable[tuple[str, int, int]]) -> tuple[OffsetRange, ...]:
    """Return positions as the fewest ranges that hold them and no other, ascending."""
    ranges: list[OffsetRange] = []
    for topic, partition, offset in sorted(positions):
        last = ranges[-1] if ranges else None
        if last is not None and last[:2] == (topic, partition) and offset <= last.last + 1:
            ranges[-1] = OffsetRange(topic, partition, last.first, offset)
        else:
            ranges.append(OffsetRange(topic, partition, offset, offset))
    return tuple(ranges)
