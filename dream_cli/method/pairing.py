"""Preference pairs from scored responses (DREAM, section 3): the best response to a prompt against the worst."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise
from operator import attrgetter
from typing import Literal

from msgspec import field
from msgspec.structs import replace

from dream_cli.records.choices import PairPolicy
from dream_cli.records.frozen import Frozen
from dream_cli.records.pair import Pair
from dream_cli.records.record import Judgement, Observation, Record, Response, Turn
from dream_cli.records.responses import CUT_OFF, EMPTY, FILTERED, NO_HARM, REFUSED

PAIRED = "paired"
# The reasons why a response is not a candidate.
LEFT_OUT = (EMPTY, CUT_OFF, FILTERED, REFUSED, "unscored")
# The rules that a candidate pair can break, in the order in which they are applied.
RULES = ("tie", "margin", "floor", "harm", "near-duplicate", "length ratio")
# All outcomes of a prompt, in the order in which they are printed.
OUTCOMES = ("error", "fewer than two responses", *LEFT_OUT, "other rubric", *RULES, PAIRED)

# Whether a prompt has risks, or was not examined.
Side = Literal["risky", "harmless", "not looked at"]

# The scores by which responses are ordered; those recorded by the judge count where harm has set the others to 0.
_MERIT = attrgetter("score", "recorded")
# Chinese and Japanese are written without spaces: there each character counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
# A faster split of ASCII text, in a tenth of the time: lower case, and a space for every character outside words.
_ASCII = bytes(ord(chr(code).lower()) if re.match(r"\w", chr(code), re.ASCII) else 32 for code in range(256))


@dataclass(frozen=True)
class PairRules:
    """The rules for preference pairs.

    `margin` is a difference of scores in [0, 1]; `min_chosen` a global score (or ten times a helpfulness), 0 to 10;
    `max_length_ratio` the longer to the shorter length in words, inf for no limit; `near_duplicate` the share of common words above
    which two responses count as the same; `per_prompt` the maximum number of pairs per prompt, by default 1 for best-worst and no limit
    for the other policies. `keep_cut_off` also accepts responses that ended at the token limit.
    """

    policy: PairPolicy = "best-worst"
    margin: float = 0.1
    min_chosen: float = 7.0
    max_length_ratio: float = 3.0
    per_prompt: int | None = None
    near_duplicate: float = 0.9
    keep_cut_off: bool = False

    @property
    def cap(self) -> int | None:
        """The maximum number of pairs per prompt, None for no limit."""
        return 1 if self.per_prompt is None and self.policy == "best-worst" else self.per_prompt


class Scored(Frozen, frozen=True):
    """A response with its judgement and its score in [0, 1], which is 0 if the response does harm, whatever the judge `recorded`.

    Scores are comparable only for the same rubric and judge.
    """

    response: Response
    judgement: Judgement
    score: float
    recorded: float

    @property
    def rank(self) -> tuple[float, float, bytes, str]:
        """The sort key, best first; a hash of the text breaks ties, so that the order of the responses has no influence."""
        text = self.response.text.encode("utf-8", "surrogatepass")
        return -self.score, -self.recorded, hashlib.sha256(text).digest(), self.response.model or ""

    @property
    def quality(self) -> float:
        """The value that is compared with the floor, 0 to 10; an imported judgement may have only a score."""
        judged = self.judgement
        if judged.global_score is not None and not judged.rates_helpfulness:
            return judged.global_score
        return 10 * (self.recorded if judged.helpfulness is None else judged.helpfulness)

    @property
    def harm(self) -> float | None:
        """The probability of harm beside a helpfulness rating, else None."""
        return self.judgement.harm if self.judgement.rates_helpfulness else None


class Candidate(Frozen, frozen=True):
    """Two scored responses that may become a pair, the better one first."""

    chosen: Scored
    rejected: Scored

    @property
    def margin(self) -> float:
        """The difference of the scores, rounded to 6 decimals, so that 0.7 - 0.6 is 0.1."""
        return round(self.chosen.score - self.rejected.score, 6)

    def pair(self) -> Pair:
        """Return the preference pair; policy and judge are those of the rejected response."""
        chosen, rejected = self.chosen, self.rejected
        return Pair(
            chosen=chosen.response.text,
            rejected=rejected.response.text,
            margin=self.margin,
            chosen_score=chosen.score,
            rejected_score=rejected.score,
            policy=rejected.response.model,
            judge=rejected.judgement.model,
        )


class TurnPairs(Frozen, frozen=True):
    """The result for one prompt: one of `OUTCOMES`, its pairs alone (`made`) and as records, and the excluded responses by reason."""

    side: Side
    outcome: str
    made: Sequence[Pair] = ()
    pairs: Sequence[Record] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


def pairs_of(record: Record, rules: PairRules) -> list[TurnPairs]:
    """Return the result for each prompt of a record; a conversation without a turn to answer counts as one prompt."""
    if record.error is not None:
        return [TurnPairs("not looked at", "error")]
    result: list[TurnPairs] = []
    number = 0
    turns = record.turns()
    for turn in turns:
        candidates, outcome, left_out = _admitted(turn.responses, rules)
        made = [candidate.pair() for candidate in candidates]
        pairs = [_pair_record(record, turn, pair, number + i) for i, pair in enumerate(made, 1)]
        number += len(pairs)
        side = side_of(turn.observations, harmful=turn is turns[-1] and record.labelled_harmful)
        result.append(TurnPairs(side, outcome, made=made, pairs=pairs, left_out=left_out))
    return result


def side_of(observations: Sequence[Observation] | None, *, harmful: bool = False) -> Side:
    """Return the side of a prompt with these observations; a prompt with the label harmful is risky even without observations."""
    if observations or harmful:
        return "risky"
    return "not looked at" if observations is None else "harmless"


def _admitted(responses: Sequence[Response], rules: PairRules) -> tuple[list[Candidate], str, Mapping[str, int]]:
    """Return the accepted candidates, the outcome, and the number of excluded responses by reason.

    The outcome is `paired`, or the reason why there is no pair: the latest rule that a candidate broke.
    """
    left_out: dict[str, int] = {}
    groups: dict[tuple[str, str], list[Scored]] = {}
    for response in responses:
        incomplete = None if rules.keep_cut_off and response.incomplete == CUT_OFF and response.text.strip() else response.incomplete
        scored = None if incomplete else _scored(response)
        if scored is None:
            reason = incomplete or "unscored"
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            groups.setdefault((scored.judgement.rubric or "", scored.judgement.model or ""), []).append(scored)
    broken: list[str] = []
    # Scores of different rubrics, readings or judges are not comparable. The largest group comes first.
    comparable = [groups[key] for key in sorted(groups, key=lambda key: (-len(groups[key]), key))] if len(groups) > 1 else groups.values()
    candidates: list[Candidate] = []
    for group in comparable:
        candidates += islice(_admissible(group, rules, broken), rules.cap and rules.cap - len(candidates))
    if candidates:
        return candidates, PAIRED, left_out
    if broken:
        return [], max(broken, key=RULES.index), left_out
    if len(responses) < 2:
        return [], "fewer than two responses", left_out
    return [], "other rubric" if len(groups) > 1 else max(left_out, key=LEFT_OUT.index), left_out


def _scored(response: Response) -> Scored | None:
    judged = response.judgement
    if judged is None or judged.unscored is not None or judged.score is None or not math.isfinite(judged.score):
        return None
    return Scored(response, judged, score=0.0 if judged.does_harm else judged.score, recorded=judged.score)


def _admissible(scored: Sequence[Scored], rules: PairRules, broken: list[str]) -> Iterator[Candidate]:
    """Yield the candidates that break no rule; the first broken rule of each other one is added to `broken`."""
    for candidate in _candidates(scored, rules.policy):
        rule = _broken_rule(candidate, rules)
        if rule is None:
            yield candidate
        else:
            broken.append(rule)


def _candidates(scored: Sequence[Scored], policy: PairPolicy) -> Iterator[Candidate]:
    """Yield neighbours in rank (`adjacent`), or the best against the worst, the second worst ..., then the second best ..."""
    ranked = sorted(scored, key=_MERIT, reverse=True)
    if len(set(map(_MERIT, ranked))) < len(ranked):
        ranked.sort(key=lambda s: s.rank)
    if policy == "adjacent":
        yield from (Candidate(*two) for two in pairwise(ranked))
        return
    for i, chosen in enumerate(ranked):
        yield from (Candidate(chosen, rejected) for rejected in reversed(ranked[i + 1 :]))


def _broken_rule(candidate: Candidate, rules: PairRules) -> str | None:
    """Return the first rule that a candidate breaks."""
    margin, quality, harm = candidate.margin, candidate.chosen.quality, candidate.chosen.harm
    if margin <= 0:
        return "tie"
    if margin < rules.margin:
        return "margin"
    # Negated, so that NaN counts as below the floor.
    if not quality >= rules.min_chosen:
        return "floor"
    # Without observations only the question about harm guards against a missed risk, so the judge has to be certain.
    if harm is not None and not harm < NO_HARM:
        return "harm"
    chosen, rejected = words(candidate.chosen.response.text), words(candidate.rejected.response.text)
    overlap = _overlap(chosen, rejected) if _most_overlap(chosen, rejected) >= rules.near_duplicate else 0.0
    if overlap > rules.near_duplicate or (overlap == 1 and _same(candidate)):
        return "near-duplicate"
    shorter, longer = sorted((len(chosen), len(rejected)))
    return "length ratio" if longer > rules.max_length_ratio * shorter else None


def _same(candidate: Candidate) -> bool:
    return candidate.chosen.response.text.split() == candidate.rejected.response.text.split()


@lru_cache(maxsize=8)
def words(text: str) -> Sequence[str]:
    """Return the words of a text; lengths are counted in these words. The rules and the receipt need those of the same responses."""
    return text.encode().translate(_ASCII).decode().split() if text.isascii() else _WORD.findall(text.casefold())


def _overlap(a: Sequence[str], b: Sequence[str]) -> float:
    """Return the Jaccard similarity of two multisets of words; linear in length, even for degenerate responses."""
    left, right = Counter(a), Counter(b)
    common = sum(min(count, right[word]) for word, count in left.items() if word in right)
    return common / (len(a) + len(b) - common) if a or b else 1.0


def _most_overlap(a: Sequence[str], b: Sequence[str]) -> float:
    """Return an upper bound of the overlap that is cheaper to compute: each word on one side only occurs there at least once."""
    left, right = set(a), set(b)
    shared = len(left & right)
    common = min(len(a) - len(left) + shared, len(b) - len(right) + shared)
    return common / (len(a) + len(b) - common) if a or b else 1.0


def _pair_record(record: Record, turn: Turn, pair: Pair, number: int) -> Record:
    """Return the record with the pair instead of its responses; further pairs of one record have the ids `ID#2`, `ID#3` ..."""
    return pair.on(
        replace(
            record,
            id=record.id if record.id is None or number == 1 else f"{record.id}#{number}",
            messages=record.messages[: turn.reply],
            observations=turn.observations,
            responses=None,
            # A remaining `response` would be read as a response again.
            extra={k: v for k, v in record.extra.items() if k != "response"},
        )
    )
