"""A stop ends in time although the event loop hangs or no one reads stderr, and a closed terminal drains."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Final

import pytest

pytestmark = pytest.mark.slow

HEAD: Final = """
import asyncio, os, signal, time
from connector.runtime import signals
from connector.runtime import app
from connector.telemetry import logs
from connector.config.loader import LogSettings

OVERDUE = 0.5

def fill_stderr():
    os.set_blocking(2, False)
    try:
        while True:
            os.write(2, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(2, True)

def hang_in_a_client():
    time.sleep(50)

async def main():
    stop, reload = asyncio.Event(), asyncio.Event()
    app._handle_signals(stop, reload, OVERDUE - app.STOP_MARGIN)
    logs.configure(LogSettings())
"""
END: Final = "\nasyncio.run(main())\n"
HANGS: Final = """
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    hang_in_a_client()
"""
NEVER_DRAINS: Final = """
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.Event().wait()
"""
ENDS: Final = """
    for _ in range(20_000):
        logs._log.warning("log.level", text="x" * 300)
    os.kill(os.getpid(), signal.SIGINT)
    await stop.wait()
"""
FILLED: Final = "    fill_stderr()\n"


def started(body: str, overdue: str = "0.5") -> subprocess.Popen[bytes]:
    """Start a program whose stderr is a pipe, and whose stop is overdue after so many seconds."""
    program = HEAD.replace("OVERDUE = 0.5", f"OVERDUE = {overdue}") + body + END
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)


@pytest.mark.timeout(60)
def test_a_loop_that_is_blocked_does_not_keep_the_process_alive() -> None:
    """The process ends with 1 although its loop is stuck, and stderr names the function.

    Kills: an end that only the event loop could bring.
    """
    with started(HANGS) as process:
        _, said = process.communicate(timeout=40)
    assert process.returncode == 1
    assert b"hang_in_a_client" in said


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("body", "overdue", "code"),
    [(FILLED + HANGS, "0.5", -signal.SIGALRM), (FILLED + NEVER_DRAINS, "0.5", 1), (FILLED + ENDS, "20", 0)],
    ids=["loop hangs", "drain hangs", "clean"],
)
def test_a_stderr_that_no_one_reads_does_not_keep_the_process_alive(body: str, overdue: str, code: int) -> None:
    """A full pipe blocks neither a clean stop nor one that is overdue, nor the end of a process whose loop hangs too.

    Kills: a last message, a flush or a stack dump that waits for the reader of stderr.
    """
    with started(body, overdue) as process:
        try:
            assert process.wait(15) == code
        finally:
            process.kill()


@pytest.mark.timeout(60)
def test_a_closed_terminal_stops_unless_nohup_ignores_it() -> None:
    """With a terminal SIGHUP drains as SIGTERM does; where it was ignored at the start it stays so.

    Without one it stops nothing, and asks for a reload.
    """
    # The tests may run under nohup, and a process inherits ignored signals.
    plain = HEAD.replace("async def main", "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n\nasync def main")
    with_terminal = plain.replace("async def main", "signals._has_terminal = lambda: True\n\nasync def main")
    ignored = with_terminal.replace("SIG_DFL", "SIG_IGN")
    body = """
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.2)
    os._exit(stop.is_set() + 2 * reload.is_set())
"""
    for head, code in ((with_terminal, 1), (ignored, 0), (plain, 2)):
        program = [sys.executable, "-c", head + body + END]
        done = subprocess.run(program, check=False, timeout=40, start_new_session=True)
        assert done.returncode == code
