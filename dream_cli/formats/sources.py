"""The sources of rows: a file of records, CSV, the folder of a data set, or a hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from dream_cli.records.access import Base
from dream_cli.records.columns import DEFAULT_READING, Reading
from dream_cli.records.record import Record
from dream_cli.records.streams import RowReader, base_of, read_records, read_rows


@dataclass(frozen=True)
class Source:
    """A file, a folder, a name on a hub (`hf://datasets/ORG/NAME`), or stdin; `split` is for data sets with several."""

    name: str | None
    reading: Reading = DEFAULT_READING
    split: str | None = None
    limit: int | None = None

    @property
    def base(self) -> Base:
        """Where relative image paths start."""
        if self.name is not None and os.path.isdir(self.name):
            return self.reading.base(self.name)
        return base_of(self.name, self.reading)


def open_source(source: Source) -> Iterator[Record]:
    """Return the rows of a source, read lazily; raise UsageError where it cannot be one."""
    name = source.name or "-"
    reader = RowReader(name, source.base, source.reading)
    rows: Iterator[Record]
    if name.startswith("hf://"):
        from dream_cli.formats.hub_datasets import open_hub

        rows = read_rows(open_hub(name, source.split), reader)
    elif os.path.isdir(name):
        from dream_cli.formats.hub_datasets import open_folder

        rows = read_rows(open_folder(name, source.split), reader)
    elif name.lower().endswith(".csv") and os.path.isfile(name):
        from dream_cli.formats.csv import read_csv

        rows = read_csv(name, reader)
    else:
        rows = read_records(source.name, source.reading)
    return islice(rows, source.limit)
