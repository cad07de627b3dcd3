"""What must never be shown: which keys name secrets, and how texts that may hold one are cut.

The names follow the vendors' and librdkafka's own: project_secret, app_key, sasl.password, ssl.key.pem,
basic.auth.user.info.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

HIDDEN: Final = "***"

_SECRET_NAME: Final = re.compile(
    r"secret|passw|token|authorization|credential|cookie|signature|auth\.user\.info|"
    r"(?:^|[._-])(?:pw|jaas|app_?key|api_?key|access_?key|private_?key|key_pem|key\.pem|keystore\.pem|auth)$",
    re.IGNORECASE,
)
_NOT_SECRET: Final = re.compile(r"(?:endpoint\.url|_url|location|timeout\.ms|\.type|_file|scope)$", re.IGNORECASE)
_CREDENTIALS: Final = re.compile(r"(?<=://)([^/\s@:]*):([^/\s@]*)(?=@)")
_SHORTEST: Final = 4


def names_secret(name: str) -> bool:
    """Whether a key or a header of this name holds a secret."""
    return bool(_SECRET_NAME.search(name)) and not _NOT_SECRET.search(name)


def mask_url(text: str) -> str:
    """Return the text with the credentials of any URL in it hidden."""
    return _CREDENTIALS.sub(f"{HIDDEN}:{HIDDEN}", text) if "://" in text else text


def url_secrets(text: str) -> list[str]:
    """Return the passwords in the URLs of a text."""
    return [match[2] for match in _CREDENTIALS.finditer(text)] if "://" in text else []


class Redactor:
    """Hides secrets in values that are about to be shown: by the name of their key, and by their own text.

    Texts shorter than four characters are not looked for: they would hide half of every line.
    """

    def __init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None

    def register(self, secrets: Iterable[str]) -> None:
        """Add texts that are hidden wherever they appear from now on; safe to call again with the same."""
        known = self._secrets | {secret for secret in secrets if len(secret) >= _SHORTEST}
        if known != self._secrets:
            self._secrets = known
            longest_first = sorted(known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """Return the text without registered secrets and without the credentials of URLs."""
        if self._pattern is not None:
            text = self._pattern.sub(HIDDEN, text)
        return mask_url(text)

    def value(self, value: Any) -> Any:
        """Return a value of any shape with what must not be shown hidden; what is not plain data is shown as text."""
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
