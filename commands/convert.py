"""Turn data of other dialects into records.    dream convert train_llava_format.json -o records.jsonl"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dream_cli.options import ImageRoot, Limit, Out, Source

From = Annotated[
    Literal["llava", "dream"] | None, typer.Option("--from", help="The dialect read; found by looking at each row where absent.")
]
To = Annotated[Literal["llava", "dream"], typer.Option("--to", help="The dialect written.")]
Explode = Annotated[Literal["turns"] | None, typer.Option(help="Make one record of each turn of a conversation.")]
FixFlags = Annotated[bool, typer.Option("--fix-flags", help="Move observations that stand on the safe one of two turns to the unsafe one.")]


def run(
    source: Source = None,
    out: Out = None,
    from_: From = None,
    to: To = "dream",
    explode: Explode = None,
    fix_flags: FixFlags = False,
    image_root: ImageRoot = None,
    limit: Limit = None,
) -> None:
    """Turn data of other dialects into records, and back.

    Reads LLaVA / ShareGPT conversations, such as the file that the authors of DREAM released.

    Example: dream convert train_llava_format.json --explode turns | dream disentangle --mode text
    """
    from dream_cli.converting import Dialects, convert

    failed = convert(source, out, Dialects(from_, to), explode == "turns", fix_flags, image_root, limit)
    raise typer.Exit(1 if failed else 0)
