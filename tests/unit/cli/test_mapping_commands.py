"""`connector map` and `connector test` show, for an event as JSON, what each destination would be sent."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from connector.cli import main as cli
from connector.cli.common import read_event_file

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "acme",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "user", "type": ["null", "long"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
CONFIG = """
kafka: {topics: [orders], group_id: g, client: {bootstrap.servers: "localhost:9092"}}
schemas: {files: [order.avsc]}
destinations:
  one: {vendor: mytracker, id_app: "${NOT_SET_APP}", token: "${file:/nowhere/token}"}
  two: {vendor: jiguang, project_id: "1", project_secret: "${NOT_SET}", app_key: k}
routes:
  - schema: acme.Order
    topics: [orders]
    where: {$header.source: [app, web]}
    to: [one, two]
    fields:
      mytracker: {method: {const: customEvent}, customEventName: id, customUserId: user, eventTimestamp: at}
      jiguang: {cuid: user, eventName: {const: order}, itime: at}
"""
TESTS = """
topic: orders
time: 2026-11-20T10:00:05Z
tests:
  - name: an order goes to both
    headers: {source: app}
    event: {id: a, user: 7, at: "2026-11-20T10:00:00Z"}
    expect:
      one: {event: {customEventName: a, customUserId: "7", eventTimestamp: 1795168800}}
      two: {part: {cuid: 7, eventName: order}}
  - name: no user
    headers: {source: app}
    event: {id: a, at: 1795168800000}
    expect:
      one: {refused: mytracker.customUserId.identifier}
      two: {refused: jiguang.cuid.required}
  - name: another source
    schema: acme.Order
    event: {id: a, at: 1795168800000}
    refused: route.unmet
"""


class Ended:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


class Shell:
    """Runs commands in a folder, in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(folder)

    def write(self, name: str, content: str) -> None:
        """Write a file in the folder."""
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(content, encoding="utf-8")

    def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        """Run `connector` with the arguments."""
        self._monkeypatch.setattr(sys, "argv", ["connector", *arguments])
        self._monkeypatch.setattr(sys, "stdin", StringIO(stdin))
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return Ended(code, *self._capsys.readouterr())


@pytest.fixture
def connector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell in a folder with a configuration, its schema and its tests."""
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.write("connector.yaml", CONFIG)
    shell.write("order.avsc", json.dumps(ORDER))
    shell.write("orders.test.yaml", TESTS)
    return shell


def test_tests_next_to_the_configuration_pass_without_secrets(connector: Shell) -> None:
    """`connector test` finds *.test.yaml, also in tests/, and needs no secret, Kafka or registry."""
    connector.write("tests/more.test.yaml", TESTS.replace("topic: orders", "config: ../connector.yaml"))
    connector.write("tests/foreign.test.yaml", "config: other.yaml\ntests: []")
    ended = connector("test")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("pass  ") == 6
    assert "6 tests: 6 passed, 0 failed." in ended.out


@pytest.mark.parametrize(
    ("before", "after", "places"),
    [
        ('customUserId: "7"', 'customUserId: "8"', ['customUserId: expected "8", sent "7"']),
        ('customUserId: "7", ', "", ['customUserId: not expected, sent "7"']),
        ("eventName: order", "eventName: order, tags: []", ["tags: expected [], not sent"]),
        ("two: {part: {cuid: 7, eventName: order}}", "two: nothing", ["two: expected nothing to be sent"]),
        ("      two: {part: {cuid: 7, eventName: order}}\n", "", ["two: an event is sent, and the test does not"]),
        ("two: {part: {cuid: 7, eventName: order}}", "two: {refused: x}", ["two: expected a refusal with x; an event"]),
        ("jiguang.cuid.required", "jiguang.cuid.range", ["it is refused with jiguang.cuid.required"]),
        ("refused: route.unmet", "refused: route.other", ["expected the record to be refused with route.other"]),
        ("refused: route.unmet", "expect: nothing", ["the record is refused with route.unmet"]),
        ("{id: a, at: 1795168800000}\n    refused", "{id: 1, at: 1}\n    refused", ["not an event of acme.Order: id:"]),
    ],
)
def test_a_wrong_expectation_fails_with_its_place(connector: Shell, before: str, after: str, places: list[str]) -> None:
    """A test that expects something else fails: exit 1, the place, what was expected and what is sent."""
    assert before in TESTS
    connector.write("orders.test.yaml", TESTS.replace(before, after))
    ended = connector("test")
    assert ended.code == 1
    assert "3 tests: 2 passed, 1 failed." in ended.out
    assert all(place in ended.out for place in places), ended.out


def test_other_destinations_may_be_ignored(connector: Shell) -> None:
    """With `others: ignore` a destination that is not named may be sent anything."""
    tests = TESTS.replace("      two: {part: {cuid: 7, eventName: order}}\n", "    others: ignore\n")
    connector.write("orders.test.yaml", tests)
    assert connector("test").code == 0


def test_a_schema_file_may_hold_several_records(connector: Shell) -> None:
    """A file that is a union works as `check` says it does: in tests, `map` and `preview`."""
    other = {"type": "record", "name": "Other", "namespace": "acme", "fields": [{"name": "x", "type": "int"}]}
    connector.write("order.avsc", json.dumps([other, ORDER]))
    assert connector("test").out.endswith("3 tests: 3 passed, 0 failed.\n")
    envelope = {"event": {"id": "a", "user": 7, "at": 1795168800000}, "headers": {"source": "app"}}
    connector.write("event.json", json.dumps(envelope))
    ended = connector("preview", "--file", "event.json", "--json", "--fail-on-refused")
    assert (ended.code, ended.err) == (0, "")


def test_junit_report_has_each_test(connector: Shell) -> None:
    """`--junit` writes a suite for each file, a case for each test, and the differences of those that failed."""
    connector.write("orders.test.yaml", TESTS.replace("cuid: 7", "cuid: 8"))
    assert connector("test", "--junit", "report.xml").code == 1
    root = ET.parse(connector.folder / "report.xml").getroot()  # noqa: S314 -- written a moment ago
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "3", "1")
    cases = root.findall("testsuite/testcase")
    assert [case.get("name") for case in cases] == ["an order goes to both", "no user", "another source"]
    (failure,) = root.findall("testsuite/testcase/failure")
    assert "cuid: expected 8, sent 7" in (failure.text or "")


def test_json_lines_have_each_test(connector: Shell) -> None:
    """`--json` prints one line for each test."""
    lines = [json.loads(line) for line in connector("test", "--json", "orders.test.yaml").out.splitlines()]
    assert [(line["name"], line["passed"]) for line in lines][:1] == [("an order goes to both", True)]


@pytest.mark.parametrize(
    ("tests", "fault"),
    [
        ("tests: []", "tests: must not be empty"),
        ("tests: [{name: a, event: {}, expects: nothing}]", "tests[0].expects: unknown key; did you mean expect?"),
        ("tests:\n- {name: a, event: {id: x, at: 0}}", "give either expect, or refused"),
        ("tests:\n- {name: a, expect: nothing}", "give either event or event_file"),
        ("tests:\n- {name: a, event_file: no.json, expect: nothing}", "event_file: no.json: cannot be read"),
        ("tests:\n- {name: a, event: {}, expect: {on: nothing}}", "unknown destination; did you mean one? (line 2)"),
        ("tests:\n- {name: a, event: {}, expect: {refused: x}}", "write refused: CODE instead of expect (line 2)"),
        (
            "tests:\n- {name: a, event: {}, expect: {one: {}}}",
            "write nothing, {event: …}, {part: …} or {refused: CODE}",
        ),
        ("schemas: [no.avsc]\ntests:\n- {name: a, event: {}, expect: nothing}", "no.avsc matches no file"),
    ],
)
def test_a_faulty_test_file_is_bad_usage(connector: Shell, tests: str, fault: str) -> None:
    """A file that is not one of tests exits with 2 and says what is wrong, and where."""
    connector.write("orders.test.yaml", tests)
    ended = connector("test")
    assert ended.code == 2
    assert fault in ended.err


def test_no_tests_are_bad_usage(connector: Shell) -> None:
    """Where there are no tests, exit 2 says where they are looked for."""
    (connector.folder / "orders.test.yaml").unlink()
    ended = connector("test")
    assert ended.code == 2
    assert "no file ends with .test.yaml" in ended.err


EVENT = '{"id": "a", "user": {"long": 7}, "at": 1795168800000}'


def test_map_shows_what_is_sent(connector: Shell) -> None:
    """`map` prints each destination's event, from a file or standard input, in plain or Avro's JSON."""
    ended = connector("map", "--event", "-", "--header", "source=app", "--time", "2026-11-20T10:00:00Z", stdin=EVENT)
    assert (ended.code, ended.err) == (0, "")
    assert "one (acme.Order by routes[0]): 70 bytes" in ended.out
    assert '"customUserId": "7"' in ended.out
    connector.write("event.json", EVENT)
    ended = connector("map", "--event", "event.json", "--header", "source=app", "--destination", "two", "--json")
    (line,) = [json.loads(line) for line in ended.out.splitlines()]
    assert [each["destination"] for each in line["destinations"]] == ["two"]
    assert json.loads(line["destinations"][0]["sent"])["cuid"] == 7


def test_map_shows_refusals(connector: Shell) -> None:
    """A refusal is shown with its code; with --fail-on-refused it is exit 1."""
    event = '{"event": {"id": "a", "at": 1795168800000}, "headers": {"source": "app"}}'
    ended = connector("map", "--event", "-", stdin=event)
    assert ended.code == 0
    assert "one (acme.Order by routes[0]): refused with mytracker.customUserId.identifier" in ended.out
    assert connector("map", "--event", "-", "--fail-on-refused", stdin=event).code == 1
    ended = connector("map", "--event", "-", "--fail-on-refused", stdin=EVENT)
    assert ended.code == 1
    assert "acme.Order: refused with route.unmet" in ended.out


def test_map_takes_several_events(connector: Shell) -> None:
    """A file may hold one event on each line."""
    lines = [
        json.loads(line)
        for line in connector("map", "--event", "-", "--json", stdin=f"{EVENT}\n{EVENT}\n").out.splitlines()
    ]
    assert len(lines) == 2


def test_preview_reads_a_file(connector: Shell) -> None:
    """`preview --file` needs no Kafka; --show sets how many events are shown, --fail-on-refused the exit code."""
    event = {"event": json.loads(EVENT), "headers": {"source": "app"}}
    connector.write("events.json", json.dumps([event, event, event]))
    ended = connector("preview", "--file", "events.json", "--show", "2", "--fail-on-refused", "--json")
    assert (ended.code, ended.err) == (0, "")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert rows[0]["read"] == {"orders": 3}
    assert [(row["records"], len(row["examples"])) for row in rows[1:]] == [(3, 2), (3, 2)]
    connector.write("events.json", json.dumps([event, {**event, "headers": {}}]))
    ended = connector("preview", "--file", "events.json", "--fail-on-refused", "--show", "0")
    assert ended.code == 1
    assert "route.unmet" in ended.out
    assert "customUserId" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["--event", "no.json"], "", "--event no.json cannot be read: No such file or directory"),
        (["--event", "-"], "{", "standard input is not JSON"),
        (["--event", "-"], "[" * 100_000, "standard input is nested too deep"),
        (["--event", "-"], f'{EVENT}\n{{"id": {"9" * 5000}}}', "line 2 has a number with thousands of digits"),
        (["--event", "-"], r'{"id": "a\ud800"}', r"has half of a character (\ud800"),
        (["--event", "-"], "\udcff{}", "standard input is not JSON"),
        (["--event", "-"], "[1]", "standard input: an event must be a JSON object"),
        (["--event", "-"], f"{EVENT}\n{{", "standard input, line 2 is not JSON"),
        (["--event", "-"], '{"id": 1}', "not an event of acme.Order: id: must be a string, not a whole number"),
        (["--event", "-", "--schema", "acme.Ordr"], EVENT, "unknown schema acme.Ordr: did you mean acme.Order?"),
        (["--event", "-", "--header", "x"], EVENT, "--header must be NAME=VALUE, not 'x'"),
        (["--event", "-", "--time", "noon"], EVENT, "--time: time must be epoch milliseconds"),
        (["--event", "-", "--destination", "on"], EVENT, "unknown destination 'on'; did you mean one?"),
    ],
)
def test_map_refuses_bad_usage_in_a_sentence(connector: Shell, arguments: list[str], stdin: str, message: str) -> None:
    """What cannot be used exits with 2 and one sentence."""
    ended = connector("map", *arguments, stdin=stdin)
    assert ended.code == 2
    assert message in ended.err
    assert ended.out == ""


def test_map_needs_no_kafka_client(connector: Shell) -> None:
    """`map` imports neither the Kafka client nor the HTTP client, which take most of a start's time."""
    import subprocess  # noqa: PLC0415

    connector.write("event.json", EVENT)
    code = (
        "import sys\nfrom connector.cli.main import app\n"
        "try:\n    app(['map', '--event', 'event.json'])\nexcept SystemExit: pass\n"
        "print([name for name in ('confluent_kafka', 'aiohttp', 'prometheus_client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "[]"


def test_input_that_is_no_text_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes that are not UTF-8 on standard input are named as they are in a file. Kills: a traceback."""
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"\xff{}"), encoding="utf-8"))
    with pytest.raises(SystemExit) as ended:
        read_event_file("-", "--event")
    assert ended.value.code == 2
    assert "is not UTF-8 text" in capsys.readouterr().err
