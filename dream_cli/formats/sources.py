"""The sources of rows: a file of records, a table, a tar file, a folder with a data set or pictures, or a hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from dream_cli.records.access import Base
from dream_cli.records.columns import DEFAULT_READING, Reading
from dream_cli.records.record import Record
from dream_cli.records.streams import METADATA, TARS, RowReader, base_of, read_rows, read_with


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
    """The rows of a source, read lazily; `skipped` collects the reason for each skipped file."""

    rows: Iterator[Record]
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
    if os.path.isfile(name):
        if os.path.basename(name) in METADATA:
            from dream_cli.formats.pictures import read_image_folder

            return read_image_folder(name, reader)
        if name.lower().endswith((".csv", ".tsv")):
            from dream_cli.formats.csv import read_csv, read_tsv

            return read_csv(name, reader) if name.lower().endswith(".csv") else read_tsv(name, reader)
        if name.lower().endswith(TARS):
            from dream_cli.formats.webdataset import read_tar

            return read_tar(name, reader, skipped)
    return read_with(source.name, reader)
