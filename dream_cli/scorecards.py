"""What an evaluation comes to, one summary a benchmark and model, with everything that should make a reader careful."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from dream_cli.asking import by_rule, verdicts_of
from dream_cli.benchmarks import get
from dream_cli.benchmarks.benchmark import Benchmark, ByRule, Item
from dream_cli.errors import UsageError
from dream_cli.intervals import smallest_difference
from dream_cli.records import Json, Record
from dream_cli.scoring import Rate, disagreements, model_of, outcomes, rates

# So far apart, a string matcher and the judge measure two different things.
APART = 0.10


@dataclass(frozen=True)
class Summary:
    """The rates of one model on one benchmark under one rule."""

    benchmark: Benchmark
    model: str
    judges: tuple[str, ...]
    rule: str
    agg: str
    n: int
    trials: int
    errors: int
    rates: tuple[Rate, ...]
    warnings: tuple[str, ...]

    @property
    def power(self) -> str:
        """Which difference to another model the set can show."""
        sizes = {rate.subset: rate.n + rate.unscored for rate in self.rates if not rate.topic}
        said = [
            f"{100 * smallest_difference(n):.1f} points on the {n} items{f' of {subset}' if subset else ''}" for subset, n in sizes.items()
        ]
        return "smallest paired difference that can be shown (80 % power, 5 % level): " + ", ".join(said)

    def to_dict(self) -> Json:
        """Return the summary as JSON."""
        overall = [rate for rate in self.rates if not rate.topic and rate.rule == self.rule]
        several = len({rate.subset for rate in overall}) > 1
        rows = [rate.to_dict() for rate in self.rates]
        return {
            "benchmark": self.benchmark.name,
            "title": self.benchmark.title,
            "model": self.model,
            "judge": list(self.judges),
            "rule": self.rule,
            "agg": self.agg,
            "n": self.n,
            "trials": self.trials,
            "errors": self.errors,
            "unscored": max((rate.unscored for rate in overall), default=0),
            "headline": {f"{r.subset}/{r.name}" if several else r.name: r.to_dict()["rate"] for r in overall},
            "rates": rows,
            "warnings": list(self.warnings),
            "power": self.power,
        }


def summaries(records: Iterable[Record], rule: str = "strict", agg: str | None = None) -> list[Summary]:
    """Return one summary for each benchmark and model, in the order in which they come; pure and offline.

    Raises InvalidRecord for a record that is no item, UsageError where a benchmark has no official rule and that is asked for.
    """
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[Item.of(record).name, model_of(record)].append(by_rule(record))
    present = {name for name, _ in groups}
    made = [_summary(get(name), model, found, rule, agg) for (name, model), found in _adopted(groups).items()]
    return [replace(one, warnings=(*one.warnings, *_alone(one.benchmark, present))) for one in made]


def _alone(benchmark: Benchmark, present: Container[str]) -> Iterable[str]:
    if benchmark.partner and benchmark.partner not in present:
        yield f"read it beside {benchmark.partner}: this set alone rewards {'answering' if benchmark.harmless else 'refusing'} everything"


def _adopted(groups: dict[tuple[str, str], list[Record]]) -> dict[tuple[str, str], list[Record]]:
    """Give rows without a response, which name no model, to the one model that answered the benchmark."""
    for name in [name for name, model in groups if not model]:
        others = [key for key in groups if key[0] == name and key[1]]
        if len(others) == 1:
            groups[others[0]] += groups.pop((name, ""))
    return groups


def require_rule(benchmark: Benchmark, rule: str) -> None:
    """Raise UsageError where a benchmark has no official automatic rule."""
    if rule == "official" and not benchmark.has_official:
        raise UsageError(
            f"no official automatic rule was published for {benchmark.title} (its answers were read by hand); use --rule strict"
        )


def _summary(benchmark: Benchmark, model: str, records: Sequence[Record], rule: str, agg: str | None) -> Summary:
    require_rule(benchmark, rule)
    found = rates(benchmark, outcomes(records, rule, agg))
    strings = _strings(benchmark, records) if rule == "strict" else []
    judges = Counter(j for record in records for r in record.responses or () for j in _judges(verdicts_of(r, rule).values()))
    return Summary(
        benchmark,
        model,
        tuple(judges),
        rule,
        agg or benchmark.agg,
        len(records),
        max((len(record.responses or ()) for record in records if record.error is None), default=0),
        sum(record.error is not None for record in records),
        (*found, *strings),
        tuple(_warnings(benchmark, records, rule, found, strings)),
    )


def _judges(verdicts: Iterable[Json]) -> set[str]:
    return {str(verdict["judge"]) for verdict in verdicts if verdict.get("judge")}


def _strings(benchmark: Benchmark, records: Sequence[Record]) -> list[Rate]:
    """Return the rates of published string matchers, which cost nothing and make numbers comparable with papers."""
    free = [name for name, s in benchmark.subsets.items() if s.official and all(isinstance(q, ByRule) for q in s.official)]
    matched = [record for record in records if Item.of(record).subset in free]
    return [rate for rate in rates(benchmark, outcomes(matched, "official")) if not rate.topic]


def _warnings(benchmark: Benchmark, records: Sequence[Record], rule: str, found: Sequence[Rate], strings: Sequence[Rate]) -> Iterable[str]:
    yield from counted(benchmark, records)
    overall = {(r.subset, r.name): r for r in found if not r.topic}
    for r in overall.values():
        if r.unscored:
            yield f"{_name(r)}: {r.unscored} of {r.n + r.unscored} items are unscored; the rate is between {_percent(r.worst)} and {_percent(r.best)}"
    for string in strings:
        judged = overall.get((string.subset, string.name))
        if judged and judged.rate is not None and string.rate is not None and abs(judged.rate - string.rate) > APART:
            yield (
                f"{_name(string)}: the string match says {_percent(string.rate)}, the judge {_percent(judged.rate)}; "
                "answers that explain and redirect use no refusal keyword, so trust the judge"
            )
    yield from _about_responses(records, rule)
    if benchmark.in_distribution:
        yield "in-distribution: made from the sources that DREAM and VLGuard train on"


def _about_responses(records: Sequence[Record], rule: str) -> Iterable[str]:
    failed = [record for record in records if record.error is not None]
    if failed:
        named = ", ".join(str(record.id or record.extra.get("id")) for record in failed[:3])
        yield f"{len(failed)} rows have an error and count as unscored: {named}{' ...' if len(failed) > 3 else ''}"
    responses = [response for record in records if record.error is None for response in record.responses or ()]
    cut = sum(response.finish_reason == "length" for response in responses)
    if cut:
        yield f"{cut} of {len(responses)} responses were cut off at the token limit; what they would have said is not judged"
    empty = sum(not response.text.strip() for response in responses)
    if empty:
        yield f"{empty} of {len(responses)} responses are empty"
    silent = sum(v.get("value") == "none" for r in responses for v in verdicts_of(r, rule).values())
    if silent:
        yield f"{silent} of {len(responses)} answers name no option; they count as wrong"
    sets = {tuple(sorted(_judges(verdicts_of(r, rule).values()))) for r in responses if verdicts_of(r, rule)}
    if len(sets) > 1:
        yield "the verdicts come from different judges: " + "; ".join(" + ".join(s) for s in sorted(sets))
    split = disagreements(records, rule)
    if split:
        yield f"the judges disagree on {len(split)} items: {', '.join(list(split)[:10])}{' ...' if len(split) > 10 else ''}"


def counted(benchmark: Benchmark, records: Sequence[Record]) -> Iterable[str]:
    """Yield how the items differ in number from the published ones, by subset and topic."""
    items = [Item.of(record) for record in records]
    for name in {item.subset: None for item in items}:
        topics = Counter(item.topic for item in items if item.subset == name)
        published = benchmark.subsets[name].topics if name in benchmark.subsets else {}
        off = [f"{topic or 'items'} {topics[topic]} of {n}" for topic, n in published.items() if topics[topic] != n]
        off += [f"{topic} {n}, a topic that was not published" for topic, n in topics.items() if topic not in published]
        if off:
            total = sum(topics.values())
            yield f"{benchmark.title}{f' {name}' if name else ''} has {total} items, {sum(published.values())} were published: {', '.join(off)}"


def _name(rate: Rate) -> str:
    return f"{rate.subset}/{rate.name}" if rate.subset else rate.name


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
