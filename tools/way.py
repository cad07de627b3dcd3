"""Lists the files and functions that a plain record crosses from consume to commit: the length of its way.

The real pipeline runs in memory (`benchmarks.job`), so Kafka's client and sockets are left out; so are functions that
are compiled. The way begins when the poll that returns the record ends, and is over when its offset is committed. A
record before it has passed the same way, so what is done once for a schema or a destination is not in the list.

    python -m tools.way            # the counts
    python -m tools.way --list     # and every function, by file
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import structlog

from benchmarks import job
from connector.codec.schemas import load_contracts
from connector.records import Commit, Record, TopicPartition
from connector.testing.loop import LoopClock, run_virtual

PACKAGE: Final = Path(__file__).resolve().parents[1] / "connector"
_LEFT_OUT: Final = ("testing/", "clock.py")
"""What only stands in for the outside: the simulated clock and vendors."""


class _Watched(job.MemorySource):
    """Polls one record at a time, each once the one before is committed, and notes what the last one crosses."""

    def __init__(self, made: Sequence[Record]) -> None:
        super().__init__(made, chunk=1)
        self._polled = 0
        self.crossed: dict[str, set[str]] = {}

    async def poll(self) -> list[Record]:
        """Return the next record, none while one is on its way."""
        if self._polled > sum(self.committed.values()):
            return await self.nothing()
        found = await super().poll()
        self._polled += len(found)
        if found and self._polled == self.records:
            sys.setprofile(self._note)
        return found

    async def commit(self, commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        """Store the commits, and note no more."""
        sys.setprofile(None)
        return await super().commit(commits)

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            name = path.relative_to(PACKAGE).as_posix()
            if not name.startswith(_LEFT_OUT) and "<" not in frame.f_code.co_name:
                self.crossed.setdefault(name, set()).add(frame.f_code.co_qualname)


def way() -> Mapping[str, frozenset[str]]:
    """Return the functions that a plain record crosses, by file."""

    async def play() -> dict[str, set[str]]:
        clock, contracts = LoopClock(), load_contracts()
        source = _Watched(job.records(2, clock, contracts))
        await job.play(source, clock, contracts)
        return source.crossed

    return {name: frozenset(functions) for name, functions in sorted(run_virtual(play()).items())}


def main() -> None:
    """Print the counts, and the functions where they are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="every function, by file")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    crossed = way()
    if arguments.list:
        for name, functions in crossed.items():
            print(name, *sorted(functions), sep="\n    ")
    print(f"{len(crossed)} files, {sum(map(len, crossed.values()))} functions")


if __name__ == "__main__":
    main()
