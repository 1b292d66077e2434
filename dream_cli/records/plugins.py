"""Plug-ins: engines, benchmarks and dialects that other installed packages provide through entry points.

A package declares them in its `pyproject.toml`, each in the group of its kind:

    [project.entry-points."dream.benchmarks"]
    mine = "my_package.mine:MINE"

Each registry documents the object that an entry point must refer to. A built-in name cannot be replaced.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from dream_cli.errors import UsageError

Kind = Literal["engines", "benchmarks", "formats"]


@cache
def offered(kind: Kind) -> dict[str, tuple[EntryPoint, ...]]:
    """Return the entry points of a kind by name; several packages may provide the same name."""
    by_name: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=f"dream.{kind}"):
        by_name[point.name] = (*by_name.get(point.name, ()), point)
    return by_name


def names(kind: Kind, built_in: Collection[str]) -> tuple[str, ...]:
    """Return the names of the plug-ins of a kind, without built-in names."""
    return tuple(sorted(set(offered(kind)) - set(built_in)))


def load(kind: Kind, name: str) -> Any:
    """Return the object of the plug-in `name`; raise UsageError where two packages provide it, or where it cannot be loaded."""
    points = offered(kind)[name]
    if len(points) > 1:
        raise UsageError(f"{' and '.join(sorted(map(package_of, points)))} both offer {name} as one of dream.{kind}; uninstall one of them")
    try:
        return points[0].load()
    except Exception as error:  # the code of another package may raise anything
        raise UsageError(f"the plug-in {name} of {package_of(points[0])} cannot be loaded: {type(error).__name__}: {error}") from error


def package_of(point: EntryPoint) -> str:
    """Return the name and version of the package that provides an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
