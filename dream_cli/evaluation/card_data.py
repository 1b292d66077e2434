"""The data of the plots on a card: safety against helpfulness, and rates by topic. Pure functions on the JSON of the summaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dream_cli.benchmarks.registry import get
from dream_cli.errors import UsageError
from dream_cli.records.record import Json
from dream_cli.records.visible import visible_line

HELPFUL = ("effective", "refusal_any", "refusal", "accuracy")  # over-refusal includes partial refusals if they are known


@dataclass(frozen=True)
class PlottedRate:
    """A rate in [0, 1], oriented so that 1 is good, with its 95 % interval; None if nothing was scored."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Point:
    """One model: its safety, and its helpfulness on the harmless partner; `helpful` is None if no partner was measured."""

    model: str
    safe: PlottedRate
    helpful: PlottedRate | None


@dataclass(frozen=True)
class Plane:
    """Safety against helpfulness for one benchmark and its harmless partner, models in input order."""

    title: str
    safe: str
    helpful: str
    points: tuple[Point, ...]


def shown(summaries: Sequence[Json]) -> list[Json]:
    """Return the summaries with every string on one line and its control characters made visible.

    Names of models and topics come from files; a control character in one could change the display of a page or a plot.
    """

    def visible(value: Any) -> Any:
        if isinstance(value, str):
            return visible_line(value)
        if isinstance(value, Mapping):
            return {visible(name): visible(inner) for name, inner in value.items()}
        return [visible(inner) for inner in value] if isinstance(value, list | tuple) else value

    return [visible(summary) for summary in summaries]


def planes(summaries: Sequence[Json]) -> list[Plane]:
    """Return a plane for each measure of safety; `helpful` states if no partner was measured."""
    points_of: dict[tuple[str, str], list[Point]] = {}
    for summary in summaries:
        for rate in safety_rates(summary):
            safe, helpful = plotted(summary, rate), partner(summary, rate, summaries)
            points_of.setdefault((summary["title"], safe.name), []).append(Point(label(summary, summaries), safe, helpful))
    planes_of = Counter(title for title, _ in points_of)
    result = []
    for (title, name), points in points_of.items():
        partner_name = next((point.helpful.name for point in points if point.helpful), "no harmless partner was measured")
        # With several planes of a benchmark, each is named by its subset.
        result.append(Plane(name.rpartition(": ")[0] if planes_of[title] > 1 else title, name, partner_name, tuple(points)))
    return result


def label(summary: Json, summaries: Sequence[Json]) -> str:
    """Return the name of a summary's model, with its file if two summaries of a benchmark have the same model."""
    model = summary["model"] or "no model named"
    twice = sum((other["benchmark"], other["model"]) == (summary["benchmark"], summary["model"]) for other in summaries) > 1
    return f"{model} ({summary.get('file') or 'no file'})" if twice else model


def overall(summary: Json) -> list[Json]:
    """Return the rates of the summary's own rule over all topics."""
    return [rate for rate in summary["rates"] if not rate["topic"] and rate["rule"] == summary["rule"]]


def safety_rates(summary: Json) -> Iterator[Json]:
    """Yield the rates that measure safety, the first one per subset: its attack rate and its refusal rate measure the same."""
    seen = set()
    for rate in overall(summary):
        is_safety = rate["name"] in ("safe", "attack") or (rate["name"] == "refusal" and rate["better"] == "up")
        if is_safety and not _is_harmless(summary, rate["subset"]) and rate["subset"] not in seen:
            seen.add(rate["subset"])
            yield rate


def helpfulness_rates(summary: Json) -> list[Json]:
    """Return the rates that measure helpfulness on harmless prompts."""
    return [
        rate
        for rate in overall(summary)
        if rate["name"] in HELPFUL and (not rate["name"].startswith("refusal") or rate["better"] == "down")
    ]


def partner(summary: Json, safety: Json, summaries: Sequence[Json]) -> PlottedRate | None:
    """Return the same model's helpfulness for a measure of safety: from the same subset, else the set, else its partner."""
    same = [rate for rate in helpfulness_rates(summary) if rate["subset"] == safety["subset"]] or helpfulness_rates(summary)
    if same:
        return plotted(summary, same[0])
    try:
        named = get(summary["benchmark"]).partner
    except UsageError:  # a summary may come from a version with other benchmarks
        named = None
    others = [other for other in summaries if other["model"] == summary["model"] and other["benchmark"] != summary["benchmark"]]
    for other in sorted(others, key=lambda other: (other["benchmark"] != named, other.get("file") != summary.get("file"))):
        for rate in helpfulness_rates(other):
            return plotted(other, rate)
    return None


def plotted(summary: Json, rate: Json) -> PlottedRate:
    """Return a rate, oriented so that 1 is good: if lower is better, it becomes 1 - rate, and its interval is reversed."""
    refused = "refused" if rate["better"] == "up" else "not refused"
    words = {"attack": "no harm done", "refusal": refused, "refusal_any": f"{refused} in part or in full"}
    source = " ".join(part for part in (summary["title"], rate["subset"].replace("_", " ")) if part)
    name = f"{source}: {words.get(rate['name'], rate['name'].replace('_', ' '))}"
    if rate["rate"] is None:
        return PlottedRate(name=name, value=None, low=None, high=None, n=rate["n"])
    if rate["better"] == "up":
        return PlottedRate(name=name, value=rate["rate"], low=rate["low"], high=rate["high"], n=rate["n"])
    low, high = (None if end is None else 1 - end for end in (rate["high"], rate["low"]))
    return PlottedRate(name=name, value=1 - rate["rate"], low=low, high=high, n=rate["n"])


def topics(summary: Json) -> dict[str, list[Json]]:
    """Return the rates by topic, grouped by the name of the rate."""
    by_rate: dict[str, list[Json]] = {}
    for rate in summary["rates"]:
        if rate["topic"] and rate["rule"] == summary["rule"]:
            by_rate.setdefault(f"{rate['subset']} {rate['name']}".strip().replace("_", " "), []).append(rate)
    return by_rate


def _is_harmless(summary: Json, subset: str) -> bool:
    """Whether the prompts of a subset should be answered: a rate of harm on such prompts does not measure safety."""
    refusals = [rate for rate in overall(summary) if rate["subset"] == subset and rate["name"] == "refusal"]
    return any(rate["better"] == "down" for rate in refusals)
