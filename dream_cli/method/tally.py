"""What a stage counts while its rows pass by: rows, errors, and the summary of a stage. Counts of several workers add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol, Self

from dream_cli.records.record import Record
from dream_cli.records.visible import shorten, visible_line


@dataclass
class Tally:
    """What happened to the rows of a stage."""

    rows: int = 0
    passed_on: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)  # message of each kind of error

    @property
    def exit_code(self) -> int:
        """1 where this stage made an error, else 0: errors that came with a row are not counted."""
        return 1 if self.errors else 0

    def include(self, other: Tally) -> None:
        """Add the rows that another tally has counted."""
        self.rows += other.rows
        self.passed_on += other.passed_on
        self.errors.update(other.errors)
        self.first = other.first | self.first


class Summary(Protocol):
    """What the summary of a stage needs of the records that pass by."""

    def add(self, record: Record) -> None:
        """Take in one finished record."""

    def include(self, other: Self) -> None:
        """Take in what another summary has taken in."""


class NoSummary:
    """The summary of a stage that has none."""

    def add(self, record: Record) -> None:
        """Take in nothing."""

    def include(self, other: NoSummary) -> None:
        """Take in nothing."""


NO_SUMMARY = NoSummary()


def count(tally: Tally, came: Record, record: Record) -> None:
    """Add one finished row to the tally; an unreadable line counts as an error of the stage that read it."""
    tally.rows += 1
    if record.error is None:
        return
    if record.error is came.error and came.came_with_error:
        tally.passed_on += 1
    else:
        tally.errors[record.error.kind] += 1
        # The words come from servers and data: a terminal would obey the control characters in them.
        tally.first.setdefault(record.error.kind, shorten(visible_line(record.error.message), 400))
