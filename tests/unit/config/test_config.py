"""A valid file gives its settings; a faulty one gives every fault at once, with its path and line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.config.loader import load, port_settings, secret_values
from connector.config.models import parse_duration, parse_size
from connector.config.reference import duration_text, size_text
from connector.errors import ConfigurationError
from tests.unit.vendors.acme import KINDS, AcmeSettings, read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which the configuration stands."""
    return tmp_path


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
    ("port", "first", "last"), [(8080, 8080, 8080), ("8080", 8080, 8080), (0, 0, 0), ("8080-8089", 8080, 8089)]
)
def test_a_port_may_be_a_range(folder: Path, port: object, first: int, last: int) -> None:
    """Several members on one host share a file: each takes the first port of the range that is free."""
    ports = read(folder, {"server": {"port": port}}).settings.server.ports
    assert (ports[0], ports[-1]) == (first, last)


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


@pytest.mark.parametrize(
    ("console", "words"),
    [
        ({"tokens": {"look": "same-token", "act": "same-token"}}, "look and act must be different tokens"),
        ({"token": "older-token", "tokens": {"act": "newer-token"}}, "set only tokens.act"),
        ({"tokens": {"act": "short"}}, "must have at least 8 characters"),
        ({"links": {"topic": "javascript:alert(1)"}}, "must be an address such as https://"),
        ({"links": {"record": "https://kafka.example.com/{topics}"}}, "unknown {topics}"),
    ],
)
def test_the_consoles_settings_must_agree(folder: Path, console: dict[str, Any], words: str) -> None:
    """A token stands for one role, and a link is a web address of what is known. Kills: a page with a script's link."""
    (message,) = faults(folder, {"console": console}).values()
    assert words in message


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"path": "a", "hash": "hmac-sha256"}, "hmac-sha256 and key belong together"),
        ({"path": "a", "hash": "sha256", "key": "k"}, "sha256 takes no key"),
        ({"map": {}, "omit": ["a"]}, "omit leaves out keys of base"),
    ],
)
def test_parts_of_a_source_must_agree(folder: Path, source: dict[str, Any], words: str) -> None:
    """A key without its hash, or keys to leave out of nothing, are faults with the way out."""
    route = {"to": ["one"], "fields": {"acme": {"name": source}}}
    assert words in " ".join(faults(folder, {"routes": [route]}).values())


@pytest.mark.parametrize(
    ("condition", "words"),
    [({"gt": True}, "must be a number or a time such as"), ({}, "an empty condition")],
)
def test_a_condition_needs_something_to_compare_with(folder: Path, condition: dict[str, Any], words: str) -> None:
    """A bound that has no order, and a condition that says nothing, match no record, so they are faults."""
    assert words in " ".join(faults(folder, {"routes": [{"to": ["one"], "where": {"a": condition}}]}).values())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server: {port: 80, port: 81}", None),
        ("server: [", "invalid YAML"),
        ("\t- server", "invalid YAML"),
        ("server: {port: no}", "port"),
        ("server: {token: '${NOT_SET}'}", "NOT_SET"),
        (None, "cannot be read"),
    ],
)
def test_the_port_is_read_from_a_file_with_other_faults(folder: Path, text: str | None, words: str | None) -> None:
    """`connector reload` finds the member as long as the section `server` can be read; else it says what is wrong."""
    file = folder / "connector.yaml"
    if text is not None:
        file.write_text(f"destinations: 7\n{text}\n" if text.startswith("server") else text)
    if words is None:
        assert port_settings(file)[1] is None
        return
    with pytest.raises(ConfigurationError, match=words):
        port_settings(file)


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
        "routes[0].to[0]",
        "log.level",
        "serve",
    }
    assert found["destinations.one.secret"] == "the environment variable NOPE is not set"
    assert found["destinations.one.account"] == "is required"
    assert "did you mean bytes?" in found["destinations.one.batch.byte"]
    assert "did you mean schema?" in found["routes[0].schem"]
    assert "did you mean server?" in found["serve"]
    assert found["destinations.Three.vendor"] == "unknown vendor 'acmee'; did you mean acme? known vendors: acme, slow"


ONE_FAULT: list[tuple[dict[str, Any], str, str]] = [
    ({"destinations": {"one": {"batch": {"records": 101}}}}, "destinations.one.batch.records", "agreed_limits"),
    (
        {"destinations": {"one": {"batch": {"bytes": 2**20 + 1}}}},
        "destinations.one.batch.bytes",
        "at most 1048576, the limit of acme",
    ),
    ({"destinations": {"one": {"requests_per_second": 100.5}}}, "destinations.one.requests_per_second", "not 100.5"),
    ({"destinations": {"one": {"timeout": "20001ms"}}}, "destinations.one.timeout", "must be at most 20s"),
    ({"destinations": {"one": {"timeout": "soon"}}}, "destinations.one.timeout", "such as 200ms, not 'soon'"),
    ({"destinations": {"one": {"timeout": True}}}, "destinations.one.timeout", "200ms, not true"),
    (
        {"destinations": {"one": {"batch": {"bytes": "1 MB/s"}}}},
        "destinations.one.batch.bytes",
        "1MiB, not '1 MB/s'",
    ),
    (
        {"destinations": {"one": {"retry": {"initial": "2m"}}}},
        "destinations.one.retry.initial",
        "retry.max (60s), not 120s",
    ),
    ({"destinations": {"one": {"storm": {"share": 2}}}}, "destinations.one.storm.share", "must be at most 1, not 2"),
    ({"destinations": {"one": {"storm": "of"}}}, "destinations.one.storm", "must be a mapping or 'off', not 'of'"),
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
    ({"destinations": {"one": {"account": True}}}, "destinations.one.account", "must be a string, not true"),
    ({"destinations": {"one": {"http": {"key_file": __file__}}}}, "destinations.one.http", "must be set together"),
    (
        {"destinations": {"one": {"http": {"ca_file": "no.pem"}}}},
        "destinations.one.http.ca_file",
        "file: no.pem",
    ),
    ({"destinations": {"one": {"base_url": "ftp://x"}}}, "destinations.one.base_url", "https://"),
    (
        {"destinations": {"one": {"base_url": "https://u:p@x"}}},
        "destinations.one.base_url",
        "not contain credentials",
    ),
    ({"destinations": {"one": {"base_url": "https://x/?a=1"}}}, "destinations.one.base_url", "without a query"),
    ({"destinations": {"one": {"vendor": None}}}, "destinations.one.vendor", "is required; known vendors: acme, slow"),
    ({"destinations": {"one": {"vendor": ["acme"]}}}, "destinations.one.vendor", "must be a string, not a list"),
    ({"destinations": {"one": 3}}, "destinations.one", "must be a mapping, not a whole number"),
    (
        {"destinations": {"one": {"vendor": "nobody"}}},
        "destinations.one.vendor",
        "vendor 'nobody'; known vendors:",
    ),
    ({"destinations": ...}, "destinations", "at least one is required"),
    ({"destinations": ["one"]}, "destinations", "must be a mapping by name, not a list"),
    ({"kafka": None}, "kafka", "is required"),
    ({"kafka": {"topics": []}}, "kafka.topics", "must not be empty"),
    ({"kafka": {"topics": "events"}}, "kafka.topics", "must be a list, not a string"),
    ({"kafka": {"topics": ["group.replay"]}}, "dead_letters.replay_topic", "the connector would consume group.replay"),
    ({"kafka": {"start": "yesterday"}}, "kafka.start", "such as 2026-11-20T00:00:00Z, not 'yesterday'"),
    ({"kafka": {"start": "2026-01-01T00:00:00"}}, "kafka.start", "with a zone"),
    ({"kafka": {"start": -1}}, "kafka.start", "epoch milliseconds"),
    ({"kafka": {"client": {"acks": 1}}}, "kafka.client.acks", "idempotent"),
    ({"kafka": {"client": {"enable.auto.commit": False}}}, "kafka.client.enable.auto.commit", "limits.commit_interval"),
    (
        {"kafka": {"client": {"auto.offset.reset": "none"}}},
        "kafka.client.auto.offset.reset",
        "latest, not 'none'",
    ),
    (
        {"kafka": {"client": {"sasl.mechanism": [1]}}},
        "kafka.client.sasl.mechanism",
        "or true or false, not a list",
    ),
    (
        {"kafka": {"start": "latest", "client": {"auto.offset.reset": "latest"}}},
        "kafka.client.auto.offset.reset",
        "keep one of the two",
    ),
    (
        {"kafka": {"client": {"group.protocol": "consumer", "session.timeout.ms": 1}}},
        "kafka.client.session.timeout.ms",
        "the broker sets it",
    ),
    ({"dead_letters": {"topic": "a/b"}}, "dead_letters.topic", "1 to 249"),
    ({"dead_letters": {"topic": "group.replay"}}, "dead_letters.replay_topic", "each needs its own topic"),
    ({"receipts": {"topic": "events"}}, "receipts.topic", "which it writes to"),
    ({"destinations": {"one": {"results_topic": "group.replay"}}}, "destinations.one.results_topic", "its own topic"),
    ({"routes": [{"to": ["one", "one"]}]}, "routes[0].to[1]", "one is listed twice; keep one"),
    ({"routes": [{"to": ["oen"]}]}, "routes[0].to[0]", "unknown destination 'oen'; did you mean one?"),
    ({"routes": [{"to": ["one"], "fields": {"slow": {}}}]}, "routes[0].fields.slow", "known vendors: acme"),
    ({"routes": [{"to": ["one"], "topics": ["event"]}]}, "routes[0].topics[0]", "did you mean events?"),
    ({"schemas": {"plain": {"other": "x"}}}, "schemas.plain.other", "other is not in kafka.topics"),
    ({"limits": {"drain_timeout": "2s"}}, "limits.drain_timeout", "must be at least 3, not '2s'"),
    (
        {"schema_registry": {"url": "localhost:8081"}},
        "schema_registry.url",
        "begins with http:// or https://, not",
    ),
    (
        {"kafka": {"client": {"max.poll.interval.ms": 20_000}}},
        "kafka.client.max.poll.interval.ms",
        "must be at least 27000, not 20000",
    ),
    ({"limits": {"drain_timeout": "5m"}}, "kafka.client.max.poll.interval.ms", "must be at least 305000"),
    ({"server": {"port": "http"}}, "server.port", "or a range such as 8080-8089, not 'http'"),
    ({"server": {"port": 65536}}, "server.port", "must be a port from 0 to 65535"),
    ({"server": {"port": "8089-8080"}}, "server.port", "must be a port from 0 to 65535"),
    ({"console": {"port": "http"}}, "console.port", "must be a whole number, not a string"),
]


@pytest.mark.parametrize(
    ("change", "path", "said"), ONE_FAULT, ids=[f"{p}-{i}" for i, (_, p, _) in enumerate(ONE_FAULT)]
)
def test_one_mistake_is_one_fault(folder: Path, change: dict[str, Any], path: str, said: str) -> None:
    """A mistake gives one fault at its own path, and says what is allowed."""
    found = faults(folder, change)
    assert list(found) == [path]
    assert said in found[path]


def test_a_fault_has_the_line_of_its_key(folder: Path) -> None:
    """A faulty value has its own line; a missing key has the line of the mapping that lacks it."""
    path = folder / "connector.yaml"
    path.write_text(
        "kafka:\n  topics: [events]\n  group_id: g\n  client: {bootstrap.servers: x}\n"
        "destinations:\n  one:\n    vendor: acme\n    secret: s\n    order: keys\n    storm:\n      share: 3\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigurationError) as caught:
        load(path, KINDS)
    assert str(caught.value).splitlines() == [
        "destinations.one.order: must be 'none' or 'key', not 'keys' (line 9)",
        "destinations.one.storm.share: must be at most 1, not 3 (line 11)",
        "destinations.one.account: is required (line 6)",
    ]


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
    """PEM files are found next to the file wherever the process was started."""
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


def test_reload_reads_a_rotated_secret_of_the_registry(folder: Path) -> None:
    """The registry's password is read again as a destination's; one that is gone is a fault with its path."""
    secret = folder / "secret"
    secret.write_text("u:first\n", encoding="utf-8")
    registry = {"url": "http://r", "client": {"basic.auth.user.info": "${file:secret}"}}
    loaded = read(folder, {"schema_registry": registry})
    secret.write_text("u:second\n", encoding="utf-8")
    assert loaded.reload_registry().client == {"basic.auth.user.info": "u:second"}
    secret.unlink()
    with pytest.raises(ConfigurationError, match=r"schema_registry\.client\.basic\.auth\.user\.info: the file secret"):
        loaded.reload_registry()


def test_a_registrys_proxy_that_is_no_proxy_any_more_is_a_fault(folder: Path) -> None:
    """A rotated file with something else in it is reported without its content. Kills: an error with the password."""
    (folder / "proxy").write_text("http://user:first-one@proxy:3128", encoding="utf-8")
    registry = {"url": "http://registry", "client": {"proxy": "${file:proxy}"}}
    loaded = read(folder, {"schema_registry": registry})
    (folder / "proxy").write_text("socks5://user:second-one@proxy", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="schema_registry: is not valid any more") as caught:
        loaded.reload_registry()
    assert "second-one" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_fault(folder: Path) -> None:
    """No file, no text and no mapping are each reported as a fault, not as a traceback."""
    path = folder / "connector.yaml"
    for content, said in ((None, "No such file"), (b"\xff", "not UTF-8"), (b"", "not null"), (b"- 1", "not a list")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=said):
            load(path, KINDS)


@given(st.integers(min_value=1, max_value=10**15))
def test_sizes_round_trip(count: int) -> None:
    """A size as it is shown is read as the same number of bytes."""
    assert parse_size(size_text(count)) == count


@given(st.one_of(st.integers(1, 10**8), st.integers(1, 10**7).map(lambda ms: ms / 1000)))
def test_durations_round_trip(seconds: float) -> None:
    """A duration as it is shown is read as the same number of seconds."""
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, rel=1e-12)
