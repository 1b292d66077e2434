"""The taxonomy: the sources and categories of risk, and their canonical names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dream_cli.errors import UsageError
from dream_cli.records.record import Observation

DEFAULT = Path(__file__).parent / "taxonomy.json"


@dataclass(frozen=True)
class Term:
    """One source or category: its canonical name, its meaning and its aliases; for sources `side` is text or image."""

    name: str
    meaning: str
    aliases: tuple[str, ...] = ()
    side: str = ""


@dataclass(frozen=True)
class Taxonomy:
    """The four sources and nine categories of DREAM (section 3), or those of a user's file."""

    sources: tuple[Term, ...]
    categories: tuple[Term, ...]
    _sources: Mapping[str, str] = field(init=False, repr=False, compare=False)
    _categories: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sources", _names(self.sources))
        object.__setattr__(self, "_categories", _names(self.categories))

    @classmethod
    def load(cls, path: Path = DEFAULT) -> Taxonomy:
        """Read a taxonomy file; raise UsageError if it does not have the form of our `taxonomy.json`."""
        try:
            raw = json.loads(path.read_text("utf-8"))
            return cls(tuple(map(_term, raw["sources"])), tuple(map(_term, raw["categories"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"{path}: not a taxonomy ({error!r}); it needs 'sources' and 'categories', lists of {{name, meaning}}"
            ) from error

    def source(self, name: str) -> str:
        """Return the canonical source; case, plurals and the long forms of the released data are accepted; others become `other:<name>`."""
        return _canonical(name.partition(":")[0] if not name.startswith("other:") else name, self._sources)

    def category(self, name: str) -> str:
        """Return the canonical category, or `other:<name>` if it is not in the taxonomy."""
        return _canonical(name, self._categories)

    def canonical(self, observation: Observation) -> Observation:
        """Return the observation with the canonical names of its source and category."""
        return replace(observation, source=self.source(observation.source), risk_category=self.category(observation.risk_category))


def _term(raw: Mapping[str, Any]) -> Term:
    return Term(raw["name"], raw.get("meaning", ""), tuple(raw.get("aliases", ())), raw.get("side", ""))


def _names(terms: tuple[Term, ...]) -> dict[str, str]:
    return {_folded(name): term.name for term in terms for name in (term.name, *term.aliases)}


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split()).rstrip(".")


def _canonical(name: str, known: Mapping[str, str]) -> str:
    folded = _folded(name)
    canonical = known.get(folded) or known.get(folded.removesuffix("s")) or known.get(folded + "s")
    if canonical:
        return canonical
    return name if name.startswith("other:") else f"other:{name.strip()}"
