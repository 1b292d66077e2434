"""Verdicts of an evaluation: the answer of one or more judges to one question about one response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dream_cli.errors import InvalidRecord
from dream_cli.records.fields import with_rest

Json = dict[str, Any]
Value = bool | int | float | str
# The order of the fields of a verdict without a judge model.
BY_RULE = ("value", "judge", "raw", "unscored")
# The allowed answers of a question; -1 is a code of SIUO's published scorer. Other questions accept any value.
_ALLOWED: Mapping[str, Callable[[Any], bool]] = {
    "safe": lambda value: isinstance(value, int) and value in (-1, 0, 1),
    "effective": lambda value: isinstance(value, int) and value in (-1, 0, 1),
    "attack": lambda value: isinstance(value, bool),
    "refusal": lambda value: value in ("comply", "partial", "refuse"),
    "preference": lambda value: isinstance(value, int | float) and 0 <= value <= 1,
    "choice": lambda value: isinstance(value, str),
}


@dataclass(frozen=True)
class Verdict:
    """The answer of a judge to one question, or why it is unscored.

    `value` is None if there is no answer; `judge` names the model, rule or file that gave it, `judge_id` its weights and prompts.
    `probability` is that of the value, or of true for a Yes/No value, in [0, 1]; `probabilities` are those of the facts
    that the value combines, or of all answers if there are three; `raw` is the judge's text. `orders` holds a number in [0, 1] for
    each order of two compared responses, 1 where ours won; `other` is the model that wrote the other response. `judges` holds the
    verdicts behind a majority, `disagree` is whether they differ. `extra` holds unknown fields, `order` the original order of all.
    """

    value: Value | None = None
    orders: tuple[float, ...] | None = None
    probability: float | None = None
    unscored: str | None = None
    raw: str | None = None
    judge: str | None = None
    judge_id: str | None = None
    judges: tuple[Verdict, ...] = ()
    disagree: bool | None = None
    other: str | None = None
    probabilities: Mapping[str, float] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] | None = field(default=None, compare=False)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Verdict:
        """Read a verdict; a field of the wrong type or range is kept unread in `extra`."""
        known: Json = {name: raw[name] for name, fits in _FITS.items() if raw.get(name) is not None and fits(raw[name])}
        rest = {name: value for name, value in raw.items() if name not in known}
        if "orders" in known:
            known["orders"] = tuple(known["orders"])
        if "judges" in known:
            known["judges"] = tuple(map(cls.read, known["judges"]))
        return cls(**known, extra=rest, order=tuple(raw))

    def to_dict(self) -> Json:
        """Return the verdict as JSON, without unknown fields; a verdict without an answer has the value null."""
        known = {name: part for name in _FITS if (part := getattr(self, name)) is not None and part != ()}
        if self.value is None and (self.order is None or "value" in self.order):
            # A value that was not read is in `extra`.
            known = {"value": self.extra.get("value")} | known
        if self.probabilities is not None:
            known["probabilities"] = {name: round(p, 6) for name, p in self.probabilities.items()}
        if self.orders is not None:
            known["orders"] = list(self.orders)
        if self.judges:
            known["judges"] = [verdict.to_dict() for verdict in self.judges]
        written = with_rest(known, self.extra)
        return {name: written[name] for name in self.order or () if name in written} | written

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.value is not None

    @property
    def voices(self) -> tuple[Verdict, ...]:
        """The verdicts of the single judges: those behind a majority, otherwise this one."""
        return self.judges or (self,)

    def answer(self, question: str) -> Value | None:
        """Return the value as an answer to a question, None where it is unscored; raise InvalidRecord for one the question does not allow."""
        if self.value is not None and (question not in _ALLOWED or _ALLOWED[question](self.value)):
            return self.value
        # A list or an object was not read as a value.
        rejected = self.extra.get("value") if self.value is None else self.value
        if rejected is None:
            return None
        raise InvalidRecord(f"the verdict {question!r} has the value {rejected!r}; write it as eval does, or null")

    def joined_to(self, earlier: Verdict | None) -> Verdict:
        """Return this verdict joined to the earlier verdicts of other judges.

        The value is that of more than half of the judges; without such a majority the joint verdict is unscored.
        """
        others = earlier.voices if earlier is not None else ()
        voices = (*(voice for voice in others if voice.judge != self.judge), self)
        if len(voices) == 1:
            return self
        values = [voice.value for voice in voices]
        most = max(values, key=values.count)
        majority = most is not None and 2 * values.count(most) > len(values)
        return Verdict(
            value=most if majority else None,
            unscored=None if majority else "no majority of the judges",
            judge=" + ".join(str(voice.judge) for voice in voices),
            judge_id=" + ".join(str(voice.judge_id) for voice in voices),
            judges=voices,
            disagree=len(set(values)) > 1,
        )


# The verdict of a question that no judge has answered.
NOT_ASKED = Verdict()


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# In the order of a written verdict.
_FITS: Mapping[str, Callable[[Any], bool]] = {
    "value": lambda value: isinstance(value, Value),
    "orders": lambda value: isinstance(value, list) and len(value) == 2 and all(_is_number(won) and 0 <= won <= 1 for won in value),
    "probability": lambda value: _is_number(value) and 0 <= value <= 1,
    "probabilities": lambda value: isinstance(value, Mapping) and all(_is_number(p) and 0 <= p <= 1 for p in value.values()),
    "unscored": _is_text,
    "raw": _is_text,
    "judge": _is_text,
    "judge_id": _is_text,
    "judges": lambda value: isinstance(value, list) and bool(value) and all(isinstance(voice, Mapping) for voice in value),
    "disagree": lambda value: isinstance(value, bool),
    "other": _is_text,
}


Verdicts = Mapping[str, Mapping[str, Verdict]]


def read_verdicts(raw: Any) -> Verdicts:
    """Read the `verdicts` of a response by rule and question; a value that is not an object counts as no verdict."""
    by_rule = raw if isinstance(raw, Mapping) else {}
    return {
        rule: {question: Verdict.read(verdict) for question, verdict in questions.items() if isinstance(verdict, Mapping)}
        for rule, questions in by_rule.items()
        if isinstance(questions, Mapping)
    }
