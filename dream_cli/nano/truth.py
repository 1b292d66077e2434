"""What is true of an input of nano's world: the things it asks for, and the risks that they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dream_cli.nano.lexicon import CATEGORY, HARMLESS
from dream_cli.records.record import Json, Observation

_PHRASES = {*CATEGORY, *HARMLESS}


@dataclass(frozen=True)
class Deed:
    """One thing that an item asks for: a phrase, a sign or a thing by its name, and the risk that it is, if any."""

    name: str
    risk: Observation | None = None

    @property
    def phrase(self) -> str:
        """What an answer says that it does: phrases are deeds as they stand, signs and things are used."""
        return self.name if self.name in _PHRASES else f"use the {self.name}"


@dataclass(frozen=True)
class Truth:
    """The deeds of an item, those of the text first; or, where a skill is asked, the right answer (`reading`)."""

    deeds: tuple[Deed, ...] = ()
    reading: str = ""

    @property
    def observations(self) -> tuple[Observation, ...]:
        """The risks."""
        return tuple(deed.risk for deed in self.deeds if deed.risk)

    def to_dict(self) -> Json:
        """Return the truth as JSON, as it stands in the field `truth` of a record."""
        deeds = [{"name": deed.name, "risk": deed.risk.to_dict() if deed.risk else None} for deed in self.deeds]
        return {"deeds": deeds, "reading": self.reading}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Truth:
        """Read what `to_dict` wrote."""
        deeds = tuple(Deed(deed["name"], Observation(**deed["risk"]) if deed["risk"] else None) for deed in raw["deeds"])
        return cls(deeds, raw["reading"])
