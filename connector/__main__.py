"""The command `connector`, and `python -m connector`: handles signals before anything large is imported.

The imports take a second or two, and a SIGTERM in that time would end the process as a failure. Nothing has started by
then, so there is nothing to stop: `run` exits with 0.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from connector.runtime.signals import stop_signals

LATER: Final = (signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR1)
"""Once `run` is up, they read the configuration again or change the log level. Before that they would end the
process."""

GC_THRESHOLD: Final = 20_000
"""Net new objects before a collection of the youngest generation; Python's default is 700.

What imports make stays, and records form no cycles, but each collection visits all live objects: with the default that
takes a tenth of the imports' time.
"""


def handle_early_signals(arguments: Sequence[str]) -> None:
    """Let `run` end with 0 on a signal to stop before it has started; other commands keep Python's defaults."""
    if list(arguments[:1]) != ["run"]:
        return
    stops = stop_signals()
    for stop in stops:
        if signal.getsignal(stop) is signal.SIG_IGN:
            # SIGHUP is ignored under nohup: the process should outlive its terminal.
            continue
        # Exit at once: an exception in the middle of an import may be swallowed by the importing module.
        signal.signal(stop, lambda _number, _frame: os._exit(0))
    for later in LATER:
        if later not in stops:
            signal.signal(later, signal.SIG_IGN)


def open_closed_streams() -> None:
    """Open /dev/null for each standard stream that the caller closed (`2>&-`).

    Otherwise the next socket or file gets that descriptor, and messages would be written into it.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            # Opening returns the lowest free descriptor, which is the closed one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def main() -> None:
    """Run the command of this process's arguments and exit with its code."""
    handle_early_signals(sys.argv[1:])
    open_closed_streams()
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    from connector.cli.main import main as run_command  # noqa: PLC0415 -- the imports that take long

    run_command()


if __name__ == "__main__":
    main()
