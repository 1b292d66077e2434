"""The summary of a file: fields, risks, scores, lengths, images and errors, counted by DuckDB."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.viewing import shapes
from dream_cli.viewing.gathering import BINS, TOPS, gather
from dream_cli.viewing.image_counts import ImageCounts, count_images
from dream_cli.viewing.nested import rows_with
from dream_cli.viewing.shapes import identifier, literal
from dream_cli.viewing.tables import Tables

MODELS = 20
_KINDS = {"VARCHAR": "string", "BOOLEAN": "boolean", "ARRAY": "list", "OBJECT": "object", "NULL": "null", "JSON": "any"}


@dataclass(frozen=True)
class Field:
    """A field, the number of rows that have it, and the number of sampled rows by type of value."""

    name: str
    rows: int
    kinds: Mapping[str, int]


@dataclass(frozen=True)
class Observed:
    """Rows by whether risks were searched and found, and the risks by category and source."""

    not_looked: int
    none_found: int
    found: int
    risks: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Histogram:
    """One score: number, mean, extremes, and the counts in ten equal bins from 0 to `top`."""

    name: str
    n: int
    mean: float
    low: float
    high: float
    top: float
    bins: tuple[int, ...]


@dataclass(frozen=True)
class Lengths:
    """Lengths of one kind of text in characters: quantiles at 5, 50 and 95 %, and the maximum."""

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
class FileSummary:
    """The output of `dream view FILE`."""

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


def summarise(tables: Tables) -> FileSummary:
    """Return the summary of a file."""
    rows, in_docs, unreadable = _in_docs(tables)
    gathered = gather(tables)
    records, answers = gathered["records"], gathered["answers"]
    lengths = {"prompt": records["lengths"].pop("prompt"), "response": answers["response"]} | records["lengths"]
    taxonomy, risks = Taxonomy.load(), defaultdict[str, Counter[str]](Counter)
    for group in gathered["risks"]:
        risks[taxonomy.category(group["category"] or "")][taxonomy.source(group["source"] or "")] += group["n"]
    return FileSummary(
        file=tables.shown,
        rows=rows,
        fields=tuple(_merged([*_columns(tables, records["rows_with"] or {}), *in_docs])),
        observed=Observed(**records["seen"], risks={category: dict(sources) for category, sources in risks.items()}),
        responses=answers["n"],
        models={group["model"]: group["n"] for group in gathered["models"][:MODELS]},
        scores=tuple(_histogram(score, gathered[score]) for score in TOPS if gathered.get(score)),
        unscored={group["unscored"]: group["n"] for group in gathered["unscored"]},
        lengths=tuple(Lengths(name, length["n"], *length["at"]) for name, length in lengths.items() if length["n"]),
        images=count_images(tables, records["images"]),
        errors=(*unreadable, *_errors(tables)),
    )


def _in_docs(tables: Tables) -> tuple[int, list[Field], list[Errors]]:
    """Return the number of rows, the fields in `doc`, and the rows that are not JSON objects; sets `tables.in_doc`."""
    sampled = list(tables.keys())
    paths = ", ".join(literal(path) for path in ("$", *map(shapes.pointer, sampled)))
    _, groups = tables.run(f"SELECT json_keys(doc), json_type(doc, [{paths}]), count(*) FROM ({tables.source()}) GROUP BY ALL")
    rows, objects = 0, 0
    counts, kinds = Counter[str](), defaultdict[str, Counter[str]](Counter)
    for keys, kinds_of, n in groups:
        of_doc, *types = kinds_of or (None,)
        rows += n
        objects += n if of_doc == "OBJECT" else 0
        for key in keys or ():
            counts[key] += n
        for key, kind in zip(sampled, types, strict=False):
            if kind is not None:
                kinds[key][_KINDS.get(kind, "number")] += n
    tables.in_doc = frozenset(counts)
    unreadable = []
    if not tables.columns and objects < rows:
        first = tables.query(f"SELECT min(n) FROM ({tables.source()}) WHERE doc IS NULL OR json_type(doc) <> 'OBJECT'")[0][0]
        unreadable = [Errors("read", "unreadable", rows - objects, first)]
    return rows, [Field(key, n, dict(kinds[key])) for key, n in counts.items()], unreadable


def _columns(tables: Tables, rows: Mapping[str, int]) -> list[Field]:
    """Return the columns of a Parquet file that are not empty; `rows` holds the counts of the nested ones."""
    kinds = {c: shapes.kind_of(kind) for c, kind in tables.columns.items() if not (c == "extra" and tables.has_extra)}
    flat = [c for c in kinds if c not in tables.nested]
    counted = tables.query(f"SELECT {', '.join(f'count({identifier(c)})' for c in flat)} FROM ({tables.source()})")[0] if flat else ()
    rows = {**rows, **dict(zip(flat, counted, strict=True)), **{c: rows_with(tables.path, c) for c in tables.embedded}}
    return [Field(c, rows[c], {kind: rows[c]}) for c, kind in kinds.items() if rows[c]]


def _merged(fields: Sequence[Field]) -> Iterator[Field]:
    """Yield one field per name: a value that does not fit its column is in `extra`, so a name can occur twice."""
    for name in dict.fromkeys(field.name for field in fields):
        same = [field for field in fields if field.name == name]
        yield Field(name, sum(field.rows for field in same), dict(sum((Counter(field.kinds) for field in same), Counter[str]())))


def _histogram(score: str, groups: Sequence[Mapping[str, Any]]) -> Histogram:
    bins = {group["bin"]: group["n"] for group in groups}
    n, total = sum(bins.values()), sum(group["sum"] for group in groups)
    low, high = min(group["low"] for group in groups), max(group["high"] for group in groups)
    mean, low, high = (round(value, 6) for value in (total / n, low, high))
    return Histogram(name=score, n=n, mean=mean, low=low, high=high, top=TOPS[score], bins=tuple(bins.get(i, 0) for i in range(BINS)))


def _errors(tables: Tables) -> list[Errors]:
    if "error" not in tables.columns and "error" not in (tables.in_doc or ()):
        return []
    return [
        Errors(*group)
        for group in tables.query(
            f"SELECT coalesce(error.stage, 'unknown'), coalesce(error.kind, 'unknown'), count(*), min(n) FROM ({tables.rows('error')}) "
            "WHERE error IS NOT NULL GROUP BY ALL ORDER BY 3 DESC, 1, 2"
        )
    ]
