"""Makes untrusted text safe for a terminal: escapes control characters and those that reorder text. Pure."""

from __future__ import annotations

import re
from typing import Final

_DIRECTION: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""The marks and overrides of bidirectional text, and halves of surrogate pairs, which no encoding has."""
# Control characters: C0 without the line feed, DEL, C1.
_UNSAFE: Final = re.compile(f"[\x00-\x09\x0b-\x1f\x7f-\x9f{_DIRECTION}]")
# In JSON the C0 controls are escaped already.
_UNSAFE_IN_JSON: Final = re.compile(f"[\x7f-\x9f{_DIRECTION}]")


def visible(text: str) -> str:
    r"""Return text with control and bidirectional characters escaped (`\x1b`, `\u202e`); line ends stay."""
    return _UNSAFE.sub(lambda found: _escaped(ord(found[0])), text)


def visible_json(text: str) -> str:
    """Return JSON with such characters escaped as JSON escapes; it means the same."""
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
