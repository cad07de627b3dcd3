"""Changes to pipeline, wiring and map that `mutants` makes, one at a time; the simulation notices each."""

from __future__ import annotations

from typing import Final, NamedTuple


class Mutant(NamedTuple):
    """A change: in `file`, the one place that reads `old` reads `new`. `test` notices it where no seed can be bad.

    Such are the rules about how many requests something costs, and those about what the simulation does not run.
    """

    name: str
    file: str
    old: str
    new: str
    test: str = ""


PIPELINE: Final = (
    Mutant(
        "commit the highest seen instead of the lowest unfinished",
        "connector/pipeline/offsets.py",
        "return next(iter(self._pending), self.position)",
        "return self.position",
    ),
    Mutant(
        "commit for partitions that were lost",
        "connector/pipeline/runner.py",
        "        gone = self._take_trackers(partitions, Phase.CLOSED)\n",
        "        await self._commit(list(partitions))\n        gone = self._take_trackers(partitions, Phase.CLOSED)\n",
    ),
    Mutant(
        "forget that an epoch is over where its partition was lost",
        "connector/pipeline/runner.py",
        "        gone = self._take_trackers(partitions, Phase.CLOSED)\n",
        "        gone = self._take_trackers(partitions, Phase.OPEN)\n",
    ),
    Mutant(
        "send again what the committed map says is done",
        "connector/pipeline/offsets.py",
        "elif restored.whole.contains(offset):",
        "elif False:",
    ),
    Mutant(
        "commit without a map",
        "connector/pipeline/runner.py",
        "commits.append(Commit(*partition, watermark, text))",
        'commits.append(Commit(*partition, watermark, ""))',
    ),
    Mutant(
        "let a map grow over the limit",
        "connector/pipeline/offset_map.py",
        "        return EncodedMap(text, len(text) / limit)\n    #",
        "        return EncodedMap(text, len(text) / limit)\n    return EncodedMap(text, 1.0)\n    #",
    ),
    Mutant(
        "make a new dedup id each time a record is read",
        "connector/routing/table.py",
        'return f"{cluster_id}/{position.topic}/{position.partition}/{position.offset}"',
        'return f"{cluster_id}/{hash(object())}/{position.topic}/{position.partition}/{position.offset}"',
    ),
    Mutant(
        "leave the partition out of the dedup id",
        "connector/routing/table.py",
        'return f"{cluster_id}/{position.topic}/{position.partition}/{position.offset}"',
        'return f"{cluster_id}/{position.topic}/{position.offset}"',
    ),
    Mutant(
        "claim one offset too many in the map",
        "connector/pipeline/offset_map.py",
        "                bounds += (offset, offset + 1)",
        "                bounds += (offset, offset + 2)",
    ),
    Mutant(
        "read a bitset one bit too far",
        "connector/pipeline/offset_map.py",
        "bounds += (base + at, base + end)",
        "bounds += (base + at + 1, base + end + 1)",
    ),
    Mutant(
        "claim what is still unfinished above the watermark",
        "connector/pipeline/offsets.py",
        "whole = Runs.complement(watermark, self.position, self._pending)",
        "whole = Runs.complement(watermark, self.position, [watermark])",
    ),
    Mutant(
        "take the position after the set of the unfinished",
        "connector/pipeline/offsets.py",
        "whole = Runs.complement(watermark, self.position, self._pending)",
        "whole = Runs.complement(watermark, self.position + 1, self._pending)",
    ),
    Mutant(
        "forget what is finished for one destination",
        "connector/pipeline/offsets.py",
        "masks = [mask & ~partial.get(offset, 0) for offset in offsets]",
        "masks = [mask] * len(offsets)",
    ),
    Mutant(
        "finish a record for all when one destination took it",
        "connector/pipeline/offsets.py",
        "left = pending[offset] & ~bit",
        "left = 0",
    ),
    Mutant(
        "drop what a failed commit was about",
        "connector/pipeline/runner.py",
        "self._trackers[partition].retake()",
        "pass",
    ),
    Mutant(
        "leave without a last commit",
        "connector/pipeline/runner.py",
        "        await self._commit_last(leaving, deadline)\n",
        "",
    ),
    Mutant(
        "leave without a drain",
        "connector/pipeline/runner.py",
        "in_time = all(await asyncio.gather(*drains))",
        "in_time = not [drain.close() for drain in drains]",
    ),
    Mutant(
        "test the limit of bytes after adding",
        "connector/pipeline/batching.py",
        "if larger > largest or heavier > most:",
        "if size > largest or heavier > most:",
    ),
    Mutant(
        "intake without a limit",
        "connector/pipeline/flow.py",
        "self._full = self.used >= self.limit",
        "self._full = False",
    ),
    Mutant(
        "commit one past the watermark",
        "connector/pipeline/offsets.py",
        "return Snapshot(watermark, finished)",
        "return Snapshot(watermark + 1, finished)",
    ),
    Mutant(
        "read the map's destinations in another order",
        "connector/pipeline/offsets.py",
        "                    mask |= WHOLE << (index + 1)",
        "                    mask |= WHOLE << (len(self.destinations) - index)",
    ),
    Mutant(
        "take offsets without a record for records",
        "connector/pipeline/offsets.py",
        "        self.position = offset + 1\n        restored",
        "        self._pending.update(dict.fromkeys(range(self.position, offset), WHOLE))\n"
        "        self.position = offset + 1\n        restored",
    ),
    Mutant(
        "begin a second time what was read again",
        "connector/pipeline/offsets.py",
        "        if offset < self.position:\n            return False\n        self.claims",
        "        self.claims",
    ),
    Mutant(
        "see no progress where one of several destinations took a record",
        "connector/pipeline/offsets.py",
        "        self._changed = True\n        pending, partial = self._pending, self.partial\n",
        "        pending, partial = self._pending, self.partial\n"
        "        self._changed = self._changed or any(not pending[offset] & ~bit for offset in offsets)\n",
    ),
    Mutant(
        "begin at once what the committed map says is done",
        "connector/pipeline/offsets.py",
        "if self._restored is None and offsets[0] >= self.position:",
        "if offsets[0] >= self.position:",
    ),
    Mutant(
        "begin at once what was read before",
        "connector/pipeline/offsets.py",
        "if self._restored is None and offsets[0] >= self.position:",
        "if self._restored is None:",
    ),
    Mutant(
        "forget what the committed map claims and was not read again",
        "connector/pipeline/offsets.py",
        "finished = finished.joined(self._restored.above(self.position))",
        "pass",
    ),
    Mutant(
        "commit although nothing moved",
        "connector/pipeline/offsets.py",
        "        if not self._changed:\n            return None\n",
        "",
    ),
    Mutant(
        "never resume what was paused",
        "connector/pipeline/runner.py",
        "        if change.resume:",
        "        if False:",
    ),
    Mutant(
        "read on with a full map",
        "connector/pipeline/runner.py",
        "for partition, room in self._rooms.items() if room.full}",
        "for partition, room in self._rooms.items() if room.used > 1.0}",
    ),
    Mutant(
        "begin new work while partitions leave",
        "connector/pipeline/runner.py",
        "self._trackers[partition].phase = Phase.DRAINING",
        "self._trackers[partition].phase = Phase.OPEN",
    ),
    Mutant(
        "hear nothing of lost partitions",
        "connector/pipeline/runner.py",
        '        self._metrics.rebalances.labels("lost").inc()\n',
        '        self._metrics.rebalances.labels("lost").inc()\n        return\n',
    ),
    Mutant(
        "leave without the dead letters that are being written",
        "connector/pipeline/runner.py",
        "drains = [self._intake.drain(timeout), *(",
        "drains = [*(",
    ),
    Mutant(
        "drain for no time",
        "connector/pipeline/runner.py",
        "        deadline = min(now + self._timing.drain_timeout, self._stop_by)\n",
        "        deadline = now\n",
    ),
    Mutant(
        "drain for ever",
        "connector/pipeline/runner.py",
        "        deadline = min(now + self._timing.drain_timeout, self._stop_by)\n",
        "        deadline = now + 1e9\n",
    ),
    Mutant(
        "let a null value block its partition",
        "connector/pipeline/intake.py",
        '            skipped["null_value"] += 1\n',
        '            skipped["null_value"] += 1\n            return True\n',
    ),
    Mutant(
        "dead-letter what waits for the registry",
        "connector/pipeline/intake.py",
        "            if isinstance(outcome, SchemaUnavailable):\n                self._resolve(outcome.key)\n"
        "                parked = True\n",
        "            if isinstance(outcome, SchemaUnavailable):\n"
        '                outcome = Refusal("decode", "decode.schema", "unknown")\n'
        "            elif False:\n                parked = True\n",
    ),
    Mutant(
        "let others overtake what waits for the registry",
        "connector/pipeline/intake.py",
        "            if parked:\n                self._park(record)\n",
        "            if isinstance(outcome, SchemaUnavailable):\n                self._park(record)\n",
    ),
    Mutant(
        "write no dead letter of what cannot be decoded",
        "connector/pipeline/intake.py",
        "            await self._services.dead_letters.write(",
        "            await asyncio.sleep(0)\n            DeadLetter(record, '', '', '', 0.0, '') and print(",
    ),
    Mutant(
        "send also what is finished for a destination",
        "connector/pipeline/preparation.py",
        "            if not left & bit:\n",
        "            if False:\n",
    ),
    Mutant(
        "give the records of a run one id",
        "connector/routing/table.py",
        "            identity = position_identity(cluster_id, record)\n"
        "            return [Routed(destination, VendorEvent(",
        '            identity = f"{cluster_id}/{record.topic}/{record.partition}/{record.offset // 100}"\n'
        "            return [Routed(destination, VendorEvent(",
    ),
    Mutant(
        "charge nothing for what is buffered",
        "connector/pipeline/preparation.py",
        "                    self._budget.add(offer.charge)\n",
        "                    self._services.budget.release(0)\n",
    ),
    Mutant(
        "offer a record with the group of the one before",
        "connector/pipeline/preparation.py",
        "if offer is None or group is not offer.group:",
        "if offer is None:",
    ),
    Mutant(
        "end a batch's records for every destination at once",
        "connector/pipeline/offsets.py",
        "if len(offsets) > 1 and not partial and set(map(pending.__getitem__, offsets)) == {bit}:",
        "if len(offsets) > 1 and not partial:",
    ),
    Mutant(
        "count the buffer's bytes short on both sides",
        "connector/pipeline/flow.py",
        "        self.used += charge\n",
        "        self.used += charge and 1\n",
    ),
    Mutant(
        "choose a key's lane again for each record",
        "connector/delivery/lane.py",
        "return (record.partition if key is None else crc32(key)) % lanes",
        "return (record.partition if key is None else record.offset) % lanes",
    ),
    Mutant(
        "choose a lane for each record without a key",
        "connector/delivery/lane.py",
        "return (record.partition if key is None else crc32(key)) % lanes",
        "return (record.offset if key is None else crc32(key)) % lanes",
    ),
    Mutant(
        "use the whole rate limit in each member",
        "connector/runtime/pipeline.py",
        "worker.set_share(share + replays)",
        "worker.set_share(1.0)",
    ),
    Mutant(
        "read maps of any version",
        "connector/pipeline/offset_map.py",
        "    if frame[1] != _VERSION:",
        "    if False:",
        "tests/unit/pipeline/test_offset_map.py::test_another_version_is_ignored",
    ),
    Mutant(
        "read maps whose checksum differs",
        "connector/pipeline/offset_map.py",
        "        if _checksum(base, content) != frame[3:7]:",
        "        if False:",
    ),
    Mutant(
        "end a storm at any record that passes",
        "connector/pipeline/storms.py",
        "        probes = {storm.probing: reason for reason, storm in self._storms.items() if storm.probing is not"
        " None}\n        if not probes and not self._released:\n            return\n        for place in places:\n"
        "            self._released.pop(place, None)\n            if (reason := probes.get(place)) is not None:\n",
        "        for reason in list(self._storms) if [*places] else ():\n            if True:\n",
    ),
    Mutant(
        "dead-letter a probe that is refused again",
        "connector/pipeline/storms.py",
        "        self._probe_ended(place)\n",
        "        if [self._probe_ended(place) for storm in self._storms.values() if storm.probing == place]:\n"
        "            return False\n",
    ),
    Mutant(
        "keep the bytes of a record that is set aside",
        "connector/delivery/outcome.py",
        "        destination.buffer.forget([delivery])\n        destination.lanes.let_pass(delivery)\n",
        "        destination.lanes.let_pass(delivery)\n",
    ),
    Mutant(
        "forget what a storm set aside when it ends",
        "connector/pipeline/storms.py",
        "        self._let_go.extend(storm.aside)\n",
        "",
    ),
    Mutant(
        "forget what could not be read again",
        "connector/pipeline/rereading.py",
        "            self._put_back(storms, [place for _, place in wanted])\n            return\n",
        "            return\n",
    ),
    Mutant(
        "prepare a record for every destination when it is read again for one",
        "connector/pipeline/intake.py",
        "known += [(record, delivery) for delivery in routed if delivery.destination == destination]",
        "known += [(record, delivery) for delivery in routed]",
    ),
    Mutant(
        "finish a record that a storm sets aside",
        "connector/delivery/outcome.py",
        "        destination.buffer.forget([delivery])\n        destination.lanes.let_pass(delivery)\n",
        "        destination.buffer.finish([delivery])\n",
    ),
    Mutant(
        "write dead letters through a storm of a topic",
        "connector/pipeline/intake.py",
        "if record.topic == self._replay_topic or not self._services.storms.refused(refusal, place):",
        "if self._services.storms.refused(refusal, place) or True:",
    ),
)
