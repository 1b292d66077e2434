"""The tables and the plot of the grid of arms, seeds and rounds.    python examples/proof_table.py OUT [--plot proof.png]

Reads OUT/seed-N/{start,mrd,sft}.eval.jsonl and OUT/seed-N/ARM/{sft,1,2,3}.eval.jsonl, as examples/rounds.sh and examples/proof.sh write
them, and prints Markdown. An item is one observation, however many seeds answered it: its value is the mean over seeds, and a response
that could not be scored counts as the worst. Rates carry Wilson's interval. Changes are paired by item: Newcombe's interval, of the table
that is the mean over seeds, and McNemar's exact test for each seed, of which the largest p is reported. (A bootstrap would give a change
that no item shows an interval of zero width.) DREAM minus a control also has Student's interval over seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from dream_cli.errors import UsageError
from dream_cli.evaluation.rates import Outcome, outcomes
from dream_cli.records.streams import read_records
from dream_cli.stats.intervals import Interval, Paired, mcnemar, not_worse, paired_difference, student, wilson

ARMS = ("dream", "sft-only", "global-only", "observation-only", "refuse-more")
GAIN, OVER_REFUSAL, SKILL = 0.40, 0.03, 0.02  # the goals: at least this rise, and losses below these margins


@dataclass(frozen=True)
class Measure:
    """One column: the items with this metric in one of these subsets (empty: in any)."""

    name: str
    metric: str
    subsets: tuple[str, ...] = ()
    better: str = "up"

    def of(self, outcome: Outcome) -> bool:
        """Whether an outcome belongs in the column."""
        return (outcome.metric, outcome.better) == (self.metric, self.better) and (not self.subsets or outcome.subset in self.subsets)


MEASURES = (
    Measure("safe", "safe"),
    Measure("effective", "effective", ("risk", "")),
    Measure("safe&effective", "safe_effective"),
    Measure("over-refusal", "refusal_any", better="down"),
    Measure("full refusal", "refusal", better="down"),
    Measure("useful where harmless", "effective", ("harmless",)),
    Measure("skill", "effective", ("skill",)),
)
# Item -> value in [0, 1].
Values = Mapping[str, float]


@dataclass(frozen=True)
class Stage:
    """One policy of an arm: the file of each seed."""

    arm: str
    name: str
    files: Mapping[int, Path]


def stages(out: Path, arm: str) -> list[Stage]:
    """Return the policies of an arm in order: the start, SFT, then its rounds, for the seeds in which the arm itself was evaluated."""
    names = {"start": "start", "SFT": f"{arm}/sft" if arm == "refuse-more" else "sft"}
    own = "sft.eval.jsonl" if arm == "sft-only" else f"{arm}/sft.eval.jsonl" if arm == "refuse-more" else f"{arm}/[0-9]*.eval.jsonl"
    evaluated = {folder: sorted(folder.glob(own)) for folder in sorted(out.glob("seed-*"))}
    if not own.endswith("sft.eval.jsonl"):
        rounds = {int(file.name.partition(".")[0]) for files in evaluated.values() for file in files}
        names |= {f"round {n}": f"{arm}/{n}" for n in sorted(rounds)}
    seeds = {int(folder.name.removeprefix("seed-")): folder for folder, files in evaluated.items() if files}
    files = {name: {seed: folder / f"{path}.eval.jsonl" for seed, folder in seeds.items()} for name, path in names.items()}
    return [
        Stage(arm, name, present) for name, each in files.items() if (present := {s: file for s, file in each.items() if file.exists()})
    ]


def last(line: Sequence[Stage]) -> Stage:
    """Return the last policy of each seed of an arm; where a seed ended early, the name lists each seed's."""
    final = {seed: stage for stage in line for seed in stage.files}
    ends = dict.fromkeys(stage.name for stage in final.values())
    name = line[-1].name if len(ends) == 1 else ", ".join(f"seed {seed}: {stage.name}" for seed, stage in final.items())
    return Stage(line[-1].arm, name, {seed: stage.files[seed] for seed, stage in final.items()})


@cache
def scored(file: Path) -> dict[str, Values]:
    """Return the values of the items of a file, by measure; raise UsageError for a file without an item."""
    values: dict[str, dict[str, float]] = {measure.name: {} for measure in MEASURES}
    for outcome in outcomes(list(read_records(str(file)))):
        for measure in MEASURES:
            if measure.of(outcome):
                values[measure.name][f"{outcome.benchmark}/{outcome.subset}/{outcome.item}"] = outcome.worst
    if not any(values.values()):
        raise UsageError(f"{file} has no item with a verdict; run dream eval on it again")
    return dict(values)


def by_seed(stage: Stage, measure: str) -> dict[int, Values]:
    """Return the values of a stage for each seed; raise UsageError where the seeds answered different items."""
    all_values = {seed: scored(file)[measure] for seed, file in stage.files.items()}
    first = next(iter(all_values.values()))
    for seed, values in all_values.items():
        if values.keys() != first.keys():
            odd = len(values.keys() ^ first.keys())
            raise UsageError(f"{stage.files[seed]}: {odd} items are in one seed's file alone; the seeds were evaluated on different items")
    return all_values


def pooled(stage: Stage, measure: str) -> Values:
    """Return the mean over seeds of each item."""
    seeds = list(by_seed(stage, measure).values())
    return {item: fmean(values[item] for values in seeds) for item in seeds[0]}


def rate(stage: Stage, measure: str) -> tuple[float, Interval] | None:
    """Return the rate with Wilson's interval, items being the trials; None where no item has the measure."""
    values = pooled(stage, measure)
    return (fmean(values.values()), wilson(sum(values.values()), len(values))) if values else None


@dataclass(frozen=True)
class PairedChange:
    """The change from one stage to another: the mean difference, its intervals over items and over seeds, and the largest p of the seeds."""

    value: float
    items: Interval
    seeds: Interval | None
    p: float


def change(before: Stage, after: Stage, measure: str) -> PairedChange | None:
    """Return the paired change of a measure over the items and seeds that both have; None where no item has it."""
    old, new = by_seed(before, measure), by_seed(after, measure)
    seeds = sorted(old.keys() & new.keys())
    if not seeds or not old[seeds[0]]:
        return None
    if old[seeds[0]].keys() != new[seeds[0]].keys():
        raise UsageError(f"{before.arm} {before.name} and {after.arm} {after.name} answered different items")
    of_seeds = [fmean(new[seed][item] - value for item, value in old[seed].items()) for seed in seeds]
    tables = [Paired.count([(bool(value), bool(new[seed][item])) for item, value in old[seed].items()]) for seed in seeds]
    over_seeds = student(of_seeds) if len(seeds) > 1 else None
    return PairedChange(fmean(of_seeds), paired_difference(Paired.mean(tables)), over_seeds, max(map(mcnemar, tables)))


def rates_table(grid: Mapping[str, Sequence[Stage]]) -> Iterator[str]:
    """Yield the rates of every policy, the start and a shared SFT once."""
    shown = [m for m in MEASURES if any(rate(stage, m.name) for line in grid.values() for stage in line)]
    yield "| arm | policy | seeds | " + " | ".join(f"{m.name} {'↑' if m.better == 'up' else '↓'}" for m in shown) + " |"
    yield "|---|---|---:|" + "---:|" * len(shown)
    seen: set[tuple[Path, ...]] = set()
    for line in grid.values():
        for stage in line:
            files = tuple(stage.files.values())
            if files not in seen:
                seen.add(files)
                shared = sum(other.files == stage.files for others in grid.values() for other in others) > 1
                cells = [_rate(stage, m.name) for m in shown]
                yield f"| {'all' if shared else stage.arm} | {stage.name} | {len(stage.files)} | " + " | ".join(cells) + " |"


def _rate(stage: Stage, measure: str) -> str:
    measured = rate(stage, measure)
    return f"{100 * measured[0]:.1f} {measured[1]}" if measured else "-"


def changes_table(grid: Mapping[str, Sequence[Stage]]) -> Iterator[str]:
    """Yield, for each arm, its last policy minus the start."""
    yield f"| arm | last policy | safe&effective | p | over-refusal | rises by less than {100 * OVER_REFUSAL:g}? | skill | falls by less than {100 * SKILL:g}? |"
    yield "|---|---|---:|---:|---:|---|---:|---|"
    for arm, line in grid.items():
        start, end = line[0], last(line)
        gain, refused, skill = (change(start, end, name) for name in ("safe&effective", "over-refusal", "skill"))
        yield (
            f"| {arm} | {end.name} | {_change(gain)} | {_p(gain)} | {_change(refused)} | {_held(refused, OVER_REFUSAL, rises=True)} "
            f"| {_change(skill)} | {_held(skill, SKILL, rises=False)} |"
        )


def controls_table(grid: Mapping[str, Sequence[Stage]]) -> Iterator[str]:
    """Yield DREAM's last policy minus that of each control."""
    yield "| DREAM minus | safe&effective, over items | over seeds | p | over-refusal, over items | skill, over items |"
    yield "|---|---:|---:|---:|---:|---:|"
    for arm, line in grid.items():
        if arm != "dream":
            gain, refused, skill = (change(last(line), last(grid["dream"]), name) for name in ("safe&effective", "over-refusal", "skill"))
            over_seeds = _interval(gain.seeds) if gain and gain.seeds else "one seed"
            yield f"| {arm} | {_change(gain)} | {over_seeds} | {_p(gain)} | {_change(refused)} | {_change(skill)} |"


def _change(change: PairedChange | None) -> str:
    return f"{100 * change.value:+.1f} {_interval(change.items)}" if change else "-"


def _interval(interval: Interval) -> str:
    return f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def _p(change: PairedChange | None) -> str:
    return "-" if change is None else "< 0.001" if change.p < 0.001 else f"{change.p:.3f}"


def _held(change: PairedChange | None, margin: float, *, rises: bool) -> str:
    if change is None:
        return "-"
    return "yes" if not_worse(change.items, margin, higher_is_better=not rises) else "not shown"


def goals(grid: Mapping[str, Sequence[Stage]]) -> Iterator[str]:
    """Yield each goal with its result, met or not."""
    start, end = grid["dream"][0], last(grid["dream"])
    gain, refused, skill = (change(start, end, name) for name in ("safe&effective", "over-refusal", "skill"))
    if gain:
        yield f"- safe&effective up by at least {100 * GAIN:g} points: {_met(gain.value >= GAIN)}, {_change(gain)}"
    if refused:
        held = not_worse(refused.items, OVER_REFUSAL, higher_is_better=False)
        yield f"- over-refusal up by less than {100 * OVER_REFUSAL:g} points (non-inferiority, 2.5 % one-sided): {_met(held)}, {_change(refused)}"
    if skill:
        shown = "" if not_worse(skill.items, SKILL) else " (a loss of so much is not excluded)"
        yield f"- skill down by at most {100 * SKILL:g} points: {_met(skill.value >= -SKILL)}, {_change(skill)}{shown}"
    if "sft-only" in grid:
        over = change(last(grid["sft-only"]), end, "safe&effective")
        if over:
            yield f"- DREAM above SFT only: {_met(over.items.low > 0)}, {_change(over)}"


def _met(held: bool) -> str:
    return "met" if held else "NOT met"


def untrained(out: Path, grid: Mapping[str, Sequence[Stage]]) -> Iterator[str]:
    """Yield the change of the untrained start policy by the observations in its prompt."""
    start = grid["dream"][0]
    files = {seed: file for seed in start.files if (file := out / f"seed-{seed}" / "mrd.eval.jsonl").exists()}
    if files:
        observed = Stage("start", "with the observations", files)
        yield "\n## The start policy with the observations in its prompt, not trained\n"
        yield "| | without | with | change | p |\n|---|---:|---:|---:|---:|"
        for measure in MEASURES:
            shift = change(start, observed, measure.name)
            if shift:
                yield f"| {measure.name} | {_rate(start, measure.name)} | {_rate(observed, measure.name)} | {_change(shift)} | {_p(shift)} |"


def plot(grid: Mapping[str, Sequence[Stage]], file: Path) -> None:
    """Draw safe against effective, each arm a path over its rounds, with the intervals of both rates; and a second time, enlarged, around the rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (whole, near) = pyplot.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    for axes in (whole, near):
        for arm, line in grid.items():
            # SFT alone is the first leg of the other paths: a ring at its end.
            if arm == "sft-only":
                _path(axes, arm, line[-1:], fillstyle="none", markersize=10)
            else:
                _path(axes, arm, line, markersize=4, linewidth=1.2)
        _path(axes, "start", grid["dream"][:1], color="black", markersize=6)
        axes.set(xlabel="effective (% of risky items)", ylabel="safe (% of risky items)")
        axes.grid(alpha=0.3)
    whole.set(xlim=(-2, 102), ylim=(-2, 102))
    whole.legend(frameon=False, loc="lower left")
    trained = [point for arm, line in grid.items() if arm != "refuse-more" for point in _points(line[1:])]
    across, up = ([100 * rate[0] for rate in side] for side in zip(*(trained or _points(grid["dream"])), strict=True))
    near.set(xlim=(min(across) - 3, min(max(across) + 3, 100)), ylim=(min(up) - 3, min(max(up) + 3, 100)), title="where the rounds are")
    for arm, line in grid.items():
        for stage in line if arm not in ("refuse-more", "sft-only") else ():
            for (x, _), (y, _) in _points([stage]):
                near.annotate(
                    stage.name.removeprefix("round "), (100 * x, 100 * y), (4, 4), textcoords="offset points", fontsize=8, clip_on=True
                )
    figure.savefig(file, dpi=140)
    pyplot.close(figure)


def _points(line: Sequence[Stage]) -> list[tuple[tuple[float, Interval], tuple[float, Interval]]]:
    """Return the effective and the safe rate of each policy that has both."""
    return [(e, s) for stage in line if (e := rate(stage, "effective")) and (s := rate(stage, "safe"))]


def _path(axes: Any, name: str, line: Sequence[Stage], **look: Any) -> None:
    points = _points(line)
    if not points:
        raise UsageError("nothing to plot: no item was judged both safe and effective")
    sides = list(zip(*points, strict=True))
    xs, ys = ([100 * value for value, _ in side] for side in sides)
    # Matplotlib takes the distances from the point to the ends of its interval.
    across, up = ([[100 * (v - low) for v, (low, _) in side], [100 * (high - v) for v, (_, high) in side]] for side in sides)
    axes.errorbar(xs, ys, xerr=across, yerr=up, marker="o", elinewidth=0.6, capsize=2, label=name, **look)


def main() -> None:
    """Print the tables, and draw the plot with --plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG, SVG or PDF of safe against effective")
    options = parser.parse_args()
    grid = {arm: line for arm in ARMS if (line := stages(options.out, arm))}
    without_start = [arm for arm, line in grid.items() if line[0].name != "start"]
    if without_start:
        raise UsageError(f"{options.out}: no seed of {', '.join(without_start)} has its start.eval.jsonl; there is nothing to compare with")
    if "dream" not in grid:
        raise UsageError(f"{options.out} has no seed-N/dream with an evaluation; run examples/proof.sh")
    lines = ["## Every policy, rates in % with 95 % intervals over items\n", *rates_table(grid)]
    lines += ["\n## The last policy minus the start, in points, paired by item\n", *changes_table(grid)]
    lines += ["\n## DREAM minus each control, last policies, in points, paired by item and seed\n", *controls_table(grid)]
    lines += [*untrained(options.out, grid), "\n## Goals\n", *goals(grid)]
    sys.stdout.write("\n".join(lines) + "\n")
    if options.plot:
        plot(grid, options.plot)


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        sys.exit(f"proof_table: {error}")
