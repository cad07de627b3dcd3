"""No value of the file is ever shown that may be a secret: not in a fault, not in what `check` prints."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from connector.config.loader import load, redacted, secret_values
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
