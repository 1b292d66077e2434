"""Parsing of the list of observations in a teacher's answer; an unreadable answer raises UnreadableAnswer and is never an empty list."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from dream_cli.errors import UnreadableAnswer
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.record import OBSERVATION, Observation

# Other entries and comments may come before the first object; a footnote "[1]" is not a list.
_OBJECTS = re.compile(r'\[\s*(?:(?:(?:"[^"\[\]]*"|null)\s*,|//[^\n]*\n|/\*.*?\*/)\s*)*\{', re.DOTALL)
_END = re.compile(r"\}\s*,?\s*\]")
_NONE = re.compile(r"n/?a|none|null|nothing|not applicable", re.IGNORECASE)
_EMPTY = re.compile(rf"""(?<![\[,\w])\[\s*(?:(["']?)(?:{_NONE.pattern})\1\s*)?\]\s*\}}?\s*(?:```)?\s*$""", re.IGNORECASE)
_BEGINNING = re.compile(r'\s*(?:```\w*\s*)?(?:\{\s*"observations"|\[)')
# Complete objects without the brackets of a list.
_BARE = re.compile(r'\s*(?:```\w*\s*)?(\{\s*"malicious_content".*\})\s*(?:```\s*)?', re.DOTALL)
# The full-width colon of Chinese keyboards.
_WIDE_COLON = re.compile(r"(?<=[\"'”])\s*：")


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
    """Return the observations in the first JSON list of objects, alone or in an object, or in objects without a list.

    Fences, trailing commas and similar defects are repaired. Only `[]`, or a list of the single word "none", at the end of an answer
    without such a list means no observations. An entry with the content or category "none" or "N/A" is not an observation; an entry with
    several categories of the taxonomy is one observation per category. If an entry lacks one of the three fields, the other entries have
    the reason in `incomplete`. Raises UnreadableAnswer if there is no list, if it is cut off, or if no entry can be read.
    """
    bare = _BARE.fullmatch(answer)
    listed = f"[{bare[1]}]" if bare else answer
    start = _OBJECTS.search(listed)
    if start is None:
        if _EMPTY.search(answer):
            return ()
        cut = "[" in answer and "]" not in answer
        reason = "the list of observations is cut off; raise --max-tokens" if cut else "the answer holds no JSON list of observations"
        raise UnreadableAnswer(reason, raw=answer)
    items = _items(listed, start.start())
    read = [_observations(item, taxonomy) for item in items]
    observations = tuple(observation for entry in read for observation in entry or ())
    if None not in read:
        return observations
    reason = f"{read.count(None)} of {len(read)} in the list lack one of {', '.join(OBSERVATION)}"
    if not observations:
        raise UnreadableAnswer(reason, raw=answer)
    return tuple(replace(observation, extra={**observation.extra, "incomplete": reason}) for observation in observations)


def _items(answer: str, start: int) -> list[Any]:
    """Return the entries of the list that begins at `start`; text after the list, such as a footnote "[1]", is ignored."""
    import json_repair

    try:
        items, _ = json.JSONDecoder().raw_decode(answer, start)
        return list(items)
    except (ValueError, RecursionError):
        pass  # repaired below
    ends = list(_END.finditer(answer, start))
    if not ends:
        raise UnreadableAnswer("the list of observations is cut off; raise --max-tokens", raw=answer)
    try:
        items = json_repair.loads(_WIDE_COLON.sub(":", answer[start : ends[-1].end()]))
    except Exception as error:  # noqa: BLE001 - deep nesting raises RecursionError, other defects ValueError or AssertionError
        raise UnreadableAnswer(f"the answer is not a JSON list of observations ({type(error).__name__})", raw=answer) from None
    if not isinstance(items, list) or not items:
        raise UnreadableAnswer("the answer is not a JSON list of observations", raw=answer)
    return items


def _observations(item: Any, taxonomy: Taxonomy) -> list[Observation] | None:
    """Return the observations of one entry, possibly empty; None if the entry is not an observation."""
    values = [item.get(name) for name in OBSERVATION] if isinstance(item, dict) else [None]
    if not all(isinstance(v, str) and v.strip() for v in values):
        return None
    content, source, category = (str(v).strip() for v in values)
    if _NONE.fullmatch(content) or _NONE.fullmatch(category):
        return []
    parts = [part for part in re.split(r"\s*[,;/|]\s*", category) if part]
    several = taxonomy.category(category).startswith("other:") and not any(taxonomy.category(p).startswith("other:") for p in parts)
    return [taxonomy.canonical(Observation(content, source, name)) for name in (parts if several else [category])]
