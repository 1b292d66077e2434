"""Turn data of other dialects into records, and back.    dream convert train_llava_format.json -o records.jsonl"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from dream_cli.choices import DialectName, ImageForm
from dream_cli.cli.options import Limit, Quiet, ReadingOptions

Input = Annotated[
    str | None,
    typer.Argument(
        metavar="[IN]",
        help="A file (.jsonl, .jsonl.gz, .json, .parquet, .csv), a data set's folder or hf://datasets/ORG/NAME; stdin where absent.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option("-o", "--out", metavar="OUT", help="A file by its suffix, or a data set's folder: DIR/. JSONL on stdout where absent."),
]
From = Annotated[DialectName | None, typer.Option("--from", help="The dialect read; found by looking at each row where absent.")]
To = Annotated[DialectName, typer.Option("--to", help="The dialect written.")]
Images = Annotated[
    ImageForm | None,
    typer.Option(help="Write images into the rows, into files, or leave paths as they are; by default as the target reads them."),
]
ImageFolder = Annotated[Path | None, typer.Option(metavar="DIR", help="Where --images extract writes; default images/ beside OUT.")]
Split = Annotated[str | None, typer.Option(help="The split to read, where a data set has several.")]
Push = Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Upload OUT, a folder, to a hub as a private data set.")]
Explode = Annotated[Literal["turns"] | None, typer.Option(help="Make one record of each turn of a conversation.")]
FixFlags = Annotated[bool, typer.Option("--fix-flags", help="Move observations that stand on the safe one of two turns to the unsafe one.")]


def run(
    source: Input = None,
    out: Output = None,
    from_: From = None,
    to: To = "dream",
    images: Images = None,
    image_folder: ImageFolder = None,
    split: Split = None,
    push: Push = None,
    explode: Explode = None,
    fix_flags: FixFlags = False,
    limit: Limit = None,
    quiet: Quiet = False,
    *,
    columns: ReadingOptions,
) -> None:
    """Turn data of other dialects into records, and back.

    What the target has no place for is counted on stderr; a row that has no form in it goes into OUT.errors.jsonl.

    Example: dream convert train_llava_format.json --explode turns | dream disentangle --mode text
    """
    from dream_cli.errors import UsageError
    from dream_cli.formats.converting import Conversion, convert
    from dream_cli.formats.hub_datasets import upload
    from dream_cli.formats.sources import Source

    if push and not (out or "").endswith("/"):
        raise UsageError("--push uploads the folder of a data set; name one with -o DIR/")
    folder = image_folder or Path(out or "").parent / "images"
    how = Conversion(source=from_, target=to, images=images, image_folder=folder, by_turn=explode == "turns", fix_flags=fix_flags)
    receipt = convert(Source(source, columns.reading, split, limit), out, how)
    if not quiet:
        sys.stderr.write(receipt.report(to))
    if push and out:
        sys.stderr.write(f"dream convert: uploaded to {upload(out, push)}\n")
    raise typer.Exit(1 if receipt.errors else 0)
