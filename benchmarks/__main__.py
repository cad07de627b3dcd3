"""The short set: every benchmark once, each bounded in time; what `make bench` runs.

python -m benchmarks                    # all, under five minutes on two quiet cores
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
    "latency": (("latency", "--seconds", "10"), 60),
    "sink": (("sink", "--measure", "--seconds", "3"), 15),
    "micro": (("micro", "--seconds", "0.5"), 60),
    "rate": (("rate", "--seconds", "20"), 75),
    "memory": (("memory", "--small", "200000", "--large", "600", "--seconds", "10"), 90),
}
"""By name, a module of this folder with its arguments, and the seconds after which it is ended."""


def run(name: str) -> str:
    """Run one benchmark and return what went wrong, or an empty text."""
    (module, *arguments), seconds = SHORT[name]
    print(f"== {name}: python -m benchmarks.{' '.join([module, *arguments])}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    with subprocess.Popen(command, cwd=ROOT) as child:
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            # As Ctrl-C does, so that it ends its broker, sink and members too.
            child.send_signal(signal.SIGINT)
            child.wait()
            return f"{name} was ended after {seconds:.0f} s: the machine is too busy for figures"
    return f"{name} ended with {code}" if code else ""


def main() -> None:
    """Read which are wanted, run them one after the other, and exit with 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHORT)}; none: all")
    names = parser.parse_args().names or list(SHORT)
    unknown = [name for name in names if name not in SHORT]
    if unknown:
        parser.error(f"{unknown[0]}: no such benchmark; there are {', '.join(SHORT)}")
    begun, faults = time.monotonic(), []
    for name in names:
        fault = run(name)
        if fault:
            print(fault, file=sys.stderr, flush=True)
            faults.append(fault)
        print(flush=True)
    print(f"{time.monotonic() - begun:.0f} s; every figure is in {RESULTS.relative_to(ROOT)}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
