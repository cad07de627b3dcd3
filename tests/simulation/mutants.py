"""Changes to the core that break a promise, each of which the simulation has to notice: `make mutants`.

A mutant is a copy of the tree with one place of one file changed. One that survives its seeds means that the simulation
is blind to what that place is for; one whose place is gone has to be written anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 600


class Mutant(NamedTuple):
    """A change: in `file`, the one place that reads `old` reads `new`."""

    name: str
    file: str
    old: str
    new: str


MUTANTS: Final = (
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
        "commits.append(Commit(*partition, snapshot.watermark, encoded.text))",
        'commits.append(Commit(*partition, snapshot.watermark, ""))',
    ),
    Mutant(
        "let a map grow over the limit",
        "connector/pipeline/metadata.py",
        "    if text is not None and len(text) <= limit:\n        return",
        "    if text is not None:\n        return",
    ),
    Mutant(
        "finish a refused record before its letter is acknowledged",
        "connector/delivery/settlement.py",
        "            await self._ports.dead_letters.write(letter)\n            self._at.finish([delivery])\n",
        "            self._at.finish([delivery])\n            await self._ports.dead_letters.write(letter)\n",
    ),
    Mutant(
        "send sooner than the vendor asked for",
        "connector/delivery/settlement.py",
        "        at.bucket.wait_until(until)\n        if probe:",
        "        if probe:",
    ),
    Mutant(
        "believe the first refusal by an undocumented code",
        "connector/delivery/settlement.py",
        "        if not verdict.documented and not self._believed(batch, verdict):\n            return\n",
        "",
    ),
    Mutant(
        "make the dedup id anew each time a record is read",
        "connector/pipeline/routing.py",
        'return f"{cluster_id}/{position.topic}/{position.partition}/{position.offset}"',
        'return f"{cluster_id}/{hash(object())}/{position.topic}/{position.partition}/{position.offset}"',
    ),
    Mutant(
        "leave the partition out of the dedup id",
        "connector/pipeline/routing.py",
        'return f"{cluster_id}/{position.topic}/{position.partition}/{position.offset}"',
        'return f"{cluster_id}/{position.topic}/{position.offset}"',
    ),
    Mutant(
        "pass over a dead letter that failed",
        "connector/dead_letters/writer.py",
        "await self._clock.sleep(wait)",
        "break",
    ),
    Mutant(
        "claim one offset too many in the map",
        "connector/pipeline/metadata.py",
        "                bounds += (offset, offset + 1)",
        "                bounds += (offset, offset + 2)",
    ),
    Mutant(
        "read a bitset one bit too far",
        "connector/pipeline/metadata.py",
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
        "left = mask & ~self._partial.get(offset, 0)",
        "left = mask",
    ),
    Mutant(
        "finish a record for all when one destination took it",
        "connector/pipeline/offsets.py",
        "left = self._pending[offset] & ~bit",
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
        "        await self._commit(leaving)\n",
        "",
    ),
    Mutant(
        "leave without a drain",
        "connector/pipeline/runner.py",
        "if not all(await asyncio.gather(*drains)):",
        "for drain in drains:\n            drain.close()\n        if False:",
    ),
    Mutant(
        "send what a leaving partition has left",
        "connector/delivery/worker.py",
        "self._at.forget(lane.drop(lambda delivery: not delivery.tracker.open))",
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
        "connector/delivery/settlement.py",
        "        if len(batch.deliveries) > 1:\n            sent",
        "        if len(batch.deliveries) > 3:\n            sent",
    ),
    Mutant(
        "take an unknown outcome for an acceptance",
        "connector/delivery/settlement.py",
        "        if await self._given_up(batch, verdict, response):\n            return\n",
        "        if await self._given_up(batch, verdict, response):\n            return\n"
        "        if verdict.unknown_outcome:\n            at.finish(batch.deliveries)\n            return\n",
    ),
    Mutant(
        "test the limit of bytes after adding",
        "connector/pipeline/batching.py",
        "if size > limits.bytes or weight > limits.records:",
        "if self.size > limits.bytes or weight > limits.records:",
    ),
    Mutant(
        "put a failed batch behind what came later",
        "connector/delivery/lane.py",
        "            self._front.appendleft(batch)\n",
        "            self._ready.append(batch)\n",
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
        "        self.ports.budget.release(charge)\n",
        "",
    ),
    Mutant(
        "intake without a limit",
        "connector/pipeline/flow.py",
        "self._full = self.used >= self.limit",
        "self._full = False",
    ),
)


def kill(mutant: Mutant, seeds: str) -> str | None:
    """Return what the simulation says of a mutant, None where it survives.

    Raises `ValueError` where the mutant has no place, or the copy does not run at all.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder)
        for name in ("avro", "connector", "tests", "tools"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        path = tree / mutant.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            raise ValueError(f"{mutant.name}: {mutant.file} holds its place {text.count(mutant.old)} times")
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "tests.simulation", "--first", seeds]
        ended = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        if ended.returncode == 0:
            return None
        lines = [line for line in ended.stdout.splitlines() if line.startswith("seed ")]
        if not lines:
            raise ValueError(f"the copy does not run: {ended.stderr.strip().splitlines()[-1]}")
        return lines[0]


def main() -> int:
    """Try every mutant, print how each died, and return 1 where one lives or has no place."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("seeds", nargs="?", default="0-299")
    parser.add_argument("-w", "--workers", type=int, default=2)
    parser.add_argument("-k", "--only", default="", help="only mutants whose name holds this")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if arguments.only in mutant.name]
    alive = 0
    with ThreadPoolExecutor(arguments.workers) as pool:
        for mutant, future in [(mutant, pool.submit(kill, mutant, arguments.seeds)) for mutant in chosen]:
            try:
                said = future.result()
            except ValueError as error:
                alive += 1
                print(f"FAILS {error}", flush=True)
            else:
                alive += said is None
                print(f"{'LIVES' if said is None else 'dead'}  {mutant.name}: {said}"[:220], flush=True)
    print(f"{len(chosen)} mutants, {alive} alive")
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main())
