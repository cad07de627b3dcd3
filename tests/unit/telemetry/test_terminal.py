"""What reaches a terminal can neither command it, nor reorder or hide what it shows."""

from __future__ import annotations

import json
import sys
import unicodedata

from connector.telemetry.terminal import visible, visible_json

SHOWN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
"""Format characters of Unicode that are drawn: signs in front of numbers."""
WITHOUT_WIDTH = [0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180F, 0x3164, 0xFFA0, 0xE0100]
"""Letters and marks for Unicode that are drawn as nothing."""


def test_every_character_that_acts_or_is_not_seen_is_escaped() -> None:
    """Of all of Unicode: controls, formats, separators of lines and paragraphs, surrogates. Kills: a list of a few."""
    acting = [
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and code not in {10, *SHOWN}
    ]
    assert len(acting) > 2000
    for code in [*acting, *WITHOUT_WIDTH]:
        shown = visible(f"a{chr(code)}b")
        assert shown.isascii(), hex(code)
        assert shown.isprintable(), hex(code)
        if code >= 0x20:
            written = visible_json(json.dumps(f"a{chr(code)}b", ensure_ascii=False))
            assert written.isascii(), hex(code)
            assert json.loads(written) == f"a{chr(code)}b", hex(code)


def test_texts_of_every_language_stay_as_they_are() -> None:
    """Letters, marks, emoji and line ends are not touched."""
    text = "Straße 中文 עברית हिन्दी ❤️ 👍🏽\nnext"
    assert visible(text) == visible_json(text) == text
