"""Hides what must not be shown: secrets, by key name and by their own text, and record values that a vendor repeats.

The names follow the vendors' and librdkafka's own: project_secret, app_key, sasl.password, ssl.key.pem,
basic.auth.user.info.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

HIDDEN: Final = "***"

SECRET_NAME: Final = re.compile(
    r"secret|passw|token|authorization|credential|cookie|signature|auth\.user\.info|"
    r"(?:^|[._-])(?:pwd?|jaas|app_?key|api_?key|access_?key|private_?key|key_pem|key\.pem|keystore\.pem|auth)$",
    re.IGNORECASE,
)
NOT_SECRET_NAME: Final = re.compile(r"(?:endpoint\.url|_url|location|timeout\.ms|\.type|_file|scope)$", re.IGNORECASE)
# A password with a slash, a question mark or a space is a mistake that servers refuse, but it must be hidden. After a
# colon, a port is not a password. Without a scheme, `//` begins an address only if it has user information.
_USER: Final = r"[^/\s?#]*|[^/\s?#:@\"',<>\[\]]+:(?!\s|\d*(?:[/?#\s:,;)\]}]|$))[^@\"'<>\n]{0,256}"
_URL: Final = re.compile(
    rf"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?:(?P<user>{_USER})@)?|(?<![\w:/])//(?P<bare>{_USER})@)"
    r"(?P<place>[^\s?#,\"']*)(?P<query>[?#][^\s,\"'<>)]*)?"
)
# An address that was written without `//`.
_PLAIN: Final = re.compile(
    r"(?<![\w.:@/%-])(?!(?:mailto|sip|urn):)[\w.%+~-]++:(?P<password>(?!\$\{)[^\s/@:,;\"'<>]{1,256})@(?=[\w\[])"
)
# In the forms of drivers, libraries and headers: `password=x`, `'password': 'x'`, `Bearer x1`. References stay visible.
_NAMED: Final = re.compile(
    r"""(?<![\w.-])(?P<name>[\w.-]++)(?P<between>\s?=(?!=)\s?|['"]\s?[:=]\s?)"""
    r"""(?P<value>b?"(?:\\.|[^"\\])*"|b?'(?:\\.|[^'\\])*'|(?!\$\{)[^\s;&,'"<>(){}\[\]]+)"""
    r"""|\b(?P<scheme>Bearer|Basic) (?P<credentials>(?=\S*[\d=])[\w+/=.~-]{8,})"""
)
_SHORTEST: Final = 4
_EVENT_TYPE: Final = re.compile(r"event_?(name|code)|method", re.IGNORECASE)
"""Keys whose values name the type of an event. They are not personal, and a person needs to see them."""
_SHORTEST_TEXT: Final = 3
_SHORTEST_NUMBER: Final = 5
"""Shorter texts and numbers are too often a status, a code or a count instead of a record's value."""


def names_secret(name: str) -> bool:
    """Whether a key or a header of this name holds a secret."""
    return bool(SECRET_NAME.search(name)) and not NOT_SECRET_NAME.search(name)


def mask_written(text: str) -> str:
    """Return text with the user information and query of every URL hidden, and values next to the name of a secret."""
    if "//" in text:
        text = _URL.sub(_masked, text)
    if "@" in text:
        text = _PLAIN.sub(f"{HIDDEN}@", text)
    return _NAMED.sub(_masked_value, text)


def written_secrets(text: str) -> Iterator[str]:
    """Yield the secrets in a text: of its URLs the password (or a user name without one) and the query.

    Also values next to the name of a secret, as in `password=x`.
    """
    for match in _URL.finditer(text) if "//" in text else ():
        user, colon, password = (match["user"] or match["bare"] or "").partition(":")
        yield from [password] if colon else [user] if user else []
        query = (match["query"] or "")[1:]
        if query:
            yield query
            yield from (value for _, equals, value in (part.partition("=") for part in query.split("&")) if equals)
    yield from (match["password"] for match in _PLAIN.finditer(text))
    for match in _NAMED.finditer(text):
        if match["scheme"]:
            yield match["credentials"]
        elif names_secret(match["name"]):
            yield match["value"].removeprefix("b").strip("\"'") if match["value"][-1] in "\"'" else match["value"]


def _masked(match: re.Match[str]) -> str:
    user = "" if match["user"] is None and match["bare"] is None else f"{HIDDEN}@"
    query = "" if match["query"] is None else f"{match['query'][0]}{HIDDEN}"
    return f"{match['scheme'] or '//'}{user}{match['place']}{query}"


def _masked_value(match: re.Match[str]) -> str:
    if match["scheme"]:
        return f"{match['scheme']} {HIDDEN}"
    return f"{match['name']}{match['between']}{HIDDEN}" if names_secret(match["name"]) else match[0]


class Redactor:
    """Hides secrets in values before they are shown: by the name of their key, and by their own text.

    Texts shorter than four characters are not searched for, because they would hide half of every line.
    """

    def __init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None

    def register(self, secrets: Iterable[str]) -> None:
        """Hide these texts wherever they appear from now on. Idempotent."""
        known = self._secrets | {secret for secret in secrets if len(secret) >= _SHORTEST}
        if known != self._secrets:
            self._secrets = known
            longest_first = sorted(known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """Return the text without registered secrets, and without secrets that can be recognised in it."""
        if self._pattern is not None:
            text = self._pattern.sub(HIDDEN, text)
        return mask_written(text)

    def value(self, value: Any) -> Any:
        """Return a value of any shape with its secrets hidden. Values that are not plain data become text."""
        match value:
            case str():
                return self.text(value)
            case None | bool() | int() | float():
                return value
            case bytes():
                return self.text(value.decode(errors="backslashreplace"))
            case Mapping():
                return {
                    self.text(str(key)): HIDDEN if names_secret(str(key)) and child is not None else self.value(child)
                    for key, child in value.items()
                }
            case list() | tuple() | set() | frozenset():
                return [self.value(child) for child in value]
            case _:
                return self.text(str(value))


def hide_record_values(message: str, bodies: Iterable[bytes]) -> str:
    """Return a vendor's message without the values of the items it may be about. Items that are not JSON have none.

    A value is hidden if it is a whole word. The dead letter keeps the full message; logs and status pages get this one.
    """
    values: set[str] = set()
    for body in bodies:
        try:
            _collect_values(orjson.loads(body), values)
        except orjson.JSONDecodeError:
            continue
    for value in sorted(values, key=len, reverse=True):
        if value in message:
            message = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, message)
    return message


def _collect_values(value: Any, values: set[str]) -> None:
    """Add every text and number in a value, at any depth."""
    match value:
        case dict():
            for key, child in value.items():
                if not (isinstance(child, str) and _EVENT_TYPE.search(key)):
                    _collect_values(child, values)
        case list():
            for child in value:
                _collect_values(child, values)
        case str() if len(value) >= _SHORTEST_TEXT:
            values.add(value)
        case int() | float() if not isinstance(value, bool) and len(str(value)) >= _SHORTEST_NUMBER:
            values.add(str(value))
