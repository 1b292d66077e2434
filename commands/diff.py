"""Compare two files of records.    dream diff round1.jsonl round2.jsonl"""

from __future__ import annotations

from typing import Annotated

import typer

from dream_cli.cli.options import ReadingOptions

Before = Annotated[str, typer.Argument(metavar="BEFORE", help="Records: .jsonl, .jsonl.gz, .json or .parquet (-: stdin).")]
After = Annotated[str, typer.Argument(metavar="AFTER", help="Records to compare with BEFORE.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON with every id, changed field and score.")]


def run(
    before: Before,
    after: After,
    as_json: AsJson = False,
    *,
    columns: ReadingOptions,
) -> None:
    """Show what changed between two files of records.

    Reports rows added, removed and changed, the changed fields, and the change in scores. Rows are matched by id, else by prompt and
    images. A row's score is the mean of its responses, else its margin.

    Example: dream diff examples/records.jsonl examples/records.jsonl
    """
    from dream_cli.errors import UsageError
    from dream_cli.formats.sources import read_records
    from dream_cli.viewing.differing import difference
    from dream_cli.viewing.looking import print_json
    from dream_cli.viewing.printing import print_difference

    if before == after == "-":
        raise UsageError("only one of the two files can come from stdin")
    changes = difference(*(read_records(source, columns.reading) for source in (before, after)))
    print_json(changes.to_dict()) if as_json else print_difference(changes, before, after)
