"""The options of a run over many files: its sources, an output folder, and one part of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dream_cli.records.shards import Part


def _sources(words: list[str] | None) -> list[str] | None:
    files_of(words)
    return words


def files_of(words: Sequence[str] | None) -> tuple[str, ...]:
    """Return the files that arguments match, none for stdin; raise UsageError where one cannot be read."""
    if not words:
        return ()
    from dream_cli.records.shards import expanded

    return tuple(expanded(words))


def check_shards_out(path: str | None) -> str | None:
    """Return the path of an output file or folder; raise UsageError where nothing can be written there."""
    from dream_cli.records.outputs import check_out
    from dream_cli.records.shards import is_folder

    if not is_folder(path):
        check_out(path)
    return path


def check_shard(text: str | None) -> str | None:
    """Return `I/N`; raise UsageError for another text."""
    part_of(text)
    return text


def part_of(text: str | None) -> Part | None:
    """Return the part of the work of `I/N`, None for all of it; raise UsageError for another text."""
    if text is None:
        return None
    from dream_cli.records.shards import Part

    return Part.read(text)


Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE",
        callback=_sources,
        help="Records: files (.jsonl, .jsonl.gz, .json, .parquet, .csv, .tsv, .tar), folders, globs or URLs (default or -: stdin).",
    ),
]
ShardsOut = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FILE|DIR/",
        callback=check_shards_out,
        help="Output file, format by suffix (default: JSONL on stdout); DIR/: one output per input file, finished ones skipped.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        callback=check_shard,
        help="Process part I of N, from 0: every Nth file, or every Nth record of one file (default with -o DIR/: the Slurm array task).",
    ),
]
ShardLimit = Annotated[int | None, typer.Option("-l", "--limit", min=1, help="Stop after this many records, with -o DIR/ of each file.")]
