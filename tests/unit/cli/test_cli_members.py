"""Commands that are copied from the page reach the members that they concern, where there are several."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.cli.test_cli import command

TOKEN = "hidden-token-of-16"


class FakeMember:
    """A member's port: it owns some partitions of `events` and has some destinations; `asked` are its actions."""

    def __init__(self, partitions: list[int], destinations: list[str]) -> None:
        self.asked: list[str] = []
        self.partitions, self.destinations = partitions, destinations
        self.holds: list[dict[str, Any]] = [{"cause": "outage"}]
        fake = self

        class Port(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Answer /status."""
                owned = [{"topic": "events", "partition": number} for number in fake.partitions]
                self.answer(200, {"partitions": owned})

            def do_POST(self) -> None:
                """Take an action."""
                fake.asked.append(self.path)
                _, kind, name, action = f"{self.path}//".split("/")[:4]
                if kind == "reload":
                    self.answer(422, {"error": "kafka: is required"})
                elif kind == "records":
                    owns = int(action) in fake.partitions
                    self.answer(*((200, {"message": "skipped"}) if owns else (409, {"error": "not the owner"})))
                elif name in fake.destinations:
                    state = "held" if fake.holds else "flowing"
                    self.answer(200, {"state": state, "released": 0, "holds": fake.holds})
                else:
                    self.answer(404, {"error": f"this member has no destination {name}"})

            def answer(self, status: int, body: dict[str, Any]) -> None:
                """Answer with JSON."""
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Port)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def members() -> Iterator[list[FakeMember]]:
    """Two members, of which the second one owns partition 3 and has the destination `two` too."""
    found = [FakeMember([0, 1], ["one"]), FakeMember([2, 3], ["one", "two"])]
    yield found
    for member in found:
        member.stop()


@pytest.fixture
def file(tmp_path: Path, members: list[FakeMember]) -> str:
    """A configuration whose console knows both members."""
    account = {"vendor": "mytracker", "id_app": 666, "token": "hidden-token"}
    settings = {
        "kafka": {"topics": ["events"], "group_id": "group", "client": {"bootstrap.servers": "localhost:9092"}},
        "destinations": {"one": account, "two": account},
        "server": {"token": TOKEN},
        "console": {"members": [member.url for member in members]},
    }
    path = tmp_path / "connector.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return str(path)


def test_a_skip_goes_to_the_owner_of_the_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], members: list[FakeMember], file: str
) -> None:
    """Only the member that owns the partition is asked; a partition without an owner is refused in words."""
    ended = command(monkeypatch, capsys, "skip", "events", "3", "4711", "-c", file, "--destination", "one")
    assert (ended.code, ended.out, ended.err) == (0, "skipped\n", "")
    assert [member.asked for member in members] == [[], ["/records/events/3/4711/skip?destination=one"]]
    ended = command(monkeypatch, capsys, "skip", "events", "9", "1", "-c", file)
    assert (ended.code, ended.err) == (1, "not the owner\n")


@pytest.mark.parametrize("action", ["hold", "release", "probe"])
def test_an_action_on_a_destination_reaches_every_member(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    members: list[FakeMember],
    file: str,
    action: str,
) -> None:
    """Each member's answer is shown; one that does not have the destination is no failure, one that is gone is."""
    ended = command(monkeypatch, capsys, action, "one", "-c", file)
    assert (ended.code, ended.err) == (0, "")
    assert [line.split(": ")[0] for line in ended.out.splitlines()] == [member.url for member in members]
    assert [member.asked for member in members] == [[f"/destinations/one/{action}"]] * 2
    ended = command(monkeypatch, capsys, action, "two", "-c", file)
    assert (ended.code, ended.err, len(ended.out.splitlines())) == (0, "", 1)
    gone = ["--url", members[0].url, "--url", "http://127.0.0.1:1"]
    ended = command(monkeypatch, capsys, action, "one", "-c", file, *gone)
    assert (ended.code, len(ended.out.splitlines())) == (1, 1)
    assert "no member answers at http://127.0.0.1:1" in ended.err


def test_what_no_probe_can_end_is_not_called_probed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], members: list[FakeMember], file: str
) -> None:
    """A hold by an operator is not probed, nor is a destination that is not held."""
    members[0].holds, members[1].holds = [{"cause": "operator"}], []
    ended = command(monkeypatch, capsys, "probe", "one", "-c", file)
    assert ended.out.splitlines() == [
        f"{members[0].url}: one is not probed: an operator holds it; run connector release",
        f"{members[1].url}: one is not probed: it is not held",
    ]


def test_a_reload_reaches_every_member_also_with_a_faulty_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], members: list[FakeMember], file: str
) -> None:
    """Each member says what is wrong with the file, so its other sections may be faulty."""
    path = Path(file)
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({key: settings[key] for key in ("server", "console")}), encoding="utf-8")
    ended = command(monkeypatch, capsys, "reload", "-c", file)
    assert (ended.code, [member.asked for member in members]) == (1, [["/reload"]] * 2)
    assert ended.out.count("nothing has changed. kafka: is required") == 2


def test_without_a_token_only_members_on_this_machine_are_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], members: list[FakeMember], file: str
) -> None:
    """Members that would refuse the action are left out, and the command says so."""
    path = Path(file)
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["server"] = {}
    settings["console"]["members"] = [members[0].url, "http://connector.example.com:8080"]
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    ended = command(monkeypatch, capsys, "hold", "one", "-c", file)
    assert (ended.code, members[0].asked) == (0, ["/destinations/one/hold"])
    assert "server.token" in ended.err
