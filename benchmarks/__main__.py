"""Runs the short set: every benchmark once, each with a time limit. `make bench` runs it.

python -m benchmarks                    # all, under five minutes on two idle cores
python -m benchmarks throughput micro   # some
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.report import RESULTS

ROOT: Final = Path(__file__).resolve().parent.parent
SHORT: Final[Mapping[str, tuple[tuple[str, ...], float]]] = {
    "throughput": (("throughput", "--records", "150000", "--sink-delay", "0", "0.05"), 120),
    "vendors": (
        ("throughput", "--records", "40000", "--vendor", "quick_audience", "mytracker", "jpush_report"),
        90,
    ),
    "processes": (("throughput", "--records", "200000", "--processes", "2", "--systems", "connector"), 90),
    "start": (("start", "--starts", "5"), 45),
    "latency": (("latency", "--seconds", "10"), 60),
    "sink": (("sink", "--measure", "--seconds", "3"), 15),
    "micro": (("micro", "--seconds", "0.5"), 60),
    "rate": (("rate", "--seconds", "20"), 75),
    "memory": (("memory", "--small", "200000", "--large", "600", "--seconds", "10"), 90),
}
"""By name: the module with its arguments, and its time limit in seconds."""


def run(name: str) -> str:
    """Run one benchmark. Return what went wrong, or an empty text."""
    (module, *arguments), seconds = SHORT[name]
    print(f"== {name}: python -m benchmarks.{' '.join([module, *arguments])}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    with subprocess.Popen(command, cwd=ROOT) as child:
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            # Like Ctrl-C, so that it also stops its broker, sink and members.
            child.send_signal(signal.SIGINT)
            child.wait()
            return f"{name}: stopped after {seconds:.0f} s; the machine is too busy"
    return f"{name}: exit status {code}" if code else ""


def main() -> None:
    """Run the requested benchmarks one after the other. Exit with 1 if one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(SHORT)}; default: all")
    names = parser.parse_args().names or list(SHORT)
    unknown = [name for name in names if name not in SHORT]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; known: {', '.join(SHORT)}")
    begun, faults = time.monotonic(), []
    for name in names:
        fault = run(name)
        if fault:
            print(fault, file=sys.stderr, flush=True)
            faults.append(fault)
        print(flush=True)
    print(f"{time.monotonic() - begun:.0f} s; all figures are in {RESULTS.relative_to(ROOT)}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
