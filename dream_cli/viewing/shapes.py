"""The shapes of the known parts of a record, with which DuckDB reads them from JSON or from a Parquet column.

A shape is the argument of `json_transform`: a type name, `[shape]` or `{name: shape}`. A value of another shape is read as NULL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dream_cli.records.record import OBSERVATION as OBSERVATION_TEXTS

OBSERVATION = dict.fromkeys(OBSERVATION_TEXTS, "VARCHAR") | {"confidence": "DOUBLE"}
SCORES = ("global_score", "observation_score", "helpfulness", "harm", "score")
JUDGEMENT = dict.fromkeys(("rubric", "model", "unscored"), "VARCHAR") | dict.fromkeys(SCORES, "DOUBLE")
RESPONSE = dict.fromkeys(("text", "model", "finish_reason"), "VARCHAR") | {"judgement": JUDGEMENT}
MESSAGE = {"role": "VARCHAR", "content": "VARCHAR", "observations": [OBSERVATION], "judgement": JUDGEMENT}
KNOWN: dict[str, Any] = {
    "id": "VARCHAR",
    "prompt": "VARCHAR",
    "response": "VARCHAR",
    "messages": [MESSAGE],
    "observations": [OBSERVATION],
    "responses": [RESPONSE],
    "error": {"stage": "VARCHAR", "kind": "VARCHAR", "message": "VARCHAR"},
}
# The JSON types of DuckDB types.
_WORDS = {"varchar": "string", "boolean": "boolean", "blob": "bytes", "list": "list", "array": "list", "struct": "object", "map": "object"}


def literal(value: str) -> str:
    """Return a string as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def identifier(value: str) -> str:
    """Return a string as an SQL identifier."""
    return '"' + value.replace('"', '""') + '"'


def pointer(key: str) -> str:
    """Return a key as a JSON pointer."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def sql_type(shape: Any) -> str:
    """Return the SQL type of a shape."""
    if isinstance(shape, list):
        return sql_type(shape[0]) + "[]"
    if isinstance(shape, Mapping):
        return "STRUCT(" + ", ".join(f"{field} {sql_type(inner)}" for field, inner in shape.items()) + ")"
    return str(shape)


def kind_of(column: Any) -> str:
    """Return the JSON type of the values of a DuckDB type."""
    return _WORDS.get(column.id, "number")


def of_column(part: str, column_type: Any) -> str:
    """Return the expression that reads a known part from a Parquet column of any DuckDB type."""
    column, shape = identifier(part), KNOWN[part]
    if shape == "VARCHAR" or _can_cast(column_type, shape):
        return f"CAST({column} AS {sql_type(shape)})"
    written = f"CASE WHEN json_valid({column}) THEN {column} END" if column_type.id == "varchar" else f"to_json({column})"
    return f"json_transform({written}, {literal(json.dumps(shape))})"


def _can_cast(column_type: Any, shape: Any) -> bool:
    """Whether a cast, which matches fields by name, has the same result as the slower conversion through JSON."""
    if isinstance(shape, list):
        return column_type.id == "list" and _can_cast(column_type.children[0][1], shape[0])
    if isinstance(shape, Mapping):
        fields = dict(column_type.children) if column_type.id == "struct" else {}
        same = fields.keys() & shape.keys()
        return bool(same) and all(_can_cast(fields[name], shape[name]) for name in same)
    return bool(str(column_type) == shape)


# Observations and judgements on the turns of a conversation are added to those on the record.
_OBSERVED_TURNS = "[m.observations for m in messages if m.observations IS NOT NULL]"
_REPLIES = """[{'text': m.content, 'model': NULL::VARCHAR, 'finish_reason': NULL::VARCHAR, 'judgement': m.judgement}
    for m in messages if m.role = 'assistant']"""
PROMPT = "COALESCE(prompt, [m.content for m in messages if m.role = 'user'][-1])"
# NULL: not searched. An empty list: none found. The two must remain distinct.
OBSERVATIONS = f"CASE WHEN len({_OBSERVED_TURNS}) > 0 THEN list_concat(observations, flatten({_OBSERVED_TURNS})) ELSE observations END"
# Lists are joined only where both exist, because joining copies each text.
RESPONSES = f"""CASE WHEN len(messages) > 0 THEN list_concat({_REPLIES}, responses) WHEN responses IS NOT NULL THEN responses
    WHEN response IS NOT NULL THEN [{{'text': response, 'model': NULL, 'finish_reason': NULL, 'judgement': NULL}}::{sql_type(RESPONSE)}] END"""
# A response may be a plain string in the list.
RESPONSES_OF_DOC = f"""list_transform(t.responses, lambda r, i: CASE
    WHEN r.text IS NULL AND json_type(doc, '/responses/' || (i - 1)) = 'VARCHAR'
    THEN {{'text': doc->>('/responses/' || (i - 1)), 'model': NULL, 'finish_reason': NULL, 'judgement': NULL}}::{sql_type(RESPONSE)}
    ELSE r END)"""
