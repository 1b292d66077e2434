"""Visible forms of control characters, so that a text can neither control a terminal nor reverse its own direction."""

from __future__ import annotations

import re

# C0 except tab and newline, DEL, C1, the marks that change the direction of writing, and halves of surrogate pairs.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return text with control pictures for control characters, and an escape such as \\u202e for those without a picture."""

    def picture(match: re.Match[str]) -> str:
        code = ord(match[0])
        if code < 0x20:
            return chr(0x2400 + code)
        return "\u2421" if code == 0x7F else f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"

    return _CONTROL.sub(picture, text)


def visible_line(text: str) -> str:
    """Return text as one line, tabs and line ends as spaces."""
    return visible(" ".join(text.split()))
