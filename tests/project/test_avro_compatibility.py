"""The contract schemas stay compatible: old records are readable, and old readers can read new records.

This file implements Avro's resolution rules, because fastavro resolves values but does not compare schemas.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tools.source import ROOT

FILES: Final = sorted(path.name for path in (ROOT / "avro").glob("*.avsc"))
PROMOTIONS: Final = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def current(name: str) -> Any:
    """Return a contract schema as it is in the tree."""
    return json.loads((ROOT / "avro" / name).read_text(encoding="utf-8"))


def git(*arguments: str) -> str:
    """Return the output of git. Skips the test without git or a repository."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the committed versions of avro/ need git and this tree's repository")
    return done.stdout


def committed(name: str) -> Mapping[str, Any]:
    """Return every committed version of a contract schema in this clone, by commit."""
    if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != ROOT.resolve():
        pytest.skip("the committed versions of avro/ need git and this tree's repository")
    commits = git("log", "--format=%h", "--diff-filter=d", "--", f"avro/{name}").split()
    return {commit: json.loads(git("show", f"{commit}:avro/{name}")) for commit in commits}


class Reader:
    """One reader's schema against one writer's: what the reader cannot read.

    With `added`, branches and symbols that only the writer has are allowed: avro/README.md updates readers first.
    """

    def __init__(self, writer: Any, reader: Any, *, added: bool = False) -> None:
        self._names: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        self._added = added
        _collect(writer, "", self._names[0])
        _collect(reader, "", self._names[1])
        self.faults = self._unread(writer, reader, "")

    def _unread(self, writer: Any, reader: Any, at: str) -> list[str]:
        writer, reader = self._names[0].get(str(writer), writer), self._names[1].get(str(reader), reader)
        if isinstance(writer, list):
            return [fault for branch in writer for fault in self._branch(branch, reader, at)]
        if isinstance(reader, list):
            return [] if any(not self._unread(writer, branch, at) for branch in reader) else [f"{at}: no branch fits"]
        kinds = _kind(writer), _kind(reader)
        if kinds[0] != kinds[1]:
            fits = kinds[1] in PROMOTIONS.get(kinds[0], ())
            return [] if fits else [f"{at}: {kinds[0]} is not read as {kinds[1]}"]
        if kinds[0] in ("array", "map"):
            inner = "items" if kinds[0] == "array" else "values"
            return self._unread(writer[inner], reader[inner], f"{at}[]")
        if _logical(writer) != _logical(reader):
            return [f"{at}: the logical type changed"]
        if kinds[0] in ("record", "enum", "fixed") and writer["full"] != reader["full"]:
            return [f"{at}: {writer['full']} is not {reader['full']}"]
        if kinds[0] == "enum":
            lost = [] if self._added else sorted(set(writer["symbols"]) - set(reader["symbols"]))
            return [f"{at}: no symbol {symbol}" for symbol in lost]
        return self._record(writer, reader, at) if kinds[0] == "record" else []

    def _branch(self, branch: Any, reader: Any, at: str) -> list[str]:
        faults = self._unread(branch, reader, at)
        if self._added and isinstance(reader, list):
            known = {_label(self._names[1].get(str(each), each)) for each in reader}
            return faults if _label(self._names[0].get(str(branch), branch)) in known else []
        return faults

    def _record(self, writer: Any, reader: Any, at: str) -> list[str]:
        written = {field["name"]: field["type"] for field in writer["fields"]}
        faults = []
        for field in reader["fields"]:
            where = f"{at}.{field['name']}"
            if field["name"] in written:
                faults += self._unread(written[field["name"]], field["type"], where)
            elif "default" not in field:
                faults.append(f"{where}: not written, and without a default")
        return faults


def _kind(node: Any) -> str:
    return str(node["type"] if isinstance(node, dict) else node)


def _logical(node: Any) -> object:
    return node.get("logicalType") if isinstance(node, dict) else None


def _label(node: Any) -> str:
    return str(node.get("full", _kind(node))) if isinstance(node, dict) else str(node)


def _collect(node: Any, space: str, names: dict[str, Any]) -> None:
    """Give each named type its full name, and index it by that name."""
    if isinstance(node, list):
        for branch in node:
            _collect(branch, space, names)
    if not isinstance(node, dict):
        return
    if "name" in node:
        space = node.get("namespace", space)
        node["full"] = f"{space}.{node['name']}"
        names[node["full"]] = names[node["name"]] = node
    for inner in (node.get("items"), node.get("values"), *(field["type"] for field in node.get("fields", ()))):
        _collect(inner, space, names)


def unread(writer: Any, reader: Any, *, added: bool = False) -> list[str]:
    """Return what a reader cannot read of a writer's records; empty if it reads everything."""
    return Reader(copy.deepcopy(writer), copy.deepcopy(reader), added=added).faults


@pytest.mark.parametrize("name", FILES)
def test_current_schema_reads_every_committed_version(name: str) -> None:
    """The schema in the tree reads records of every committed version."""
    found = {commit: unread(old, current(name)) for commit, old in committed(name).items()}
    assert {commit: faults for commit, faults in found.items() if faults} == {}


@pytest.mark.parametrize("name", FILES)
def test_committed_versions_read_current_records(name: str) -> None:
    """A member with an older version reads records of the current schema, except new symbols and branches."""
    now = current(name)
    found = {commit: unread(now, old, added=True) for commit, old in committed(name).items()}
    assert {commit: faults for commit, faults in found.items() if faults} == {}


def _field(schema: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(field for field in schema["fields"] if field["name"] == name)
    return found


def _without(name: str) -> Callable[[Any], None]:
    def change(schema: Any) -> None:
        schema["fields"].remove(_field(schema, name))

    return change


def _with(field: dict[str, Any]) -> Callable[[Any], None]:
    return lambda schema: schema["fields"].append(field)


def _typed(name: str, kind: Any) -> Callable[[Any], None]:
    return lambda schema: _field(schema, name).update(type=kind)


BROKEN: Final[list[tuple[str, Callable[[Any], None], bool, bool]]] = [
    ("JiguangUserEvent.avsc", _without("cuid"), True, False),
    ("JiguangUserEvent.avsc", _without("randomId"), True, True),
    ("JiguangUserEvent.avsc", _with({"name": "late", "type": "string"}), False, True),
    ("JiguangUserEvent.avsc", _with({"name": "late", "type": ["null", "string"], "default": None}), True, True),
    ("JiguangUserEvent.avsc", _typed("cuid", "int"), False, True),
    ("JiguangUserEvent.avsc", _typed("cuid", "double"), True, False),
    ("JiguangUserEvent.avsc", _typed("itime", "long"), False, False),
    ("JiguangUserEvent.avsc", _typed("eventName", ["null", "string"]), True, False),
    ("JiguangUserEvent.avsc", lambda schema: _field(schema, "cuid").update(name="cuId"), False, False),
    ("JiguangUserEvent.avsc", lambda schema: _field(schema, "properties")["type"]["values"].pop(), False, True),
    ("JiguangUserEvent.avsc", lambda schema: schema.update(name="UserEvent"), False, False),
    ("MyTrackerEvent.avsc", lambda schema: _field(schema, "method")["type"]["symbols"].append("payment"), True, True),
    ("MyTrackerEvent.avsc", lambda schema: _field(schema, "method")["type"]["symbols"].pop(), False, True),
    ("Event.avsc", lambda schema: _field(schema, "body")["type"].pop(), False, True),
    ("Event.avsc", lambda schema: _field(schema, "body")["type"][0].update(name="Jiguang"), False, True),
]


@pytest.mark.parametrize(("name", "change", "reads_old", "old_reads"), BROKEN)
def test_incompatible_change_is_reported_for_its_side(
    name: str, change: Callable[[Any], None], *, reads_old: bool, old_reads: bool
) -> None:
    """Each kind of incompatible change is reported for the side that it breaks, and for no other."""
    old, new = current(name), current(name)
    change(new)
    assert (unread(old, new) == [], unread(new, old, added=True) == []) == (reads_old, old_reads)
