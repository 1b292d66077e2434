"""What a summary asks of every record, answered by one query in one pass over the file; it keeps lengths in place of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.viewing import shapes
from dream_cli.viewing.shapes import identifier, literal
from dream_cli.viewing.tables import Tables

BINS = 10
TOPS = dict.fromkeys(("margin", *shapes.SCORES), 1.0) | {"global_score": 10.0}
_SIDES = ("chosen", "rejected")


def gather(tables: Tables) -> dict[str, Any]:
    """Return what is asked of the records and of the answers in them as objects, and the models, risks and `unscored` with their counts."""
    kept = _kept(tables)
    answers = "SELECT unnest(answers, recursive := true) FROM gathered"
    asked = {
        "records": f"SELECT {_object(_of_records(kept))} FROM gathered",
        "answers": f"SELECT {_object(_OF_ANSWERS)} FROM answers",
        "models": _counts("coalesce(model, '') AS model", "answers"),
        "unscored": _counts("unscored", "answers WHERE unscored IS NOT NULL"),
        "risks": _counts("o.category, o.source", "(SELECT unnest(seen) AS o FROM gathered)"),
    }
    query = ", ".join(f"({question})" for question in asked.values())
    told = tables.ask(f"WITH gathered AS MATERIALIZED ({_gathered(tables, kept)}), answers AS ({answers}) SELECT {query}")[0]
    return {name: answer or () for name, answer in zip(asked, told, strict=True)}


def _gathered(tables: Tables, kept: Mapping[str, str]) -> str:
    """Return the query for one row a record: what is kept of its further fields, the length of its prompt, and its lists without texts."""
    scores = ", ".join(f"'{score}': {_finite(f'r.judgement.{score}', 'FLOAT')}" for score in shapes.SCORES)
    return f"""SELECT {"".join(f"{identifier(name)}, " for name in kept)}length({shapes.PROMPT}) AS prompt,
        [{{'category': o.risk_category, 'source': o.source}} for o in {shapes.OBSERVATIONS}] AS seen,
        [{{'length': length(r.text)::INT, 'model': r.model, {scores}, 'unscored': split_part(r.judgement.unscored, ':', 1)}}
            for r in {shapes.RESPONSES}] AS answers
        FROM ({tables.rows("prompt", "messages", "observations", "response", "responses", also=kept)})"""


def _kept(tables: Tables) -> dict[str, str]:
    """Return what is kept of other fields: how many images, which columns of lists and objects have a value, lengths, the margin."""
    further = tables.further()
    in_columns = {f"has {column}": f"{identifier(column)} IS NOT NULL" for column in tables.nested if column not in tables.embedded}
    images = {} if "images" in tables.embedded else {"images": f"len({tables.images()})"}
    sides = {side: f"length(CAST({further[side]} AS VARCHAR))" for side in _SIDES if side in further}
    return in_columns | images | sides | ({"margin": _finite(further["margin"], "DOUBLE")} if "margin" in further else {})


def _finite(score: str, kind: str) -> str:
    return f"CASE WHEN isfinite(TRY_CAST({score} AS {kind})) THEN TRY_CAST({score} AS {kind}) END"


def _of_records(kept: Mapping[str, str]) -> dict[str, Any]:
    return {
        "rows_with": {name[4:]: f"count(*) FILTER ({identifier(name)})" for name in kept if name.startswith("has ")},
        "images": {"rows": "count(*) FILTER (images > 0)", "n": "coalesce(sum(images), 0)::BIGINT"} if "images" in kept else {},
        "seen": {
            "not_looked": "count(*) FILTER (seen IS NULL)",
            "none_found": "count(*) FILTER (len(seen) = 0)",
            "found": "count(*) FILTER (len(seen) > 0)",
        },
        "lengths": {name: _spread(name) for name in ("prompt", *_SIDES) if name == "prompt" or name in kept},
        "scores": {"margin": _histogram("margin")} if "margin" in kept else {},
    }


def _spread(length: str) -> dict[str, str]:
    return {"n": f"count({length})", "at": f"quantile_disc({length}, [0.05, 0.5, 0.95, 1])"}


def _histogram(score: str) -> dict[str, str]:
    """Return what is asked of one score; what lies outside 0 to its top counts in the outer bins."""
    place, last = f"{score} / {TOPS[score]} * {BINS}", BINS - 1
    # least() would take a missing score for the last bin.
    bins = f"histogram(CASE WHEN {place} < 0 THEN 0 WHEN {place} >= {last} THEN {last} ELSE floor({place})::UTINYINT END)"
    return {"n": f"count({score})", "sum": f"sum({score})", "low": f"min({score})", "high": f"max({score})", "bins": bins}


_OF_ANSWERS = {
    "n": "count(*)",
    "lengths": {"response": _spread("length")},
    "scores": {score: _histogram(score) for score in shapes.SCORES},
}


def _object(parts: Mapping[str, Any]) -> str:
    """Return the SQL for an object, NULL for an empty one."""
    inside = (f"{literal(name)}: {_object(part) if isinstance(part, Mapping) else part}" for name, part in parts.items())
    return f"{{{', '.join(inside)}}}" if parts else "NULL"


def _counts(by: str, source: str) -> str:
    """Return the query for a list of groups, each an object with its number of rows `n`, the most frequent first."""
    return f"SELECT list(g ORDER BY g.n DESC, g) FROM (SELECT {by}, count(*) AS n FROM {source} GROUP BY ALL) AS g"
