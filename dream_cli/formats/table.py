"""The dialects by name, and which of them a row is in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from dream_cli.errors import InvalidRecord
from dream_cli.formats.reading import PathsFrom
from dream_cli.records.record import Json

OURS = "dream"
# A row is looked at in this order: what has a mark of its own stands before what could be several.
DIALECTS = ("llamafactory", "llava", "alpaca", "openai", "swift", "trl", "rlaif-v", "spa-vl")

# A valid record of ours could still be a row of these: only it says so by a mark.
_NEAR = ("openai", "swift", "trl")


class Dialect(Protocol):
    """One file beside this one: a form of rows that others read and write.

    `FEATURES` are its columns in the types of Hugging Face datasets, empty where rows may have any; `PATHS` is how its reader takes
    the path of an image in JSON, and `INLINE` whether it takes a `data:` URI.
    """

    FEATURES: Mapping[str, Any]
    PATHS: PathsFrom
    INLINE: bool

    def refusal(self, row: Mapping[str, Any]) -> str:
        """Return why a row is not in this dialect; empty where it is."""

    def read(self, row: Mapping[str, Any]) -> Json:
        """Return a row as one of our records (as JSON); raise InvalidRecord where it is malformed."""

    def write(self, record: Mapping[str, Any]) -> tuple[Json, tuple[str, ...]]:
        """Return one of our records (as JSON) as a row, and the fields that it has no place for; raise InvalidRecord where there is none."""


@cache
def dialect(name: str) -> Dialect:
    """Return a dialect by its name."""
    module: Any = import_module(f"dream_cli.formats.{name.replace('-', '_')}")
    return module  # type: ignore[no-any-return]


def recognise(row: Mapping[str, Any]) -> str:
    """Return the name of the dialect that a row is in; raise InvalidRecord that says which were tried and why it is none."""
    refusals = {}
    for name in DIALECTS:
        refusals[name] = dialect(name).refusal(row)
        if not refusals[name]:
            return name
    tried = "; ".join(f"{name}: {why}" for name, why in refusals.items())
    raise InvalidRecord(f"a row of no known form (dream: no 'prompt' and no 'messages'; {tried})")


def is_ours(row: Mapping[str, Any]) -> bool:
    """Whether a row that can be read as a record is one, and not a row of a dialect that looks alike."""
    return all(dialect(name).refusal(row) for name in _NEAR)
