"""Makes untrusted text safe for a terminal: escapes control characters and those that reorder text. Pure."""

from __future__ import annotations

import json
import re
from typing import Final

_HIDDEN: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U00013430-\U00013455\U000e0000-\U000e0fff"
)
"""Invisible characters that change or hide text: marks and overrides of bidirectional text, line separators, characters
without width, tags, and lone surrogates, which no encoding has."""
# Control characters: C0 without the line feed, DEL, C1.
_UNSAFE: Final = re.compile(f"[\x00-\x09\x0b-\x1f\x7f-\x9f{_HIDDEN}]")
# In JSON the C0 controls are escaped already.
_UNSAFE_IN_JSON: Final = re.compile(f"[\x7f-\x9f{_HIDDEN}]")


def visible(text: str) -> str:
    r"""Return text with control, bidirectional and invisible characters escaped (`\x1b`, `\u202e`); line ends stay."""
    return _UNSAFE.sub(lambda found: _escaped(ord(found[0])), text)


def visible_json(text: str) -> str:
    """Return JSON with such characters escaped as JSON escapes; it means the same."""
    return _UNSAFE_IN_JSON.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _escaped(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
