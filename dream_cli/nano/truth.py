"""The ground truth of an item of nano's world: its deeds, and which of them are risks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dream_cli.nano.lexicon import CATEGORY, HARMLESS
from dream_cli.records.record import Json, Observation

_PHRASES = {*CATEGORY, *HARMLESS}


@dataclass(frozen=True)
class Deed:
    """One request of an item: a phrase, or the name of a sign or a thing, with the risk that it is, if any."""

    name: str
    risk: Observation | None = None

    @property
    def phrase(self) -> str:
        """The deed as a verb phrase: a phrase is one already, a sign or a thing is used."""
        return self.name if self.name in _PHRASES else f"use the {self.name}"


@dataclass(frozen=True)
class Truth:
    """The deeds of an item, those of the text first; for a skill, the correct answer (`reading`) instead."""

    deeds: tuple[Deed, ...] = ()
    reading: str = ""

    @property
    def observations(self) -> tuple[Observation, ...]:
        """The risks."""
        return tuple(deed.risk for deed in self.deeds if deed.risk)

    def to_dict(self) -> Json:
        """Return the truth as JSON, for the field `truth` of a record."""
        deeds = [{"name": deed.name, "risk": deed.risk.to_dict() if deed.risk else None} for deed in self.deeds]
        return {"deeds": deeds, "reading": self.reading}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Truth:
        """Return the truth that `to_dict` wrote."""
        deeds = tuple(Deed(deed["name"], Observation(**deed["risk"]) if deed["risk"] else None) for deed in raw["deeds"])
        return cls(deeds, raw["reading"])
