"""No value of the file that may be a secret is shown: not in a fault, not in what `check` prints."""

from __future__ import annotations

import copy
import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
import yaml

from connector.config.loader import load, redacted, secret_values
from connector.config.secrets import HARMLESS_PROPERTIES
from connector.errors import ConfigurationError
from tests.unit.vendors.acme import BASE, KINDS, RULES, merge, read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which the configuration stands."""
    return tmp_path


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


SYMBOLS = {
    ("kafka", "start"),
    ("kafka", "create_topics"),
    ("destinations", "two", "vendor"),
    *(("destinations", "one", key) for key in ("vendor", "agreed_limits", "order", "rate_limit_share", "timeout")),
    *(("destinations", "one", key) for key in ("on_unknown_outcome", "storm", "hold")),
    *(("destinations", "one", "batch", key) for key in ("bytes", "linger")),
    *(("destinations", "one", "retry", key) for key in ("initial", "max", "give_up_after")),
    ("destinations", "one", "codes", "1"),
    ("destinations", "one", "rules", "acme.name.empty"),
    ("destinations", "one", "http", "ca_file"),
    ("destinations", "one", "http", "cert_file"),
    ("destinations", "one", "http", "key_file"),
    ("routes", 0, "entity"),
    ("routes", 0, "to", 0),
    ("routes", 0, "topics", 0),
    ("unrouted",),
    *(("limits", key) for key in ("buffer", "drain_timeout", "commit_interval")),
    *(("log", key) for key in ("level", "format")),
    ("server", "port"),
}
"""Values that are repeated: choices, durations, sizes, and names of files, vendors, destinations and topics."""
HOLD_SYMBOLS = {
    ("routes", 0, "to"),
    ("routes", 0, "topics"),
    *(("destinations", "one", key) for key in ("codes", "rules")),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("value", [WRONG, [WRONG], {"key": WRONG}], ids=["text", "list", "mapping"])
def test_only_symbols_and_names_are_repeated(folder: Path, path: tuple[Any, ...], value: object) -> None:
    """A secret at a wrong place is not repeated, whatever is wrong with it there; a symbol or a name is.

    Kills: repeating every text; repeating a text that a list or a mapping holds.
    """
    file = folder / "connector.yaml"
    file.write_text(yaml.safe_dump(put(path, value)), encoding="utf-8")
    said = faults_text(file)
    if not (path in SYMBOLS and isinstance(value, str)) and path not in HOLD_SYMBOLS:
        assert WRONG not in said


@pytest.mark.parametrize("path", sorted(SYMBOLS, key=str), ids=lambda path: ".".join(map(str, path)))
def test_a_symbol_from_a_reference_is_not_repeated(folder: Path, path: tuple[Any, ...]) -> None:
    """What `${…}` stands for may be a secret that was put at the wrong place."""
    file = folder / "connector.yaml"
    (folder / "secret").write_text(WRONG, encoding="utf-8")
    file.write_text(yaml.safe_dump(put(path, "${file:secret}")), encoding="utf-8")
    said = faults_text(file)
    assert said
    assert WRONG not in said


def faults_text(file: Path) -> str:
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
    """Secrets by type, by place, by name and in URLs are hidden and registered; the rest is shown.

    Kills: a numeric password; a property of a newer library; a token before the @ of a proxy; a key in a query.
    """
    change = {
        "kafka": {
            "client": {
                "bootstrap.servers": "user:s-servers@h:9092,//user:s-second@h",
                "client.id": "x;password=s-id",
                "sasl.password": 12345678,
                "ssl.key.pem": "s-pem",
                "sasl.username": "user",
                "session.timeout.ms": 45000,
                "sasl.oauthbearer.assertion.private.key.passphrase": "s-phrase",
                "a.property.of.tomorrow": "s-new",
                "sasl.oauthbearer.token.endpoint.url": "https://id:s-endpoint@idp/token?s-query",
            }
        },
        "schema_registry": {
            "url": "https://user:s-url@registry",
            "client": {"basic.auth.user.info": "user:s-info", "oauth": {"x-api-key": "s-deep"}, "timeout": 3},
        },
        "destinations": {"one": {"http": {"proxy": "http://s-token@proxy:3128"}}},
        "server": {"token": "s-token-of-port"},
    }
    settings = read(folder, change).settings
    shown = redacted(settings)
    assert "s-" not in str(shown).replace("dead-letters", "")
    assert "12345678" not in str(shown)
    assert shown["kafka"]["client"]["sasl.username"] == "user"
    assert shown["kafka"]["client"]["session.timeout.ms"] == 45000
    assert shown["schema_registry"]["url"] == "https://***@registry"
    assert shown["schema_registry"]["client"]["timeout"] == 3
    assert shown["destinations"]["one"]["account"] == "100102"
    assert set(secret_values(settings)) == {
        *("12345678", "s-pem", "s-phrase", "s-new", "s-endpoint", "s-query"),
        *("s-servers", "s-second", "s-id"),
        *("s-url", "user:s-info", "s-deep", "s-token", "s-token-of-port", "s-one", "t-two"),
    }
    assert "s-one" not in repr(settings)


@pytest.mark.parametrize("secret", ["line\nbreak", "carriage\rreturn", "tab\there", "nul\0", "bell\x07"])
def test_a_secret_with_a_control_character_is_refused_by_its_path(secret: str, tmp_path: Path) -> None:
    """Such a secret cannot be sent in a header; found at the start it is no outage, and the value is not shown."""
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, {"destinations": {"two": {"token": secret}}})
    (fault,) = caught.value.faults
    assert fault.path == "destinations.two.token"
    assert "control character" in fault.message
    assert secret not in str(fault)


@pytest.mark.parametrize("proxy", ["socks5://proxy.example:1080", "proxy.example:3128", "http://"])
def test_only_an_http_proxy_is_allowed(proxy: str, tmp_path: Path) -> None:
    """Another protocol would be used as an HTTP proxy, and every request would fail."""
    with pytest.raises(ConfigurationError, match="HTTP proxy, such as") as caught:
        read(tmp_path, {"destinations": {"two": {"http": {"proxy": proxy}}}})
    assert [fault.path for fault in caught.value.faults] == ["destinations.two.http.proxy"]
    client = {"url": "http://registry", "client": {"proxy": proxy}}
    with pytest.raises(ConfigurationError, match="proxy must be the address of an HTTP proxy") as caught:
        read(tmp_path, {"schema_registry": client})
    assert [fault.path for fault in caught.value.faults] == ["schema_registry.client"]


def librdkafka_properties() -> dict[str, str]:
    """Return every property of the installed librdkafka with its description, as the library itself prints them."""
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    (library,) = folder.glob("librdkafka*")
    kafka, libc = ctypes.CDLL(str(library)), ctypes.CDLL(None)
    libc.open_memstream.restype = ctypes.c_void_p
    libc.fclose.argtypes = [ctypes.c_void_p]
    text, size = ctypes.c_char_p(), ctypes.c_size_t()
    stream = libc.open_memstream(ctypes.byref(text), ctypes.byref(size))
    kafka.rd_kafka_conf_properties_show.argtypes = [ctypes.c_void_p]
    kafka.rd_kafka_conf_properties_show(stream)
    libc.fclose(stream)
    rows = [line.split("|") for line in (text.value or b"").decode().splitlines() if line.count("|") > 4]
    return {row[0].strip(): row[-1] for row in rows if row[0].strip() not in ("Property", "") and "---" not in row[0]}


def test_every_property_of_librdkafka_is_hidden_or_known_as_harmless(folder: Path) -> None:
    """Each property of the library is walked: a text or a number under it is shown only if it is on the list.

    Kills: a list of secrets, which misses the next one; a secret that came onto the list.
    """
    properties = librdkafka_properties()
    assert len(properties) > 150
    assert properties.keys() >= HARMLESS_PROPERTIES
    named = re.compile(r"passw|passphrase|secret(?!.*\bfile)|\.pem$|keytab_data|jaas|\.config$|extensions|kinit")
    assert [name for name in HARMLESS_PROPERTIES if named.search(name)] == []
    kafka = read(folder).settings.kafka
    for name in properties:
        for value in (WRONG, 87654321):
            changed = kafka.model_copy(update={"client": {name: value}})
            is_shown = str(value) in str(redacted(changed))
            assert is_shown == (name in HARMLESS_PROPERTIES), name
            assert (str(value) in secret_values(changed)) == (not is_shown), name
