"""Between the dialects of others and our records, row by row."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.formats.llava import explode, fix_flags, from_llava, is_llava, to_llava
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records import Record
from dream_cli.streams import open_writer, read_records, to_row


@dataclass(frozen=True)
class Dialects:
    """What is read (None: found by looking at each row) and what is written."""

    source: str | None = None
    target: str = "dream"


def convert(
    source: str | None,
    out: str | None,
    dialects: Dialects,
    by_turn: bool = False,
    flags: bool = False,
    image_root: Path | None = None,
    limit: int | None = None,
) -> int:
    """Convert a file and return how many rows could not be read; those go on as rows with an error."""
    taxonomy = Taxonomy.load()
    folder = image_root or (Path(source).parent if source and source != "-" else Path())
    failed = 0
    with open_writer(out) as writer:
        for row in read_records(source, image_root=image_root, limit=limit):
            record = row if dialects.source == "dream" else understood(row, taxonomy, folder.resolve(), flags)
            failed += record.error is not None and "error" not in record.order
            for one in explode(record) if by_turn else (record,):
                writer.write(_foreign(one, out) if dialects.target == "llava" else one)
    return failed


def understood(row: Record, taxonomy: Taxonomy, folder: Path, flags: bool = False) -> Record:
    """Return a row that is no record of ours as the record it means; rows of unknown form stay as they are, with their error.

    Relative image paths are seen from `folder`.
    """
    if row.error is None or row.error.kind != "invalid" or not is_llava(row.extra):
        return row
    try:
        known: dict[str, Any] = from_llava(row.extra, row.place, taxonomy)
        if flags:
            fix_flags(known)
        if "images" in known:
            known["images"] = [os.path.normpath(folder / path) for path in known["images"]]
        return Record.from_dict(known, row.place)
    except InvalidRecord as error:
        return Record(extra=row.extra, order=row.order, place=row.place).failed("convert", error)


def _foreign(record: Record, out: str | None) -> Record:
    """Return the record as a row of LLaVA form, all of it in `extra`: the writer writes it as it stands."""
    if record.error is not None:
        return record
    folder = None if out in (None, "-") else os.path.realpath(os.path.dirname(str(out)))
    try:
        row = to_llava(to_row(record, folder))
    except InvalidRecord as error:
        return record.failed("convert", error)
    return Record(extra=row, order=tuple(row))
