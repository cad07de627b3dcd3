"""What is valid and insecure is a warning with its path, and no secret is repeated in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.vendors.acme import merge, read

SAFE: dict[str, Any] = {
    "destinations": {
        "one": {"secret": "${SECRET}"},
        "two": {"base_url": "https://slow.example", "token": "${SECRET}"},
    }
}


def warned(folder: Path, change: Mapping[str, Any]) -> dict[str, str]:
    """Return the warnings of the safe configuration with a change, by path."""
    loaded = read(folder, merge(SAFE, change), SECRET="0123456789abcdef", SHORT="short-one")
    return {fault.path: fault.message for fault in loaded.warnings}


def test_a_careful_configuration_has_no_warnings(tmp_path: Path) -> None:
    """Secrets by reference, TLS everywhere, long tokens, and http on this machine only."""
    change = {
        "server": {"token": "${SECRET}"},
        "schema_registry": {"url": "http://localhost:8081", "client": {"basic.auth.user.info": "${SECRET}"}},
        "kafka": {"client": {"security.protocol": "SASL_SSL", "sasl.password": "${SECRET}", "sasl.username": "u"}},
    }
    assert warned(tmp_path, change) == {}


@pytest.mark.parametrize(
    ("change", "path", "said"),
    [
        ({"destinations": {"two": {"base_url": "http://slow.example"}}}, "destinations.two.base_url", "https://"),
        ({"schema_registry": {"url": "http://registry"}}, "schema_registry.url", "https://"),
        ({"console": {"tokens": {"look": "${SHORT}"}}}, "console.tokens.look", "16 characters"),
        ({"console": {"tokens": {"act": "${SHORT}"}}}, "console.tokens.act", "16 characters"),
        ({"kafka": {"client": {"security.protocol": "sasl_plaintext"}}}, "kafka.client.security.protocol", "SASL_SSL"),
        (
            {"kafka": {"client": {"enable.ssl.certificate.verification": False}}},
            "kafka.client.enable.ssl.certificate.verification",
            "not verified",
        ),
        (
            {"kafka": {"client": {"ssl.endpoint.identification.algorithm": "none"}}},
            "kafka.client.ssl.endpoint.identification.algorithm",
            "not verified",
        ),
        ({"kafka": {"client": {"sasl.password": 12345678}}}, "kafka.client.sasl.password", "${file:PATH}"),
        (
            {"kafka": {"client": {"enable.ssl.certificate.verification": "f"}}},
            "kafka.client.enable.ssl.certificate.verification",
            "not verified",
        ),
        ({"schema_registry": {"url": "https://me:hunter22@registry"}}, "schema_registry.url", "${NAME}"),
        (
            {"schema_registry": {"url": "https://r", "client": {"proxy": "https://hunter22@proxy"}}},
            "schema_registry.client.proxy",
            "${NAME}",
        ),
        ({"tracing": {"endpoint": "https://otel?key=hunter22"}}, "tracing.endpoint", "${NAME}"),
        (
            {"destinations": {"one": {"http": {"proxy": "http://hunter22@proxy"}}}},
            "destinations.one.http.proxy",
            "${NAME}",
        ),
        ({"destinations": {"one": {"secret": "hunter22"}}}, "destinations.one.secret", "${NAME}"),
    ],
)
def test_what_is_insecure_is_a_warning(tmp_path: Path, change: Mapping[str, Any], path: str, said: str) -> None:
    """One warning at its own path says what to do, without the secret."""
    found = warned(tmp_path, change)
    assert list(found) == [path]
    assert said in found[path]
    assert "hunter22" not in str(found)
    assert "12345678" not in str(found)


def test_a_short_token_is_a_warning(tmp_path: Path) -> None:
    """A token of fifteen characters can be guessed, and one written in the file is reported too."""
    assert warned(tmp_path, {"server": {"token": "123456789012345"}}).keys() == {"server.token"}
