"""The changes to delivery and dead letters that `mutants` makes, one at a time."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutations import Mutant

DELIVERY: Final = (
    Mutant(
        "finish a refused record before its dead letter is acknowledged",
        "connector/delivery/outcome.py",
        "        await self._ports.dead_letters.write(dead_letter, delivery.tracker.is_ours)\n"
        "        self._destination.buffer.finish([delivery])\n",
        "        self._destination.buffer.finish([delivery])\n"
        "        await self._ports.dead_letters.write(dead_letter, delivery.tracker.is_ours)\n",
    ),
    Mutant(
        "send sooner than the vendor asked for",
        "connector/delivery/outcome.py",
        "            destination.bucket.wait_until(until)\n",
        "",
    ),
    Mutant(
        "believe the first refusal by an undocumented code",
        "connector/delivery/outcome.py",
        "elif judged or verdict.documented:",
        "elif True:",
    ),
    Mutant(
        "pass over a dead letter that failed",
        "connector/dead_letters/writer.py",
        "await self._clock.sleep(wait)",
        "break",
    ),
    Mutant(
        "send what a leaving partition has left",
        "connector/delivery/destination.py",
        "self.buffer.forget(self.lanes.drop(lambda delivery: not delivery.tracker.open))",
        "pass",
    ),
    Mutant(
        "retry while the partition leaves",
        "connector/delivery/destination.py",
        "        left = [delivery for delivery in batch.deliveries if delivery.tracker.open]\n",
        "        left = list(batch.deliveries)\n",
    ),
    Mutant(
        "believe a refusal of a whole batch",
        "connector/delivery/outcome.py",
        "        elif len(batch.deliveries) > 1:\n            sent",
        "        elif len(batch.deliveries) > 3:\n            sent",
    ),
    Mutant(
        "take an unknown outcome for an acceptance",
        "connector/delivery/outcome.py",
        "        cause = self._given_up(batch, verdict)\n",
        "        cause = self._given_up(batch, verdict)\n"
        "        if verdict.unknown_outcome:\n"
        "            destination.buffer.finish(batch.deliveries)\n"
        "            return\n",
    ),
    Mutant(
        "put a failed batch behind what came later",
        "connector/delivery/lane.py",
        "            self._front.appendleft(batch)\n",
        "            self._ready.append(batch)\n",
    ),
    Mutant(
        "let a lane oversleep what was put back",
        "connector/delivery/lane.py",
        "        self.due = min(self.due, due)\n",
        "",
    ),
    Mutant(
        "pace nothing",
        "connector/delivery/pacing.py",
        "self._next = max(self._next, now - CATCH_UP) + 1.0 / (rate * PACE)",
        "self._next = now",
    ),
    Mutant(
        "never give the buffer's bytes back",
        "connector/delivery/destination.py",
        "        self._budget.release(charge)\n",
        "",
    ),
    Mutant(
        "wait for only those requests that leave as a whole",
        "connector/delivery/worker.py",
        "if any(not d.tracker.open for d in batch.deliveries)}",
        "if all(not d.tracker.open for d in batch.deliveries)}",
    ),
    Mutant(
        "lose a record of a halved batch",
        "connector/delivery/isolation.py",
        "batch.part(batch.deliveries[middle:])]",
        "batch.part(batch.deliveries[middle + (len(batch.deliveries) > 3) :])]",
    ),
    Mutant(
        "leave a suspect's key behind",
        "connector/delivery/isolation.py",
        "        apart |= _followers(deliveries, suspects)\n",
        "        pass\n",
    ),
    Mutant(
        "send the parts of a batch in another order",
        "connector/delivery/lane.py",
        "self._front.extendleft(reversed(parts))",
        "self._front.extendleft(parts)",
    ),
    Mutant(
        "let a record by a parked one of its key",
        "connector/delivery/lane.py",
        "        if behind is None:\n            return False\n",
        "        if behind is None or len(behind) < 9:\n            return False\n",
    ),
    Mutant(
        "drain a storm into the dead letters",
        "connector/delivery/outcome.py",
        "if delivery.replayed or not destination.storms.refused(cause, code, why, _place_of(delivery)):",
        "if True:",
    ),
    Mutant(
        "give up at the first failure",
        "connector/delivery/outcome.py",
        "self._ports.clock.now() - since >= limit",
        "self._ports.clock.now() >= since",
    ),
    Mutant(
        "call every failure unknown",
        "connector/delivery/outcome.py",
        'asked = verdict.unknown_outcome and self._destination.settings.on_unknown_outcome == "dead_letter"',
        'asked = self._destination.settings.on_unknown_outcome == "dead_letter"',
    ),
    Mutant(
        "take for evidence what was accepted before",
        "connector/delivery/isolation.py",
        "proven = batch.vouched_at > refused[1] or",
        "proven = self._accepted.total() > 0 or",
        "tests/unit/delivery/test_blame_evidence.py::test_what_was_accepted_before_a_refusal_is_no_evidence",
    ),
    Mutant(
        "send one request too many at once",
        "connector/delivery/lane.py",
        "[lane(1, ordered=True) for _ in range(max_in_flight)] if ordered else [lane(max_in_flight)]",
        "[lane(2, ordered=True) for _ in range(max_in_flight)] if ordered else [lane(max_in_flight + 1)]",
    ),
    Mutant(
        "give up what has no known outcome while nothing is accepted",
        "connector/delivery/outcome.py",
        "if asked and evidence.outage(batch) is None and not holds.blocking(batch.group):",
        "if asked:",
    ),
    Mutant(
        "take a 403 for one record for a wrong credential",
        "connector/delivery/outcome.py",
        "blamed = self._destination.evidence.blames_records(batch, probing=bool(probe))",
        "blamed = False",
    ),
    Mutant(
        "believe a code that an accepted record has contradicted",
        "connector/delivery/isolation.py",
        "times = CONTRADICTED_TIMES - 1 if lately else 1",
        "times = 1",
        "tests/unit/delivery/test_isolation.py::test_a_contradicted_code_needs_more_refusals",
    ),
    Mutant(
        "believe a lone record's 413 at once",
        "connector/delivery/outcome.py",
        "elif judged or verdict.documented:",
        "elif judged or verdict.documented or isinstance(verdict, TooLarge):",
        "tests/unit/delivery/test_blame_evidence.py::test_a_gateway_that_calls_everything_too_large_drains_nothing",
    ),
    Mutant(
        "let nothing but another acceptance prove that a record is too large",
        "connector/delivery/isolation.py",
        "        return 0 < self._largest.get",
        "        return False and self._largest.get",
        "tests/unit/delivery/test_blame_evidence.py::test_a_record_that_is_too_large_ends_in_a_quiet_topic",
    ),
    Mutant(
        "take failures of other kinds for a quota",
        "connector/delivery/isolation.py",
        "        return batch.throttled_alone >= OWN_QUOTA_AFTER",
        "        return self.fails_alone(batch)",
        "tests/unit/delivery/test_isolation.py::test_failures_of_other_kinds_are_no_quota",
    ),
    Mutant(
        "pause every request for a record's own quota",
        "connector/delivery/outcome.py",
        "        if not alone:\n            until",
        "        if until:\n            until",
        "tests/unit/delivery/test_blame_evidence.py::test_records_with_a_quota_of_their_own_do_not_pause_the_others",
    ),
    Mutant(
        "let failures outlast their hold",
        "connector/delivery/isolation.py",
        "        self._failing.clear()\n",
        "        pass\n",
        "tests/unit/delivery/test_worker_holds.py::test_after_a_release_an_outage_is_counted_again",
    ),
    Mutant(
        "count denials that were long ago",
        "connector/delivery/isolation.py",
        "            self._denied.pop(endpoint, None)\n",
        "            pass\n",
        "tests/unit/delivery/test_isolation.py::test_batches_are_denied_in_a_row_only_where_none_is_accepted_between",
    ),
    Mutant(
        "let a record that always fails keep its lane back",
        "connector/delivery/lane.py",
        "        if self.ordered and not delivery.replayed and delivery not in self.apart:\n",
        "        if self.ordered and not delivery.replayed and len(self.apart) > 99:\n",
    ),
    Mutant(
        "keep the key of a record back after its outcome",
        "connector/delivery/lane.py",
        "            self.apart.pop(delivery).unpark(delivery)\n",
        "            self.apart.pop(delivery)\n",
    ),
    Mutant(
        "give a dead letter another id each time",
        "connector/dead_letters/headers.py",
        "_ID: _dead_letter_id(dead_letter, group, origin, timestamp, replays)",
        "_ID: _dead_letter_id(dead_letter, group, origin, timestamp, int(dead_letter.failed_at * 1000))",
    ),
    Mutant(
        "leave the record's own headers out of its dead letter",
        "connector/dead_letters/headers.py",
        "    return [*original, *ours]",
        "    return ours",
    ),
)
