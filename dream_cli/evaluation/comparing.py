"""The comparison of two evaluations of the same items, before and after: paired differences, intervals and tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dream_cli.benchmarks.benchmark import Item
from dream_cli.errors import UsageError
from dream_cli.evaluation.cautions import judges_of
from dream_cli.evaluation.rates import Outcome, outcomes
from dream_cli.records.choices import Aggregate, Rule
from dream_cli.records.record import Json, Record
from dream_cli.records.visible import amount
from dream_cli.stats.intervals import (
    LEVEL,
    Paired,
    bootstrap_mean,
    mcnemar,
    paired_difference,
    percent,
    require_libraries,
    smallest_difference,
)

# Benchmark, subset and metric identify a rate.
RateKey = tuple[str, str, str]
SHOWN = 10  # item names per line; the JSON has all


@dataclass(frozen=True)
class ItemChange:
    """One item in both evaluations."""

    before: Outcome
    after: Outcome

    @property
    def scored(self) -> bool:
        """Whether the item is scored in both evaluations."""
        return self.before.value is not None and self.after.value is not None

    @property
    def difference(self) -> float:
        """The value after minus the value before; 0 if either is unscored."""
        return (self.after.value or 0.0) - (self.before.value or 0.0) if self.scored else 0.0

    @property
    def gain(self) -> float:
        """The difference, oriented so that positive is better."""
        return self.difference if self.after.better == "up" else -self.difference


def compare(
    before: Sequence[Record], after: Sequence[Record], rule: Rule = "strict", agg: Aggregate | None = None, seed: int = 0
) -> list[Json]:
    """Return one row for each rate in both evaluations, with items paired by id; pure and offline. Needs scipy.

    An item counts if both sides are scored; `worst` and `best` are bounds of the difference that include the unscored items.
    Raises UsageError if the two have no common item or one has an item twice.
    """
    require_libraries()
    sides = [_by_item(outcomes(records, rule, agg)) for records in (before, after)]
    keys = [key for key in sides[0] if set(sides[0][key]) & set(sides[1].get(key, ()))]
    if not keys:
        raise UsageError(f"the two files have no item in common to compare: {_named(sides[0])} before, {_named(sides[1])} after")
    groups = [_by_benchmark(records) for records in (before, after)]
    warnings = {name: list(_unlike(groups[0][name], groups[1][name], rule)) for name in groups[0] if name in groups[1]}
    return [_row(sides[0][key], sides[1][key], seed) | {"warnings": warnings.get(key[0], [])} for key in keys]


def _named(side: Mapping[RateKey, object]) -> str:
    return ", ".join(dict.fromkeys("/".join(filter(None, key[:2])) for key in side)) or "no item"


def _by_item(side: Iterable[Outcome]) -> dict[RateKey, dict[str, Outcome]]:
    items_of: dict[RateKey, dict[str, Outcome]] = defaultdict(dict)
    for outcome in side:
        items = items_of[outcome.benchmark, outcome.subset, outcome.metric]
        if outcome.item in items:
            raise UsageError(
                f"{outcome.benchmark}:{outcome.item} occurs twice in one file, answered by {items[outcome.item].model or 'no model'} and "
                f"{outcome.model or 'no model'}; compare files of one model each"
            )
        items[outcome.item] = outcome
    return dict(items_of)


def _row(before: Mapping[str, Outcome], after: Mapping[str, Outcome], seed: int) -> Json:
    pairs = {item: ItemChange(before[item], after[item]) for item in before if item in after}
    scored = {item: change for item, change in pairs.items() if change.scored}
    first = next(iter(pairs.values())).after
    # Including unscored items: at their worst after and best before, and vice versa.
    worst = sum(change.after.worst - change.before.best for change in pairs.values()) / len(pairs)
    best = sum(change.after.best - change.before.worst for change in pairs.values()) / len(pairs)
    return {
        "benchmark": first.benchmark,
        "subset": first.subset,
        "metric": first.metric,
        "rule": first.rule,
        "better": first.better,
        "models": [_models(before.values()), _models(after.values())],
        "n": len(scored),
        **_numbers(list(scored.values()), seed),
        "worst": round(worst, 6),
        "best": round(best, 6),
        "gained": [item for item, change in scored.items() if change.gain > 0],
        "lost": [item for item, change in scored.items() if change.gain < 0],
        "unscored": len(pairs) - len(scored),
        "only_before": [item for item in before if item not in after],
        "only_after": [item for item in after if item not in before],
    }


def _models(side: Iterable[Outcome]) -> str:
    return ", ".join(dict.fromkeys(outcome.model for outcome in side if outcome.model))


def _numbers(scored: Sequence[ItemChange], seed: int) -> Json:
    """Return the rates, their difference with its intervals, and McNemar's p if every value is 0 or 1.

    The interval is Newcombe's for paired rates if the values are binary, else (means of trials, codes of -1) the bootstrap interval.
    """
    names = ("before", "after", "difference", "low", "high", "bootstrap", "p", "smallest")
    if not scored:
        return dict.fromkeys(names)
    n, values = len(scored), [(change.before.value or 0.0, change.after.value or 0.0) for change in scored]
    bootstrapped = bootstrap_mean([b - a for a, b in values], seed=seed)
    binary = all(value in (0.0, 1.0) for pair in values for value in pair)
    paired = Paired.count([(bool(a), bool(b)) for a, b in values]) if binary else None
    interval = paired_difference(paired) if paired else bootstrapped
    changed = sum(change.difference != 0 for change in scored) / n
    before, after = (sum(side) / n for side in zip(*values, strict=True))
    numbers = (before, after, after - before, interval.low, interval.high, list(bootstrapped), mcnemar(paired) if paired else None)
    return dict(zip(names, (*map(_rounded, numbers), _rounded(smallest_difference(n, changed))), strict=True))


def _rounded(value: float | list[float] | None) -> float | list[float] | None:
    if isinstance(value, list):
        return [round(v, 6) for v in value]
    return None if value is None else round(value, 6)


def _by_benchmark(records: Iterable[Record]) -> dict[str, dict[str, Record]]:
    groups: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in records:
        item = Item.of(record)
        groups[item.name][f"{item.subset}:{item.item}"] = record
    return groups


def _unlike(before: Mapping[str, Record], after: Mapping[str, Record], rule: Rule) -> Iterable[str]:
    """Yield the warnings about an unfair comparison on one benchmark: different items, prompts, judges or numbers of trials."""
    for side, missing in (("before", before.keys() - after.keys()), ("after", after.keys() - before.keys())):
        if missing:
            yield f"{amount(len(missing), 'item', 'are')} only in the file {side}: left out of the comparison"
    both = [(before[key], after[key]) for key in before if key in after]
    other = sum(a.prompt != b.prompt for a, b in both if a.error is None and b.error is None)
    if other:
        yield f"{amount(other, 'item', 'have')} different prompts in the two files: these are not the same versions of the benchmark"
    judges = [_judges(side.values(), rule) for side in (before, after)]
    if judges[0] != judges[1]:
        yield (
            f"the verdicts come from different judges ({judges[0]} before, {judges[1]} after): the difference may come from the judges; use the same judges for both"
        )
    trials = [max((len(record.responses or ()) for record in side.values()), default=0) for side in (before, after)]
    if trials[0] != trials[1]:
        yield f"{trials[0]} trials per prompt before, {trials[1]} after; with --agg any, more trials alone raise a rate"


def _judges(records: Iterable[Record], rule: Rule) -> str:
    judges = {judge for record in records for response in record.responses or () for judge in judges_of(response, rule)}
    return " and ".join(sorted(judges)) or f"no judge under the {rule} rule"


def comparison_table(rows: Sequence[Json]) -> str:
    """Return the comparison as a Markdown table, with its warnings and the items whose outcome changed."""
    models = dict.fromkeys(f"{row['models'][0] or '?'} -> {row['models'][1] or '?'}" for row in rows)
    lines = [f"Compared: {'; '.join(models)} ({rows[0]['rule']} rule)", ""]
    lines += [
        f"WARNING {name}: {text}" for name, text in dict.fromkeys((row["benchmark"], text) for row in rows for text in row["warnings"])
    ]
    lines += ["| | n | before | after | change | 95 % interval | p | |", "|---|---:|---:|---:|---:|---:|---:|---|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    lines += [""] + [line for row in rows for line in _items(row)]
    lines.append(
        "Change in points; interval by Newcombe for paired rates; better and worse by p < 0.05 in McNemar's exact test, not corrected "
        "for the number of rows."
    )
    return "\n".join(lines) + "\n"


def _cells(row: Json) -> list[str]:
    name = _title(row)
    if not row["n"]:
        return [name, "0", *["-"] * 5, f"no item is scored in both; {row['unscored']} unscored"]
    p = "" if row["p"] is None else "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
    interval = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
    rates = [percent(row[side]) for side in ("before", "after")]
    return [name, str(row["n"]), *rates, f"{100 * row['difference']:+.1f}", interval, p, _conclusion(row)]


def _conclusion(row: Json) -> str:
    """Return the result of the test; if it shows no difference, the smallest change that the set can show.

    The test is McNemar's exact test; where it does not apply, as for means of trials, the interval decides.
    """
    toward = 1 if row["better"] == "up" else -1
    if row["p"] < 1 - LEVEL if row["p"] is not None else row["low"] > 0 or row["high"] < 0:
        shown = "better" if row["difference"] * toward > 0 else "WORSE"
    else:
        shown = f"not shown; this set can show {100 * row['smallest']:.1f} points"
    bounds = f"; {row['unscored']} unscored, so between {100 * row['worst']:+.1f} and {100 * row['best']:+.1f}" if row["unscored"] else ""
    return shown + bounds


def _items(row: Json) -> Iterable[str]:
    for side, word in (("gained", "better"), ("lost", "worse")):
        if row[side]:
            more = f" and {len(row[side]) - SHOWN} more" if len(row[side]) > SHOWN else ""
            yield f"{_title(row)} {word} on {len(row[side])}: {', '.join(row[side][:SHOWN])}{more}"


def _title(row: Json) -> str:
    return " ".join(filter(None, (row["benchmark"], row["subset"], row["metric"])))
