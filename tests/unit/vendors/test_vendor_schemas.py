"""The contract schemas stand alone, agree with each other, and read what older and newer writers wrote."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

AVRO = Path(__file__).parents[3] / "avro"
NAMES = sorted(path.stem for path in AVRO.glob("*.avsc"))


def schema(name: str) -> Any:
    """Return a contract schema as JSON."""
    return json.loads((AVRO / f"{name}.avsc").read_text(encoding="utf-8"))


def through(writer: Any, reader: Any, datum: dict[str, Any]) -> Any:
    """Write with one schema and read with another."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(writer), datum)
    buffer.seek(0)
    return fastavro.schemaless_reader(
        buffer, fastavro.parse_schema(writer), fastavro.parse_schema(reader), return_record_name=True
    )


def fields(node: Any) -> list[dict[str, Any]]:
    """Return every field of every record in a schema."""
    if isinstance(node, list):
        return [field for member in node for field in fields(member)]
    if not isinstance(node, dict):
        return []
    own = node.get("fields", [])
    inner = [node.get("type"), node.get("items"), node.get("values"), *(field["type"] for field in own)]
    return [*own, *fields([member for member in inner if isinstance(member, dict | list)])]


def test_the_readme_names_each_file() -> None:
    """The README of the folder names each contract schema."""
    readme = (AVRO / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}.avsc`" not in readme] == []


@pytest.mark.parametrize("name", NAMES)
def test_each_file_stands_alone(name: str) -> None:
    """A file parses without the others and holds the record of its name; everything in it is described."""
    parsed = fastavro.parse_schema(schema(name))
    assert isinstance(parsed, dict)
    assert parsed["name"] == f"connector.events.{name}"
    assert [field["name"] for field in fields(schema(name)) if not field.get("doc")] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_may_be_absent_has_a_default(name: str) -> None:
    """A nullable field has null first and as default, a map or list of its own has an empty one."""
    for field in fields(schema(name)):
        sort = field["type"]
        if isinstance(sort, list) and "null" in sort:
            assert sort[0] == "null", field["name"]
            assert "default" in field, field["name"]
            assert field["default"] is None
        if isinstance(sort, dict) and sort["type"] == "map":
            assert field["default"] == {}


def test_the_envelope_holds_the_other_files_as_they_are() -> None:
    """The copies inside Event.avsc are the files' own records."""
    body = next(field["type"] for field in schema("Event")["fields"] if field["name"] == "body")
    assert body == [
        schema(name) for name in ("JiguangUserEvent", "QuickAudienceEvent", "MyTrackerEvent", "JPushReportQuery")
    ]


def test_an_older_writer_without_the_optional_fields_is_read() -> None:
    """What a writer leaves out reads as its default."""
    for name, datum in (
        ("JiguangUserEvent", {"cuid": 1, "eventName": "e", "itime": 5}),
        ("MyTrackerEvent", {"method": "login"}),
        ("QuickAudienceEvent", {"customerId": "c", "eventCode": "e", "eventTime": 5}),
    ):
        older = schema(name)
        older["fields"] = [field for field in older["fields"] if "default" not in field]
        read = through(older, schema(name), datum)
        absent = {field["name"]: field["default"] for field in schema(name)["fields"] if "default" in field}
        assert {key: read[key] for key in absent} == absent


def test_a_newer_writer_with_a_field_of_its_own_is_read() -> None:
    """An unknown field is skipped, also inside the envelope."""
    newer = schema("Event")
    newer["fields"].insert(0, {"name": "trace", "type": "string"})
    newer["fields"][-1]["type"][0]["fields"].append({"name": "later", "type": ["null", "string"], "default": None})
    body = {
        "cuid": 1,
        "eventName": "e",
        "itime": 5,
        "randomId": None,
        "properties": {"a": [b"x".decode()]},
        "later": "y",
    }
    datum = {"trace": "t", "id": "1", "target": "jiguang", "body": ("connector.events.JiguangUserEvent", body)}
    read = through(newer, schema("Event"), datum)
    assert read["body"][0] == "connector.events.JiguangUserEvent"
    assert read["body"][1]["properties"] == {"a": ["x"]}
    assert "trace" not in read
    assert "later" not in read["body"][1]


def test_a_property_keeps_its_type_through_the_union() -> None:
    """Each kind of property comes back as it was written."""
    properties = {"n": None, "b": True, "l": 2**62, "d": 1.5, "s": "字", "a": ["x", "y"], "e": []}
    datum = {"cuid": 1, "eventName": "e", "itime": 5, "randomId": None, "properties": properties}
    read = through(schema("JiguangUserEvent"), schema("JiguangUserEvent"), datum)
    assert read["properties"] == properties
    assert type(read["properties"]["b"]) is bool
