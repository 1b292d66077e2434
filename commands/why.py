"""Trace a record id through files to the calls that produced it.    dream why siuo:7 eval.jsonl pairs.jsonl judged.jsonl"""

from __future__ import annotations

from typing import Annotated

import typer

from dream_cli.cli.options import ShowingOptions, Store

Name = Annotated[str, typer.Argument(metavar="ID", help="Id of a record, an item or a pair.")]
Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Files of records, in the order of the report.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]
Images = Annotated[bool | None, typer.Option("--images/--no-images", help="Draw images in the terminal (default: where it supports them).")]


def run(
    name: Name,
    files: Files,
    store: Store = None,
    as_json: AsJson = False,
    images: Images = None,
    *,
    columns: ShowingOptions,
) -> None:
    """Trace a row back to its files and stored calls.

    Shows the rows of each file that share its id, prompt or image, and the stored calls that produced them.

    Example: dream why sign-risk-1 examples/records.jsonl
    """
    from dream_cli.engines.store import default_store
    from dream_cli.viewing.looking import print_json
    from dream_cli.viewing.record_printing import print_trace
    from dream_cli.viewing.tracing import calls_of, rows_of, trace_json

    rows, known = rows_of(name, files, columns.reading)
    place = store or str(default_store())
    calls = calls_of(known, place)
    print_json(trace_json(rows, calls)) if as_json else print_trace(rows, calls, place, images)
