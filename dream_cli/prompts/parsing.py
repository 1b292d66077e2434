"""Parsing of the list of observations in a teacher's answer; an unreadable answer raises UnreadableAnswer and is never an empty list."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from dream_cli.errors import UnreadableAnswer
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.prompts.verdict_words import DECLINES_ELSEWHERE
from dream_cli.records.record import OBSERVATION, Observation

# Other entries and comments may come before the first object; a footnote "[1]" is not a list.
_LIST = re.compile(r'\[\s*(?:(?:(?:"[^"\[\]]*"|null)\s*,|//[^\n]*\n|/\*.*?\*/)\s*)*\{', re.DOTALL)
_END = re.compile(r"\}\s*,?\s*\]")
_OBJECT = re.compile(r"""\{\s*["']malicious_content""")  # without the brackets of a list
_NONE = re.compile(r"n/?a|none|null|nothing|not applicable", re.IGNORECASE)
_EMPTY = re.compile(
    rf"""(?<![\[,\w])\[\s*(?:(["']?)(?:{_NONE.pattern})\1\s*)?\][\s}}`*_.)"'”]*(?:(?:</\w+>|<\|\w+\|>)\s*)?$""",
    re.IGNORECASE,
)
# The content or category of an entry that states that there is none.
_NO_CONTENT = re.compile(
    rf"(?:{_NONE.pattern}|[-–—]|no (?:\w+ ){{0,3}}(?:content|risks?|harm|threats?|issues?|violations?|concerns?))"
    r"(?: (?:is|are|was|were|found|identified|detected|present|observed|visible|here|in the \w+))*\.?",
    re.IGNORECASE,
)
# After such words an empty list does not mean that nothing was found.
_DECLINES = re.compile(
    r"\bsorry\b|\b(?:i|must|have to) (?:refuse|decline)\b|\b(?:refuse|decline) to\b|\brather not\b|\bnot comfortable\b|\bas an ai\b"
    r"|\bagainst (?:my|the|our) (?:\w+ )?(?:polic|guideline|rule)|\b(?:do not|don['’]t) see (?:an|any|the) (?:image|picture|photo)"
    r"|\bno (?:image|picture|photo) (?:was|is|has been) (?:provided|attached|given|included|uploaded|visible)"
    r"|\b(?:image|picture|photo) (?:(?:could|can|did) ?not|can['’]?t|didn['’]t|failed|is (?:missing|empty|not (?:visible|available)))"
    rf"|{DECLINES_ELSEWHERE}"
    r"|\b(?:can ?not|can['’]?t|unable to|won['’]?t|will not|not able to)"
    r" (?:help|assist|provide|comply|answer|fulfil|process|analy[sz]e|view|see|open)",
    re.IGNORECASE,
)
_BEGINNING = re.compile(r'\s*(?:```\w*\s*)?(?:\{\s*"observations"|\[)')
# The full-width colon of Chinese keyboards.
_WIDE_COLON = re.compile(r"(?<=[\"'”])\s*：")
_CUT_OFF = "the list of observations is cut off; raise --max-tokens"


def observations_schema(taxonomy: Taxonomy, sides: Collection[str] = ("image", "text"), least: int = 0) -> dict[str, Any]:
    """Return the JSON schema of `{"observations": [...]}` with the names of the taxonomy and only the sources of `sides`.

    The list has at least `least` entries.

    The root is an object because OpenAI's structured output accepts nothing else.
    """
    properties = {
        "malicious_content": {"type": "string", "minLength": 1},
        "source": {"type": "string", "enum": [s.name for s in taxonomy.sources if not s.side or s.side in sides]},
        "risk_category": {"type": "string", "enum": [c.name for c in taxonomy.categories]},
    }
    item = {"type": "object", "properties": properties, "required": list(OBSERVATION), "additionalProperties": False}
    listed = {"type": "array", "items": item, **({"minItems": least} if least else {})}
    return {"type": "object", "properties": {"observations": listed}, "required": ["observations"], "additionalProperties": False}


def begins_list(answer: str) -> bool:
    """Whether an answer, possibly cut off, begins like a list of observations, bare or in an object."""
    return _BEGINNING.match(answer) is not None


def parse_observations(answer: str, taxonomy: Taxonomy) -> tuple[Observation, ...]:
    """Return the observations in every JSON list of objects, alone or in an object, or in objects without a list.

    Fences, trailing commas and similar defects are repaired. Only `[]`, or a list of the single word "none", at the end of an answer
    that has no other list and does not decline means no observations. An entry with the content or category "none", "N/A" or "no risk"
    is not an observation; an entry with several categories of the taxonomy is one observation per category. If an entry lacks one of the
    three fields, or a list after the first one is cut off, the other entries have the reason in `incomplete`. Raises UnreadableAnswer if
    there is no list, if the first one is cut off, or if no entry can be read.
    """
    if not (_LIST.search(answer) or _OBJECT.search(answer)):
        if _EMPTY.search(answer) and not _DECLINES.search(answer):
            return ()
        cut = "[" in answer and "]" not in answer
        raise UnreadableAnswer(_CUT_OFF if cut else "the answer holds no JSON list of observations", raw=answer)
    items, is_cut = _items(answer)
    read = [_observations(item, taxonomy) for item in items]
    observations = tuple(observation for entry in read for observation in entry or ())
    if None not in read and not is_cut:
        return observations
    reason = f"{read.count(None)} of {len(read)} in the list lack one of {', '.join(OBSERVATION)}" if None in read else _CUT_OFF
    if not observations:
        raise UnreadableAnswer(reason, raw=answer)
    return tuple(replace(observation, extra={**observation.extra, "incomplete": reason}) for observation in observations)


def _items(answer: str) -> tuple[list[Any], bool]:
    """Return the entries of the lists in the answer, or its objects if it has no list, and whether a list after the first is cut off."""
    items: list[Any] = []
    position = 0
    while start := _LIST.search(answer, position):
        try:
            # Constrained decoding may allow control characters in a string.
            listed, position = json.JSONDecoder(strict=False).raw_decode(answer, start.start())
        except (ValueError, RecursionError):
            position = _end_of_list(answer, start.start())
            if not position and items:
                return items, True
            listed = _repaired(answer, start.start(), position)
        # A later list of something else, such as notes, has no such entry.
        if not items or any(OBSERVATION[0] in _fields(item) for item in listed):
            items += listed
    if not items:
        starts = [match.start() for match in _OBJECT.finditer(answer)]
        ends = [answer.rfind("}", start, end) + 1 for start, end in zip(starts, [*starts[1:], len(answer)], strict=True)]
        if "{" in answer[ends[-1] :]:
            raise UnreadableAnswer(_CUT_OFF, raw=answer)
        items = [_repaired(answer, start, end) for start, end in zip(starts, ends, strict=True)]
    return items, False


def _end_of_list(answer: str, start: int) -> int:
    """Return the end of a list that has defects: its last closing bracket before the next list; 0 if it is cut off."""
    ends = [match.end() for match in _END.finditer(answer, start)]
    further = _LIST.search(answer, ends[0]) if ends else None
    return max((end for end in ends if further is None or end <= further.start()), default=0)


def _repaired(answer: str, start: int, end: int) -> Any:
    """Return the JSON at this place with its defects repaired: an object, or a list with entries; raise UnreadableAnswer if `end` is 0."""
    import json_repair

    if not end:
        raise UnreadableAnswer(_CUT_OFF, raw=answer)
    try:
        content = json_repair.loads(_WIDE_COLON.sub(":", answer[start:end]))
    except Exception as error:  # noqa: BLE001 - deep nesting raises RecursionError, other defects ValueError or AssertionError
        raise UnreadableAnswer(f"the answer is not a JSON list of observations ({type(error).__name__})", raw=answer) from None
    if not content or not isinstance(content, list if answer[start] == "[" else dict):
        raise UnreadableAnswer("the answer is not a JSON list of observations", raw=answer)
    return content


def _fields(item: Any) -> dict[str, Any]:
    """Return the fields of an entry; models write "Malicious content" for `malicious_content`."""
    return {str(name).strip().casefold().replace(" ", "_"): value for name, value in item.items()} if isinstance(item, dict) else {}


def _observations(item: Any, taxonomy: Taxonomy) -> list[Observation] | None:
    """Return the observations of one entry, possibly empty; None if the entry is not an observation."""
    fields = _fields(item)
    values = [
        ", ".join(v) if isinstance(v := fields.get(name), list) and all(isinstance(part, str) for part in v) else v for name in OBSERVATION
    ]
    if not all(isinstance(v, str) and v.strip() for v in values):
        return None
    content, source, category = (str(v).strip() for v in values)
    if _NO_CONTENT.fullmatch(content) or _NO_CONTENT.fullmatch(category):
        return []
    parts = [part for part in re.split(r"\s*(?:[,;/|&]|\band\b)\s*", category) if part]
    several = taxonomy.category(category).startswith("other:") and not any(taxonomy.category(p).startswith("other:") for p in parts)
    return [taxonomy.canonical(Observation(content, source, name)) for name in (parts if several else [category])]
