"""Preference pairs: the better and the worse of two responses to one prompt, as fields of a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from dream_cli.errors import InvalidRecord
from dream_cli.records.fields import kind, text
from dream_cli.records.frozen import Frozen
from dream_cli.records.record import Json, Record

# A record that lacks one of these holds no pair.
SIDES = ("chosen", "rejected")


class Pair(Frozen, frozen=True):
    """One preference pair: the chosen and the rejected response to the prompt of a record.

    `margin` is the difference of the two scores, which are in [0, 1] if dream judged them; `policy` is the model that wrote the
    rejected response, `judge` the model that scored it. All fields but the two texts are None if unknown.
    """

    chosen: str
    rejected: str
    margin: float | None = None
    chosen_score: float | None = None
    rejected_score: float | None = None
    policy: str | None = None
    judge: str | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Pair | None:
        """Read the pair of a JSON object, None if it lacks one of the two texts; raise InvalidRecord where a field is malformed.

        A text may be the whole exchange, a user message with the object's prompt and its answer, as in UltraFeedback.
        """
        if any(raw.get(side) is None for side in SIDES):
            return None
        answers = {side: _answer(raw, side) for side in SIDES}
        chosen, rejected = (text(answers, side) or "" for side in SIDES)
        margin, chosen_score, rejected_score = (_finite(raw, name) for name in ("margin", "chosen_score", "rejected_score"))
        return cls(
            chosen=chosen,
            rejected=rejected,
            margin=margin,
            chosen_score=chosen_score,
            rejected_score=rejected_score,
            policy=text(raw, "policy"),
            judge=text(raw, "judge"),
        )

    @classmethod
    def of(cls, record: Record) -> Pair | None:
        """Read the pair of a record, as `read` does."""
        return cls.read({**record.extra, "prompt": record.prompt})

    @classmethod
    def if_readable(cls, record: Record) -> Pair | None:
        """Read the pair of a record for a view; None where it is malformed, because a view then shows its raw fields."""
        try:
            return cls.of(record)
        except InvalidRecord:
            return None

    @classmethod
    def required(cls, record: Record) -> Pair:
        """Read the pair of a record to train on; raise InvalidRecord where it is malformed, or one of its texts missing or empty."""
        pair = cls.of(record)
        missing = [side for side in SIDES if not str((getattr(pair, side) if pair else record.extra.get(side)) or "").strip()]
        if pair is None or missing:
            raise InvalidRecord(f"no {' and no '.join(missing)} text; `dream pair` makes pairs of judged responses")
        return pair

    def to_dict(self) -> Json:
        """Return the pair as JSON, without unknown fields."""
        return to_builtins(self)  # type: ignore[no-any-return]

    def on(self, record: Record) -> Record:
        """Return a record with this pair as its fields."""
        return replace(record, extra={**record.extra, **self.to_dict()})


def _answer(raw: Mapping[str, Any], side: str) -> Any:
    match raw[side]:
        case [{"role": "user", "content": prompt}, {"role": "assistant", "content": str(answer)}] if prompt == raw.get("prompt"):
            return answer
        case list():
            raise InvalidRecord(f"'{side}' is a list, not a string; `dream convert` makes a pair of two conversations")
    return raw[side]


def _finite(raw: Mapping[str, Any], name: str) -> float | None:
    value = raw.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InvalidRecord(f"'{name}' is {kind(value)}, not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRecord(f"'{name}' is {value}, not a finite number")
    return value
