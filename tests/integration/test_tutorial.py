"""docs/tutorial.md works as it is written: every file is written and every command is executed, in order."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import pytest
from confluent_kafka import Producer

from connector.codec.from_json import encode_json
from connector.codec.schemas import read_schema
from connector.testing import EmbeddedBroker
from tools.source import ROOT

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
PART = re.compile(
    r"^(?:<!-- (?P<mark>file|shows|until): (?P<what>[^\n]*) -->\n)?```(?P<kind>sh|json)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
DONE = "the-block-is-done"
SECONDS = 60.0
TOPICS = ("orders", "orders-connector.dead-letters", "orders-connector.replay")


class Step(NamedTuple):
    """A block of the page: a file to write, or commands with what they must show."""

    mark: str | None
    what: str | None
    kind: str
    text: str


STEPS = [Step(*each.groups()) for each in PART.finditer(TUTORIAL)]


class Shell:
    """One shell for all commands, as a reader has one."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._shell = subprocess.Popen(
            ["bash", "-eu"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._in: IO[str] = self._shell.stdin
        self._out: IO[str] = self._shell.stdout

    def run(self, text: str, *, may_fail: bool = False) -> str:
        """Run a block and return what it printed. Unless it may fail, a command that fails fails the test."""
        block = f"( {text.strip()} ) || true" if may_fail else text.strip()
        self._in.write(f"{block}\necho {DONE}\n")
        self._in.flush()
        shown = ""
        for line in self._out:
            if line.endswith(f"{DONE}\n"):
                return shown + line.removesuffix(f"{DONE}\n")
            shown += line
        raise AssertionError(f"{text}\n{shown}")

    def close(self) -> None:
        """End the shell and everything that it started."""
        self._in.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGTERM)
        self._shell.wait(20)
        self._out.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell with the activated environment, and a broker whose topic has an order of the user's producer."""
    file = next(step.text for step in STEPS if step.what == "order.avsc")
    event = next(step.text for step in STEPS if step.what == "order.json")
    schema = read_schema(file)
    with EmbeddedBroker() as broker:
        for topic in TOPICS:
            broker.create(topic)
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        value = b"\xc3\x01" + schema.fingerprint + encode_json(schema.tree, json.loads(event))
        producer.produce("orders", value, b"o-1")
        assert producer.flush(20) == 0
        activated = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": activated, "KAFKA_BOOTSTRAP": broker.bootstrap, "NO_COLOR": "1"}
        shell = Shell(tmp_path, environment)
        yield shell
        shell.close()


def in_use(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_every_command_of_the_tutorial_works(shell: Shell) -> None:
    """From the schema to the delivered event: each command succeeds and shows what the page says it shows."""
    if taken := [port for port in (8080, 9001, 9002) if in_use(port)]:
        pytest.skip(f"the page's ports are in use on this machine: {taken}")
    folder = shell.folder / "my-connector"
    assert len(STEPS) > 12
    for step in STEPS:
        if step.mark == "file":
            (folder / str(step.what)).write_text(step.text, encoding="utf-8")
            continue
        assert step.kind == "sh"
        shown = shell.run(step.text, may_fail=step.mark == "until")
        until = time.monotonic() + SECONDS
        while step.mark == "until" and str(step.what) not in shown and time.monotonic() < until:
            time.sleep(0.5)
            shown = shell.run(step.text, may_fail=True)
        assert step.what is None or step.what in shown, f"{step.text}\n{shown}"
    log = (folder / "connector.log").read_text(encoding="utf-8")
    assert "Traceback" not in log
