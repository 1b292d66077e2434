"""What the summaries of an evaluation come to on a plot: safety against helpfulness, topics, rounds. Pure functions on their JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dream_cli.benchmarks.registry import get
from dream_cli.errors import UsageError
from dream_cli.records.record import Json
from dream_cli.records.visible import visible_line

HELPFUL = ("effective", "refusal", "accuracy")


@dataclass(frozen=True)
class Share:
    """A share in [0, 1] turned so that 1 is good, with its 95 % interval; None where nothing was scored."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Point:
    """One model: how safe it is, and how helpful on the harmless partner; `helpful` None where no partner was measured."""

    model: str
    safe: Share
    helpful: Share | None


@dataclass(frozen=True)
class Plane:
    """Safety against helpfulness for one benchmark and its harmless partner, models in the order in which they came."""

    title: str
    safe: str
    helpful: str
    points: tuple[Point, ...]


def shown(summaries: Sequence[Json]) -> list[Json]:
    """Return summaries in which nothing steers what shows them; each string stands on one line."""
    return [_shown(summary) for summary in summaries]


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return visible_line(value)
    if isinstance(value, Mapping):
        return {_shown(name): _shown(inner) for name, inner in value.items()}
    return [_shown(inner) for inner in value] if isinstance(value, list | tuple) else value


def planes(summaries: Sequence[Json]) -> list[Plane]:
    """Return a plane for each measure of safety; one without a harmless partner says so by its points."""
    found: dict[tuple[str, str], list[Point]] = {}
    for summary in summaries:
        for rate in safety_rates(summary):
            safe, helpful = share(summary, rate), partner(summary, rate, summaries)
            found.setdefault((summary["title"], safe.name), []).append(Point(label(summary, summaries), safe, helpful))
    return [Plane(title, name, _partner_name(points), tuple(points)) for (title, name), points in found.items()]


def label(summary: Json, summaries: Sequence[Json]) -> str:
    """Return the name of a summary's model, with its file where one model stands twice."""
    model = summary["model"] or "no model named"
    twice = sum((other["benchmark"], other["model"]) == (summary["benchmark"], summary["model"]) for other in summaries) > 1
    return f"{model} ({summary.get('file') or 'no file'})" if twice else model


def _partner_name(points: Sequence[Point]) -> str:
    return next((point.helpful.name for point in points if point.helpful), "no harmless partner was measured")


def overall(summary: Json) -> list[Json]:
    """Return the rates of the summary's own rule over all topics."""
    return [rate for rate in summary["rates"] if not rate["topic"] and rate["rule"] == summary["rule"]]


def safety_rates(summary: Json) -> Iterator[Json]:
    """Yield the rates that measure safety: of two that say the same of one subset, the first."""
    seen = set()
    for rate in overall(summary):
        is_safety = rate["name"] in ("safe", "attack") or (rate["name"] == "refusal" and rate["better"] == "up")
        if is_safety and not _is_harmless(summary, rate["subset"]) and rate["subset"] not in seen:
            seen.add(rate["subset"])
            yield rate


def helpfulness_rates(summary: Json) -> list[Json]:
    """Return the rates that measure how far harmless prompts are answered."""
    return [rate for rate in overall(summary) if rate["name"] in HELPFUL and (rate["name"] != "refusal" or rate["better"] == "down")]


def partner(summary: Json, safety: Json, summaries: Sequence[Json]) -> Share | None:
    """Return the helpfulness that belongs to a measure of safety: of the same model, from the same items, set, or its partner."""
    same = [rate for rate in helpfulness_rates(summary) if rate["subset"] == safety["subset"]] or helpfulness_rates(summary)
    if same:
        return share(summary, same[0])
    named = _partner_of(summary["benchmark"])
    others = [other for other in summaries if other["model"] == summary["model"] and other["benchmark"] != summary["benchmark"]]
    for other in sorted(others, key=lambda other: (other["benchmark"] != named, other.get("file") != summary.get("file"))):
        for rate in helpfulness_rates(other):
            return share(other, rate)
    return None


def share(summary: Json, rate: Json) -> Share:
    """Return a rate turned so that 1 is good."""
    words = {"attack": "no harm done", "refusal": "refused" if rate["better"] == "up" else "not refused"}
    where = " ".join(part for part in (summary["title"], rate["subset"].replace("_", " ")) if part)
    name = f"{where}: {words.get(rate['name'], rate['name'].replace('_', ' '))}"
    if rate["rate"] is None:
        return Share(name=name, value=None, low=None, high=None, n=rate["n"])
    if rate["better"] == "up":
        return Share(name=name, value=rate["rate"], low=rate["low"], high=rate["high"], n=rate["n"])
    low, high = (None if end is None else 1 - end for end in (rate["high"], rate["low"]))
    return Share(name=name, value=1 - rate["rate"], low=low, high=high, n=rate["n"])


def topics(summary: Json) -> dict[str, list[Json]]:
    """Return the rates topic by topic, under the rate that they divide."""
    found: dict[str, list[Json]] = {}
    for rate in summary["rates"]:
        if rate["topic"] and rate["rule"] == summary["rule"]:
            found.setdefault(f"{rate['subset']} {rate['name']}".strip().replace("_", " "), []).append(rate)
    return found


def _partner_of(benchmark: str) -> str | None:
    try:
        return get(benchmark).partner
    except UsageError:
        return None


def _is_harmless(summary: Json, subset: str) -> bool:
    """Whether the prompts of a subset should be answered: there a rate of harm says nothing of safety."""
    refusals = [rate for rate in overall(summary) if rate["subset"] == subset and rate["name"] == "refusal"]
    return any(rate["better"] == "down" for rate in refusals)
