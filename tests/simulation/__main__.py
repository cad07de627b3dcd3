"""Runs seeds: `python -m tests.simulation 17` prints the trace of one, `0-999` runs a range, `-w 2` on two cores.

`-x` ends with the first seed that fails. The exit status is 1 where one did.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.facts import Report
from tests.simulation.world import run

CHUNK = 25


def run_all(seeds: Iterable[int]) -> list[tuple[int, str]]:
    """Return the seeds that fail, each with the promise it breaks."""
    return [(seed, report.broken) for seed in seeds if (report := run(seed)).broken is not None]


def quicken() -> None:
    """Look for garbage seldom: a world makes many objects, and few of them in circles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def show(report: Report) -> None:
    """Print one seed's trace and what became of it."""
    print("\n".join(report.trace))
    print(f"seed {report.seed}: {report.broken or 'holds'} {dict(report.counts)}")


def main() -> int:
    """Run what the arguments say and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="?", default="0-299", help="one seed, or a range such as 0-299")
    parser.add_argument("-w", "--workers", type=int, default=1)
    parser.add_argument("-x", "--first", action="store_true", help="end with the first seed that fails")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    if not last:
        report = run(int(first))
        show(report)
        return int(report.broken is not None)
    seeds = range(int(first), int(last) + 1)
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    began = time.monotonic()
    quicken()
    failed = 0
    with ProcessPoolExecutor(arguments.workers, initializer=quicken) as pool:
        for found in map(run_all, chunks) if arguments.workers == 1 else pool.map(run_all, chunks):
            for seed, broken in found:
                failed += 1
                print(f"seed {seed}: {broken}\n  replay: python -m tests.simulation {seed}", flush=True)
                if arguments.first:
                    pool.shutdown(cancel_futures=True)
                    return 1
    print(f"{len(seeds)} seeds, {failed} failed, {time.monotonic() - began:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
