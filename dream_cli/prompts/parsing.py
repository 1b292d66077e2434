"""The list of observations in the answer of a teacher; one that cannot be read raises UnreadableAnswer, and is never an empty list."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dream_cli.errors import UnreadableAnswer
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.record import OBSERVATION, Observation


def observations_schema(taxonomy: Taxonomy, sides: Collection[str] = ("image", "text")) -> dict[str, Any]:
    """Return the JSON schema of `{"observations": [...]}` in the names of the taxonomy, with the sources of these sides alone.

    The root is an object because OpenAI's structured output accepts nothing else.
    """
    properties = {
        "malicious_content": {"type": "string", "minLength": 1},
        "source": {"type": "string", "enum": [s.name for s in taxonomy.sources if not s.side or s.side in sides]},
        "risk_category": {"type": "string", "enum": [c.name for c in taxonomy.categories]},
    }
    item = {"type": "object", "properties": properties, "required": list(OBSERVATION), "additionalProperties": False}
    listed = {"type": "array", "items": item}
    return {"type": "object", "properties": {"observations": listed}, "required": ["observations"], "additionalProperties": False}


def parse_observations(answer: str, taxonomy: Taxonomy) -> tuple[Observation, ...]:
    """Read the first JSON list of the answer, bare or in an object; fences, trailing commas and the like are repaired.

    Raises UnreadableAnswer where there is no list, where it is cut off, or where an entry lacks one of the three fields.
    """
    import json_repair

    start = answer.find("[")
    if start < 0:
        raise UnreadableAnswer("the answer holds no JSON list of observations", raw=answer)
    if "]" not in answer[start:]:
        raise UnreadableAnswer("the list of observations is cut off; raise --max-tokens", raw=answer)
    try:
        items = json_repair.loads(answer[start : answer.rindex("]") + 1])
    except Exception as error:  # noqa: BLE001 - a thousand nested brackets raise RecursionError, others ValueError or AssertionError
        raise UnreadableAnswer(f"the answer is not a JSON list of observations ({type(error).__name__})", raw=answer) from None
    if not isinstance(items, list):
        raise UnreadableAnswer("the answer is not a JSON list of observations", raw=answer)
    return tuple(_observation(item, taxonomy, answer) for item in items)


def _observation(item: Any, taxonomy: Taxonomy, answer: str) -> Observation:
    values = [item.get(name) for name in OBSERVATION] if isinstance(item, dict) else [None]
    if not all(isinstance(v, str) and v.strip() for v in values):
        raise UnreadableAnswer(f"an observation lacks one of {', '.join(OBSERVATION)}", raw=answer)
    content, source, category = (str(v).strip() for v in values)
    return taxonomy.canonical(Observation(content, source, category))
