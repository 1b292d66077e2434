"""Find benchmark items in training data.    dream leak pairs.jsonl siuo.jsonl"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dream_cli.cli.options import Quiet, ReadingOptions

Train = Annotated[str, typer.Argument(metavar="TRAIN", help="Training data: records or pairs (-: stdin).")]
Items = Annotated[
    list[str], typer.Argument(metavar="BENCHMARK|FILE...", help="Benchmarks (with their files in --data), or output of dream eval.")
]
Data = Annotated[str | None, typer.Option(metavar="DIR", help="Official benchmark files: a folder, or hf://NAME.")]


def run(
    train: Train,
    items: Items,
    data: Data = None,
    quiet: Quiet = False,
    *,
    columns: ReadingOptions,
) -> None:
    """Find benchmark items in training data.

    Prints one line of JSON per leak: the row, the item, and the kind of match: the same image (byte for byte), a similar image
    (recompressed, scaled), or the same prompt (ignoring case, spacing and punctuation). The texts are not printed.
    Nothing on stdout means no leak; anything that could not be compared is reported on stderr.

    Example: dream leak pairs.jsonl siuo --data data/siuo
    """
    from dream_cli.benchmarks.loading import read_items
    from dream_cli.evaluation.contamination import NotCompared, in_distribution, leaks
    from dream_cli.formats.sources import read_records
    from dream_cli.records.strict_json import dumps
    from dream_cli.records.visible import amount, visible_line

    known, unreadable = read_items(items, data, reading=columns.reading, limit=None, quiet=quiet)
    not_compared, count = NotCompared(rows=unreadable), 0
    for leak in leaks(read_records(train, columns.reading), known, not_compared):
        count += 1
        sys.stdout.write(dumps(leak.to_dict()).decode() + "\n")
    if not quiet:
        sys.stderr.writelines(
            f"dream leak: {visible_line(line)}\n" for line in (amount(count, "leak"), *in_distribution(known), *not_compared.report())
        )
    raise typer.Exit(1 if not_compared else 0)
