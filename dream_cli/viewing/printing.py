"""Summaries and tables as text, 80 columns wide where the terminal reports no other width."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.visible import amount, visible_line
from dream_cli.stats.intervals import percent
from dream_cli.viewing.differing import Difference
from dream_cli.viewing.summary import FileSummary, Histogram

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

FIELDS_SHOWN = 30
# Below these widths numbers, or the texts next to the bars, would be folded.
NARROWEST, ROOM_FOR_BARS = 50, 66
# The text of a record may be folded anywhere.
NARROWEST_RECORD = 30
_BARS = " ▁▂▃▄▅▆▇█"


def plain_console(file: IO[str], width: int | None = None) -> Console:
    """Return a console that prints text without markup, in colour only if the file is a terminal."""
    from rich.console import Console

    class PipedConsole(Console):
        """A console that ignores a closed pipe: rich would end the process with exit code 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PipedConsole(file=file, width=width, highlight=False, markup=False, emoji=False)


def console(narrowest: int = NARROWEST) -> Console:
    """Return the console for tables, at least `narrowest` columns wide: stdout, without styles if it is not a terminal."""
    out = plain_console(sys.stdout)
    out.width = max(out.width, narrowest)
    return out


def print_summary(summary: FileSummary) -> None:
    """Print the summary of a file."""
    out = console()
    out.print(visible_line(f"{summary.file}: {amount(summary.rows, 'row')}"), style="bold")
    for part in _parts(summary, out.width):
        out.print()
        out.print(part)


def _parts(summary: FileSummary, width: int) -> Iterator[RenderableType]:
    if summary.errors:
        errors = table("error", "rows", "", "first row")
        for error in summary.errors[:FIELDS_SHOWN]:
            stage = visible_line(f"{error.stage}: {error.kind}")
            errors.add_row(stage, f"{error.rows:,}", _share(error.rows, summary.rows), f"{error.first:,}")
        yield errors
    if summary.fields:
        yield _fields(summary)
    if summary.rows and not {"prompt", "messages"} & {field.name for field in summary.fields}:
        yield "These rows have neither `prompt` nor `messages`: dream convert turns other dialects into records."
    if summary.observed.risks:
        yield _risks(summary.observed.risks)
    if summary.observed.found or summary.observed.none_found:
        seen = summary.observed
        yield f"risks found in {amount(seen.found, 'row')}, none in {seen.none_found:,}, not looked for in {seen.not_looked:,}"
    if summary.responses:
        yield _tally("responses of", "", {model or "(no model named)": n for model, n in summary.models.items()})
    if summary.scores:
        yield _scores(summary.scores, width >= ROOM_FOR_BARS)
    if summary.unscored:
        yield _tally("unscored because", "responses", summary.unscored)
    if summary.lengths:
        lengths = table("length in characters", "n", "5 %", "median", "95 %", "longest")
        for text in summary.lengths:
            lengths.add_row(text.name, *(f"{x:,}" for x in (text.n, text.low, text.median, text.high, text.longest)))
        yield lengths
    if summary.images.n:
        yield _images(summary)


def table(*columns: str, left: int = 1, cut: bool = False) -> Table:
    """Return an empty table without lines: `left` text columns, which are folded (or `cut`) first, then number columns."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i < left else "right", overflow="ellipsis" if cut else "fold", no_wrap=cut or i >= left)
    return made


def _fields(summary: FileSummary) -> Table:
    made = table("field", "rows", "", "kind")
    made.columns[-1].justify, made.columns[-1].no_wrap = "left", False
    ranked = sorted(summary.fields, key=lambda field: -field.rows)
    for field in ranked[:FIELDS_SHOWN]:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(field.kinds.items(), key=lambda item: -item[1]))
        shown = f"mixed: {kinds}" if len(field.kinds) > 1 else next(iter(field.kinds), "")
        made.add_row(visible_line(field.name) or "(empty name)", f"{field.rows:,}", _share(field.rows, summary.rows), shown)
    if len(ranked) > FIELDS_SHOWN:
        made.add_row(f"... and {len(ranked) - FIELDS_SHOWN:,} more", "", "", "")
    return made


def _risks(risks: Mapping[str, Mapping[str, int]]) -> Table:
    named = [term.name for term in Taxonomy.load().sources]
    others = sorted({source for sources in risks.values() for source in sources} - {*named})
    made = table("risk", *map(_two_lines, named), *(["other\nsource"] if others else []), "all")
    for column in made.columns:
        # The headings may be folded, because they are wider than the numbers.
        column.no_wrap = False
    for category, sources in sorted(risks.items(), key=lambda item: -sum(item[1].values())):
        cells = [sources.get(source, 0) for source in named] + ([sum(sources.get(source, 0) for source in others)] if others else [])
        made.add_row(visible_line(category), *(f"{n:,}" if n else "." for n in (*cells, sum(sources.values()))))
    return made


def _two_lines(name: str) -> str:
    """Return a name with a line break at the space nearest to its middle."""
    spaces = [i for i, letter in enumerate(name) if letter == " "]
    if not spaces:
        return name
    middle = min(spaces, key=lambda i: abs(2 * i - len(name)))
    return name[:middle] + "\n" + name[middle + 1 :]


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
    """Return counts as a row of small bars; a count above 0 is never drawn as an empty bar."""
    most = max(counts, default=0) or 1
    return "".join(_BARS[-(-n * (len(_BARS) - 1) // most)] for n in counts)


def _images(summary: FileSummary) -> Table:
    images = summary.images
    made = table("images", "n")
    made.add_row("in all", f"{images.n:,}")
    made.add_row("rows with images", f"{images.rows:,}")
    if images.embedded:
        made.add_row(f"in the file itself ({images.embedded_bytes / 1e6:,.1f} MB)", f"{images.embedded:,}")
    for side, n in images.sides.items():
        made.add_row(f"longer side {side}, of {images.opened:,} opened", f"{n:,}")
    if images.unreadable:
        made.add_row(f"missing or not an image, of {images.opened:,} opened", f"{images.unreadable:,}")
    return made


def print_difference(difference: Difference, before: str, after: str) -> None:
    """Print the difference of two files."""
    out = console()
    out.print(visible_line(f"{before}: {amount(difference.before, 'row')}, {after}: {amount(difference.after, 'row')}"), style="bold")
    made = table("rows", "n", "")
    made.columns[-1].justify, made.columns[-1].no_wrap = "left", False
    for name, ids in (("added", difference.added), ("gone", difference.gone), ("changed", [change.id for change in difference.changed])):
        made.add_row(name, f"{len(ids):,}", visible_line(", ".join(ids[:5])) + (" ..." if len(ids) > 5 else ""))
    made.add_row("the same", f"{difference.same:,}", "")
    parts: list[RenderableType] = [made]
    if difference.changed:
        parts.append(_tally("changed in", "rows", dict(difference.fields())))
    if difference.mean_before is not None and difference.mean_after is not None:
        up, down = (sum(sign * change.shift > 0 for change in difference.changed) for sign in (1, -1))
        shifts = table("score", "before", "after", "shift")
        name = f"mean of {amount(difference.scored, 'row')}: {up:,} up, {down:,} down, {difference.scored - up - down:,} as before"
        shifts.add_row(
            name, f"{difference.mean_before:.3f}", f"{difference.mean_after:.3f}", f"{difference.mean_after - difference.mean_before:+.3f}"
        )
        for change in difference.largest():
            shifts.add_row(visible_line(change.id), f"{change.before:.3f}", f"{change.after:.3f}", f"{change.shift:+.3f}")
        parts.append(shifts)
    for part in parts:
        out.print()
        out.print(part)


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print the rows of a query."""
    made = table(*map(visible_line, columns), left=len(columns), cut=True)
    for row in rows:
        made.add_row(*("" if cell is None else visible_line(str(cell)) for cell in row))
    console().print(made)


def _share(part: int, whole: int) -> str:
    """Return a share in percent; only a full share is shown as 100 and only an empty one as 0."""
    if part in (0, whole):
        return "100 %" if part else "0 %"
    return percent(min(max(part / whole, 0.001), 0.999))
