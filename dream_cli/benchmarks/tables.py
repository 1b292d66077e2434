"""The description of an official table, and the protocol of the official files that hold its rows and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dream_cli.records.record import Image

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """One official table: its file names (none: only on the hub), the fields of every row, and fields of other tables (`without`)."""

    title: str
    names: tuple[str, ...]
    fields: tuple[str, ...]
    without: tuple[str, ...] = ()
    hub: tuple[str, ...] = ("test", "train")  # its CONFIG/SPLIT or SPLIT on the hub; empty: the rows there only name their images
    part: str = ""  # the key of its rows in a JSON file with several tables
    folder: str = ""  # its folder, if several tables share a file name
    elsewhere: str = ""  # a folder in which a file of this name is another table
    by_name_only: bool = False  # other tables have the same fields, so only the name identifies it

    @property
    def on_hub_alone(self) -> bool:
        """Whether the table is only on the hub: neither its name nor its fields identify a file."""
        return self.by_name_only and not self.names

    def fits(self, row: Row) -> bool:
        """Whether a row has this table's fields."""
        return all(name in row for name in self.fields) and not any(name in row for name in self.without)

    def may_be(self, path: Path) -> bool:
        """Whether a path may be that of the table."""
        return (not self.folder or self.folder in path.parts) and self.elsewhere not in path.parts


class OfficialFiles(Protocol):
    """The official files of a benchmark.

    `missing` maps the path of each image that does not exist to its published name, `namesakes` each table that was read to another
    file of its name that differs.
    """

    place: str
    missing: dict[str, str]
    namesakes: dict[Path, Path]

    @property
    def opened(self) -> Path:
        """The table that was read last."""

    def rows(self, table: Table) -> list[Row]:
        """Return the rows of a table; raise UsageError if it is missing or another table."""

    def has(self, table: Table) -> bool:
        """Whether the table is present."""

    def image(self, row: Row, *names: str) -> Image:
        """Return the image of a row: the first existing one of several names, else the first name, which the row's error then contains."""
