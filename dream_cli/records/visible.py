"""Make what would steer a terminal or turn text around visible, so that it is shown and never done."""

from __future__ import annotations

import re

# C0 but tab and newline, DEL, C1, the marks that change the direction of writing, and halves of surrogate pairs.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return text with control pictures in the place of control characters, and \\u202e for what has no picture."""
    return _STEERING.sub(_picture, text)


def visible_line(text: str) -> str:
    """Return text as one line, tabs and line ends as spaces."""
    return visible(" ".join(text.split()))


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
