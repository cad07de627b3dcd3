"""Replays seeds: `python -m tests.simulation 17` prints the trace of one that fails, `0-999` runs a range."""

from __future__ import annotations

import sys
import time

from tests.simulation.world import run

if __name__ == "__main__":
    failed = 0
    began = time.process_time()
    total = 0
    for argument in sys.argv[1:] or ["0-49"]:
        first, _, last = argument.partition("-")
        for seed in range(int(first), int(last or first) + 1):
            total += 1
            at = time.process_time()
            report = run(seed)
            took = time.process_time() - at
            if report.broken is not None:
                failed += 1
                if not last:
                    print("\n".join(report.trace))
                print(f"seed {seed}: {report.broken}")
            if took > 2:
                print(f"seed {seed}: took {took:.1f} s of CPU, {dict(report.counts)}")
            if not last:
                print(f"seed {seed}: {'failed' if report.broken else 'holds'} {dict(report.counts)}")
    print(f"{total} seeds, {failed} failed, {time.process_time() - began:.1f} s of CPU")
    sys.exit(failed > 0)
