"""Summaries and tables as a person reads them, 80 columns wide where the terminal tells no other width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.visible import visible_line
from dream_cli.stats.intervals import percent
from dream_cli.viewing.differing import Difference
from dream_cli.viewing.summary import Field, Histogram, Lengths, Summary

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

FIELDS_SHOWN = 30
# With fewer columns numbers would be folded, or the words beside the bars.
NARROWEST, ROOM_FOR_BARS = 50, 66
_BARS = " ▁▂▃▄▅▆▇█"


def console() -> Console:
    """Return where tables are printed: stdout, plain where it is no terminal."""
    from rich.console import Console

    out = Console(highlight=False, markup=False, emoji=False)
    out.width = max(out.width, NARROWEST)
    return out


def print_summary(summary: Summary) -> None:
    """Print what is in a file."""
    out = console()
    out.print(visible_line(f"{summary.file}: {_count(summary.rows, 'row')}"), style="bold")
    for part in _parts(summary, out.width):
        out.print()
        out.print(part)


def _parts(summary: Summary, width: int) -> Iterator[RenderableType]:
    if summary.errors:
        yield _errors(summary)
    if summary.fields:
        yield _fields(summary)
    if summary.rows and not {"prompt", "messages"} & {field.name for field in summary.fields}:
        yield "These rows have neither `prompt` nor `messages`: dream convert turns other dialects into records."
    if summary.observed.risks:
        yield _risks(summary.observed.risks)
    if summary.observed.found or summary.observed.none_found:
        seen = summary.observed
        yield f"risks found in {seen.found:,} rows, none in {seen.none_found:,}, not looked for in {seen.not_looked:,}"
    if summary.responses:
        yield _models(summary)
    if summary.scores:
        yield _scores(summary.scores, width >= ROOM_FOR_BARS)
    if summary.unscored:
        yield _tally("unscored because", "responses", summary.unscored)
    if summary.lengths:
        yield _lengths(summary.lengths)
    if summary.images.n:
        yield _images(summary)


def table(*columns: str, left: int = 1, cut: bool = False) -> Table:
    """Return an empty table: quiet lines, the first `left` columns of text, which are folded (or `cut`) before the others, of numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i < left else "right", overflow="ellipsis" if cut else "fold", no_wrap=cut or i >= left)
    return made


def _fields(summary: Summary) -> Table:
    made = table("field", "rows", "", "kind")
    made.columns[-1].justify, made.columns[-1].no_wrap = "left", False
    ranked = sorted(summary.fields, key=lambda field: -field.rows)
    for field in ranked[:FIELDS_SHOWN]:
        made.add_row(visible_line(field.name) or "(empty name)", f"{field.rows:,}", _share(field.rows, summary.rows), _kinds(field))
    if len(ranked) > FIELDS_SHOWN:
        made.add_row(f"... and {len(ranked) - FIELDS_SHOWN:,} more", "", "", "")
    return made


def _kinds(field: Field) -> str:
    if len(field.kinds) < 2:
        return next(iter(field.kinds), "")
    return "mixed: " + ", ".join(f"{kind} {n:,}" for kind, n in sorted(field.kinds.items(), key=lambda item: -item[1]))


def _risks(risks: Mapping[str, Mapping[str, int]]) -> Table:
    named = [term.name for term in Taxonomy.load().sources]
    others = sorted({source for sources in risks.values() for source in sources} - {*named})
    made = table("risk", *map(_two_lines, named), *(["other\nsource"] if others else []), "all")
    for column in made.columns:
        # Their headings are wider than their numbers.
        column.no_wrap = False
    for category, sources in sorted(risks.items(), key=lambda item: -sum(item[1].values())):
        cells = [sources.get(source, 0) for source in named] + ([sum(sources.get(source, 0) for source in others)] if others else [])
        made.add_row(visible_line(category), *(f"{n:,}" if n else "." for n in (*cells, sum(sources.values()))))
    return made


def _two_lines(name: str) -> str:
    """Return a name with its middlemost space as a line end."""
    spaces = [i for i, letter in enumerate(name) if letter == " "]
    if not spaces:
        return name
    middle = min(spaces, key=lambda i: abs(2 * i - len(name)))
    return name[:middle] + "\n" + name[middle + 1 :]


def _models(summary: Summary) -> Table:
    return _tally("responses of", "", {model or "(no model named)": n for model, n in summary.models.items()})


def _tally(title: str, what: str, counts: Mapping[str, int]) -> Table:
    made = table(title, what or "n")
    for name, n in list(counts.items())[:10]:
        made.add_row(visible_line(name), f"{n:,}")
    return made


def _scores(scores: Sequence[Histogram], drawn: bool) -> Table:
    made = table("score", "n", "mean", "lowest", "highest", *([""] if drawn else []))
    made.columns[-1].justify = "left" if drawn else "right"
    for score in scores:
        numbers = (f"{x:.2f}" for x in (score.mean, score.low, score.high))
        histogram = [f"0 {bars(score.bins)} {score.top:g}"] if drawn else []
        made.add_row(score.name.replace("_", " "), f"{score.n:,}", *numbers, *histogram)
    return made


def bars(counts: Sequence[int]) -> str:
    """Return counts as a row of small bars; what is there at all is never drawn as nothing."""
    most = max(counts, default=0) or 1
    return "".join(_BARS[-(-n * (len(_BARS) - 1) // most)] for n in counts)


def _lengths(lengths: Sequence[Lengths]) -> Table:
    made = table("length in characters", "n", "5 %", "median", "95 %", "longest")
    for spread in lengths:
        made.add_row(spread.name, *(f"{x:,}" for x in (spread.n, spread.low, spread.median, spread.high, spread.longest)))
    return made


def _images(summary: Summary) -> Table:
    found = summary.images
    made = table("images", "n")
    made.add_row("in all", f"{found.n:,}")
    made.add_row("rows with images", f"{found.rows:,}")
    if found.embedded:
        made.add_row(f"in the file itself ({found.embedded_bytes / 1e6:,.1f} MB)", f"{found.embedded:,}")
    for side, n in found.sides.items():
        made.add_row(f"longer side {side}, of {found.opened:,} opened", f"{n:,}")
    if found.unreadable:
        made.add_row(f"missing or no image, of {found.opened:,} opened", f"{found.unreadable:,}")
    return made


def _errors(summary: Summary) -> Table:
    made = table("error", "rows", "", "first row")
    for error in summary.errors[:FIELDS_SHOWN]:
        made.add_row(visible_line(f"{error.stage}: {error.kind}"), f"{error.rows:,}", _share(error.rows, summary.rows), f"{error.first:,}")
    return made


def print_difference(found: Difference, before: str, after: str) -> None:
    """Print what changed between two files."""
    out = console()
    out.print(visible_line(f"{before}: {_count(found.before, 'row')}, {after}: {_count(found.after, 'row')}"), style="bold")
    made = table("rows", "n", "")
    made.columns[-1].justify, made.columns[-1].no_wrap = "left", False
    for name, ids in (("added", found.added), ("gone", found.gone), ("changed", [change.id for change in found.changed])):
        made.add_row(name, f"{len(ids):,}", visible_line(", ".join(ids[:5])) + (" ..." if len(ids) > 5 else ""))
    made.add_row("the same", f"{found.same:,}", "")
    parts: list[RenderableType] = [made]
    if found.changed:
        parts.append(_tally("changed in", "rows", dict(found.fields())))
    if found.mean_before is not None and found.mean_after is not None:
        parts.append(_shifts(found, found.mean_before, found.mean_after))
    for part in parts:
        out.print()
        out.print(part)


def _shifts(found: Difference, before: float, after: float) -> Table:
    up, down = (sum(sign * change.shift > 0 for change in found.changed) for sign in (1, -1))
    made = table("score", "before", "after", "shift")
    name = f"mean of {_count(found.scored, 'row')}: {up:,} up, {down:,} down, {found.scored - up - down:,} as before"
    made.add_row(name, f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
    for change in found.largest():
        made.add_row(visible_line(change.id), f"{change.before:.3f}", f"{change.after:.3f}", f"{change.shift:+.3f}")
    return made


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print the answer to a query."""
    made = table(*map(visible_line, columns), left=len(columns), cut=True)
    for row in rows:
        made.add_row(*("" if cell is None else visible_line(str(cell)) for cell in row))
    console().print(made)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _share(part: int, whole: int) -> str:
    """Return a share in per cent; only all of it is 100 and only nothing is 0."""
    if part in (0, whole):
        return "100 %" if part else "0 %"
    return percent(min(max(part / whole, 0.001), 0.999))
