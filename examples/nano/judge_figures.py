"""The agreement of nano, as `dream judge` uses it, with the ground truth: `python -m examples.nano.judge_figures [--items N]`.

Each held-out risk gets answers of any quality, in held-out wordings or, with --sampled FILE, those of a policy.
The rule of the lessons computes their true scores; the judge is read both ways, as expected values and as the words it writes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, get_args

from dream_cli.engines.protocol import EngineSpec
from dream_cli.engines.registry import DEFAULT_MODEL, open_engine
from dream_cli.method.judging import Judge
from dream_cli.nano.items import records
from dream_cli.nano.truth import Truth
from dream_cli.prompts.rendering import Prompts
from dream_cli.records.choices import AnswerReading
from dream_cli.records.record import Image, Record, Response
from dream_cli.stats.agreement import cohen_kappa, rank_correlation
from examples.nano.answers import answer
from examples.nano.figures import BINS, SEED, WEIGHTS, calibration_error
from examples.nano.labels import Label, label
from examples.nano.lessons import PINNED

ANSWERS = 4
READINGS: tuple[AnswerReading, ...] = get_args(AnswerReading)


@dataclass(frozen=True)
class Judged:
    """One answer with the judge's scores and the true grade: scores in [0, 1], one entry per risk in `recognised` and `named`."""

    item: str
    score: float
    global_score: float
    recognised: tuple[float, ...]
    truth: Label

    @property
    def worth(self) -> float:
        """The true score: the mean of the true global score and of the share of risks that are named."""
        return (self.truth.global_score / 10 + sum(self.truth.named) / len(self.truth.named)) / 2


def main() -> None:
    """Print the figures as JSON and write them beside the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--sampled", type=Path, help="records of held-out items with responses and truth, in JSONL")
    options = parser.parse_args()
    judged = _sampled(options.sampled) if options.sampled else _answered(options.items)
    measured: dict[str, Any] = {"items": len(judged), "answers": "sampled" if options.sampled else "any quality, kept wordings"}
    for reading in READINGS:
        measured[reading] = figures(asyncio.run(_judged(judged, reading)))
    text = json.dumps(measured, indent=2) + "\n"
    (WEIGHTS / ("judge_sampled.json" if options.sampled else "judge.json")).write_text(text, "utf-8")
    sys.stdout.write(text)


def figures(rows: Sequence[Judged]) -> dict[str, Any]:
    """Return agreement, rank correlation, calibration and the quality of pairs chosen by the scores."""
    recognised = [(true, p) for row in rows for true, p in zip(row.truth.named, row.recognised, strict=True)]
    kappa = cohen_kappa([(true, p >= 0.5) for true, p in recognised])
    correlations = {
        "global_score": rank_correlation([(row.truth.global_score, row.global_score) for row in rows]),
        "score": rank_correlation([(row.worth, row.score) for row in rows]),
    }
    return {
        "answers_judged": len(rows),
        "recognised": {
            "accuracy": _share((p >= 0.5) == true for true, p in recognised),
            "kappa": round(kappa.value, 3) if kappa else None,
            "calibration_error": calibration_error([p for _, p in recognised], [true for true, _ in recognised]),
            "calibration_curve": _curve(recognised),
        },
        "rank_correlation": {
            name: [round(r.value, 3), *(round(end, 3) for end in r.interval)] if r else None for name, r in correlations.items()
        },
        "global_score_within_one": _share(abs(row.global_score - row.truth.global_score) <= 1 for row in rows),
        "pairs": pairs(rows),
    }


def pairs(rows: Sequence[Judged]) -> dict[str, Any]:
    """Return the share of items with a tie for the best score, and how often the best by score is truly better than the worst."""
    by_item: dict[str, list[Judged]] = {}
    for row in rows:
        by_item.setdefault(row.item, []).append(row)
    groups = [group for group in by_item.values() if len({row.worth for row in group}) > 1]
    best = [max(group, key=lambda row: row.score) for group in groups]
    worst = [min(group, key=lambda row: row.score) for group in groups]
    return {
        "items": len(groups),
        "ties_at_the_top": _share(sum(row.score == top.score for row in group) > 1 for group, top in zip(groups, best, strict=True)),
        "chosen_is_better": _share(top.worth > low.worth for top, low in zip(best, worst, strict=True)),
        "chosen_is_the_best": _share(top.worth == max(row.worth for row in group) for group, top in zip(groups, best, strict=True)),
    }


def _answered(count: int) -> list[Record]:
    """Return held-out risks with answers of any quality."""
    rng, answered = Random(SEED), list[Record]()
    for record in records("held-out", 3 * count, SEED):
        truth = _truth(record)
        if truth.observations and len(answered) < count:
            texts = [answer(truth, rng, kept=True) for _ in range(ANSWERS)]
            answered.append(replace(record, responses=tuple(Response(text) for text in texts), observations=truth.observations))
    return answered


def _sampled(file: Path) -> list[Record]:
    rows = [Record.from_dict(json.loads(line)) for line in file.read_text("utf-8").splitlines()]
    risky = [replace(row, observations=_truth(row).observations) for row in rows if row.responses and _truth(row).observations]
    return [replace(row, images=tuple(Image(str(file.parent / str(image.path)), image.data) for image in row.images)) for row in risky]


async def _judged(answered: Sequence[Record], reading: AnswerReading) -> list[Judged]:
    prompts = Prompts.carried(PINNED)
    engine = await open_engine(EngineSpec(model=DEFAULT_MODEL, batch_size=32))
    judge, limit = Judge(engine, prompts, read=reading), asyncio.Semaphore(engine.concurrency)

    async def one(record: Record) -> Record:
        async with limit:
            return await judge(record)

    try:
        done = await asyncio.gather(*map(one, answered))
    finally:
        await engine.close()
    rows = []
    for record, response in [(one_done, response) for one_done in done for response in one_done.responses or ()]:
        scores = response.judgement
        if scores and scores.score is not None and scores.global_score is not None and scores.recognised:
            recognised = tuple(value or 0.0 for value in scores.recognised)
            truth = label(_truth(record), response.text)
            rows.append(Judged(str(record.id), scores.score, scores.global_score, recognised, truth))
    return rows


def _truth(record: Record) -> Truth:
    return Truth.from_dict(record.extra["truth"])


def _share(right: Iterable[bool]) -> float | None:
    rows = list(right)
    return round(sum(rows) / len(rows), 3) if rows else None


def _curve(recognised: Sequence[tuple[bool, float]]) -> list[list[float]]:
    """Return for each bin that is not empty the mean probability, the share that is true, and the count."""
    bins: dict[int, list[tuple[bool, float]]] = {}
    for true, p in recognised:
        bins.setdefault(min(int(p * BINS), BINS - 1), []).append((true, p))
    return [
        [round(sum(p for _, p in rows) / len(rows), 3), round(sum(t for t, _ in rows) / len(rows), 3), len(rows)]
        for _, rows in sorted(bins.items())
    ]


if __name__ == "__main__":
    main()
