"""Folders of pictures: plain, or with the `metadata.csv`, `.jsonl` or `.parquet` of an image folder of Hugging Face."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from dream_cli.errors import ImageError, UsageError
from dream_cli.formats.csv import read_csv
from dream_cli.records.access import Base
from dream_cli.records.images import size
from dream_cli.records.record import Image, Record
from dream_cli.records.streams import RowReader, read_with


def files_below(folder: str) -> list[str]:
    """Return the files in a folder and its subfolders, relative to it and sorted, without hidden files and folders."""
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [os.path.relpath(os.path.join(place, name), folder) for name in names if not name.startswith(".")]
    return sorted(files)


def read_pictures(folder: str, files: Sequence[str], rows: RowReader, skipped: list[str]) -> Iterator[Record]:
    """Return a record for each picture among the files of a folder; add the reason for each skipped file to `skipped`.

    Raises UsageError where there is no picture.
    """
    if all(_why_not(folder, file, rows.base) for file in files):
        raise UsageError(f"{folder} is a folder without pictures and without files of a data set; name a file in it")
    return _pictures(folder, files, rows, skipped)


def _pictures(folder: str, files: Sequence[str], rows: RowReader, skipped: list[str]) -> Iterator[Record]:
    number = 0
    for file in files:
        if why := _why_not(folder, file, rows.base):
            skipped.append(why)
        else:
            number += 1
            yield rows.record({"id": file, "images": [file]}, number)


def _why_not(folder: str, file: str, base: Base) -> str:
    """Return the reason why a file is not a readable picture; empty if it is."""
    try:
        size(Image(os.path.join(base.folders[-1], file), access=base.access))
    except ImageError as error:
        return str(error)
    return ""


def read_image_folder(source: str, rows: RowReader, within: str = "") -> Iterator[Record]:
    """Return the records of a metadata file, whose `file_name` columns name images in its folder.

    `within` is that folder, relative to the base of `rows`.
    """
    reader = _FileNames(source, rows.base, rows.reading)
    reader.unread, reader.within = rows.unread, within
    return read_csv(source, reader) if source.lower().endswith(".csv") else read_with(source, reader)


class _FileNames(RowReader):
    """Makes records of the rows of a metadata file."""

    within = ""

    def record(self, raw: Any, number: int, problem: str | None = None) -> Record:
        if isinstance(raw, dict) and not raw.get("images") and not raw.get("image"):
            named = [value for name, value in raw.items() if name.endswith(("file_name", "file_names"))]
            files = [file for value in named for file in (value if isinstance(value, list) else [value]) if isinstance(file, str) and file]
            raw = raw | ({"images": [os.path.join(self.within, file) for file in files]} if files else {})
        return super().record(raw, number, problem)

    def plain_record(self, line: bytes, number: int) -> Record | None:
        """Return None: no line is an ordinary record before its `file_name` is read."""
        return None
