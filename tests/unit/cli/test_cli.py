"""Each command does what it says, reports errors in plain words, and exits with the documented code."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import structlog

from connector import __version__, testing
from connector.cli import main as cli
from connector.cli.member import server_url
from connector.config.loader import Loaded
from connector.errors import FatalError, StartupError
from connector.operations import member
from connector.runtime import app
from connector.runtime import checks as app_checks

ROOT = Path(cli.__file__).resolve().parents[2]
EXAMPLE = ROOT / "connector.example.yaml"
MINIMAL = """
kafka: {topics: [events], group_id: group, client: {bootstrap.servers: "localhost:9092", sasl.password: hidden-pw}}
destinations:
  one: {vendor: mytracker, id_app: 666, token: hidden-token, base_url: "https://h/x;token=hidden-too"}
"""


@pytest.fixture(autouse=True)
def _logging_is_put_back() -> Iterator[None]:
    """Undo the set-up of logging that commands make for their process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A small valid configuration."""
    path = tmp_path / "connector.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return str(path)


@pytest.fixture
def faulty(tmp_path: Path) -> str:
    """A configuration with two faults."""
    path = tmp_path / "faulty.yaml"
    path.write_text(MINIMAL.replace("id_app: 666", "id_ap: 666"), encoding="utf-8")
    return str(path)


class Ended:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """Run a command in this process as a terminal would."""
    monkeypatch.setattr(sys, "argv", ["connector", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    code = caught.value.code
    return Ended(0 if code is None else int(code), out, err)


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the version."""
    ended = command(monkeypatch, capsys, "--version")
    assert (ended.code, ended.out) == (0, f"connector {__version__}\n")


def test_help_names_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` lists the commands, and each has help of its own."""
    ended = command(monkeypatch, capsys, "--help")
    for name in ("run", "check", "simulate", "demo", "hold", "release", "skip", "explain", "preview"):
        assert name in ended.out
        assert command(monkeypatch, capsys, name, "--help").code == 0


@pytest.mark.parametrize(
    "arguments", [["hold"], ["check", "--onlin"], ["nope"], ["simulate", "jiguang", "--port", "x"], ["simulate"]]
)
def test_bad_usage_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Invalid arguments exit with 2 and a message on standard error."""
    ended = command(monkeypatch, capsys, *arguments)
    assert ended.code == 2
    assert ended.err
    assert ended.out == ""


def test_check_prints_the_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    """`check` prints destinations, limits and topics with defaults filled in, and no secret."""
    ended = command(monkeypatch, capsys, "check", "-c", file)
    assert ended.code == 0
    for part in ("is valid", "one", "mytracker", "20 records, 10kB", "group.dead-letters", "group.replay", "24MiB"):
        assert part in ended.out
    assert "sasl.password=***" in ended.out
    assert "hidden" not in ended.out + ended.err


def test_check_warns_and_strict_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    """A secret in the file is a warning on standard error, and with `--strict` a fault: exit 2."""
    ended = command(monkeypatch, capsys, "check", "-c", file)
    assert ended.code == 0
    assert "warning: kafka.client.sasl.password: the secret is in the file" in ended.err
    ended = command(monkeypatch, capsys, "check", "--strict", "-c", file)
    assert (ended.code, ended.out) == (2, "")
    assert "kafka.client.sasl.password: the secret is in the file" in ended.err
    assert "hidden" not in ended.err


def test_check_of_the_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The example's four destinations, its route and results topic are shown."""
    ended = command(monkeypatch, capsys, "check", "-c", str(EXAMPLE))
    assert ended.code == 0
    for part in ("jiguang-prod", "quick_audience", "jpush-results", "com.acme.UserEvent", "code 4101: retry"):
        assert part in ended.out


def test_check_json_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str) -> None:
    """`--json` prints one object with the settings, redacted."""
    ended = command(monkeypatch, capsys, "check", "--json", "-c", file)
    (line,) = ended.out.splitlines()
    shown = json.loads(line)
    assert shown["ok"] is True
    assert shown["topics"] == ["group.dead-letters", "group.replay"]
    assert shown["settings"]["destinations"]["one"]["token"] == "***"
    assert "hidden" not in line


@pytest.mark.parametrize("name", ["check", "run", "hold one", "release one"])
def test_every_fault_is_printed_and_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], faulty: str, name: str
) -> None:
    """A faulty file ends any command with 2, all faults on standard error, no secret, no traceback."""
    ended = command(monkeypatch, capsys, *name.split(), "-c", faulty)
    assert ended.code == 2
    assert "2 faults" in ended.err
    assert "destinations.one.id_ap: unknown key; did you mean id_app?" in ended.err
    assert "destinations.one.id_app: is required" in ended.err
    assert "hidden" not in ended.err
    assert "Traceback" not in ended.err


def test_check_json_prints_faults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], faulty: str
) -> None:
    """`check --json` prints the faults on standard output."""
    ended = command(monkeypatch, capsys, "check", "--json", "-c", faulty)
    assert ended.code == 2
    shown = json.loads(ended.out)
    assert shown["ok"] is False
    assert {fault["path"] for fault in shown["faults"]} == {"destinations.one.id_ap", "destinations.one.id_app"}


@pytest.mark.parametrize(("faults", "code"), [([], 0), (["kafka.topics: events does not exist"], 1)])
def test_check_online(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    faults: list[str],
    code: int,
) -> None:
    """Faults outside the configuration are printed, and the exit code is 1."""

    async def check_online(_: Loaded) -> list[str]:
        return faults

    monkeypatch.setattr(app_checks, "check_online", check_online)
    ended = command(monkeypatch, capsys, "check", "--online", "-c", file)
    assert ended.code == code
    assert all(fault in ended.err for fault in faults)
    ended = command(monkeypatch, capsys, "check", "--online", "--json", "-c", file)
    assert json.loads(ended.out)["faults"] == faults


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (StartupError("server.port: 127.0.0.1:8080 is in use"), 1, "server.port"),
        (FatalError("offset out of range; see connector offsets reset"), 1, "connector offsets reset"),
    ],
)
def test_run_ends_as_the_application_does(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    outcome: int | Exception,
    code: int,
    said: str,
) -> None:
    """The exit code is the application's; an error is one sentence without a class name, and 1."""
    seen: list[str | None] = []

    async def run(loaded: Loaded, destination: str | None) -> int:
        seen.append(destination)
        assert loaded.settings.kafka.group_id == "group"
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(app, "run", run)
    ended = command(monkeypatch, capsys, "run", "--destination", "one", "-c", file)
    assert (ended.code, seen) == (code, ["one"])
    assert ended.err == (f"{outcome}\n" if said else "")


def test_an_unknown_destination_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    """A misspelt destination is reported before anything starts."""
    for arguments in (["run", "--destination", "onne"], ["hold", "onne"]):
        ended = command(monkeypatch, capsys, *arguments, "-c", file)
        assert ended.code == 2
        assert "did you mean one?" in ended.err


def test_hold_without_a_running_member_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    """The error names the address."""
    ended = command(monkeypatch, capsys, "hold", "one", "-c", file, "--url", "http://127.0.0.1:1")
    assert ended.code == 1
    assert "no member answers at http://127.0.0.1:1" in ended.err


def test_skip_asks_the_member_and_prints_its_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    """Position, destination and address reach the member; a refusal is 1, an invalid position is 2."""
    seen: list[tuple[object, ...]] = []

    def skip(*asked: object) -> str:
        seen.append(asked)
        return "it is a dead letter"

    monkeypatch.setattr(member, "skip", skip)
    place = ["events", "3", "4711"]
    ended = command(monkeypatch, capsys, "skip", *place, "-c", file, "--destination", "one", "--url", "http://x:1")
    assert (ended.code, ended.out) == (0, "it is a dead letter\n")
    assert seen == [(("events", 3, 4711), "one", "http://x:1", None)]
    assert command(monkeypatch, capsys, "skip", *place, "-c", file).code == 0
    assert seen[1][1:3] == (None, "http://127.0.0.1:8080")
    for wrong in (["events", "-1", "1"], ["events", "0", "x"], [*place, "--destination", "onne"]):
        assert command(monkeypatch, capsys, "skip", *wrong, "-c", file).code == 2

    def refuse(*_: object) -> str:
        raise member.ActionRefused("this member does not own events[3]")

    monkeypatch.setattr(member, "skip", refuse)
    ended = command(monkeypatch, capsys, "skip", *place, "-c", file)
    assert (ended.code, ended.err) == (1, "this member does not own events[3]\n")


@pytest.mark.parametrize(
    ("option", "wrong", "said"),
    [
        ("--speed", "fast", "topic, backlog, or a number of records a second"),
        ("--speed", "-1", "topic, backlog, or a number of records a second"),
        ("--from", "yesterday", "group, earliest, newest, or a time with a zone"),
        ("--latency", "soon", "a duration such as 100ms"),
        ("--records", "0", "--records"),
    ],
)
def test_an_invalid_preview_option_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str, option: str, wrong: str, said: str
) -> None:
    """An invalid option is refused before Kafka is asked, with what is allowed."""
    ended = command(monkeypatch, capsys, "preview", "-c", file, option, wrong)
    assert ended.code == 2
    assert said in ended.err


def test_an_unknown_simulator_is_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt vendor gets a suggestion."""
    ended = command(monkeypatch, capsys, "simulate", "jiguan")
    assert ended.code == 2
    assert "did you mean jiguang?" in ended.err


def test_simulate_passes_its_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Events, rate, log file and the account's options reach the simulator, each as its own type."""
    seen: dict[str, object] = {}

    async def simulate(vendor: str, **options: object) -> None:
        seen.update(options, vendor=vendor)

    monkeypatch.setattr(testing, "simulate", simulate)
    arguments = ["--event", "buy", "--event", "see", "--rate", "5", "--log", "x.jsonl", "--port", "9000"]
    settings = ["--set", "entity=true", "--set", "access_key=123", "--set", "window_seconds=60"]
    assert command(monkeypatch, capsys, "simulate", "quick_audience", *arguments, *settings).code == 0
    assert seen == {
        "vendor": "quick_audience",
        "host": "127.0.0.1",
        "port": 9000,
        "requests_per_second": 5,
        "log": Path("x.jsonl"),
        "event_codes": ["buy", "see"],
        "entity": True,
        "access_key": "123",
        "window_seconds": 60,
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["jiguang", "--set", "appkey=1"], "the names for jiguang are project_id"),
        (["jiguang", "--set", "app_key"], "NAME=VALUE"),
        (["jpush_report", "--set", "vip=perhaps"], "vip=perhaps: must be true or false"),
        (["mytracker", "--event", "buy"], "mytracker accepts any event"),
    ],
)
def test_a_wrong_option_of_a_simulator_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """An unknown option is refused with those that the simulator has."""
    ended = command(monkeypatch, capsys, "simulate", *arguments)
    assert ended.code == 2
    assert said in ended.err


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://localhost:80"),
        ("::1", "http://[::1]:80"),
        ("connector.local", "http://connector.local:80"),
    ],
)
def test_where_a_member_is_reached(host: str, url: str) -> None:
    """A member that listens everywhere is reached by loopback, and IPv6 is bracketed."""
    assert server_url(host, 80) == url


def test_the_module_is_the_command() -> None:
    """`python -m connector` works in a process of its own, and help loads neither Kafka nor aiohttp."""
    code = (
        "import sys; sys.argv = ['connector', '--version']\n"
        "from connector.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'confluent_kafka', 'aiohttp', 'fastavro'} & sys.modules.keys()))"
    )
    for arguments, expected in ((["-m", "connector", "--version"], ""), (["-c", code], "[]\n")):
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout == f"connector {__version__}\n{expected}"


def test_help_is_not_ragged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The paragraphs of a command's help are wrapped as wide as the terminal, not where the source breaks them."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)
    lines = command(monkeypatch, capsys, "skip", "--help").out.splitlines()
    assert any(
        "that waits for a schema that will never be registered, or that must not be sent" in line for line in lines
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_does_not_get_the_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, status: int
) -> None:
    """A member that redirects to another host is an error, and the other host is never asked."""
    asked: list[str | None] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Redirect to the other path, and note who comes there."""
            asked.append(self.headers.get("Authorization") if self.path.startswith("/other") else None)
            self.send_response(status)
            self.send_header("Location", "/other")
            self.end_headers()

        def do_GET(self) -> None:
            """Do the same for a redirect that became a GET."""
            self.do_POST()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    path = tmp_path / "connector.yaml"
    path.write_text(MINIMAL + "server: {token: hidden-token-of-16}\n", encoding="utf-8")
    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        ended = command(monkeypatch, capsys, "hold", "one", "-c", str(path), "--url", url)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (ended.code, asked) == (1, [None])
    assert "redirects are not followed" in ended.err
