"""The parts of a record that the views know, as DuckDB reads them out of JSON or of a Parquet column.

A shape is what `json_transform` takes: a type name, `[shape]` or `{name: shape}`. A value of another shape is read as NULL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

OBSERVATION = {"malicious_content": "VARCHAR", "source": "VARCHAR", "risk_category": "VARCHAR", "confidence": "DOUBLE"}
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


def of_column(part: str, column_type: str) -> str:
    """Return the expression that reads a known part from a Parquet column of any type."""
    column, shape = identifier(part), KNOWN[part]
    if column_type == sql_type(shape):
        return column
    if shape == "VARCHAR":
        return f"CAST({column} AS VARCHAR)"
    written = f"CASE WHEN json_valid({column}) THEN {column} END" if column_type == "VARCHAR" else f"to_json({column})"
    return f"json_transform({written}, {literal(json.dumps(shape))})"


# What stands on the turns of a conversation counts with what stands on the record.
_OBSERVED_TURNS = "[m.observations for m in messages if m.observations IS NOT NULL]"
_REPLIES = """[{'text': m.content, 'model': NULL::VARCHAR, 'finish_reason': NULL::VARCHAR, 'judgement': m.judgement}
    for m in messages if m.role = 'assistant']"""
PROMPT = "COALESCE(prompt, [m.content for m in messages if m.role = 'user'][-1])"
# Absent stays NULL: nobody looked. An empty list says that none was found.
OBSERVATIONS = f"""CASE WHEN observations IS NOT NULL OR len({_OBSERVED_TURNS}) > 0
    THEN list_concat(observations, flatten({_OBSERVED_TURNS})) END"""
RESPONSES = f"""CASE WHEN responses IS NOT NULL OR len(messages) > 0 THEN list_concat({_REPLIES}, responses)
    WHEN response IS NOT NULL THEN [{{'text': response, 'model': NULL, 'finish_reason': NULL, 'judgement': NULL}}::{sql_type(RESPONSE)}] END"""
# A response may be a plain string in the list.
RESPONSES_OF_DOC = f"""list_transform(t.responses, lambda r, i: CASE
    WHEN r.text IS NULL AND json_type(doc, '/responses/' || (i - 1)) = 'VARCHAR'
    THEN {{'text': doc->>('/responses/' || (i - 1)), 'model': NULL, 'finish_reason': NULL, 'judgement': NULL}}::{sql_type(RESPONSE)}
    ELSE r END)"""
