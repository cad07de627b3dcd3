"""The demo as a newcomer starts it: a process of its own, whose exit status and words can be believed."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


@pytest.mark.promise("P1")
@pytest.mark.promise("P5")
@pytest.mark.promise("P9")
def test_the_demo_adds_up() -> None:
    """`connector demo` exits with 0, shows every cause of a dead letter, and its sum is right.

    Kills: an event dropped after a lost answer, a whole refused batch dead-lettered, a letter of re-encoded bytes.
    """
    demo = subprocess.run(
        [sys.executable, "-m", "connector", "demo"], capture_output=True, text=True, timeout=120, check=False
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    sums = re.search(r"([\d,]+) records produced = ([\d,]+) accepted \+ (\d+) dead-lettered \+ (\d+)", demo.stdout)
    assert sums is not None, demo.stdout
    produced, *parts = (int(number.replace(",", "")) for number in sums.groups())
    assert produced == sum(parts)
    for shown in ("decode.frame", "route.unknown_target", "jiguang.itime.past", "4101", "E-1042", "http_400", "3005"):
        assert shown in demo.stdout
    assert "Traceback" not in demo.stderr
