"""The counts of a summary, from one query in one pass over the file that keeps no rows in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.viewing import shapes
from dream_cli.viewing.shapes import identifier, literal
from dream_cli.viewing.tables import Tables

BINS = 10
TOPS = dict.fromkeys((*shapes.SCORES, "margin"), 1.0) | {"global_score": 10.0}
_SIDES = ("chosen", "rejected")


def gather(tables: Tables) -> dict[str, Any]:
    """Return the counts of records and of answers as objects, and lists of groups with their number of rows `n`."""
    kept = _kept(tables)
    of_records: dict[str, Any] = {
        "rows_with": {name[4:]: f"count(*) FILTER ({identifier(name)})" for name in kept if name.startswith("has ")},
        "images": {"rows": "count(*) FILTER (images > 0)", "n": "coalesce(sum(images), 0)::BIGINT"} if "images" in kept else {},
        "seen": {
            "not_looked": "count(*) FILTER (risks IS NULL)",
            "none_found": "count(*) FILTER (risks = 0)",
            "found": "count(*) FILTER (risks > 0)",
        },
        "lengths": {name: _spread(name) for name in ("prompt", *_SIDES) if name == "prompt" or name in kept},
    }
    queries = {
        "records": f"SELECT {_object(of_records)} FROM gathered WHERE is_record",
        "answers": f"SELECT {_object({'n': 'count(*)', 'response': _spread('length')})} FROM gathered WHERE is_answer",
        "models": _groups("coalesce(model, '') AS model", "is_answer"),
        "unscored": _groups("unscored", "unscored IS NOT NULL"),
        "risks": _groups("category, source", "is_risk"),
        **{score: _bins(score, "is_answer") for score in shapes.SCORES},
        **({"margin": _bins("margin", "is_record")} if "margin" in kept else {}),
    }
    columns = ", ".join(f"({query})" for query in queries.values())
    (values,) = tables.query(f"WITH gathered AS MATERIALIZED ({_gathered(tables, kept)}) SELECT {columns}")
    return {name: value or () for name, value in zip(queries, values, strict=True)}


def _gathered(tables: Tables, kept: Mapping[str, str]) -> str:
    """Return the query with max(risks, answers, 1) rows per record: the i-th row holds the i-th risk and the i-th answer.

    Such rows stream through all aggregates; DuckDB would hold lists in memory for a second pass.
    """
    names = "".join(f"{identifier(name)}, " for name in kept)
    scores = ", ".join(f"{_finite(f'r.judgement.{score}', 'FLOAT')} AS {score}" for score in shapes.SCORES)
    records = tables.rows("prompt", "messages", "observations", "response", "responses", also=kept)
    return f"""SELECT {names}prompt, risks, i = 0 AS is_record, i < risks AS is_risk, i < answers AS is_answer,
        o.risk_category AS category, o.source, length(r.text)::INT AS length, r.model, {scores}, split_part(r.judgement.unscored, ':', 1) AS unscored
        FROM (SELECT *, len(observations) AS risks, len(responses) AS answers, unnest(observations) AS o, unnest(responses) AS r,
            unnest(range(greatest(1, len(observations), len(responses)))) AS i
            FROM (SELECT {names}length({shapes.PROMPT}) AS prompt, {shapes.OBSERVATIONS} AS observations, {shapes.RESPONSES} AS responses
                FROM ({records})))"""


def _kept(tables: Tables) -> dict[str, str]:
    """Return the expressions over other fields: number of images, non-null nested columns, lengths, the margin."""
    further = tables.further()
    in_columns = {f"has {column}": f"{identifier(column)} IS NOT NULL" for column in tables.nested if column not in tables.embedded}
    images = {} if "images" in tables.embedded else {"images": f"len({tables.images()})"}
    sides = {side: f"length(CAST({further[side]} AS VARCHAR))" for side in _SIDES if side in further}
    return in_columns | images | sides | ({"margin": _finite(further["margin"], "DOUBLE")} if "margin" in further else {})


def _finite(score: str, kind: str) -> str:
    return f"CASE WHEN isfinite(TRY_CAST({score} AS {kind})) THEN TRY_CAST({score} AS {kind}) END"


def _spread(length: str) -> dict[str, str]:
    return {"n": f"count({length})", "at": f"quantile_disc({length}, [0.05, 0.5, 0.95, 1])"}


def _object(parts: Mapping[str, Any]) -> str:
    """Return the SQL for an object, NULL for an empty one."""
    inside = (f"{literal(name)}: {_object(part) if isinstance(part, Mapping) else part}" for name, part in parts.items())
    return f"{{{', '.join(inside)}}}" if parts else "NULL"


def _groups(by: str, condition: str, further: str = "") -> str:
    """Return the query for a list of groups, each an object with its number of rows `n`, the most frequent first."""
    groups = f"SELECT {by}, count(*) AS n{further} FROM gathered WHERE {condition} GROUP BY ALL"
    return f"SELECT list(g ORDER BY g.n DESC, g) FROM ({groups}) AS g"


def _bins(score: str, condition: str) -> str:
    """Return the query for the bins of a score, with sum and extremes; values outside its range count in the outer bins."""
    place, last = f"{score} / {TOPS[score]} * {BINS}", BINS - 1
    # Not least(): it ignores NULL, so a missing score would count in the last bin.
    bins = f"CASE WHEN {place} < 0 THEN 0 WHEN {place} >= {last} THEN {last} ELSE floor({place})::UTINYINT END AS bin"
    return _groups(bins, f"{condition} AND {score} IS NOT NULL", f", sum({score}) AS sum, min({score}) AS low, max({score}) AS high")
