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
    """Return the part that `I/N` names; without it, where the output is a folder, that of a task of a Slurm array."""
    if text is not None:
        return Part.read(text)
    return Part.of_array(os.environ) if is_folder(out) else None


def items_of_part(items: list[Record], part: Part | None) -> list[Record]:
    """Return every Nth item, all without a part; raise UsageError for a part without items."""
    mine = items if part is None else items[part.index :: part.count]
    if part is not None and items and not mine:
        raise UsageError(f"--shard {part.index}/{part.count} has no item: there are {len(items)}; use fewer parts")
    return mine


def out_of_part(out: str | None, words: Sequence[str], part: Part | None) -> str | None:
    """Return the file of an output: in a folder, `NAME.jsonl` or `NAME-00003-of-00016.jsonl`; another output is that file itself."""
    if out is None or not is_folder(out):
        return out
    # A word is a benchmark, perhaps with its subset, or a file.
    name = "+".join(Path(word.rstrip("/")).name.partition(".")[0].replace(":", "-") for word in words) or "items"
    return os.path.join(out, f"{name}.jsonl" if part is None else f"{name}-{part.index:05}-of-{part.count:05}.jsonl")


def with_store_beside(spec: EngineSpec, folder: str | None, out: str | None) -> EngineSpec:
    """Return a spec whose calls are kept beside an output in a folder, where no other store is named."""
    return replace(spec, store=f"{out}{STORE}") if is_folder(folder) and is_unnamed(spec.store) else spec
