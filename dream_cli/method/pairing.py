"""Preference pairs from scored responses (DREAM, section 3): the best of a prompt against the worst."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import NamedTuple

from dream_cli.records.choices import PairPolicy
from dream_cli.records.pair import Pair
from dream_cli.records.record import Judgement, Record, Response, Turn

PAIRED = "paired"
# In the order in which they are applied.
RULES = ("tie", "margin", "floor", "near-duplicate", "length ratio")
# Everything a receipt can count, in the order in which it is printed.
OUTCOMES = ("error", "fewer than two responses", "unscored", *RULES, PAIRED)

# Chinese and Japanese are written without spaces: there each character counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True)
class PairRules:
    """Which pairs are made.

    `margin` is a difference of scores in [0, 1]; `min_chosen` a global score (or ten times a helpfulness), 0 to 10;
    `max_length_ratio` longer to shorter in words, None for no limit; `near_duplicate` the share of words in common above which
    two answers count as the same; `per_prompt` the most pairs of one prompt, by default 1 for best-worst and no limit for the others.
    """

    policy: PairPolicy = "best-worst"
    margin: float = 0.1
    min_chosen: float = 7.0
    max_length_ratio: float | None = 3.0
    per_prompt: int | None = None
    near_duplicate: float = 0.9

    @property
    def cap(self) -> int | None:
        """The most pairs of one prompt, None for no limit."""
        return 1 if self.per_prompt is None and self.policy == "best-worst" else self.per_prompt


class Scored(NamedTuple):
    """A response's text, its score in [0, 1], what its floor is measured on (0 to 10), and the models that wrote and judged it."""

    text: str
    score: float
    quality: float
    model: str | None = None
    judge: str | None = None


class Candidate(NamedTuple):
    """Two scored responses that may become a pair, the better one first."""

    chosen: Scored
    rejected: Scored

    @property
    def margin(self) -> float:
        """The difference of the scores, to 6 places, so that 0.7 - 0.6 is 0.1."""
        return round(self.chosen.score - self.rejected.score, 6)

    def pair(self) -> Pair:
        """Return the pair as it is written; policy and judge are those of the rejected response."""
        chosen, rejected = self
        return Pair(
            chosen=chosen.text,
            rejected=rejected.text,
            margin=self.margin,
            chosen_score=chosen.score,
            rejected_score=rejected.score,
            policy=rejected.model,
            judge=rejected.judge,
        )


def pairs_of(record: Record, rules: PairRules) -> tuple[list[Record], Counter[str]]:
    """Return the preference pairs of a record, and a receipt that counts each of its turns once, under one of `OUTCOMES`."""
    if record.error is not None:
        return [], Counter(["error"])
    admitted, receipt = [], Counter[str]()
    # A conversation without a turn to answer is counted as well.
    for turn in record.turns():
        candidates, outcome = _admitted(turn.responses, rules)
        receipt[outcome] += 1
        admitted += [(turn, candidate) for candidate in candidates]
    return [_pair_record(record, turn, candidate.pair(), number) for number, (turn, candidate) in enumerate(admitted, 1)], receipt


def _admitted(responses: Sequence[Response], rules: PairRules) -> tuple[list[Candidate], str]:
    """Return the candidates to pair, and `paired` or the rule that took the last of them: the one the most fitting candidate broke."""
    if len(responses) < 2:
        return [], "fewer than two responses"
    scored = [s for r in responses if (s := _scored(r)) is not None]
    if len(scored) < 2:
        return [], "unscored"
    broken: list[str] = []
    candidates = list(islice(_admissible(scored, rules, broken), rules.cap))
    return candidates, PAIRED if candidates else max(broken, key=RULES.index, default="unscored")


def _scored(response: Response) -> Scored | None:
    judged = response.judgement
    if judged is None or judged.unscored is not None or judged.score is None or not math.isfinite(judged.score):
        return None
    return Scored(text=response.text, score=judged.score, quality=_quality(judged, judged.score), model=response.model, judge=judged.model)


def _quality(judged: Judgement, score: float) -> float:
    """Return what the floor is measured on, 0 to 10; a verdict from elsewhere may have a score and no parts."""
    if judged.global_score is not None and not (judged.rubric or "").startswith("helpfulness"):
        return judged.global_score
    return 10 * (score if judged.helpfulness is None else judged.helpfulness)


def _admissible(scored: Sequence[Scored], rules: PairRules, broken: list[str]) -> Iterator[Candidate]:
    """Yield the candidates that keep every rule; the rules that the others broke are added to `broken`."""
    for candidate in _candidates(scored, rules.policy):
        rule = _broken_rule(candidate, rules)
        if rule is None:
            yield candidate
        else:
            broken.append(rule)


def _candidates(scored: Sequence[Scored], policy: PairPolicy) -> Iterator[Candidate]:
    """Yield neighbours in rank (`adjacent`), or the best against the worst, the next worst ..., then the next best."""
    ranked = sorted(scored, key=lambda s: -s.score)
    if policy == "adjacent":
        yield from (Candidate(*two) for two in pairwise(ranked))
        return
    for i, chosen in enumerate(ranked):
        yield from (Candidate(chosen, rejected) for rejected in reversed(ranked[i + 1 :]))


def _broken_rule(candidate: Candidate, rules: PairRules) -> str | None:
    """Return the first rule that a candidate breaks."""
    if candidate.margin <= 0:
        return "tie"
    if candidate.margin < rules.margin:
        return "margin"
    # Asked this way round so that a score that is not a number stays under the floor.
    if not candidate.chosen.quality >= rules.min_chosen:
        return "floor"
    chosen, rejected = _words(candidate.chosen.text), _words(candidate.rejected.text)
    if _same(candidate) or _overlap(chosen, rejected) > rules.near_duplicate:
        return "near-duplicate"
    shorter, longer = sorted((len(chosen), len(rejected)))
    return "length ratio" if rules.max_length_ratio is not None and longer > rules.max_length_ratio * shorter else None


def _same(candidate: Candidate) -> bool:
    return candidate.chosen.text.split() == candidate.rejected.text.split()


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _overlap(a: Sequence[str], b: Sequence[str]) -> float:
    """Return the share of words in common, repeats counted (Jaccard): linear in length, also for a degenerate answer."""
    left, right = Counter(a), Counter(b)
    common = (left & right).total()
    return common / (len(a) + len(b) - common) if a or b else 1.0


def _pair_record(record: Record, turn: Turn, pair: Pair, number: int) -> Record:
    """Return the record with the pair in the place of its responses; further pairs of one record are `ID#2`, `ID#3` ..."""
    return pair.on(
        replace(
            record,
            id=record.id if record.id is None or number == 1 else f"{record.id}#{number}",
            messages=record.messages[: turn.reply],
            observations=turn.observations,
            responses=None,
            # A plain `response` would be read as a response again.
            extra={k: v for k, v in record.extra.items() if k != "response"},
        )
    )
