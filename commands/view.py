"""Look into a file of records.    dream view judged.jsonl --where "score < 0.5" """

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dream_cli.options import ImageRoot, Source

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def run(source: Source = None, as_json: AsJson = False, image_root: ImageRoot = None) -> None:
    """Look into a file of records: its fields, risks, scores, lengths, images and errors.

    Example: dream view examples/records.jsonl
    """
    from dream_cli.streams import dumps
    from dream_cli.viewing.printing import print_summary
    from dream_cli.viewing.summary import summarise
    from dream_cli.viewing.tables import open_tables

    with open_tables(source, image_root) as tables:
        summary = summarise(tables)
    if as_json:
        sys.stdout.buffer.write(dumps(summary.to_dict()) + b"\n")
    else:
        print_summary(summary)
