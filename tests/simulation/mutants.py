"""Changes to the core that break a promise, each of which the simulation has to notice: `make mutants`.

A mutant is a copy of the tree with one place of one file changed. One that survives its seeds means that the simulation
is blind to what that place is for; one whose place is gone has to be written again.
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
from typing import Final

from tests.simulation.mutations import PIPELINE, Mutant
from tests.simulation.mutations_delivery import DELIVERY
from tests.simulation.mutations_operator import OPERATOR
from tests.simulation.mutations_unusual import UNUSUAL

MUTANTS: Final = (*PIPELINE, *DELIVERY, *OPERATOR, *UNUSUAL)
ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 600
SOUND: Final = "0-29"
"""Seeds that have to hold on the tree as it is: else every mutant would die of the same fault."""


def kill(mutant: Mutant | None, seeds: str, source: Path = ROOT) -> str | None:
    """Return what the simulation, or the mutant's own test, says of a mutant of the tree `source`, None if it survives.

    No mutant is the tree as it is.

    Raises `ValueError` where the mutant has no place, or the copy does not run at all.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder)
        for name in ("avro", "connector", "tests", "tools"):
            shutil.copytree(source / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(source / "pyproject.toml", tree)
        if mutant is not None:
            path = tree / mutant.file
            text = path.read_text(encoding="utf-8")
            if text.count(mutant.old) != 1:
                raise ValueError(f"{mutant.name}: {mutant.file} holds its place {text.count(mutant.old)} times")
            path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        test = "" if mutant is None else mutant.test
        command = [sys.executable, "-m", "tests.simulation", "--first", seeds]
        if test:
            command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-x", "--timeout", str(SECONDS), test]
        try:
            ended = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"does not end within {SECONDS} s"
        if ended.returncode == 0:
            return None
        lines = [line for line in ended.stdout.splitlines() if line.startswith(("seed ", f"FAILED {test[:1]}"))]
        if not lines:
            raise ValueError(f"the copy does not run: {(ended.stderr or ended.stdout).strip().splitlines()[-1]}")
        return lines[0]


def main() -> int:
    """Try every mutant, print how each died, and return 1 where one lives or has no place."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("seeds", nargs="?", default="0-299")
    parser.add_argument("-w", "--workers", type=int, default=2)
    parser.add_argument("-k", "--only", default="", help="only mutants whose name holds this")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if arguments.only in mutant.name]
    if (said := kill(None, SOUND)) is not None:
        print(f"FAILS the tree as it is: {said}")
        return 1
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
