"""Secrets are recognized by name, by text and in URLs, in values of any shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.telemetry.redaction import HIDDEN, Redactor, mask_written, names_secret, written_secrets


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
        ("a user:pass@host:1,u:p4ss@h", "a ***@host:1,***@h", ["pass", "p4ss"]),
        ("mailto:a@b u:${PW}@h events[0]@12 a: b@c", "mailto:a@b u:${PW}@h events[0]@12 a: b@c", []),
        ("http://a:1,http://b:2", "http://a:1,http://b:2", []),
        ("('http://h/?a=1')", "('http://h/?***')", ["a=1", "1"]),
        ("//u:p4ss@h:1/x and a//b@c", "//***@h:1/x and a//b@c", ["p4ss"]),
        ("proxy=//TOKEN@h", "proxy=//***@h", ["TOKEN"]),
        ("http://u:p ss w0rd@h/", "http://***@h/", ["p ss w0rd"]),
        ("http://h:80 was left by a@b; http://h: a@b", "http://h:80 was left by a@b; http://h: a@b", []),
        ("https://h/p;password=p4ss;x=1", "https://h/p;password=***;x=1", ["p4ss"]),
        ("Host=h;Password=p4ss;User=u", "Host=h;Password=***;User=u", ["p4ss"]),
        ('Module required username="u" password="p 4ss";', 'Module required username="u" password=***;', ["p 4ss"]),
        ("{'sasl.password': 'p4ss', 'a': 'b'}", "{'sasl.password': ***, 'a': 'b'}", ["p4ss"]),
        ("{'token': b'p4ss', \"password\":12345678}", "{'token': ***, \"password\":***}", ["p4ss", "12345678"]),
        ("pwd=bp4ss; ssl.key.password = p4ss", "pwd=***; ssl.key.password = ***", ["bp4ss", "p4ss"]),
        ('{"api_key":"p4ss"}', '{"api_key":***}', ["p4ss"]),
        ("password=${PW};token=${file:/t}", "password=${PW};token=${file:/t}", []),
        ("('Authorization': 'Basic dXNlcjpwNHNz')", "('Authorization': ***)", ["Basic dXNlcjpwNHNz"]),
        ("sent Bearer eyJhbGciOiJ9.e30.x", "sent Bearer ***", ["eyJhbGciOiJ9.e30.x"]),
        ("Basic authentication; token=='a'; token == 'b'", "Basic authentication; token=='a'; token == 'b'", []),
        ("tokens=3 partition=1 http_status=401 key=k", "tokens=*** partition=1 http_status=401 key=k", ["3"]),
    ],
)
def test_secrets_in_texts(text: str, shown: str, secrets: list[str]) -> None:
    """User information and query of a URL are hidden, the host and the path stay; a path with @ holds no user.

    So is what stands by the name of a secret. Kills: a token that stands alone before the @; a key in a query; an
    address without its scheme; a password with a space, or as a parameter.
    """
    assert mask_written(text) == shown
    assert set(written_secrets(text)) == set(secrets)


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


@pytest.mark.parametrize(
    "part", ["a", 'a="', "//", "//a:b ", "http://a:b ", "'\\", "a'", "Bearer ", "a+", "a:a@", "a//a:"]
)
@pytest.mark.timeout(10)
def test_no_text_takes_long(part: str) -> None:
    """A vendor's answer of 100,000 characters is searched in a moment. Kills: a pattern that is quadratic."""
    text = part * (100_000 // len(part))
    assert Redactor().text(text)
    assert Redactor().text(f"{text}=")


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
