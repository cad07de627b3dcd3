"""The systemd unit of the examples: it starts a member as documented, and gives it the time that a stop needs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path

import pytest

from connector.config.models import LimitSettings

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "examples/systemd/connector@.service"
STOP_SECONDS = 5
"""What a stop takes beyond the drain time, at most."""


def service() -> Mapping[str, str]:
    """Return the unit's section for the service."""
    parser = ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    parser.read(UNIT, encoding="utf-8")
    return parser["Service"]


def test_a_stop_has_the_time_to_drain() -> None:
    """systemd kills no member that still drains. Kills: a default of the drain time above the unit's."""
    assert int(service()["TimeoutStopSec"]) > LimitSettings().drain_timeout + STOP_SECONDS


def test_a_wrong_configuration_is_not_started_again() -> None:
    """Exit code 2 ends the restarts, and a reload is no signal: SIGHUP stops. Kills: a start every five seconds."""
    found = service()
    assert (found["Restart"], found["RestartPreventExitStatus"]) == ("always", "2")
    assert "ExecReload" not in found
    assert found["ExecStart"].split()[1:] == ["run", "-c", "/etc/connector/connector.yaml"]


def test_the_document_shows_how_members_share_a_host() -> None:
    """The section names the unit and the range of ports. Kills: a unit that no document names."""
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    section = text.partition("### One machine")[2].partition("\n## ")[0]
    assert "examples/systemd/connector@.service" in section
    assert "port: 8080-8089" in section


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_knows_every_line(tmp_path: Path) -> None:
    """systemd-analyze has nothing to say about the unit. Kills: a misspelt key, which systemd ignores."""
    text = UNIT.read_text(encoding="utf-8").replace("/opt/connector/bin/connector", "/bin/true")
    unit = tmp_path / "connector@1.service"
    unit.write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in done.stderr.splitlines() if unit.name in line or "connector@" in line] == []
