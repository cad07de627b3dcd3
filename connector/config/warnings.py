"""Warnings about valid settings: secrets or traffic in the clear, and text that looks like a pattern.

Nothing here stops a run; `check` shows it, and `check --strict` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from connector.config.models import Settings
from connector.config.routes import CEL, Condition
from connector.config.secrets import is_secret
from connector.config.yaml import join
from connector.errors import ConfigFault
from connector.telemetry.redaction import written_secrets

SHORTEST_TOKEN: Final = 16
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_OFF: Final = ("false", "f", "0", "none")


def insecure(settings: Settings, written: Mapping[str, Any]) -> Iterator[ConfigFault]:
    """Yield the insecure settings. `written` is the file before its references were resolved."""
    for name, destination in settings.destinations.items():
        if _in_the_clear(destination.base_url):
            yield ConfigFault(
                f"destinations.{name}.base_url", "events and credentials are sent unencrypted; use https://"
            )
    yield from _kafka(settings.kafka.client)
    registry = settings.schema_registry
    if registry is not None and _in_the_clear(registry.url):
        yield ConfigFault("schema_registry.url", "schemas and credentials are sent unencrypted; use https://")
    console = settings.console
    tokens = {"console.tokens.look": console.tokens.look, "console.tokens.act": console.tokens.act}
    for path, token in {"server.token": settings.server.token, "console.token": console.token, **tokens}.items():
        if token is not None and len(token.get_secret_value()) < SHORTEST_TOKEN:
            yield ConfigFault(path, f"is shorter than {SHORTEST_TOKEN} characters and can be guessed")
    for path in _written_secrets("", settings, written):
        yield ConfigFault(path, "the secret is in the file; write ${NAME} or ${file:PATH} instead")


def doubtful(settings: Settings) -> Iterator[ConfigFault]:
    """Yield likely mistakes in a route: text that looks like a pattern but is compared literally."""
    for index, route in enumerate(settings.routes):
        for path, wanted in route.where.items():
            for text in _texts(wanted) if path != CEL else ():
                where = f"routes[{index}].where.{path}"
                if text.startswith("^"):
                    yield ConfigFault(
                        where, f"{text!r} is compared as text, not as a pattern; write {{matches: {text!r}}}"
                    )
                elif text.startswith("!"):
                    yield ConfigFault(where, f"the text {text!r} negates nothing; write {{not: {text[1:]!r}}}")


def _texts(wanted: Any) -> Iterator[str]:
    """Yield the texts that a value is compared with."""
    if isinstance(wanted, Condition):
        yield from _texts([*(wanted.one_of or ()), wanted.negated])
    elif isinstance(wanted, list):
        for each in wanted:
            yield from _texts(each)
    elif isinstance(wanted, str):
        yield wanted


def _in_the_clear(url: str) -> bool:
    """Whether requests leave this machine without TLS."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOCAL


def _kafka(client: Mapping[str, object]) -> Iterator[ConfigFault]:
    """Yield the insecure settings of the connections to Kafka."""
    if str(client.get("security.protocol", "")).lower() == "sasl_plaintext":
        yield ConfigFault("kafka.client.security.protocol", "events and credentials are sent unencrypted; use SASL_SSL")
    for key in ("enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm"):
        if key in client and str(client[key]).lower() in _OFF:
            yield ConfigFault(f"kafka.client.{key}", "the broker's certificate is not verified; leave it on")


def _written_secrets(path: str, settings: Any, written: Any, section: str = "") -> Iterator[str]:
    """Yield the paths of secrets whose text is in the file itself."""
    if isinstance(settings, BaseModel) and isinstance(written, Mapping):
        for name, field in type(settings).model_fields.items():
            key = field.alias or name
            if key in written:
                yield from _written_secrets(join(path, key), getattr(settings, name), written[key], key)
    elif isinstance(settings, Mapping) and isinstance(written, Mapping):
        for key, value in settings.items():
            if key in written:
                below = written[key]
                if isinstance(below, Mapping | list):
                    yield from _written_secrets(join(path, key), value, below, section)
                elif section in ("client", "headers") and is_secret(section, str(key)):
                    if _is_text(below):
                        yield join(path, key)
                else:
                    yield from _written_secrets(join(path, key), value, below, section)
    elif isinstance(settings, list) and isinstance(written, list):
        for index, (each, below) in enumerate(zip(settings, written, strict=False)):
            yield from _written_secrets(join(path, index), each, below, section)
    elif _is_text(written) and (isinstance(settings, SecretStr) or any(written_secrets(str(written)))):
        yield path


def _is_text(written: Any) -> bool:
    return isinstance(written, str | int | float) and not isinstance(written, bool) and "${" not in str(written)
