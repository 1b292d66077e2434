"""The form of an official table, and the protocol of the official files that hold its rows and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dream_cli.records.record import Image

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """One official table: the names of its file (none: on the hub alone), the fields of every row, and fields (`without`) that only another
    table has.
    """

    title: str
    names: tuple[str, ...]
    fields: tuple[str, ...]
    without: tuple[str, ...] = ()
    hub: tuple[str, ...] = ("test", "train")  # its CONFIG/SPLIT or SPLIT on the hub; empty: the rows there only name their images
    part: str = ""  # the key of its rows, where a JSON file has several tables
    folder: str = ""  # the folder it is in, where several tables share a file name
    elsewhere: str = ""  # a folder in which a file of this name is another table
    by_name_only: bool = False  # other tables have the same fields, so that only the name decides

    @property
    def on_hub_alone(self) -> bool:
        """Whether the table is on the hub alone: neither a name nor its fields identify a file."""
        return self.by_name_only and not self.names

    def fits(self, row: Row) -> bool:
        """Whether a row has this table's fields."""
        return all(name in row for name in self.fields) and not any(name in row for name in self.without)

    def may_be(self, path: Path) -> bool:
        """Whether a path can be that of the table."""
        return (not self.folder or self.folder in path.parts) and self.elsewhere not in path.parts


class OfficialFiles(Protocol):
    """The official files of a benchmark; of the `requested` images, `missing` names those that do not exist."""

    place: str
    missing: list[str]
    requested: int

    @property
    def opened(self) -> Path:
        """The table that was read last."""

    def rows(self, table: Table) -> list[Row]:
        """Return the rows of a table; raise UsageError if it is missing or is another one."""

    def has(self, table: Table) -> bool:
        """Whether the table is present."""

    def image(self, row: Row, *names: str) -> Image:
        """Return the image of a row, the first of several names that exists, else the first name, so that the row's error names it."""
