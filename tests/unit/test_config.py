"""A valid file gives its settings; a faulty one gives every fault at once, and never a value of the file."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr

from connector.config import (
    DestinationSettings,
    DocumentedLimits,
    Loaded,
    load,
    redacted,
    secret_values,
)
from connector.config_models import parse_duration, parse_size
from connector.config_reference import duration_text, size_text
from connector.errors import ConfigurationError


class AcmeSettings(DestinationSettings):
    """A vendor with an account, limits and a results topic."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=100, bytes=2**20, requests_per_second=100)

    vendor: Literal["acme"] = Field(description="The vendor's name.")
    base_url: str = Field(default="https://api.acme.example", description="The address.")
    account: str = Field(description="The account.")
    secret: SecretStr = Field(description="The secret.")
    results_topic: str | None = Field(default=None, description="The results topic.")


class SlowSettings(DestinationSettings):
    """A vendor that limits nothing but the batch."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=20, bytes=10_000)

    vendor: Literal["slow"] = Field(description="The vendor's name.")
    token: SecretStr = Field(description="The token.")


KINDS: dict[str, type[DestinationSettings]] = {"acme": AcmeSettings, "slow": SlowSettings}
RULES = {"acme": frozenset({"acme.name.length", "acme.name.empty"})}
BASE: dict[str, Any] = {
    "kafka": {"topics": ["events"], "group_id": "group", "client": {"bootstrap.servers": "localhost:9092"}},
    "destinations": {
        "one": {"vendor": "acme", "account": 100102, "secret": "s-one"},
        "two": {"vendor": "slow", "base_url": "http://slow.example/", "token": "t-two"},
    },
}


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` changed at any depth; None removes a key, and `...` stands for a YAML null."""
    result = copy.deepcopy(dict(base))
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = None if value is ... else value
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which the configuration stands."""
    return tmp_path


def read(folder: Path, change: Mapping[str, Any] | None = None, **env: str) -> Loaded:
    """Load the base configuration with a change."""
    path = folder / "connector.yaml"
    path.write_text(yaml.safe_dump(merge(BASE, change or {}), sort_keys=False), encoding="utf-8")
    return load(path, KINDS, env, RULES)


def faults(folder: Path, change: Mapping[str, Any], **env: str) -> dict[str, str]:
    """Return the faults of the base configuration with a change, by path."""
    with pytest.raises(ConfigurationError) as caught:
        read(folder, change, **env)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_defaults(folder: Path) -> None:
    """What is not given is as documented."""
    settings = read(folder).settings
    one = settings.destinations["one"]
    assert isinstance(one, AcmeSettings)
    assert (one.account, one.secret.get_secret_value()) == ("100102", "s-one")
    assert (one.timeout, one.rate, one.max_in_flight, one.order) == (20.0, 100, 8, "none")
    assert settings.destinations["two"].base_url == "http://slow.example"
    assert settings.destinations["two"].rate is None
    assert settings.dead_letter_topic == "group.dead-letters"
    assert settings.replay_topic == "group.replay"
    assert settings.own_topics == {"group.dead-letters", "group.replay"}
    assert settings.kafka.start is None
    assert settings.limits.buffer == 24 * 2**20


def test_values_are_read_as_people_write_them(folder: Path) -> None:
    """Durations, sizes, `off` and references in numbers are understood."""
    change = {
        "destinations": {
            "one": {
                "batch": {"bytes": "10kB", "linger": "200ms"},
                "storm": "off",
                "codes": {4101: "retry"},
                "rules": {"acme.name.length": False},
                "results_topic": "answers",
            }
        },
        "server": {"port": "${PORT}"},
        "limits": {"commit_interval": "${EVERY:-2}"},
    }
    settings = read(folder, change, PORT="9000").settings
    one = settings.destinations["one"]
    assert (one.batch.bytes, one.batch.linger, one.storm) == (10_000, 0.2, "off")
    assert (one.codes, one.rules) == ({"4101": "retry"}, {"acme.name.length": "off"})
    assert (settings.server.port, settings.limits.commit_interval) == (9000, 2.0)
    assert settings.results_topics == {"one": "answers"}
    assert "answers" in settings.own_topics


@pytest.mark.parametrize(
    ("given_start", "client", "start"),
    [
        ("earliest", {}, "earliest"),
        (1_700_000_000_000, {}, 1_700_000_000_000),
        ("1700000000000", {}, 1_700_000_000_000),
        ("2023-11-14T22:13:20Z", {}, 1_700_000_000_000),
        ("2023-11-15T06:13:20+08:00", {}, 1_700_000_000_000),
        (0, {}, 0),
        (None, {"auto.offset.reset": "smallest"}, "earliest"),
        (None, {"auto.offset.reset": "latest"}, "latest"),
    ],
)
def test_start(folder: Path, given_start: object, client: dict[str, str], start: object) -> None:
    """`kafka.start` is a word or a point in time; librdkafka's own key is an alias and is not passed on."""
    settings = read(folder, {"kafka": {"start": given_start, "client": client}}).settings
    assert settings.kafka.start == start
    assert settings.kafka.client == {"bootstrap.servers": "localhost:9092"}


def test_all_faults_come_at_once(folder: Path) -> None:
    """Faults of every kind and section are reported together, each once."""
    change = {
        "kafka": {"topics": ["a b", "^("], "client": {"group.id": "x", "bootstrap.servers": None}},
        "destinations": {
            "one": {"secret": "${NOPE}", "batch": {"records": 101, "byte": 1}, "order": "keys", "account": None},
            "two": {"token": "", "batch": {"records": 21}},
            "Three": {"vendor": "acmee"},
        },
        "routes": [{"to": ["none"], "schem": "x"}],
        "log": {"level": "loud"},
        "serve": {},
    }
    found = faults(folder, change)
    assert found.keys() == {
        "kafka.topics[0]",
        "kafka.topics[1]",
        "kafka.client.group.id",
        "kafka.client.bootstrap.servers",
        "destinations.one.secret",
        "destinations.one.batch.byte",
        "destinations.one.order",
        "destinations.one.account",
        "destinations.two.token",
        "destinations.two.batch.records",
        "destinations.Three",
        "destinations.Three.vendor",
        "routes[0].schem",
        "log.level",
        "serve",
    }
    assert found["destinations.one.secret"] == "the environment variable NOPE is not set"
    assert found["destinations.one.account"] == "is required"
    assert "did you mean bytes?" in found["destinations.one.batch.byte"]
    assert "did you mean schema?" in found["routes[0].schem"]
    assert "did you mean server?" in found["serve"]
    assert found["destinations.Three.vendor"].endswith("did you mean acme? known: acme, slow")


ONE_FAULT: list[tuple[dict[str, Any], str, str]] = [
    ({"destinations": {"one": {"batch": {"records": 101}}}}, "destinations.one.batch.records", "agreed_limits"),
    ({"destinations": {"one": {"batch": {"bytes": 2**20 + 1}}}}, "destinations.one.batch.bytes", "allows 1048576"),
    ({"destinations": {"one": {"requests_per_second": 100.5}}}, "destinations.one.requests_per_second", "allows 100"),
    ({"destinations": {"one": {"timeout": "20001ms"}}}, "destinations.one.timeout", "at most 20s"),
    ({"destinations": {"one": {"timeout": "soon"}}}, "destinations.one.timeout", "such as 200ms"),
    ({"destinations": {"one": {"timeout": True}}}, "destinations.one.timeout", "is true or false"),
    ({"destinations": {"one": {"batch": {"bytes": "1 MB/s"}}}}, "destinations.one.batch.bytes", "such as 1MiB"),
    ({"destinations": {"one": {"retry": {"initial": "2m"}}}}, "destinations.one.retry.initial", "retry.max"),
    ({"destinations": {"one": {"storm": {"share": 2}}}}, "destinations.one.storm.share", "at most 1"),
    ({"destinations": {"one": {"storm": "of"}}}, "destinations.one.storm", "a mapping, or 'off'"),
    (
        {"destinations": {"one": {"rules": {"acme.name.lenght": "off"}}}},
        "destinations.one.rules.acme.name.lenght",
        "did",
    ),
    (
        {"destinations": {"one": {"rules": {"acme.name.length": "on"}}}},
        "destinations.one.rules.acme.name.length",
        "'off'",
    ),
    ({"destinations": {"one": {"account": True}}}, "destinations.one.account", "is true or false; allowed: a text"),
    ({"destinations": {"one": {"http": {"key_file": __file__}}}}, "destinations.one.http", "both"),
    ({"destinations": {"one": {"http": {"ca_file": "no.pem"}}}}, "destinations.one.http.ca_file", "no such file"),
    ({"destinations": {"one": {"base_url": "ftp://x"}}}, "destinations.one.base_url", "https://"),
    ({"destinations": {"one": {"base_url": "https://u:p@x"}}}, "destinations.one.base_url", "no credentials"),
    ({"destinations": {"one": {"base_url": "https://x/?a=1"}}}, "destinations.one.base_url", "without query"),
    ({"destinations": {"one": {"vendor": None}}}, "destinations.one.vendor", "is required; known: acme, slow"),
    ({"destinations": {"one": {"vendor": ["acme"]}}}, "destinations.one.vendor", "is a list that names no vendor"),
    ({"destinations": {"one": 3}}, "destinations.one", "is a whole number; allowed: a mapping"),
    ({"destinations": ...}, "destinations", "at least one is required"),
    ({"destinations": ["one"]}, "destinations", "is a list"),
    ({"kafka": None}, "kafka", "is required"),
    ({"kafka": {"topics": []}}, "kafka.topics", "at least 1"),
    ({"kafka": {"topics": ["group.replay"]}}, "dead_letters.replay_topic", "must not read what it writes"),
    ({"kafka": {"start": "yesterday"}}, "kafka.start", "with its zone"),
    ({"kafka": {"start": "2026-01-01T00:00:00"}}, "kafka.start", "with its zone"),
    ({"kafka": {"start": -1}}, "kafka.start", "epoch milliseconds"),
    ({"kafka": {"client": {"acks": 1}}}, "kafka.client.acks", "idempotent"),
    ({"kafka": {"client": {"enable.auto.commit": False}}}, "kafka.client.enable.auto.commit", "limits.commit_interval"),
    ({"kafka": {"client": {"auto.offset.reset": "none"}}}, "kafka.client.auto.offset.reset", "earliest or latest"),
    ({"kafka": {"client": {"sasl.mechanism": [1]}}}, "kafka.client.sasl.mechanism", "is a list"),
    (
        {"kafka": {"start": "latest", "client": {"auto.offset.reset": "latest"}}},
        "kafka.client.auto.offset.reset",
        "keep one of the two",
    ),
    (
        {"kafka": {"client": {"group.protocol": "consumer", "session.timeout.ms": 1}}},
        "kafka.client.session.timeout.ms",
        "leave it out",
    ),
    ({"dead_letters": {"topic": "a/b"}}, "dead_letters.topic", "1 to 249"),
    ({"dead_letters": {"topic": "group.replay"}}, "dead_letters.replay_topic", "a topic of its own"),
    ({"receipts": {"topic": "events"}}, "receipts.topic", "must not read"),
    ({"destinations": {"one": {"results_topic": "group.replay"}}}, "destinations.one.results_topic", "of its own"),
    ({"routes": [{"to": ["one", "one"]}]}, "routes[0].to[1]", "stands twice"),
    ({"routes": [{"to": ["oen"]}]}, "routes[0].to[0]", "did you mean one?"),
    ({"routes": [{"to": ["one"], "fields": {"slow": {}}}]}, "routes[0].fields.slow", "known: acme"),
    ({"routes": [{"to": ["one"], "topics": ["event"]}]}, "routes[0].topics[0]", "did you mean events?"),
    ({"schemas": {"plain": {"other": "x"}}}, "schemas.plain.other", "does not read this topic"),
    ({"limits": {"drain_timeout": "2s"}}, "limits.drain_timeout", "3.0 or more"),
    ({"schema_registry": {"url": "localhost:8081"}}, "schema_registry.url", "of the form"),
    ({"server": {"port": "http"}}, "server.port", "is a text; allowed: a whole number"),
]


@pytest.mark.parametrize(
    ("change", "path", "said"), ONE_FAULT, ids=[f"{p}-{i}" for i, (_, p, _) in enumerate(ONE_FAULT)]
)
def test_one_mistake_is_one_fault(folder: Path, change: dict[str, Any], path: str, said: str) -> None:
    """A mistake gives one fault at its own path, in words that help."""
    found = faults(folder, change)
    assert list(found) == [path]
    assert said in found[path]


@pytest.mark.parametrize(
    "change",
    [
        {"destinations": {"one": {"batch": {"records": 100, "bytes": "1MiB"}, "requests_per_second": 100}}},
        {"destinations": {"one": {"batch": {"records": 500}, "requests_per_second": 500, "agreed_limits": True}}},
        {"destinations": {"two": {"requests_per_second": 1000}}},
        {"destinations": {"one": {"timeout": "20s"}}},
        {"destinations": {"one": {"timeout": "28s"}}, "limits": {"drain_timeout": "30s"}},
        {"kafka": {"topics": ["^event"]}, "routes": [{"to": ["one"], "topics": ["events", "^x"]}]},
        {"kafka": {"topics": ["^.*"]}},
        {
            "destinations": {
                "one": {"results_topic": "answers"},
                "1.b_c-d": {"vendor": "slow", "base_url": "http://x", "token": "x"},
            }
        },
        {"kafka": {"client": {"group.protocol": "consumer"}}},
    ],
)
def test_what_is_just_allowed(folder: Path, change: dict[str, Any]) -> None:
    """A value at its limit is no fault."""
    assert read(folder, change).settings.kafka.group_id == "group"


def test_default_timeout_fits_the_drain(folder: Path) -> None:
    """Where a drain is short, a request that has no time-out of its own ends before it does."""
    settings = read(folder, {"limits": {"drain_timeout": "10s"}}).settings
    assert settings.destinations["one"].timeout == 8.0


def test_files_are_relative_to_the_configuration(folder: Path) -> None:
    """PEM files are found beside the file wherever the process was started."""
    (folder / "ca.pem").write_text("x", encoding="utf-8")
    settings = read(folder, {"destinations": {"one": {"http": {"ca_file": "ca.pem"}}}}).settings
    assert settings.destinations["one"].http.ca_file == str(folder / "ca.pem")


def test_reload_reads_a_rotated_secret(folder: Path) -> None:
    """Only the secret changes; a file that is gone is a fault that says where it is used."""
    secret = folder / "secret"
    secret.write_text("first\n", encoding="utf-8")
    loaded = read(folder, {"destinations": {"one": {"secret": "${file:secret}"}}, "limits": {"drain_timeout": "10s"}})
    secret.write_text("second\n", encoding="utf-8")
    again = loaded.reload("one")
    assert isinstance(again, AcmeSettings)
    assert again.secret.get_secret_value() == "second"
    assert again.timeout == loaded.settings.destinations["one"].timeout == 8.0
    secret.unlink()
    with pytest.raises(ConfigurationError, match=r"destinations\.one\.secret: the file secret cannot be read"):
        loaded.reload("one")
    secret.write_text("third", encoding="utf-8")
    assert list(secret_values(loaded.reload("one"))) == ["third"]


def test_a_file_that_cannot_be_read_is_a_fault(folder: Path) -> None:
    """No file, no text, no mapping: each is said, none is a traceback."""
    path = folder / "connector.yaml"
    for content, said in ((None, "No such file"), (b"\xff", "not UTF-8"), (b"", "is nothing"), (b"- 1", "is a list")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=said):
            load(path, KINDS)


WRONG = "Zq9Xw-hidden"


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a tree, mappings included."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from leaves(child, (*path, key))


WHOLE = merge(
    BASE,
    {
        "kafka": {"start": "latest", "create_topics": True, "client": {"sasl.password": "x", "session.timeout.ms": 1}},
        "schema_registry": {"url": "http://r", "client": {"basic.auth.user.info": "u:p"}},
        "schemas": {"files": ["*.avsc"], "plain": {"events": "x"}},
        "destinations": {
            "one": {
                "base_url": "https://x",
                "batch": {"records": 1, "bytes": 1, "linger": 1},
                "agreed_limits": True,
                "max_in_flight": 1,
                "order": "key",
                "requests_per_second": 1,
                "rate_limit_share": "fixed",
                "retry": {"initial": 1, "max": 1, "give_up_after": 1},
                "timeout": 1,
                "codes": {"1": "hold"},
                "rules": {"acme.name.empty": "off"},
                "on_unknown_outcome": "retry",
                "storm": {"share": 0.1, "records": 10},
                "http": {"proxy": "http://p", "ca_file": __file__, "cert_file": __file__, "key_file": __file__},
                "hold": True,
                "results_topic": "r",
            }
        },
        "routes": [
            {"topics": ["events"], "schema": "x", "where": {"a": [1]}, "to": ["one"], "id": "x", "entity": True}
        ],
        "unrouted": "skip",
        "dead_letters": {"topic": "d", "replay_topic": "p"},
        "receipts": {"topic": "t"},
        "limits": {"buffer": 1, "drain_timeout": 22, "commit_interval": 1},
        "server": {"host": "::", "port": 1, "token": "x"},
        "log": {"level": "info", "format": "json"},
    },
)
# Topics that are read are names that other faults may suggest.
PATHS = [path for path in leaves(WHOLE) if path and path[:2] != ("kafka", "topics")]


def put(path: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Return the whole configuration with one value replaced."""
    tree = copy.deepcopy(WHOLE)
    at: Any = tree
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return tree


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("value", [WRONG, [WRONG], {"key": WRONG}], ids=["text", "list", "mapping"])
def test_no_fault_repeats_a_value(folder: Path, path: tuple[Any, ...], value: object) -> None:
    """A secret at any wrong place is not repeated, whatever is wrong with it there."""
    file = folder / "connector.yaml"
    file.write_text(yaml.safe_dump(put(path, value)), encoding="utf-8")
    assert WRONG not in said_about(file)


def said_about(file: Path) -> str:
    """Return the faults of a file as text, none where it is valid."""
    try:
        load(file, KINDS, {}, RULES)
    except ConfigurationError as error:
        return str(error)
    return ""


def test_the_whole_configuration_is_valid(folder: Path) -> None:
    """What the test above spoils is valid before."""
    file = folder / "connector.yaml"
    file.write_text(yaml.safe_dump(WHOLE), encoding="utf-8")
    assert load(file, KINDS, {}, RULES).settings.server.port == 1


def test_redacted_hides_every_secret(folder: Path) -> None:
    """Secrets by type, by librdkafka's and the registry's names, and in URLs are hidden; the rest is shown."""
    change = {
        "kafka": {"client": {"sasl.password": "s-kafka", "ssl.key.pem": "s-pem", "sasl.username": "user"}},
        "schema_registry": {
            "url": "https://user:s-url@registry",
            "client": {"basic.auth.user.info": "user:s-info", "oauth": {"client_secret": "s-deep"}},
        },
        "destinations": {"one": {"http": {"proxy": "http://user:s-proxy@proxy:3128"}}},
        "server": {"token": "s-token"},
    }
    settings = read(folder, change).settings
    shown = redacted(settings)
    assert "s-" not in str(shown).replace("dead-letters", "")
    assert shown["kafka"]["client"]["sasl.username"] == "user"
    assert shown["schema_registry"]["url"] == "https://***:***@registry"
    assert shown["destinations"]["one"]["account"] == "100102"
    secrets = {"s-kafka", "s-pem", "s-url", "user:s-info", "s-deep", "s-proxy", "s-token", "s-one", "t-two"}
    assert set(secret_values(settings)) == secrets
    assert "s-one" not in repr(settings)


@given(st.integers(min_value=1, max_value=10**15))
def test_sizes_round_trip(count: int) -> None:
    """A size as it is shown is read as the same number of bytes."""
    assert parse_size(size_text(count)) == count


@given(st.one_of(st.integers(1, 10**8), st.integers(1, 10**7).map(lambda ms: ms / 1000)))
def test_durations_round_trip(seconds: float) -> None:
    """A duration as it is shown is read as the same number of seconds."""
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, rel=1e-12)
