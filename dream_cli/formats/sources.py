"""The sources of rows: a file of records, a table, a tar file, a folder with a data set or pictures, or a hub."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from dream_cli.formats.rows import AnyRows
from dream_cli.records.access import Base
from dream_cli.records.columns import DEFAULT_READING, Reading
from dream_cli.records.record import Record
from dream_cli.records.shards import Part
from dream_cli.records.streams import METADATA, TARS, RowReader, base_of, check_source, read_rows, read_with


def read_records(source: str | None, reading: Reading = DEFAULT_READING, limit: int | None = None) -> Iterator[Record]:
    """Return the records of a file or of stdin, in any dialect, read lazily; raise UsageError for a file that cannot hold records."""
    check_source(source)
    rows = AnyRows("stdin" if source is None or source == "-" else source, base_of(source, reading), reading)
    return islice(_read_file(source, rows, []), limit)


def read_shards(
    files: Sequence[str], reading: Reading = DEFAULT_READING, limit: int | None = None, part: Part | None = None
) -> Iterator[Record]:
    """Return the records of files one after the other (no file: stdin), or of one part of them."""
    if len(files) < 2:
        records: Iterator[Record] = read_records(files[0] if files else None, reading)
        records = records if part is None else islice(records, part.index, None, part.count)
    else:
        mine = files if part is None else files[part.index :: part.count]
        records = chain.from_iterable(read_records(file, reading) for file in mine)
    return islice(records, limit)


@dataclass(frozen=True)
class Source:
    """A file, a folder, a name on a hub (`hf://datasets/ORG/NAME`), or stdin; `split` is for data sets with several.

    `prompt` is the prompt of rows that have none, such as pictures.
    """

    name: str | None
    reading: Reading = DEFAULT_READING
    split: str | None = None
    limit: int | None = None
    prompt: str | None = None

    @property
    def base(self) -> Base:
        """The base of relative image paths."""
        if self.name is not None and os.path.isdir(self.name):
            return self.reading.base(self.name)
        return base_of(self.name, self.reading)


@dataclass(frozen=True)
class Opened:
    """The rows of a source, read lazily, some in record batches of Arrow; `skipped` collects the reason for each skipped file."""

    rows: Iterator[Record | Any]
    skipped: list[str] = field(default_factory=list)


def open_source(source: Source) -> Opened:
    """Open a source; raise UsageError where it is not one. Unread columns are not reported, because a dialect may read them."""
    name = source.name or "-"
    reader = RowReader(name, source.base, source.reading)
    reader.unread = None
    skipped: list[str] = []
    return Opened(islice(_open(source, name, reader, skipped), source.limit), skipped)


def _open(source: Source, name: str, reader: RowReader, skipped: list[str]) -> Iterator[Record]:
    if name.startswith("hf://"):
        from dream_cli.formats.hub_datasets import open_hub

        return read_rows(open_hub(name, source.split), reader)
    if os.path.isdir(name):
        from dream_cli.formats.folders import open_folder

        return open_folder(name, reader, skipped, split=source.split, prompt=source.prompt)
    return _read_file(source.name, reader, skipped)


def _read_file(source: str | None, rows: RowReader, skipped: list[str]) -> Iterator[Record]:
    """Return the records of a file, which names what it holds by its suffix, or of stdin."""
    if source is None or not os.path.isfile(source):
        return read_with(source, rows)
    name = source.lower()
    if os.path.basename(source) in METADATA:
        from dream_cli.formats.pictures import read_image_folder

        return read_image_folder(source, rows)
    if name.endswith((".csv", ".tsv")):
        from dream_cli.formats.csv import read_csv, read_tsv

        return read_csv(source, rows) if name.endswith(".csv") else read_tsv(source, rows)
    if name.endswith(TARS):
        from dream_cli.formats.webdataset import read_tar

        return read_tar(source, rows, skipped)
    return read_with(source, rows)
