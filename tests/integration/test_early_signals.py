"""A member that is asked to stop while it still imports, or to say more, as a real process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from connector.__main__ import handle_early_signals
from tests.integration.job import wait_for
from tools.servers import ROOT

SETTINGS: Final = {
    "kafka": {"topics": ["events"], "group_id": "group", "client": {"bootstrap.servers": "127.0.0.1:1"}},
    "destinations": {"jg": {"vendor": "jiguang", "project_id": "1", "project_secret": "a-secret", "app_key": "key"}},
    "server": {"port": 0},
}


@pytest.fixture
def member(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`connector run` as a process that has just been started."""
    path = tmp_path / "connector.yaml"
    path.write_text(json.dumps(SETTINGS), encoding="utf-8")
    command = [sys.executable, "-m", "connector", "run", "-c", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True) as process:
        yield process
        process.kill()


def _ignored(pid: int, number: signal.Signals) -> bool:
    """Whether a process ignores a signal, as Linux tells."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    ignored = int(next(line for line in lines if line.startswith("SigIgn")).split()[1], 16)
    return bool(ignored >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_it_starts_is_a_clean_end(member: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """SIGTERM or SIGINT, as soon as they are handled, ends `run` with 0 and without a traceback."""
    wait_for(lambda: _ignored(member.pid, signal.SIGUSR1), "the last of the early handlers")
    member.send_signal(number)
    _, said = member.communicate(timeout=20)
    assert (member.returncode, said) == (0, b"")


def test_signals_change_the_level_once_it_is_up(member: subprocess.Popen[bytes]) -> None:
    """SIGHUP and SIGUSR1 while it starts are passed over; later it logs one level more, SIGUSR2 again as configured."""
    wait_for(lambda: _ignored(member.pid, signal.SIGUSR1), "SIGUSR1 to be ignored")
    member.send_signal(signal.SIGHUP)
    member.send_signal(signal.SIGUSR1)
    said = member.stderr
    assert said is not None
    wait_for(lambda: b"connector.started" in said.readline(), "the start")
    for number, now in ((signal.SIGUSR1, "debug"), (signal.SIGUSR2, "info")):
        member.send_signal(number)
        line = wait_for(lambda: found if b"log.level" in (found := said.readline()) else None, "a word about it")
        assert json.loads(line)["now"] == now
    member.terminate()
    assert member.wait(20) == 0


def test_signals_are_handled_before_anything_large_is_imported() -> None:
    """What installs the handlers imports neither the command line nor the settings, whose import takes a second."""
    code = (
        "import connector.__main__, sys; print(sorted({'typer', 'pydantic', 'aiohttp', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", ["check", "offsets"])
def test_other_commands_are_ended_as_usual(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `run` says 0 to an early stop: of any other command 0 says that it is done."""
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("a handler was installed"))
    handle_early_signals([command, "-c", "run"])
    handle_early_signals([])


@pytest.mark.parametrize("closed", ["1", "2", "0", "0 1 2"])
def test_a_closed_standard_stream_ends_nothing(tmp_path: Path, closed: str) -> None:
    """`>&-` and `2>&-` cost the text that would be written there; `run` starts, stops and ends with 0.

    Kills: a traceback that no one sees; SIGABRT at the end; a socket that gets the descriptor of stderr.
    """
    path = tmp_path / "connector.yaml"
    path.write_text(json.dumps(SETTINGS), encoding="utf-8")
    redirections = " ".join(f"{descriptor}>&-" for descriptor in closed.split())
    run = f"exec {sys.executable} -m connector run -c {path} {redirections}"
    with subprocess.Popen(["/bin/sh", "-c", run], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: _ignored(process.pid, signal.SIGUSR1), "the early handlers")
        wait_for(lambda: {_points_to(process.pid, number) for number in closed.split()} == {"/dev/null"}, "the streams")
        wait_for(lambda: not _ignored(process.pid, signal.SIGUSR1), "the start")
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def _points_to(pid: int, descriptor: str) -> str | None:
    """Return what a descriptor of a process is open to, None where it is closed."""
    try:
        return str(Path(f"/proc/{pid}/fd/{descriptor}").readlink())
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("arguments", [["check"], ["check", "--json"]])
def test_a_full_disk_is_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    """Output that cannot be written ends a command with 1 and a reason. Kills: a traceback of fifty lines."""
    path = tmp_path / "connector.yaml"
    path.write_text(json.dumps(SETTINGS), encoding="utf-8")
    command = [sys.executable, "-m", "connector", *arguments, "-c", str(path)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, check=False, timeout=30)
    # A warning about the configuration may come first.
    *_, last = done.stderr.splitlines()
    assert (done.returncode, last) == (1, b"Cannot read or write: No space left on device")
    assert b"Traceback" not in done.stderr


def test_a_simulator_whose_log_cannot_be_written_ends_in_one_sentence() -> None:
    """A full disk under `simulate --log` ends it with 1 and names the file. Kills: a traceback for each request."""
    command = [sys.executable, "-m", "connector", "simulate", "jiguang", "--log", "/dev/full", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = process.stdout.readline().rsplit(maxsplit=1)[-1].decode()
        with pytest.raises(urllib.error.HTTPError, match="4"), urllib.request.urlopen(f"{url}/v1/x", b"{}"):
            pass
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said.decode().strip().endswith("cannot write /dev/full: No space left on device")
    assert b"Traceback" not in said
