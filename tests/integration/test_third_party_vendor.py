"""The vendor that docs/vendors.md shows, installed as a distribution of its own: checked, run, and given events."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.accounts import Writer
from tests.integration.events import Message
from tests.integration.job import Job, Member
from tools.servers import ROOT

COUNT: Final = 120
SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Event",
    "namespace": "com.acme",
    "fields": [{"name": "name", "type": "string"}, {"name": "amount", "type": "long"}],
}


class Acme:
    """Acme's API: takes lines of JSON behind its token, and refuses a batch by its first negative amount."""

    def __init__(self) -> None:
        self.accepted: list[dict[str, Any]] = []
        self.largest = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="acme")

    def start(self) -> None:
        """Listen."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def answer(self, path: str, token: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Return status and body of the answer."""
        if (path, token) != ("/events", "Bearer t0ken"):
            return 401, {}
        events = [json.loads(line) for line in body.split(b"\n")]
        self.largest = max(self.largest, len(events))
        for line, event in enumerate(events):
            if event["amount"] < 0:
                return 422, {"ok": False, "line": line, "why": "a negative amount"}
        self.accepted += events
        return 200, {"ok": True}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            """Passes each POST on."""

            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, said = answer(self.path, self.headers.get("Authorization", ""), body)
                text = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        return Handler


@pytest.fixture
def acme() -> Iterator[Acme]:
    """Acme's API on a free port."""
    api = Acme()
    api.start()
    yield api
    api.stop()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of new processes, with the documented module and entry point as pip would install them."""
    text = (ROOT / "docs" / "vendors.md").read_text(encoding="utf-8")
    code, _ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (entry,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    section, line = entry.replace('"', "").strip().splitlines()
    folder = tmp_path / "site"
    about = folder / "acme_vendor-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "acme_vendor.py").write_text(code, encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-vendor\nVersion: 1.0\n", encoding="utf-8")
    group = section.removeprefix("[project.entry-points.").strip("]")
    (about / "entry_points.txt").write_text(f"[{group}]\n{line}\n", encoding="utf-8")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )
    return folder


def test_a_vendor_of_another_distribution_is_run_like_the_four(
    job: Job, acme: Acme, installed: Path, tmp_path: Path
) -> None:
    """Its settings are checked, its events routed without a route, batched, isolated by its suspects, dead-lettered."""
    (tmp_path / "event.avsc").write_text(json.dumps(SCHEMA), encoding="utf-8")
    write = Writer(SCHEMA)
    bad = {7: "422", 70: "422", 90: "acme.amount.range", 91: "acme.name.required"}
    amounts = {7: -1, 70: -5, 90: 1001}
    job.produce(
        Message(write({"name": "" if n == 91 else f"n{n}", "amount": amounts.get(n, n)}), f"{n}".encode(), (), 0)
        for n in range(COUNT)
    )
    destination = {"vendor": "acme", "base_url": acme.url, "token": "t0ken"}
    settings = job.settings(destination, schemas={"files": ["*.avsc"]})
    settings["destinations"] = {"shop": destination}
    path = job.write(settings)
    shown = subprocess.run(
        [sys.executable, "-m", "connector", "check", "-c", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "acme" in shown
    assert "50 records" in shown
    member: Member = job.start(settings)
    job.until_done(member)
    assert member.stop() == 0
    assert sorted(each["amount"] for each in acme.accepted) == [n for n in range(COUNT) if n not in bad]
    assert len({each["id"] for each in acme.accepted}) == COUNT - len(bad)
    assert acme.largest == 50
    dead_letters = {int(dead_letter.key or b""): dead_letter.own for dead_letter in job.dead_letters()}
    assert {number: own["dlq-code"] for number, own in dead_letters.items()} == bad
    assert {own["dlq-vendor"] for own in dead_letters.values()} == {"acme"}
