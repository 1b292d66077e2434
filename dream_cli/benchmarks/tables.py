"""The form of an official table, and the protocol of the place that its rows and images come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dream_cli.records.record import Image

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """One official table: the names it goes by, the fields every row has, and fields that tell another table from it."""

    title: str
    names: tuple[str, ...]
    fields: tuple[str, ...]
    without: tuple[str, ...] = ()
    hub: tuple[str, ...] = ("test", "train")  # CONFIG/SPLIT or SPLIT, as it is on the hub
    folder: str = ""  # the folder it stands in, where the name does not tell
    elsewhere: str = ""  # a folder in which a file of this name is another table
    by_name_only: bool = False  # several tables have these fields

    def fits(self, row: Row) -> bool:
        """Whether a row has this table's fields."""
        return all(name in row for name in self.fields) and not any(name in row for name in self.without)

    def may_be(self, path: Path) -> bool:
        """Whether the table may stand at a path."""
        return (not self.folder or self.folder in path.parts) and self.elsewhere not in path.parts


class Source(Protocol):
    """Where rows and images come from; `missing` names the images that are not there, of those `asked` for."""

    place: str
    missing: list[str]
    asked: int

    @property
    def opened(self) -> Path:
        """The table that was read last."""

    def rows(self, table: Table) -> list[Row]:
        """Return the rows of a table; raise UsageError where it is not there or is another one."""

    def has(self, table: Table) -> bool:
        """Whether the table is there."""

    def image(self, row: Row, *names: str) -> Image:
        """Return the image of a row, the first of several names that is there, else the first name for the row's error to tell."""
