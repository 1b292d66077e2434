"""The counts of a stage: rows, errors, and its summary. Counts of several workers can be added."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol, Self

from dream_cli.records.record import Record
from dream_cli.records.visible import shorten, visible_line


@dataclass
class Tally:
    """The counts of the rows of a stage."""

    rows: int = 0
    passed_on: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)  # the first message of each kind of error

    @property
    def exit_code(self) -> int:
        """1 if there are errors of this stage, else 0; errors that came with a row do not count."""
        return 1 if self.errors else 0

    def include(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.rows += other.rows
        self.passed_on += other.passed_on
        self.errors.update(other.errors)
        self.first = other.first | self.first


class Summary(Protocol):
    """The interface of a stage's summary."""

    def add(self, record: Record) -> None:
        """Add one finished record."""

    def include(self, other: Self) -> None:
        """Add the counts of another summary."""


class NoSummary:
    """The summary of a stage without one."""

    def add(self, record: Record) -> None:
        """Do nothing."""

    def include(self, other: NoSummary) -> None:
        """Do nothing."""


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
        # The message may come from a server or from data: a terminal would execute its control characters.
        tally.first.setdefault(record.error.kind, shorten(visible_line(record.error.message), 400))
