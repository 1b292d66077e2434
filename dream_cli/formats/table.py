"""The table of dialects, and the recognition of the dialect of a row.

The entry point of a plug-in in the group `dream.formats` is a `Written` dialect. Its rows are recognised after those of built-in dialects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from shlex import quote
from typing import Any, Protocol, get_args

from dream_cli.errors import InvalidRecord, UsageError
from dream_cli.formats.reading import PathsFrom
from dream_cli.records import plugins
from dream_cli.records.choices import ForeignDialect, WrittenDialect
from dream_cli.records.columns import image_like, prompt_hint
from dream_cli.records.record import Json

OURS = "dream"
DIALECTS: tuple[ForeignDialect, ...] = get_args(ForeignDialect)
WRITTEN: tuple[WrittenDialect, ...] = get_args(WrittenDialect)

# A row of these can also be a valid record; their `mismatch` is empty only if a field identifies the dialect.
_NEAR = ("vlfeedback", "beavertails-v", "openai", "swift", "trl")
# Maximum number of field names in a message; data can have any number of them.
_LISTED = 10
# Number of dialects whose mismatches are listed.
_NEAREST = 3


class Dialect(Protocol):
    """A row format of another tool, in one module of this package. A read-only dialect only reads rows without a mismatch."""

    def mismatch(self, row: Mapping[str, Any]) -> str:
        """Return the reason why a row is not in this dialect; empty if it is."""

    def read(self, row: Mapping[str, Any]) -> Json:
        """Return a row as a record (as JSON); raise InvalidRecord where it is malformed."""


class Written(Dialect, Protocol):
    """A dialect that is also written.

    `FEATURES` are its columns in the types of Hugging Face datasets, empty where rows may have any; `PATHS` is how its reader resolves
    the path of an image in JSON, and `INLINE` whether it accepts a `data:` URI.
    """

    FEATURES: Mapping[str, Any]
    PATHS: PathsFrom
    INLINE: bool

    def write(self, record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
        """Return a record (as JSON) as a row, and the fields that it cannot hold; raise InvalidRecord where it has no such row."""


@cache
def dialect(name: str) -> Written:
    """Return a dialect by its name; `checked_name` checks whether it is written. Raise UsageError where a plug-in is not a dialect."""
    if name not in DIALECTS:
        return _checked(plugins.load("formats", name), name)
    module: Any = import_module(f"dream_cli.formats.{name.replace('-', '_')}")
    return module  # type: ignore[no-any-return]


@cache
def names() -> tuple[str, ...]:
    """Return the names of all dialects except `dream`: the built-in ones and those of plug-ins."""
    return (*DIALECTS, *plugins.names("formats", (OURS, *DIALECTS)))


def checked_name(name: str, written: bool = False) -> str:
    """Return the name of a dialect; raise UsageError where there is none of that name, or with `written` it is read-only."""
    offered = (OURS, *(other for other in names() if not written or not is_only_read(other)))
    if name not in offered:
        raise UsageError(f"no dialect {name!r}{' that is written' if written else ''}; there are {', '.join(offered)}")
    return name


def is_only_read(name: str) -> bool:
    """Whether a dialect is read-only; plug-ins never are."""
    return name in DIALECTS and name not in WRITTEN


def _checked(value: Any, name: str) -> Written:
    missing = [part for part in ("FEATURES", "PATHS", "INLINE", "mismatch", "read", "write") if not hasattr(value, part)]
    if missing:
        raise UsageError(f"the plug-in {name} is not a dialect: it has no {', '.join(missing)} (see dream_cli.formats.table.Written)")
    return value  # type: ignore[no-any-return]


def known_dialect(row: Mapping[str, Any]) -> str | None:
    """Return the name of the first dialect that a row is in; None if it is in none."""
    return next((name for name in names() if not dialect(name).mismatch(row)), None)


def recognise(row: Mapping[str, Any]) -> str:
    """Return the name of the dialect of a row; raise InvalidRecord with the mismatches of the nearest dialects."""
    if (known := known_dialect(row)) is not None:
        return known
    near = "".join(f"; {name}: {why}" for name, why in _nearest(row).items())
    columns = [*map(repr, list(row)[:_LISTED]), *(["..."] if len(row) > _LISTED else [])]
    prompt = prompt_hint(row)
    if prompt:
        hint = f"; {prompt!r} may be the prompt: --prompt-column {quote(prompt)}"
    else:
        hint = "; --prompt TEXT adds a prompt" if row.get("images") or row.get("image") or image_like(row) else ""
    raise InvalidRecord(
        f"a row of no known dialect, with {', '.join(columns) or 'no fields'}{hint} (dream: no 'prompt' and no 'messages'{near}; "
        "dream convert --help lists the dialects)"
    )


def _nearest(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the mismatches of the dialects that have most columns of a row: named in the mismatch, or another one without the column."""
    mismatches = {name: dialect(name).mismatch(row) for name in names()}
    shared: Counter[str] = Counter()
    for column in list(row)[:_LISTED]:
        rest = {name: value for name, value in row.items() if name != column}
        shared.update(name for name, why in mismatches.items() if repr(column) in why or dialect(name).mismatch(rest) != why)
    return {name: mismatches[name] for name, _ in shared.most_common(_NEAREST)}


def is_ours(row: Mapping[str, Any]) -> bool:
    """Whether a row that can be read as a record is one, and not a row of a similar dialect."""
    return all(dialect(name).mismatch(row) for name in _NEAR)
