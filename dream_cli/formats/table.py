"""The table of dialects, and the recognition of the dialect of a row.

A plug-in of the group `dream.formats` leads to a `Dialect`. Its rows are recognised after those of the built-in dialects.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, Protocol, get_args

from dream_cli import plugins
from dream_cli.errors import InvalidRecord, UsageError
from dream_cli.formats.reading import PathsFrom
from dream_cli.records.choices import ForeignDialect
from dream_cli.records.record import Json

OURS = "dream"
DIALECTS: tuple[ForeignDialect, ...] = get_args(ForeignDialect)

# A row of these can also be a valid record of ours; their `mismatch` is empty only where a field settles that it is theirs.
_NEAR = ("openai", "swift", "trl")


class Dialect(Protocol):
    """One file beside this one: a form of rows that others read and write.

    `FEATURES` are its columns in the types of Hugging Face datasets, empty where rows may have any; `PATHS` is how its reader takes
    the path of an image in JSON, and `INLINE` whether it takes a `data:` URI.
    """

    FEATURES: Mapping[str, Any]
    PATHS: PathsFrom
    INLINE: bool

    def mismatch(self, row: Mapping[str, Any]) -> str:
        """Return why a row is not in this dialect; empty where it is."""

    def read(self, row: Mapping[str, Any]) -> Json:
        """Return a row as one of our records (as JSON); raise InvalidRecord where it is malformed."""

    def write(self, record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
        """Return one of our records (as JSON) as a row, and the fields that it has no place for; raise InvalidRecord where there is none."""


@cache
def dialect(name: str) -> Dialect:
    """Return a dialect by its name; raise UsageError where a plug-in is not one."""
    if name not in DIALECTS:
        return _checked(plugins.load("formats", name), name)
    module: Any = import_module(f"dream_cli.formats.{name.replace('-', '_')}")
    return module  # type: ignore[no-any-return]


@cache
def names() -> tuple[str, ...]:
    """Return the names of all dialects but ours: the built-in ones and those of plug-ins."""
    return (*DIALECTS, *plugins.names("formats", (OURS, *DIALECTS)))


def check_dialect(name: str) -> None:
    """Raise UsageError where there is no dialect of that name."""
    if name not in (OURS, *names()):
        raise UsageError(f"no dialect {name!r}; there are {', '.join((OURS, *names()))}")


def _checked(value: Any, name: str) -> Dialect:
    missing = [part for part in ("FEATURES", "PATHS", "INLINE", "mismatch", "read", "write") if not hasattr(value, part)]
    if missing:
        raise UsageError(f"the plug-in {name} is not a dialect: it has no {', '.join(missing)} (see dream_cli.formats.table.Dialect)")
    return value  # type: ignore[no-any-return]


def recognise(row: Mapping[str, Any]) -> str:
    """Return the name of the dialect that a row is in; raise InvalidRecord with each dialect and why the row is not in it."""
    mismatches = {}
    for name in names():
        mismatches[name] = dialect(name).mismatch(row)
        if not mismatches[name]:
            return name
    tried = "; ".join(f"{name}: {why}" for name, why in mismatches.items())
    raise InvalidRecord(f"a row of no known form (dream: no 'prompt' and no 'messages'; {tried})")


def is_ours(row: Mapping[str, Any]) -> bool:
    """Whether a row that can be read as a record is one, and not a row of a dialect that looks alike."""
    return all(dialect(name).mismatch(row) for name in _NEAR)
