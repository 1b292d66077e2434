"""Special tokens in texts that are data: split, they neither end a turn nor stand for an image."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import accumulate, pairwise

# Special tokens of Qwen, Llama, Gemma, Mistral, DeepSeek and similar, for models whose own are not known; without their first character.
_ANGLE = r"[|｜][^<>\n]{1,40}[|｜]>|/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|start_header_id|end_header_id)>|</?SYS>>"
_SQUARE = r"/?INST\]"
KNOWN = re.compile(rf"<(?={_ANGLE})|\[(?={_SQUARE})", re.IGNORECASE)
_WHOLE = re.compile(rf"<(?:{_ANGLE})|\[{_SQUARE}", re.IGNORECASE)


def pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of the first character of these special tokens."""
    long = sorted({token for token in tokens if len(token.strip()) > 1})
    return re.compile("|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in long) or r"(?!)")


def written_in(template: str) -> list[str]:
    """Return the special tokens that a chat template writes as text."""
    return _WHOLE.findall(template)


def split(text: str, tokens: re.Pattern[str] = KNOWN) -> str:
    """Return the text with a space after the first character of each special token, which makes it plain text."""
    return tokens.sub(lambda match: f"{match[0]} ", text)


def split_around(text: str, places: Iterable[int], tokens: re.Pattern[str]) -> tuple[str, tuple[int, ...]]:
    """Return the text with its special tokens split, and the character offsets `places` moved with it."""
    pieces = [split(text[start:end], tokens) for start, end in pairwise((0, *places, len(text)))]
    return "".join(pieces), tuple(accumulate(map(len, pieces[:-1])))
