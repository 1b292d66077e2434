"""Plots of an evaluation for papers, with matplotlib, as PNG, SVG or PDF by the suffix."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dream_cli.errors import UsageError, with_extra
from dream_cli.evaluation.card_data import Plane, PlottedRate, label, planes, shown, topics
from dream_cli.records.atomic import replacing
from dream_cli.records.record import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
# The palette of Okabe and Ito, safe for colour-blind readers; the markers distinguish the models in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "savefig.bbox": "tight",
    # SVG and PDF keep text as text (not outlines), so that it can be searched; a fixed salt makes the file reproducible.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "dream",
    "pdf.fonttype": 42,
}


def save(out: Path, summaries: Sequence[Json]) -> None:
    """Write plots of safety against helpfulness and of the rates by topic, per benchmark; raise UsageError if nothing can be drawn."""
    try:
        from matplotlib import rc_context
    except ImportError:
        raise UsageError(f"plots need matplotlib, which is not installed; {with_extra('eval')}") from None
    form = check_plot(out).suffix.lower()[1:]
    summaries = shown(summaries)
    panels = planes(summaries)
    divided = [(summary, title, rates) for summary in summaries for title, rates in topics(summary).items()]
    if not panels and not divided:
        raise UsageError(f"{out}: there is no rate of safety and none by topic to draw")
    # Without a date, the same numbers give the same file.
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    with rc_context(_STYLE), replacing(str(out)) as file, warnings.catch_warnings():
        # matplotlib draws a box for a character that is missing in the font, and warns.
        warnings.filterwarnings("ignore", message="Glyph")
        _figure(panels, divided, summaries).savefig(file, format=form, dpi=200, metadata=undated)


def check_plot(out: Path) -> Path:
    """Return the file; raise UsageError if its suffix is not a format of plots."""
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{out}: the suffix gives the format of a plot, and must be one of {', '.join(SUFFIXES)}")
    return out


def _figure(drawn: Sequence[Plane], divided: Sequence[tuple[Json, str, list[Json]]], summaries: Sequence[Json]) -> Figure:
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(label(summary, summaries) for summary in summaries))
    panels = len(drawn) + len(divided)
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.4 * columns, 3.2 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for plane, axis in zip(drawn, axes, strict=False):
        draw_plane(axis, plane, models)
    for (summary, title, rates), axis in zip(divided, axes[len(drawn) :], strict=False):
        draw_topics(axis, f"{summary['title']}: {title}\n{label(summary, summaries)}", rates)
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure


def draw_plane(axis: Axes, plane: Plane, models: Sequence[str]) -> None:
    """Draw one plane: a point per model with 95 % intervals, without lines, because the models may be unrelated.

    A model without measured helpfulness is a hollow point at the bottom of the plot, which does not mean a value of 0.
    """
    for point in plane.points:
        if point.safe.value is None:
            continue
        helpful, i = point.helpful, models.index(point.model) % len(COLOURS)
        known = helpful is not None and helpful.value is not None
        axis.errorbar(
            point.safe.value,
            0.0 if helpful is None or helpful.value is None else helpful.value,
            xerr=_reach(point.safe),
            yerr=None if helpful is None else _reach(helpful),
            color=COLOURS[i],
            marker=MARKERS[i],
            markerfacecolor=COLOURS[i] if known else "white",
            linestyle="none",
            capsize=2,
            label=point.model if known else f"{point.model} (helpfulness not measured)",
        )
    axis.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        title=_short(plane.title, 40),
        xlabel=_short(plane.safe, 48),
        ylabel=_short(plane.helpful, 48),
    )
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=7, loc="lower left")


def draw_topics(axis: Axes, title: str, rates: Sequence[Json]) -> None:
    """Draw one rate by topic as bars with 95 % intervals; a topic without a scored item has no bar."""
    ordered = sorted(rates, key=lambda rate: str(rate["topic"]), reverse=True)
    scored = [(y, rate) for y, rate in enumerate(ordered) if rate["rate"] is not None]
    values = [rate["rate"] for _, rate in scored]
    ends = [(rate["low"], rate["high"]) for _, rate in scored]
    reach = [[value - (low if low is not None else value) for value, (low, _) in zip(values, ends, strict=True)]]
    reach += [[(high if high is not None else value) - value for value, (_, high) in zip(values, ends, strict=True)]]
    axis.barh([y for y, _ in scored], values, xerr=reach, color=COLOURS[0], alpha=0.6, error_kw={"elinewidth": 1, "capsize": 2})
    axis.set_yticks(range(len(ordered)), [f"{_short(rate['topic'], 28)} ({rate['n']})" for rate in ordered], fontsize=7)
    better = "higher" if rates[0]["better"] == "up" else "lower"
    axis.set(xlim=(0, 1), title=title, xlabel=f"{rates[0]['name']} ({better} is better)")
    axis.title.set_fontsize(8)


def _short(text: str, most: int) -> str:
    """Return the text cut to at most `most` characters, so that a long label does not shrink the plot."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _reach(rate: PlottedRate) -> list[list[float]] | None:
    """Return the distances from the value to both ends of its interval, as matplotlib's `xerr`."""
    if rate.value is None or rate.low is None or rate.high is None:
        return None
    # Rounding can put an end of the interval on the wrong side of the value; matplotlib rejects negative lengths.
    return [[max(0.0, rate.value - rate.low)], [max(0.0, rate.high - rate.value)]]
