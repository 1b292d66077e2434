"""Convert data of other dialects to records, and back.    dream convert train_llava_format.json -o records.jsonl"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from dream_cli.cli.options import Limit, Quiet, ReadingOptions
from dream_cli.records.choices import ImageForm, SourceName, TargetName


def _dialect(name: str | None) -> str | None:
    from dream_cli.formats.table import checked_name

    return None if name is None else checked_name(name)


def _target(name: str) -> str:
    from dream_cli.formats.table import checked_name

    return checked_name(name, written=True)


Input = Annotated[
    str | None,
    typer.Argument(
        metavar="IN",
        help="A file (.jsonl, .jsonl.gz, .json, .parquet, .csv, .tsv, .tar), a folder of a dataset or of pictures, or hf://datasets/ORG/NAME (default: stdin).",
    ),
]
Output = Annotated[
    str | None,
    typer.Option("-o", "--out", metavar="OUT", help="Output file (format by suffix) or dataset folder: DIR/ (default: JSONL on stdout)."),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="DIALECT",
        callback=_dialect,
        autocompletion=lambda: [*get_args(SourceName)],
        help=f"Input dialect: {', '.join(get_args(SourceName))} (default: detected per row).",
    ),
]
To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="DIALECT",
        callback=_target,
        autocompletion=lambda: [*get_args(TargetName)],
        help=f"Output dialect: {', '.join(get_args(TargetName))}.",
    ),
]
Images = Annotated[
    ImageForm | None,
    typer.Option(
        help="Embed images in the rows, extract them to files, or keep paths (default: the form that the output dialect reads). Paths are relative to OUT; absolute on stdout and for trl and swift."
    ),
]
ImageFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder for --images extract (default: images/ beside OUT; in it, if OUT is a folder).")
]
Prompt = Annotated[str | None, typer.Option(metavar="TEXT", help="Prompt of rows without one, such as pictures in a folder.")]
Split = Annotated[str | None, typer.Option(help="Dataset split to read.")]
Push = Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Upload the folder OUT to the Hugging Face Hub as a private dataset.")]
Explode = Annotated[Literal["turns"] | None, typer.Option(help="Make one record per conversation turn.")]
FixFlags = Annotated[
    bool,
    typer.Option(
        "--fix-flags", help="Move observations from the safe to the unsafe turn where a two-turn conversation has them on the wrong one."
    ),
]


def run(
    source: Input = None,
    out: Output = None,
    from_: From = None,
    to: To = "dream",
    images: Images = None,
    image_folder: ImageFolder = None,
    split: Split = None,
    prompt: Prompt = None,
    push: Push = None,
    explode: Explode = None,
    fix_flags: FixFlags = False,
    limit: Limit = None,
    quiet: Quiet = False,
    *,
    columns: ReadingOptions,
) -> None:
    """Convert data of other dialects to records, and back.

    Fields that the output dialect lacks are counted on stderr; rows that it cannot express are written to OUT.errors.jsonl.

    Example: dream convert train_llava_format.json --explode turns | dream disentangle --mode text
    """
    from dream_cli.errors import UsageError
    from dream_cli.formats.converting import Conversion, convert
    from dream_cli.formats.hub_datasets import upload
    from dream_cli.formats.sources import Source
    from dream_cli.records.atomic import check_own_input
    from dream_cli.records.shards import is_folder

    if push and not (out or "").endswith("/"):
        raise UsageError("--push uploads the folder of a data set; name one with -o DIR/")
    check_own_input(out, source)
    beside = Path(out) if is_folder(out) else Path(out or "").parent
    folder = image_folder or beside / "images"
    how = Conversion(source=from_, target=to, images=images, image_folder=folder, by_turn=explode == "turns", fix_flags=fix_flags)
    receipt = convert(Source(source, columns.reading, split=split, limit=limit, prompt=prompt), out, how)
    if not quiet:
        sys.stderr.write(receipt.report(to))
    if push and out:
        sys.stderr.write(f"dream convert: uploaded to {upload(out, push)}\n")
    raise typer.Exit(1 if receipt.errors else 0)
