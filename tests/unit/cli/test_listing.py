"""`connector list` and `connector schema`, help texts, suggestions for wrong commands, and completion in a shell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from connector import vendors
from connector.cli import main as cli

ROOT = Path(__file__).parents[3]


def connector(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["connector", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return (int(caught.value.code or 0), *capsys.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize("vendor", sorted(vendors.kinds()))
@pytest.mark.parametrize("what", ["fields", "rules", "codes"])
def test_lists_have_all_of_a_vendor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str, vendor: str
) -> None:
    """Every field, rule with what it allows, and code with its meaning is listed, as a table and as JSON."""
    kind = vendors.kinds()[vendor]
    known: dict[str, Any] = {"fields": kind.fields, "rules": kind.rules, "codes": kind.codes}
    code, out, _ = connector(monkeypatch, capsys, "list", what, vendor, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {row[what[:-1]] for row in rows} == set(known[what])
    if what == "fields":
        assert [row["field"] for row in rows if not row["meaning"]] == []
    if what == "rules":
        assert all(row["allows"] for row in rows)
    code, out, _ = connector(monkeypatch, capsys, "list", what, vendor)
    assert code == 0
    assert all(name in out for name in known[what])


def test_vendors_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each vendor has its limits and the settings that it requires."""
    _, out, _ = connector(monkeypatch, capsys, "list", "vendors", "--json")
    rows = {row["vendor"]: row for row in map(json.loads, out.splitlines())}
    assert rows.keys() == vendors.kinds().keys()
    assert rows["mytracker"]["records"] == 20
    assert rows["mytracker"]["required"] == ["id_app", "token"]
    _, out, _ = connector(monkeypatch, capsys, "list", "vendors")
    assert "quick_audience" in out


def test_an_unknown_vendor_is_bad_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong name exits with 2 and suggests the right one."""
    code, _, err = connector(monkeypatch, capsys, "list", "rules", "jiguan")
    assert (code, err) == (2, "unknown vendor 'jiguan'; did you mean jiguang?\n")


def test_schema_is_that_of_the_repository(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`connector schema` prints a JSON Schema that takes the example, which names it for editors."""
    _, out, _ = connector(monkeypatch, capsys, "schema")
    assert json.loads(out) == json.loads((ROOT / "connector.schema.json").read_text(encoding="utf-8")), "run make docs"
    example = (ROOT / "connector.example.yaml").read_text(encoding="utf-8")
    assert example.startswith("# yaml-language-server: $schema=connector.schema.json\n")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (["replay"], "connector dlq replay"),
        (["discrad"], "connector dlq discard"),
        (["start"], "connector run"),
        (["offset"], "connector offsets"),
        (["stat"], "connector dlq stats"),
        (["chek"], "connector check"),
        (["validate"], "connector check"),
        (["vendors"], "connector list vendors"),
        (["dlq", "lst"], "connector dlq list"),
        (["dlq", "preview"], "connector preview"),
    ],
)
def test_a_wrong_command_suggests_the_right_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: list[str], right: str
) -> None:
    """A command of another group, another tool or with a typing error leads to the right one."""
    code, _, err = connector(monkeypatch, capsys, *wrong)
    assert code == 2
    assert f"Did you mean `{right}`?" in " ".join(err.replace("│", " ").split())


def commands(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every command and group."""
    yield path
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


TOP = typer.main.get_command(cli.app)
assert isinstance(TOP, TyperGroup)


@pytest.mark.slow
@pytest.mark.parametrize("path", list(commands(TOP)), ids=" ".join)
def test_help_fits_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: tuple[str, ...]
) -> None:
    """At 80 columns no line is longer, and no name of an option or its value is broken in two."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    code, out, _ = connector(monkeypatch, capsys, *path, "--help")
    assert code == 0
    assert [line for line in out.splitlines() if len(line.rstrip()) > 80] == []
    command: Any = TOP
    for name in path:
        command = command.commands[name]
    broken = [each.metavar for each in command.params if each.metavar and each.metavar not in out]
    assert broken == []


CONFIG = """
kafka: {topics: [orders, ^more, other], group_id: g, client: {bootstrap.servers: "${NOT_SET}"}}
destinations: {jg-prod: {vendor: jiguang}, jg-test: {vendor: nope}, tracker: {vendor: mytracker}}
"""


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("connector hol", ["hold"]),
        ("connector dlq re", ["replay"]),
        ("connector hold -c mine.yaml ", ["jg-prod", "jg-test", "tracker"]),
        ("connector run -c mine.yaml --destination jg", ["jg-prod", "jg-test"]),
        ("connector preview -c mine.yaml --topic ", ["orders", "other"]),
        ("connector explain -c mine.yaml o", ["orders", "other"]),
        ("connector hold ", []),
        ("connector list rules j", ["jiguang", "jpush_report"]),
    ],
)
def test_the_shell_completes_from_the_file_alone(tmp_path: Path, words: str, found: list[str]) -> None:
    """Commands, destinations and topics are completed from the configuration as written, faults or not."""
    (tmp_path / "mine.yaml").write_text(CONFIG, encoding="utf-8")
    parts = words.split(" ")
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(len(parts) - 1), "_CONNECTOR_COMPLETE": "complete_bash"}
    code = "import sys; sys.argv = ['connector']; from connector.cli.main import app; app(prog_name='connector')"
    path = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**environment, **path},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    assert done.stdout.split() == found
