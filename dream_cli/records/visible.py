"""Visible forms of control characters, so that a text can neither control a terminal nor reverse its own direction."""

from __future__ import annotations

import re

# C0 except tab and newline, DEL, C1, the marks of writing direction, and halves of surrogate pairs.
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


def shorten(text: str, most: int) -> str:
    """Return a text of at most `most` characters; dots replace an end that is cut off."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def amount(n: int, noun: str, verb: str = "") -> str:
    """Return a number with its noun, and with the matching form of a verb: "1 row is", "2 rows are"."""
    one = {"have": "has", "are": "is", "were": "was", "got": "got", "occur": "occurs", "come": "comes", "disagree": "disagrees"}
    form = f" {one[verb] if n == 1 else verb}" if verb else ""
    return f"{n:,} {noun}{'' if n == 1 else 's'}{form}"
