"""The command `connector`, and `python -m connector`: listens for signals before anything heavy is imported.

Importing everything takes a second or two, in which SIGTERM would end the process as a failure. Nothing is started by
then, so nothing is left undone: `run` ends with 0.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

EARLY: Final = (signal.SIGTERM, signal.SIGINT)
LATER: Final = (signal.SIGUSR2, signal.SIGUSR1)
"""Change the log level once `run` is up; before that they would end the process."""


def heed_signals(arguments: Sequence[str]) -> None:
    """Have `run` end with 0 where it is asked to stop before it began; other commands end as Python has it."""
    if list(arguments[:1]) != ["run"]:
        return
    for one in EARLY:
        # At once: an import that is broken off by an exception may be swallowed by who imports.
        signal.signal(one, lambda _number, _frame: os._exit(0))
    for one in LATER:
        signal.signal(one, signal.SIG_IGN)


def main() -> None:
    """Run the command of this process's arguments and exit with its code."""
    heed_signals(sys.argv[1:])
    from connector.cli.main import main as run_command  # noqa: PLC0415 -- what is imported here is what takes long

    run_command()


if __name__ == "__main__":
    main()
