"""The published formats of guard models, which label the response to a prompt as safe or unsafe and answer no other question.

Each format is a JSON file in `guards/`, which names its source. The prompt and the response are sent as a conversation; the model's
chat template adds the policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from dream_cli.errors import UnreadableAnswer
from dream_cli.records.choices import GuardName

GUARDS = Path(__file__).parent / "guards"


@dataclass(frozen=True)
class GuardReply:
    """A guard's verdict on a response: its label, whether that means harm, the categories of harm, and whether the response refuses."""

    label: str
    harmful: bool
    categories: tuple[str, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True)
class GuardFormat:
    """The format of one family of guards.

    `reply` is the pattern of a whole reply, with the groups `label`, `categories` and `refusal`. `answers` are the first tokens of the
    reply, if their probabilities are the published score. `body` is merged into the requests to a server.
    """

    name: GuardName
    source: str
    sees_images: bool
    max_tokens: int
    reply: str
    harmful: Mapping[str, bool]
    categories: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, bool] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def questions(self) -> tuple[str, ...]:
        """The questions that the guard answers."""
        return ("attack", "refusal") if self.refusals else ("attack",)

    @property
    def sha256(self) -> str:
        """The hash of the format."""
        return _sha256(self.name)

    def read(self, text: str) -> GuardReply:
        """Return the verdict in a reply; raise UnreadableAnswer for another format, an unknown category or a contradiction."""
        match = re.fullmatch(self.reply, text.strip(), re.DOTALL)
        if match is None:
            raise UnreadableAnswer(f"the reply does not have the form of {self.name}", raw=text)
        groups = match.groupdict()
        codes = [code.strip() for code in (groups.get("categories") or "").split(",") if code.strip()]
        if unknown := [code for code in codes if code not in self.categories]:
            raise UnreadableAnswer(f"{unknown[0]!r} is not a category of {self.name}", raw=text)
        harmful = self.harmful[groups["label"]]
        categories = tuple(name for code in codes if (name := self.categories[code]))
        if categories and not harmful:
            raise UnreadableAnswer(f"{self.name} calls the response {groups['label']} and names categories of harm", raw=text)
        refusal = groups.get("refusal")
        return GuardReply(groups["label"], harmful, categories, None if refusal is None else self.refusals[refusal])


@cache
def guard_format(name: GuardName) -> GuardFormat:
    """Return the format of a family of guards."""
    return GuardFormat(name=name, **json.loads((GUARDS / f"{name}.json").read_text("utf-8")))


@cache
def _sha256(name: GuardName) -> str:
    return sha256((GUARDS / f"{name}.json").read_bytes()).hexdigest()
