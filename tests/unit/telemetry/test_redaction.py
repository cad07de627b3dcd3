"""Secrets are recognized by name, by text and in URLs, in values of any shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.telemetry.redaction import HIDDEN, Redactor, mask_urls, names_secret, url_secrets


@pytest.mark.parametrize(
    "name",
    [
        *("authorization", "Authorization", "token", "server.token", "secret", "project_secret", "master_secret"),
        *("password", "sasl.password", "ssl.key.password", "ssl.keystore.password", "ssl.key.pem", "ssl.keystore.pem"),
        *(
            "app_key",
            "appKey",
            "access_key",
            "api_key",
            "basic.auth.user.info",
            "client_secret",
            "cookie",
            "Set-Cookie",
        ),
        *("bearer.auth.token", "sasl.oauthbearer.client.secret", "X-Signature", "credentials"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    """What vendors, librdkafka and the registry call a secret is one."""
    assert names_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "key",
            "dlq-key",
            "destination",
            "partition",
            "sasl.username",
            "ssl.key.location",
            "ssl.ca.location",
            "bytes",
        ),
        *("sasl.oauthbearer.token.endpoint.url", "merge_key", "author", "order", "key_file", "http_status"),
    ],
)
def test_names_of_what_may_be_seen(name: str) -> None:
    """A record's key, a file's place or a user's name is no secret."""
    assert not names_secret(name)


@pytest.mark.parametrize(
    ("text", "shown", "secrets"),
    [
        ("see https://user:pass@host:1/x and http://h/a@b:c", "see https://***@host:1/x and http://h/a@b:c", ["pass"]),
        ("http://TOKEN@proxy:3128", "http://***@proxy:3128", ["TOKEN"]),
        ("http://u:p@ss@h/", "http://***@h/", ["p@ss"]),
        ("http://u:p/s?s@h/", "http://***@h/", ["p/s?s"]),
        ("http://h:80/a@b and {http://h:8/, x: a@b}", "http://h:80/a@b and {http://h:8/, x: a@b}", []),
        ("http://[::1]:8080/x@y", "http://[::1]:8080/x@y", []),
        ("https://h/p?api_key=K3Y&x=1", "https://h/p?***", ["api_key=K3Y&x=1", "K3Y", "1"]),
        ("https://h/p#K3Y", "https://h/p#***", ["K3Y"]),
        ("user:pass@host", "user:pass@host", []),
        ("http://a:1,http://b:2", "http://a:1,http://b:2", []),
        ("('http://h/?a=1')", "('http://h/?***')", ["a=1", "1"]),
    ],
)
def test_secrets_in_urls(text: str, shown: str, secrets: list[str]) -> None:
    """User information and query are hidden, the host and the path stay; a path with @ holds no user.

    Kills: a token that stands alone before the @; a key in a query.
    """
    assert mask_urls(text) == shown
    assert list(url_secrets(text)) == secrets


def test_longer_secrets_go_first() -> None:
    """A secret that contains another leaves nothing of itself."""
    redactor = Redactor()
    redactor.register(["abcd", "abcdefgh"])
    assert redactor.text("abcdefgh abcd") == f"{HIDDEN} {HIDDEN}"


def test_short_texts_are_not_secrets() -> None:
    """A text of three characters would hide half of every line."""
    redactor = Redactor()
    redactor.register(["666", ""])
    assert redactor.text("id 666") == "id 666"


SECRET = "§secret§"
TEXTS = st.one_of(st.text("ab§", max_size=5), st.text("ab", max_size=3).map(lambda text: text + SECRET + text))
TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, TEXTS.map(str.encode)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "password", SECRET]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(TREES)
def test_a_registered_secret_is_nowhere_in_a_value(tree: Any) -> None:
    """Texts, bytes and lists at any depth are searched, and keys. Kills leaving nested values as they are."""
    redactor = Redactor()
    redactor.register([SECRET])
    assert SECRET not in str(redactor.value(tree))


@given(TREES)
def test_shown_values_are_plain_data(tree: Any) -> None:
    """Whatever comes in, what comes out are the types of JSON."""

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(child) for key, child in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or isinstance(value, bool | int | float | str)

    assert plain(Redactor().value(tree))
    assert plain(Redactor().value({"set": {1}, "object": object(), "tuple": (b"\xff",)}))
