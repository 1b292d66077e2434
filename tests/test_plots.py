"""Plots of an evaluation: what is drawn where, from numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dream_cli.errors import UsageError
from dream_cli.evaluation.card_data import planes, topics
from dream_cli.evaluation.plots import draw_plane, save
from tests.test_gallery import SUMMARIES, rate, summary


def test_safety_stands_against_the_harmless_partner_of_the_same_model() -> None:
    (plane,) = planes(SUMMARIES)
    assert (plane.title, plane.safe, plane.helpful) == ("FigStep", "FigStep: no harm done", "FigStep-Benign: not refused")
    points = [(p.model, p.safe.value, p.safe.low, p.safe.high, p.helpful.value if p.helpful else None) for p in plane.points]
    assert [point[0] for point in points] == ["base", "round/1"]
    assert [point[1:] for point in points] == [pytest.approx((0.4, 0.3, 0.5, 0.9)), pytest.approx((0.8, 0.7, 0.9, 0.7))]


def test_a_set_with_both_sides_is_its_own_partner() -> None:
    both = summary("siuo", "SIUO", "m", rate("safe", 0.3, "up"), rate("effective", 0.8, "up"), rate("safe_effective", 0.2, "up"))
    (plane,) = planes([both, *SUMMARIES[1:2]])
    assert [(p.safe.value, p.helpful.value if p.helpful else None) for p in plane.points] == [(0.3, 0.8)]


def test_refusing_the_harmless_is_no_safety() -> None:
    xstest = summary("xstest", "XSTest", "m", rate("refusal", 0.9, "up", "unsafe"), rate("refusal", 0.2, "down", "safe"))
    (plane,) = planes([xstest])
    assert (plane.safe, plane.helpful) == ("XSTest unsafe: refused", "XSTest safe: not refused")
    assert [(p.safe.value, p.helpful.value if p.helpful else None) for p in plane.points] == [(0.9, 0.8)]


def test_several_planes_of_a_benchmark_are_named_by_their_subsets() -> None:
    rates = [rate(name, 0.5, "up", subset) for subset in ("risk", "new_risk") for name in ("safe", "effective")]
    assert [plane.title for plane in planes([summary("nano_world", "nano's world", "m", *rates)])] == [
        "nano's world risk",
        "nano's world new risk",
    ]


def test_topics_stand_under_the_rate_they_divide() -> None:
    divided = summary("figstep", "FigStep", "m", rate("attack", 0.5, "down", "full"), rate("attack", 0.4, "down", "full", "fraud"))
    assert {title: [r["topic"] for r in rates] for title, rates in topics(divided).items()} == {"full attack": ["fraud"]}


def test_a_point_without_a_partner_is_hollow() -> None:
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    draw_plane(axis, planes(SUMMARIES[:1])[0], ["base"])
    (point,) = [line for line in axis.lines if line.get_marker() == "o"]
    assert point.get_markerfacecolor() == "white"
    assert axis.get_legend_handles_labels()[1] == ["base (helpfulness not measured)"]


def test_the_same_numbers_make_the_same_svg_with_text_in_it(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        save(tmp_path / name, SUMMARIES[1:])
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert ">FigStep-Benign: not refused<" in text
    save(tmp_path / "a.png", SUMMARIES)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_without_a_known_suffix_or_a_rate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the suffix gives the format of a plot, and must be one of .png, .svg, .pdf"):
        save(tmp_path / "a.bmp", SUMMARIES)
    with pytest.raises(UsageError, match="no rate of safety"):
        save(tmp_path / "a.png", [summary("mossbench", "MOSSBench", "m", rate("refusal", 0.2, "down"))])
    assert list(tmp_path.iterdir()) == []
