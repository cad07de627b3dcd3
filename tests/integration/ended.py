"""Runs the command `connector`, and ends with 86 where a thread of librdkafka outlives it.

Such a thread runs on while the process's libraries are cleaned up; one that connects by TLS just then crashes it.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

LEFT_BEHIND: Final = 86
_ROOT: Final = Path(__file__).resolve().parent.parent.parent
COMMAND: Final = [sys.executable, "-m", "tests.integration.ended"]
"""`python -m connector`, but an end that leaves a client of Kafka behind is a failure."""


def run_command(*arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run one command of the connector to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=seconds, check=False
    )


def _look() -> None:
    # A thread that was joined may stay in the kernel's list for a moment on a busy machine.
    for _ in range(10):
        if not (left := _threads()):
            return
        time.sleep(0.02)
    sys.stderr.write(f"threads of librdkafka outlive the command: {', '.join(left)}\n")
    sys.stderr.flush()
    os._exit(LEFT_BEHIND)


def _threads() -> list[str]:
    names = []
    for thread in Path("/proc/self/task").iterdir():
        # It may end between the two looks.
        with suppress(OSError):
            names.append((thread / "comm").read_text().strip())
    return sorted(name for name in names if name.startswith("rdk:"))


if __name__ == "__main__":
    # First in, so last out: the command's own end comes before.
    atexit.register(_look)
    from connector.__main__ import main

    main()
