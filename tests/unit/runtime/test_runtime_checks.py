"""`connector check` compiles the routes against the known schemas, and reports every fault at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from connector.config.loader import Loaded, load
from connector.errors import ConfigurationError
from connector.runtime.checks import check_routes
from connector.vendors import kinds

FOREIGN: dict[str, Any] = {
    "type": "record",
    "name": "UserEvent",
    "namespace": "com.acme",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {
            "name": "user",
            "type": {"type": "record", "name": "User", "fields": [{"name": "cuid", "type": ["null", "long"]}]},
        },
        {"name": "attributes", "type": {"type": "map", "values": "string"}},
    ],
}
JIGUANG = {"vendor": "jiguang", "project_id": "p", "project_secret": "s", "app_key": "a"}
TRACKER = {"vendor": "mytracker", "id_app": 1, "token": "t"}
GOOD = {"cuid": "user.cuid", "eventName": "name", "itime": "at", "properties": "attributes"}


def loaded(folder: Path, route: dict[str, Any], **schemas: Any) -> Loaded:
    """Return a configuration with one route, read from its file."""
    (folder / "user.avsc").write_text(json.dumps(FOREIGN), encoding="utf-8")
    settings = {
        "kafka": {"topics": ["events"], "group_id": "g", "client": {"bootstrap.servers": "h:1"}},
        "destinations": {"jg": JIGUANG, "tracker": TRACKER},
        "schemas": {"files": ["*.avsc"], **schemas},
        "routes": [{"schema": "com.acme.UserEvent", "to": ["jg"], **route}],
    }
    path = folder / "connector.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return load(path, {name: kind.settings for name, kind in kinds().items()}, env={})


def faults(settings: Loaded) -> dict[str, str]:
    """Return every fault by its path."""
    with pytest.raises(ConfigurationError) as caught:
        check_routes(settings)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_a_route_whose_paths_the_schema_has_passes(tmp_path: Path) -> None:
    """Paths through records, nullable fields and into maps are found in the file's schema."""
    fields = {**GOOD, "randomId": "attributes.any"}
    check_routes(loaded(tmp_path, {"where": {"user.cuid": 1}, "id": "name", "fields": {"jiguang": fields}}))


def test_paths_missing_in_the_schema_are_reported_together(tmp_path: Path) -> None:
    """Misspelt paths of a mapping, of `where` and of `id`, an unknown field and an unknown schema, in one error."""
    route = {
        "where": {"usr.cuid": 1},
        "id": "nam",
        "fields": {"jiguang": {**GOOD, "cuid": "user.cuidd", "randomId": "at.x", "eventNam": "name"}},
    }
    found = faults(loaded(tmp_path, route, plain={"events": "com.acme.Nobody"}))
    assert set(found) == {
        "schemas.plain.events",
        "routes[0].where.usr.cuid",
        "routes[0].id",
        "routes[0].fields.jiguang.cuid",
        "routes[0].fields.jiguang.randomId",
        "routes[0].fields.jiguang.eventNam",
    }
    assert "cuid" in found["routes[0].fields.jiguang.cuid"]


def test_a_contract_schemas_paths_are_checked_without_a_file(tmp_path: Path) -> None:
    """A route that names the envelope is checked against the contract itself, into the bodies of its union."""
    fields = {"cuid": "body.cuid", "eventName": "body.eventNam", "itime": "body.itime"}
    route = {"schema": "connector.events.Event", "fields": {"jiguang": fields}}
    assert set(faults(loaded(tmp_path, route))) == {"routes[0].fields.jiguang.eventName"}


def test_every_destination_of_a_foreign_schema_needs_a_mapping(tmp_path: Path) -> None:
    """A fan-out that maps one vendor only names the other."""
    route = {"to": ["jg", "tracker"], "fields": {"jiguang": GOOD}}
    assert set(faults(loaded(tmp_path, route))) == {"routes[0].fields.mytracker"}


def test_a_pattern_without_files_is_the_configurations_fault(tmp_path: Path) -> None:
    """A glob that matches nothing is reported with its path in the file."""
    settings = loaded(tmp_path, {"fields": {"jiguang": GOOD}}, files=["*.avsc", "schemas/*.json"])
    assert set(faults(settings)) == {"schemas.files[1]"}
