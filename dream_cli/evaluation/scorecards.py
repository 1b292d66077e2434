"""The summary of an evaluation: one per benchmark and model, with the rates and their warnings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dream_cli.benchmarks.benchmark import Benchmark, Item
from dream_cli.benchmarks.registry import get
from dream_cli.errors import UsageError
from dream_cli.evaluation.cautions import by_rule_alone, cautions, judges_of
from dream_cli.evaluation.judge_questions import by_rule
from dream_cli.evaluation.rates import Key, Rate, keys, outcomes, rates
from dream_cli.records.choices import Aggregate, Rule
from dream_cli.records.record import Json, Record
from dream_cli.records.visible import amount
from dream_cli.stats.intervals import smallest_difference


@dataclass(frozen=True)
class Summary:
    """The rates of one model on one benchmark under one rule."""

    benchmark: Benchmark
    model: str
    file: str
    judges: tuple[str, ...]
    rule: Rule
    agg: str
    n: int
    trials: int
    errors: int
    rates: tuple[Rate, ...]
    warnings: tuple[str, ...]

    @property
    def power(self) -> str:
        """The smallest detectable difference to another model, as a sentence; the outcomes of the two are assumed to be independent."""
        firsts = {r.subset: r for r in reversed(self.rates) if not r.topic and r.rule == self.rule}
        parts = []
        for r in reversed(firsts.values()):
            # Two independent models with rate p differ on 2 p (1 - p) of the items.
            p = 0.5 if r.rate is None or not 0 <= r.rate <= 1 else r.rate
            smallest = smallest_difference(r.n + r.unscored, 2 * p * (1 - p))
            parts.append(f"{r.title} {100 * smallest:.1f} points on {amount(r.n + r.unscored, 'item')}")
        return "smallest difference that McNemar's exact test can show here (80 % power, 5 % level): " + ", ".join(parts)

    def to_dict(self) -> Json:
        """Return the summary as JSON."""
        overall = [rate for rate in self.rates if not rate.topic and rate.rule == self.rule]
        several = len({rate.subset for rate in overall}) > 1
        rows = [rate.to_dict() for rate in self.rates]
        return {
            "benchmark": self.benchmark.name,
            "title": self.benchmark.title,
            "model": self.model,
            "file": self.file,
            "judge": list(self.judges),
            "rule": self.rule,
            "agg": self.agg,
            "n": self.n,
            "trials": self.trials,
            "errors": self.errors,
            "unscored": max((rate.unscored for rate in overall), default=0),
            "headline": {r.title if several else r.name: r.to_dict()["rate"] for r in overall},
            "rates": rows,
            "warnings": list(self.warnings),
            "power": self.power,
        }


def summaries(records: Sequence[Record], rule: Rule = "strict", agg: Aggregate | None = None) -> list[Summary]:
    """Return one summary for each benchmark, model and file, in input order; pure and offline.

    Raises InvalidRecord for a record that is not an item, UsageError for the official rule on a benchmark without one.
    """
    read = [by_rule(record) for record in records]
    groups: dict[Key, list[Record]] = defaultdict(list)
    for key, record in zip(keys(read), read, strict=True):
        groups[key].append(record)
    return [_summary(key, groups, rule, agg) for key in groups]


def _beside(key: Key, groups: Mapping[Key, Sequence[Record]]) -> Sequence[Record]:
    """Return the items of the partner set with the same model's responses: from the same file, else from the only other file."""
    partner = get(key.benchmark).partner
    by_file = {other.file: records for other, records in groups.items() if (other.benchmark, other.model) == (partner, key.model)}
    return by_file.get(key.file) or (next(iter(by_file.values())) if len(by_file) == 1 else ())


def require_rule(benchmark: Benchmark, rule: Rule) -> None:
    """Raise UsageError if a benchmark has no official automatic rule."""
    if rule == "official" and not benchmark.has_official:
        raise UsageError(f"no official automatic rule was published for {benchmark.title}; use --rule strict")


def _summary(key: Key, groups: Mapping[Key, Sequence[Record]], rule: Rule, agg: Aggregate | None) -> Summary:
    benchmark, records = get(key.benchmark), groups[key]
    require_rule(benchmark, rule)
    partners = _beside(key, groups)
    judged = rates(benchmark, [o for o in outcomes([*records, *partners], rule, agg) if o.benchmark == key.benchmark])
    alone = by_rule_alone(benchmark) if rule == "strict" else []
    # Published string matchers need no judge, and make the rates comparable with papers.
    matched = [r for r in rates(benchmark, outcomes([r for r in records if Item.of(r).subset in alone], "official")) if not r.topic]
    judges = Counter(j for record in records for r in record.responses or () for j in judges_of(r, rule))
    return Summary(
        benchmark=benchmark,
        model=key.model,
        file=key.file,
        judges=tuple(judges),
        rule=rule,
        agg=agg or benchmark.agg,
        n=len(records),
        trials=max((len(record.responses or ()) for record in records if record.error is None), default=0),
        errors=sum(record.error is not None for record in records),
        rates=(*judged, *matched),
        warnings=tuple(
            cautions(benchmark, records, rule=rule, rates=judged, matched=matched, alone=bool(benchmark.partner) and not partners)
        ),
    )
