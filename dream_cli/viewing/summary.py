"""What is in a file: fields, risks, scores, lengths, images, errors; counted by DuckDB in the file, not row by row in Python."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.viewing import shapes
from dream_cli.viewing.image_counts import ImageCounts, count_images
from dream_cli.viewing.shapes import identifier, literal
from dream_cli.viewing.tables import Tables

BINS = 10
_KINDS = {"VARCHAR": "string", "BOOLEAN": "boolean", "ARRAY": "list", "OBJECT": "object", "NULL": "null", "JSON": "any"}


@dataclass(frozen=True)
class Field:
    """A field, the number of rows that have it, and these rows by kind of value as far as it was looked at."""

    name: str
    rows: int
    kinds: Mapping[str, int]


@dataclass(frozen=True)
class Observed:
    """Rows by what looking for risks found, and the risks by category and source."""

    not_looked: int
    none_found: int
    found: int
    risks: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Histogram:
    """One score: how many there are, mean and extremes, and the counts in ten equal bins from 0 to `top`."""

    name: str
    n: int
    mean: float
    low: float
    high: float
    top: float
    bins: tuple[int, ...]


@dataclass(frozen=True)
class Lengths:
    """Lengths of one kind of text in characters: quantiles at 5, 50 and 95 %, and the longest."""

    name: str
    n: int
    low: int
    median: int
    high: int
    longest: int


@dataclass(frozen=True)
class Errors:
    """Rows with an error of one stage and kind, and the first of them."""

    stage: str
    kind: str
    rows: int
    first: int


@dataclass(frozen=True)
class Summary:
    """Everything that `dream view FILE` tells."""

    file: str
    rows: int
    fields: tuple[Field, ...]
    observed: Observed
    responses: int
    models: Mapping[str, int]
    scores: tuple[Histogram, ...]
    unscored: Mapping[str, int]
    lengths: tuple[Lengths, ...]
    images: ImageCounts
    errors: tuple[Errors, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        return asdict(self)


def summarise(tables: Tables) -> Summary:
    """Count what is in a file."""
    rows, fields, errors = _fields(tables)
    _gather_answers(tables)
    images = count_images(tables)
    pictured = (Field("images", images.rows, {"list": images.rows}),) if "BLOB" in tables.columns.get("images", "") else ()
    return Summary(
        file=tables.shown,
        rows=rows,
        fields=(*fields, *pictured),
        observed=_observed(tables),
        responses=tables.ask("SELECT count(*) FROM answers")[0][0],
        models=dict(tables.ask("SELECT coalesce(model, ''), count(*) FROM answers GROUP BY ALL ORDER BY 2 DESC, 1 LIMIT 20")),
        scores=tuple(_histograms(tables)),
        unscored=dict(tables.ask("SELECT unscored, count(*) FROM answers WHERE unscored IS NOT NULL GROUP BY ALL ORDER BY 2 DESC, 1")),
        lengths=tuple(_lengths(tables)),
        images=images,
        errors=(*errors, *_errors(tables)),
    )


def _fields(tables: Tables) -> tuple[int, tuple[Field, ...], list[Errors]]:
    """Return the number of rows, the fields, and the rows that are no JSON object; tells the tables which keys occur."""
    sampled = list(tables.keys())
    paths = "[" + ", ".join(literal(shapes.pointer(key)) for key in sampled) + "]" if sampled else "NULL"
    groups = tables.run(
        f"SELECT json_keys(doc), json_type(doc, {paths}::VARCHAR[]), json_type(doc), count(*) FROM ({tables.source()}) GROUP BY ALL"
    )
    rows, objects = 0, 0
    counts, kinds = Counter[str](), defaultdict[str, Counter[str]](Counter)
    while group := groups.fetchone():
        keys, types, kind_of_row, n = group
        rows += n
        objects += n if kind_of_row == "OBJECT" else 0
        for key in keys or ():
            counts[key] += n
        for key, kind in zip(sampled, types or (), strict=False):
            if kind is not None:
                kinds[key][_KINDS.get(kind, "number")] += n
    tables.in_doc = frozenset(counts)
    in_docs = [Field(key, n, dict(kinds[key])) for key, n in counts.items()]
    unreadable = [] if tables.columns or objects == rows else [_unreadable(tables, rows - objects)]
    return rows, tuple(_merged([*_columns(tables), *in_docs])), unreadable


def _unreadable(tables: Tables, rows: int) -> Errors:
    first = tables.ask(f"SELECT min(n) FROM ({tables.source()}) WHERE doc IS NULL OR json_type(doc) <> 'OBJECT'")[0][0]
    return Errors("read", "unreadable", rows, first)


def _columns(tables: Tables) -> list[Field]:
    """Return the columns of a Parquet file as fields; those with pictures in them are counted elsewhere."""
    plain = {c: kind for c, kind in tables.columns.items() if "BLOB" not in kind and not (c == "extra" and tables.has_extra)}
    if not plain:
        return []
    counts = tables.ask(f"SELECT {', '.join(f'count({identifier(c)})' for c in plain)} FROM ({tables.source()})")[0]
    return [Field(c, n, {_kind(kind): n}) for (c, kind), n in zip(plain.items(), counts, strict=True) if n]


def _kind(column_type: str) -> str:
    if column_type.endswith("[]"):
        return "list"
    return {"VARCHAR": "string", "BOOLEAN": "boolean"}.get(column_type, "object" if column_type.startswith(("STRUCT", "MAP")) else "number")


def _merged(fields: Sequence[Field]) -> Iterator[Field]:
    """Yield one field a name: a value that does not fit its column stands in `extra`."""
    for name in dict.fromkeys(field.name for field in fields):
        same = [field for field in fields if field.name == name]
        yield Field(name, sum(field.rows for field in same), dict(sum((Counter(field.kinds) for field in same), Counter[str]())))


def _observed(tables: Tables) -> Observed:
    source = f"SELECT {shapes.OBSERVATIONS} AS seen FROM ({tables.rows('messages', 'observations')})"
    not_looked, none_found, found = tables.ask(
        f"SELECT count(*) FILTER (seen IS NULL), count(*) FILTER (len(seen) = 0), count(*) FILTER (len(seen) > 0) FROM ({source})"
    )[0]
    taxonomy, risks = Taxonomy.load(), defaultdict[str, Counter[str]](Counter)
    for category, place, n in tables.ask(
        f"SELECT o.risk_category, o.source, count(*) FROM (SELECT unnest(seen) AS o FROM ({source})) GROUP BY ALL"
    ):
        risks[taxonomy.category(category or "")][taxonomy.source(place or "")] += n
    return Observed(not_looked, none_found, found, {category: dict(sources) for category, sources in risks.items()})


def _gather_answers(tables: Tables) -> None:
    """Keep what is counted of the responses, without their text, so that the file is read once for all of it."""
    scores = ", ".join(f"r.judgement.{score}::FLOAT AS {score}" for score in shapes.SCORES)
    tables.run(
        f"CREATE TEMP TABLE answers AS SELECT length(r.text)::INT AS length, r.model, {scores}, split_part(r.judgement.unscored, ':', 1) AS unscored "
        f"FROM (SELECT unnest({shapes.RESPONSES}) AS r FROM ({tables.rows('messages', 'response', 'responses')}))"
    )


def _histograms(tables: Tables) -> Iterator[Histogram]:
    for score in shapes.SCORES:
        yield from _histogram(tables, score, "answers", 10.0 if score == "global_score" else 1.0)
    margin = tables.further().get("margin")
    if margin is not None:
        yield from _histogram(tables, "margin", f"({tables.rows(also={'margin': f'TRY_CAST({margin} AS DOUBLE)'})})", 1.0)


def _histogram(tables: Tables, score: str, source: str, top: float) -> Iterator[Histogram]:
    """Yield the histogram of one score, or nothing where there is none; what lies outside 0 to `top` counts in the outer bins."""
    place = f"greatest(0, least({BINS - 1}, floor({score} / {top} * {BINS})))::INT"
    found = tables.ask(
        f"SELECT {place}, count(*), sum({score}), min({score}), max({score}) FROM {source} WHERE isfinite({score}) GROUP BY ALL"
    )
    if found:
        n = sum(group[1] for group in found)
        counts = {group[0]: group[1] for group in found}
        low, high = min(group[3] for group in found), max(group[4] for group in found)
        mean = sum(group[2] for group in found) / n
        yield Histogram(score, n, round(mean, 6), round(low, 6), round(high, 6), top, tuple(counts.get(i, 0) for i in range(BINS)))


def _lengths(tables: Tables) -> Iterator[Lengths]:
    yield from _spread(tables, "prompt", f"SELECT length({shapes.PROMPT}) AS length FROM ({tables.rows('prompt', 'messages')})")
    yield from _spread(tables, "response", "SELECT length FROM answers")
    further = tables.further()
    for side in ("chosen", "rejected"):
        if side in further:
            yield from _spread(tables, side, f"SELECT length(x::VARCHAR) AS length FROM ({tables.rows(also={'x': further[side]})})")


def _spread(tables: Tables, name: str, lengths: str) -> Iterator[Lengths]:
    n, quantiles = tables.ask(f"SELECT count(length), quantile_disc(length, [0.05, 0.5, 0.95, 1]) FROM ({lengths})")[0]
    if n:
        yield Lengths(name, n, *quantiles)


def _errors(tables: Tables) -> list[Errors]:
    if "error" not in tables.columns and "error" not in (tables.in_doc or ()):
        return []
    return [
        Errors(*group)
        for group in tables.ask(
            f"SELECT coalesce(error.stage, 'unknown'), coalesce(error.kind, 'unknown'), count(*), min(n) FROM ({tables.rows('error')}) "
            "WHERE error IS NOT NULL GROUP BY ALL ORDER BY 3 DESC, 1, 2"
        )
    ]
