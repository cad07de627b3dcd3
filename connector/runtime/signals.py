"""Which signals stop a run.

SIGHUP does so only if there is a terminal that can be closed; otherwise it reads the configuration again.
"""

from __future__ import annotations

import os
import signal


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that stop this process."""
    stops = (signal.SIGTERM, signal.SIGINT)
    return (*stops, signal.SIGHUP) if _has_terminal() else stops


def _has_terminal() -> bool:
    """Whether this process has a terminal. The kernel reports its closing by SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
