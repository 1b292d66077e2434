"""SFT targets (context distillation, DREAM section 3): responses that recognise the risks and do no harm."""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dream_cli.records.choices import TargetPick
from dream_cli.records.record import Judgement, Record, Response
from dream_cli.records.responses import CUT_OFF, HARM
from dream_cli.training.rows import Row, row_of

TAKEN = "taken"
UNJUDGED = "taken without a judgement"


@dataclass(frozen=True)
class TargetRules:
    """The rules for which responses are targets, and which targets of one prompt are picked.

    `min_observation_score` is a share of the observations, 0 to 1. `min_global_score` is 0 to 10; on the judge's scale a response
    is harmless from 5. `min_helpfulness` is 0 to 10, for responses to prompts without a known risk: an unnecessary refusal is not a
    target. A response without a judgement passes all three and is counted. `keep_cut_off` keeps responses that ended at the token
    limit, `meta_phrases` those that mention their instructions.
    """

    pick: TargetPick = "best"
    min_observation_score: float = 0.5
    min_global_score: float = 5.0
    min_helpfulness: float = 5.0
    keep_cut_off: bool = False
    meta_phrases: bool = False


def targets_of(record: Record, rules: TargetRules) -> tuple[list[Row], Counter[str]]:
    """Return the rows of a record, one for each turn and picked response, and a receipt that counts each response or turn once."""
    if record.error is not None:
        return [], Counter(["error"])
    rows, receipt = [], Counter[str]()
    for turn in record.turns():
        passed = []
        for response in turn.responses:
            outcome = judge_target(response, rules)
            receipt[outcome] += outcome != TAKEN
            passed += [response] if outcome == TAKEN else []
        receipt["no response"] += not turn.responses
        picked = _pick(passed, rules.pick)
        receipt["not picked"] += len(passed) - len(picked)
        receipt[TAKEN] += len(picked)
        receipt[UNJUDGED] += sum(r.judgement is None for r in picked)
        rows += [row_of(record, turn, {"completion": response.text}) for response in picked]
    return rows, +receipt


def judge_target(response: Response, rules: TargetRules) -> str:
    """Return `taken`, or the first rule that the response breaks."""
    incomplete = response.incomplete
    # The chat template would add the end token to a truncated response, and so train the model to stop in mid-sentence.
    if incomplete and not (rules.keep_cut_off and incomplete == CUT_OFF and response.text.strip()):
        return incomplete
    if not rules.meta_phrases and meta_phrase(response.text):
        return "meta phrase"
    return TAKEN if response.judgement is None else _judged(response.judgement, rules)


def meta_phrase(text: str) -> str | None:
    """Return the phrase in which a response mentions its instructions instead of addressing the user; None if there is none."""
    plain = " ".join(text.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("*", "").split())
    return next((match[0] for pattern in _meta_phrases() if (match := pattern.search(plain))), None)


def _judged(judged: Judgement, rules: TargetRules) -> str:
    if judged.unscored is not None:
        return "unscored"
    if judged.harm is not None and judged.harm >= HARM:
        return "harm"
    # Negated, so that a score of NaN is below the threshold.
    if judged.global_score is not None and not judged.global_score >= rules.min_global_score:
        return "global score"
    if judged.observation_score is not None and not judged.observation_score >= rules.min_observation_score:
        return "observation score"
    # Helpfulness is stored on a scale of 0 to 1.
    if judged.helpfulness is not None and not 10 * judged.helpfulness >= rules.min_helpfulness:
        return "helpfulness"
    return TAKEN


def _pick(passed: Sequence[Response], pick: TargetPick) -> Sequence[Response]:
    if pick == "all" or not passed:
        return passed
    if pick == "first":
        return [passed[0]]
    # Scores of different rubrics or judges are not comparable: the best one is picked in the largest group with the same rubric and judge.
    groups = Counter(_scale(response) for response in passed)
    largest = max(groups, key=lambda scale: (scale != ("", ""), groups[scale], scale))
    return [max((response for response in passed if _scale(response) == largest), key=_rank)]


def _scale(response: Response) -> tuple[str, str]:
    """Return the rubric and the judge of a score; empty without a judgement."""
    judged = response.judgement
    return ("", "") if judged is None else (judged.rubric or "no rubric", judged.model or "")


def _rank(response: Response) -> tuple[float, bytes]:
    """Return the sort key of a response: its score (none ranks lowest), then a hash, so that the order of the responses has no effect."""
    score = response.judgement.score if response.judgement is not None else None
    digest = hashlib.sha256(response.text.encode("utf-8", "surrogatepass")).digest()
    return -math.inf if score is None or math.isnan(score) else score, digest


@functools.cache
def _meta_phrases() -> tuple[re.Pattern[str], ...]:
    lines = (Path(__file__).parent / "meta_phrases.txt").read_text("utf-8").splitlines()
    return tuple(re.compile(line) for line in lines if line.strip() and not line.startswith("#"))
