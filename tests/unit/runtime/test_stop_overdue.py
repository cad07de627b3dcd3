"""A stop that hangs where nothing of the event loop runs any more still ends, and says where it hangs."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

PROGRAM: Final = """
import asyncio, os, signal, time
from connector.runtime import app

async def main():
    stop = asyncio.Event()
    app._stop_on_signals(stop, 0.5 - app.STOP_MARGIN)
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    hang_in_a_client()

def hang_in_a_client():
    time.sleep(50)

asyncio.run(main())
"""


@pytest.mark.timeout(60)
def test_a_loop_that_is_blocked_does_not_keep_the_process_alive() -> None:
    """The process ends with 1 although its loop is stuck, and stderr names the function.

    Kills: an end that only the event loop could bring.
    """
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=40, check=False)
    assert ended.returncode == 1
    assert "hang_in_a_client" in ended.stderr
