"""The changes to what an operator does by hand that `mutants` makes, one at a time; the simulation notices each."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutations import Mutant

OPERATOR: Final = (
    Mutant(
        "skip what waits to be sent without a dead letter",
        "connector/delivery/worker.py",
        "            self._start(self._outcomes.dead_letter(batch, CAUSE, CODE, message), batch)\n",
        "            self._destination.buffer.finish(batch.deliveries) or message\n",
    ),
    Mutant(
        "skip what is not routed without a dead letter",
        "connector/pipeline/intake.py",
        "        self._write(record, tracker, Refusal(CAUSE, CODE, MESSAGE))\n",
        "        tracker.finish((record.offset,), WHOLE)\n        self._services.budget.release(charge_of(record))\n",
    ),
    Mutant(
        "write the dead letter of a skip and send the record all the same",
        "connector/delivery/lane.py",
        "        self.drop(partial(is_, delivery))\n        return batch.part([delivery])\n",
        "        return batch.part([delivery])\n",
    ),
    Mutant(
        "skip the record behind the one that is meant",
        "connector/pipeline/intake.py",
        "elif (skip := self._skips.pop(record.position, None)) is not None:",
        "elif (skip := self._skips.pop((record.topic, record.partition, record.offset - 1), None)) is not None:",
    ),
    Mutant(
        "skip a record for every destination",
        "connector/pipeline/skips.py",
        "if destination in (None, waits)]",
        "if waits]",
    ),
    Mutant(
        "forget a skip while the record is in a request",
        "connector/pipeline/skips.py",
        "            if delivery.tracker.open and delivery.tracker.is_pending(delivery.record.offset, delivery.bit)\n",
        "            if delivery.record.offset < 0\n",
    ),
    Mutant(
        "skip a record whose bytes no one counted",
        "connector/pipeline/intake.py",
        "            self._services.budget.add(charge_of(record))\n            self._skip(record, tracker, skip)\n"
        "            return True\n",
        "            self._skip(record, tracker, skip)\n            return True\n",
    ),
    Mutant(
        "leave behind what waited for the schema of a skipped record",
        "connector/pipeline/intake.py",
        "        left = deque(waiting for waiting in parked if waiting is not record)\n        if left:\n",
        "        left = deque(waiting for waiting in parked if waiting is not record)\n"
        "        if left and left.clear():\n",
    ),
    Mutant(
        "give a replayed record a new dedup id",
        "connector/routing/table.py",
        "    return replace(routed, first_dedup_id=dedup_id)\n",
        '    return replace(routed, first_dedup_id=dedup_id[::-1] + "")\n',
        "tests/unit/routing/test_replays.py::test_a_replay_is_routed_as_it_came_first_and_keeps_its_dedup_id",
    ),
    Mutant(
        "send a replayed record to all destinations",
        "connector/routing/table.py",
        "        routed = [delivery for delivery in routed if delivery.destination == wanted]\n",
        "",
    ),
    Mutant(
        "route a replayed record by where it stands now",
        "connector/pipeline/intake.py",
        "dead_letter = self._replayed(record) if replayed else None",
        "dead_letter = None",
    ),
    Mutant(
        "begin a new block of headers when a replay fails",
        "connector/dead_letters/headers.py",
        "    if before is not None:\n        origin",
        "    if before is None:\n        pass\n    elif False:\n        origin",
    ),
    Mutant(
        "leave the destination out of a dead letter that is skipped again unread",
        "connector/pipeline/intake.py",
        "destination=None if before is None else before.destination,",
        "destination=None,",
    ),
    Mutant(
        "replay a dead letter as often as it was replayed before",
        "connector/dead_letters/headers.py",
        "count = str(min(dead_letter.replays + 1, MOST_REPLAYS)).encode()",
        "count = str(dead_letter.replays).encode()",
    ),
)
