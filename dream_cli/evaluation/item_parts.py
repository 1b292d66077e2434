"""Parts of an evaluation: every Nth item, and the output of a part in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dream_cli.engines.protocol import EngineSpec
from dream_cli.engines.store import is_unnamed
from dream_cli.errors import UsageError
from dream_cli.records.record import Record
from dream_cli.records.shards import STORE, Part, is_folder


def part_of(text: str | None, out: str | None) -> Part | None:
    """Return the part `I/N`; without it, if the output is a folder, the part of the Slurm array task."""
    if text is not None:
        return Part.read(text)
    return Part.of_array(os.environ) if is_folder(out) else None


def items_of_part(items: list[Record], part: Part | None) -> list[Record]:
    """Return every Nth item, or all items without a part; raise UsageError for a part without items."""
    own = items if part is None else items[part.index :: part.count]
    if part is not None and items and not own:
        raise UsageError(f"--shard {part.index}/{part.count} has no item: there are {len(items)}; use fewer parts")
    return own


def out_of_part(out: str | None, words: Sequence[str], part: Part | None) -> str | None:
    """Return the output file: in a folder, `NAME.jsonl` or `NAME-00003-of-00016.jsonl`; otherwise `out` itself."""
    if out is None or not is_folder(out):
        return out
    # A word is a benchmark, possibly with a subset, or a file.
    name = "+".join(Path(word.rstrip("/")).name.partition(".")[0].replace(":", "-") for word in words) or "items"
    return os.path.join(out, f"{name}.jsonl" if part is None else f"{name}-{part.index:05}-of-{part.count:05}.jsonl")


def with_store_beside(spec: EngineSpec, folder: str | None, out: str | None) -> EngineSpec:
    """Return a spec whose store is beside an output in a folder, unless the user names a store."""
    return replace(spec, store=f"{out}{STORE}") if is_folder(folder) and is_unnamed(spec.store) else spec
