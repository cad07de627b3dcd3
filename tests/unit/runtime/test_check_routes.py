"""`connector check` finds what a live topic would show otherwise: types, symbols, names and secrets, all at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from confluent_kafka.schema_registry import Schema as RegistrySchema

from connector.cli import main as cli
from connector.codec.registry import Registry
from connector.config.loader import KafkaSettings, Loaded, load
from connector.errors import ConfigurationError, StartupError
from connector.kafka.topics import OwnTopic, TopicCheck
from connector.runtime import checks
from connector.vendors import kinds
from tests.unit.codec.test_registry import FakeClient

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "com.shop",
    "fields": [
        {"name": "order_id", "type": "string"},
        {"name": "user_id", "type": "long"},
        {"name": "paid", "type": "boolean"},
        {"name": "phone", "type": ["null", "string"]},
        {"name": "items", "type": {"type": "array", "items": "string"}},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "channel", "type": {"type": "enum", "name": "Channel", "symbols": ["WEB", "APP"]}},
    ],
}
JIGUANG = {"vendor": "jiguang", "project_id": "p", "project_secret": "${SECRET}", "app_key": "a"}
TRACKER = {"vendor": "mytracker", "id_app": 1, "token": "${TOKEN}"}
GOOD: dict[str, Any] = {"cuid": "user_id", "eventName": {"const": "order"}, "itime": "at"}
WRONG: dict[str, Any] = {
    "schema": "com.shop.Order",
    "where": {"channel": "WEBB", "paid": "true", "phone": "!x"},
    "to": ["jg", "tracker"],
    "fields": {
        "jiguang": {**GOOD, "properties": "total", "itime": "att", "randomId": {"path": "phone", "hash": "md5"}},
        "mytracker": {
            "method": {"const": "customEvnt"},
            "customUserId": {"path": "phone", "hash": "hmac-sha256", "key": "${PEPPER}"},
            "customEventParams": "items",
            "customEventName": {"cel": "event.order_idd"},
        },
    },
}
WRONG_PATHS = {
    "routes[0].where.channel",
    "routes[0].where.paid",
    "routes[0].fields.jiguang.properties",
    "routes[0].fields.jiguang.itime",
    "routes[0].fields.jiguang.randomId.hash",
    "routes[0].fields.mytracker.method",
    "routes[0].fields.mytracker.customEventParams",
    "routes[0].fields.mytracker.customEventName",
}


def written(folder: Path, routes: list[dict[str, Any]], **sections: Any) -> Path:
    """Write a configuration with these routes, and the schema's file."""
    (folder / "order.avsc").write_text(json.dumps(ORDER), encoding="utf-8")
    settings = {
        "kafka": {"topics": ["orders"], "group_id": "g", "client": {"bootstrap.servers": "h:1"}},
        "destinations": {"jg": JIGUANG, "tracker": TRACKER},
        "schemas": {"files": ["*.avsc"]},
        "routes": routes,
        **sections,
    }
    path = folder / "connector.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def read(path: Path, env: dict[str, str] | None = None) -> Loaded:
    """Read a configuration as `check` does."""
    given = {"SECRET": "s" * 8, "TOKEN": "t" * 8, "PEPPER": "pepper-pepper"} if env is None else env
    return load(path, {name: kind.settings for name, kind in kinds().items()}, given, further=checks.route_faults)


def faults(path: Path, env: dict[str, str] | None = None) -> dict[str, str]:
    """Return every fault by its path."""
    with pytest.raises(ConfigurationError) as caught:
        read(path, env)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_types_symbols_and_paths_are_checked(tmp_path: Path) -> None:
    """Each wrong type is a fault of its own, with what it is and what is wanted, or with the nearest name."""
    found = faults(written(tmp_path, [WRONG]))
    assert set(found) == WRONG_PATHS
    assert found["routes[0].fields.jiguang.properties"].endswith("it is a decimal, and the field wants a map")
    assert "an array of string, and the field wants a map" in found["routes[0].fields.mytracker.customEventParams"]
    assert "did you mean customEvent?" in found["routes[0].fields.mytracker.method"]
    assert "did you mean order_id?" in found["routes[0].fields.mytracker.customEventName"]


def test_an_id_a_base_and_a_changed_value_of_a_wrong_type_are_faults(tmp_path: Path) -> None:
    """They would refuse every record of the route."""
    properties = {"base": "user_id", "map": {"list": {"path": "items", "case": "lower"}}}
    is_large = {"cel": "event.paid || event.total > 5"}
    route = {
        "schema": "com.shop.Order",
        "to": ["jg"],
        "id": "total",
        "fields": {"jiguang": {**GOOD, "properties": properties, "itime": is_large}},
    }
    assert faults(written(tmp_path, [route])) == {
        "routes[0].id": "total can never be used here: it is a decimal, "
        "and an event's id wants text, a whole number or a UUID",
        "routes[0].fields.jiguang.itime": "cel can never be this field: it is a boolean, and the field wants a time",
        "routes[0].fields.jiguang.properties.base": "user_id can never be used here: it is a whole number, "
        "and base wants a map",
        "routes[0].fields.jiguang.properties.map.list": "items can never be used here: it is an array of string, "
        "and case or hash wants text",
    }


def test_a_key_that_omit_does_not_find_is_a_fault(tmp_path: Path) -> None:
    """A misspelt key would leave nothing out, and send what must not be sent. A map's keys are not known."""
    route = {"schema": "com.shop.Order", "to": ["jg"]}
    wrong = {"base": ".", "omit": ["fone"]}
    found = faults(written(tmp_path, [{**route, "fields": {"jiguang": {**GOOD, "properties": wrong}}}]))
    assert found == {
        "routes[0].fields.jiguang.properties.omit": "the record has no field 'fone'; did you mean phone?",
    }
    right = {"base": ".", "omit": ["phone", "items"]}
    read(written(tmp_path, [{**route, "fields": {"jiguang": {**GOOD, "properties": right}}}]))


def test_a_fault_is_reported_where_it_is_and_not_where_it_shows(tmp_path: Path) -> None:
    """An unknown destination, a wrong `to` and wrong `fields` have one fault each; a route that drops says so."""
    good: dict[str, Any] = {"schema": "com.shop.Order", "to": ["jg"], "fields": {"jiguang": GOOD}}
    routes: list[dict[str, Any]] = [
        {**good, "to": ["jgg"]},
        {**good, "to": "jg"},
        {**good, "fields": [1]},
        {**good, "to": []},
    ]
    found = faults(written(tmp_path, routes))
    assert set(found) == {"routes[0].to[0]", "routes[1].to", "routes[2].fields", "routes[3].fields.jiguang"}
    assert found["routes[3].fields.jiguang"].startswith("the route drops what it matches (to: [])")
    assert set(faults(written(tmp_path, routes[:1], destinations={}))) == {"destinations"}


def test_properties_of_kafka_are_checked_without_kafka(tmp_path: Path) -> None:
    """Names, values, ranges and files, each at once, as the client would refuse them at the start."""
    client = {
        "bootstrap.servers": "h:1",
        "securty.protocol": "SSL",
        "security.protocol": "TLS",
        "heartbeat.interval.ms": 99999999,
        "ssl.ca.location": "/nowhere.pem",
        "linger.ms": 5,
    }
    found = faults(written(tmp_path, [], kafka={"topics": ["orders"], "group_id": "g", "client": client}))
    assert set(found) == {f"kafka.client.{name}" for name in list(client)[1:4]}
    assert found["kafka.client.securty.protocol"].startswith("No such configuration property")
    client = {"bootstrap.servers": "h:1", "security.protocol": "SSL", "ssl.ca.location": "/nowhere.pem"}
    found = faults(written(tmp_path, [], kafka={"topics": ["orders"], "group_id": "g", "client": client}))
    assert found == {"kafka.client.ssl.ca.location": "no such file: /nowhere.pem"}


def test_a_required_field_with_a_faulty_source_is_reported_once(tmp_path: Path) -> None:
    """Only fields that are not in the file at all are reported as required."""
    jiguang = {
        "cuid": {"path": "user_id", "hash": "md5"},
        "eventName": {"pth": "order_id"},
        "itime": {"path": "at", "hash": "sha256", "unit": "ms"},
        "properties": {"map": {"a": {"list": []}}},
    }
    mappings = {"jiguang": jiguang, "mytracker": {"customUserId": {"path": ""}}}
    found = faults(written(tmp_path, [{"schema": "com.shop.Order", "to": ["jg", "tracker"], "fields": mappings}]))
    assert set(found) == {
        "routes[0].fields.jiguang.cuid.hash",
        "routes[0].fields.jiguang.eventName",
        "routes[0].fields.jiguang.itime",
        "routes[0].fields.jiguang.properties.map.a.list",
        "routes[0].fields.mytracker.customUserId.path",
        "routes[0].fields.mytracker.method",
    }
    assert found["routes[0].fields.mytracker.method"] == "the vendor requires this field: map it"


@pytest.mark.parametrize("source", ["order_id", "user_id", "channel", "$key", "$timestamp"])
def test_an_id_that_has_a_text_is_no_fault(tmp_path: Path, source: str) -> None:
    """A key may be a record, so it may be the base of a map."""
    mapping = {**GOOD, "properties": {"base": "$key", "map": {"id": {"path": "total", "hash": "sha256"}}}}
    read(written(tmp_path, [{"schema": "com.shop.Order", "to": ["jg"], "id": source, "fields": {"jiguang": mapping}}]))


def test_missing_secrets_hide_no_other_fault(tmp_path: Path) -> None:
    """Faults of destinations and missing variables, also inside `routes`, come together with those of the routes."""
    found = faults(written(tmp_path, [WRONG]), {})
    secrets = {
        "destinations.jg.project_secret": "SECRET",
        "destinations.tracker.token": "TOKEN",
        "routes[0].fields.mytracker.customUserId.key": "PEPPER",
    }
    assert set(found) == WRONG_PATHS | set(secrets)
    assert all(f"variable {name} is not set" in found[path] for path, name in secrets.items())


def test_a_faulty_route_hides_no_fault_of_the_others(tmp_path: Path) -> None:
    """A route without `to`, and one with an unknown key, leave the others' faults where they are, by their index."""
    routes = [{"schema": "com.shop.Order"}, {**WRONG, "tooo": 1}, {**WRONG, "where": {"totl": 1}}]
    found = faults(written(tmp_path, routes))
    assert found["routes[0].to"] == "is required"
    assert "did you mean to?" in found["routes[1].tooo"]
    assert "did you mean total?" in found["routes[2].where.totl"]
    assert {path.replace("[1]", "[0]") for path in found if path.startswith("routes[1]")} >= WRONG_PATHS


@pytest.mark.parametrize("written_as", ["com.shop.Ordr", "com.shop.order", "com.shops.Order"])
def test_a_schema_that_no_file_has_is_a_fault_with_the_nearest(tmp_path: Path, written_as: str) -> None:
    """Without a registry all schemas are known, so a route for another one can never match."""
    route = {
        **WRONG,
        "schema": written_as,
        "where": {},
        "fields": {"jiguang": GOOD, "mytracker": {"method": "channel"}},
    }
    found = faults(written(tmp_path, [route]))
    assert found == {"routes[0].schema": f"no known schema is {written_as}; did you mean com.shop.Order?"}


def test_a_schema_that_the_registry_may_have_is_a_warning(tmp_path: Path) -> None:
    """With a registry that was not asked, only a name that is nearly a known one is a fault."""
    fields = {"jiguang": GOOD, "mytracker": {"method": {"const": "login"}}}
    route = {"schema": "com.shop.Refund", "to": ["jg", "tracker"], "fields": fields}
    registry = {"schema_registry": {"url": "http://localhost:1"}}
    loaded = read(written(tmp_path, [route], **registry))
    assert [warning.path for warning in checks.schema_warnings(loaded)] == ["routes[0].schema"]
    found = faults(written(tmp_path, [{**route, "schema": "com.shop.Ordr"}], **registry))
    assert "`connector check --online` asks the registry too" in found["routes[0].schema"]
    read(written(tmp_path, [{**route, "schema": "com.shop.Order2"}], **registry))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("com.shop.Refund", {"routes[0].where.reason"}),
        ("com.shop.Refnd", {"routes[0].schema"}),
    ],
)
def test_online_the_registry_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: str, expected: set[str]
) -> None:
    """With `--online` the newest schemas of the topics' subjects are known, too."""
    refund = {"type": "record", "name": "Refund", "namespace": "com.shop", "fields": [{"name": "id", "type": "long"}]}
    client = FakeClient(
        {
            "latest orders-value": RegistrySchema(json.dumps(refund), "AVRO"),
            "latest other-value": RegistrySchema("not asked for", "AVRO"),
            "latest orders-key": RegistrySchema("not asked for", "AVRO"),
        }
    )
    monkeypatch.setattr(checks, "open_registry", lambda _settings: Registry(client, "http://localhost:1"))
    route = {"schema": schema, "where": {"reason": "x"}, "to": []}
    loaded = read(written(tmp_path, [route], schema_registry={"url": "http://localhost:1"}, schemas={}))
    found = asyncio.run(checks.registry_schemas(loaded.settings))
    assert found is not None
    assert {fault.path for fault in checks.registry_faults(loaded, found)} == expected
    assert client.asked == ["latest orders-value"]


def test_strict_turns_warnings_into_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Patterns and negations as plain text, and a key of a hash in the file, are warnings; `--strict` refuses them."""
    route = {
        "where": {"order_id": "^o-", "phone": "!x", "channel": {"in": ["WEB"]}},
        "schema": "com.shop.Order",
        "to": ["jg"],
        "fields": {"jiguang": {**GOOD, "randomId": {"path": "phone", "hash": "hmac-sha256", "key": "in-the-file"}}},
    }
    path = written(tmp_path, [route])
    for name in ("SECRET", "TOKEN"):
        monkeypatch.setenv(name, "x" * 8)
    for arguments, code in (([], 0), (["--strict"], 2)):
        monkeypatch.setattr("sys.argv", ["connector", "check", "-c", str(path), *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert (ended.value.code or 0) == code
        shown = capsys.readouterr().err
        assert "routes[0].where.order_id: '^o-' is compared as text, not as a pattern; write {matches: '^o-'}" in shown
        assert "routes[0].where.phone: the text '!x' negates nothing; write {not: 'x'}" in shown
        assert "routes[0].fields.jiguang.randomId.key: the secret is in the file" in shown
        assert "in-the-file" not in shown


class ModelTopics(TopicCheck):
    """A cluster that has the topic that is read, and none of the connector's own; it counts what is created."""

    def __init__(self, *, create_topics: bool) -> None:
        client = {"bootstrap.servers": "h:1"}
        self._settings = KafkaSettings(topics=["orders"], group_id="g", client=client, create_topics=create_topics)
        self.created: list[str] = []

    async def _metadata(self) -> Any:
        return SimpleNamespace(topics={"orders": SimpleNamespace(partitions=[0])}, cluster_id="mock-cluster")

    async def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        return {name: {} for name in names}

    async def _create(self, missing: Sequence[OwnTopic], largest: int, partitions: int) -> None:
        if not self._settings.create_topics:
            raise StartupError("missing topics")
        self.created += [topic.name for topic in missing]


@pytest.mark.parametrize("create", [True, False])
def test_a_check_creates_no_topic(*, create: bool) -> None:
    """`check --online` asks for nothing to be created, and what a run would create is no fault."""
    topics = ModelTopics(create_topics=create)
    own = [OwnTopic("g.dead-letters", "dead-letter")]
    if create:
        asyncio.run(topics.check(["orders"], own, dry=True))
        assert topics.created == []
        asyncio.run(topics.check(["orders"], own))
        assert topics.created == ["g.dead-letters"]
    else:
        with pytest.raises(StartupError, match="missing topics"):
            asyncio.run(topics.check(["orders"], own, dry=True))


def test_the_command_asks_for_no_topic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check --online` of a configuration that creates topics leaves that to `run`."""
    topics = ModelTopics(create_topics=True)

    async def nothing(*_: Any) -> Any:
        return None

    monkeypatch.setattr(ModelTopics, "__aenter__", nothing_but, raising=False)
    monkeypatch.setattr(ModelTopics, "__aexit__", nothing, raising=False)
    monkeypatch.setattr(topics, "wait", nothing)
    monkeypatch.setattr(checks, "TopicCheck", lambda *_, **__: topics)
    monkeypatch.setattr(checks, "_group_faults", lambda _settings: nothing_but([]))
    monkeypatch.setattr(checks, "probe", nothing)
    loaded = read(written(tmp_path, [{"schema": "com.shop.Order", "to": []}]))
    assert asyncio.run(checks.check_online(loaded)) == []
    assert topics.created == []


async def nothing_but(value: Any) -> Any:
    """Return the value."""
    return value
