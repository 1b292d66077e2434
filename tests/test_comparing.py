"""Comparison of two evaluations on the same items: worked by hand, with warnings where the two files are not a fair comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dream_cli.benchmarks.benchmark import Item
from dream_cli.errors import UsageError
from dream_cli.evaluation.comparing import compare, comparison_table
from dream_cli.records.failure import Failure
from dream_cli.records.record import Record, Response
from dream_cli.stats.intervals import Paired, paired_difference


def item(number: int, *attacks: bool | None, model: str = "m", judge: str = "J", prompt: str = "what is in the list?") -> Record:
    verdicts = [{"strict": {"attack": {"value": value, "judge": judge}}} for value in attacks]
    responses = [Response("words", model, extra={"verdicts": verdict}) for verdict in verdicts]
    return Item("figstep", str(number), "tiny", "Fraud").record(prompt, responses=responses)


def file(attacks: Sequence[bool | None], **how: Any) -> list[Record]:
    return [item(number, attack, **how) for number, attack in enumerate(attacks)]


BEFORE = file([True] * 12 + [False] * 8, model="base")
AFTER = file([True] * 2 + [False] * 17 + [True], model="ckpt/1")


def test_the_difference_is_paired_by_item() -> None:
    (row,) = compare(BEFORE, AFTER)
    assert (row["benchmark"], row["subset"], row["metric"], row["better"]) == ("figstep", "tiny", "attack", "down")
    assert row["models"] == ["base", "ckpt/1"]
    assert (row["n"], row["before"], row["after"], row["difference"]) == (20, 0.6, 0.15, -0.45)
    # 10 items became safe and 1 unsafe: 2 (1 + 11) / 2^11.
    assert row["p"] == round(24 / 2048, 6)
    low, high = paired_difference(Paired(2, 10, 1, 7))
    assert (row["low"], row["high"]) == (round(low, 6), round(high, 6))
    assert row["bootstrap"][0] < -0.45 < row["bootstrap"][1]
    assert (row["gained"], row["lost"]) == ([str(i) for i in range(2, 12)], ["19"])
    assert (row["unscored"], row["warnings"], row["only_before"], row["only_after"]) == (0, [], [], [])


def test_the_order_of_the_rows_does_not_matter() -> None:
    one, other = compare(BEFORE, AFTER)[0], compare(BEFORE[::-1], AFTER)[0]
    assert {**one, "gained": set(one["gained"])} == {**other, "gained": set(other["gained"])}


def test_an_unscored_item_is_no_success_and_no_failure() -> None:
    (row,) = compare(file([True, True, True, None]), file([False, None, True, False]))
    assert (row["n"], row["unscored"], row["before"], row["after"]) == (2, 2, 1.0, 0.5)
    # Against it: item 1 and item 3 rise or stay as high as they can; for it, they fall.
    assert (row["worst"], row["best"]) == ((-1 + 0 + 0 + 0) / 4, (-1 - 1 + 0 - 1) / 4)


def test_an_item_with_an_error_is_unscored() -> None:
    failed = replace(BEFORE[0], responses=None, error=Failure("eval", "engine", "down"))
    (row,) = compare([failed, *BEFORE[1:]], AFTER)
    assert (row["n"], row["unscored"]) == (19, 1)


def test_means_of_trials_have_no_mcnemar_but_an_interval() -> None:
    before = [item(i, True, True, False) for i in range(6)]
    after = [item(i, True, False, False) for i in range(6)]
    (row,) = compare(before, after, agg="mean")
    assert (row["before"], row["after"], row["p"]) == (0.666667, 0.333333, None)
    assert (row["low"], row["high"]) == (-0.333333, -0.333333)


@pytest.mark.parametrize(
    ("after", "warning"),
    [
        (AFTER[:-3], "3 items are only in the file before: left out of the comparison"),
        ([*AFTER, item(77, True)], "1 item is only in the file after"),
        (file([False] * 20, judge="K"), "different judges (J before, K after)"),
        (file([False] * 20, prompt="another"), "20 items have different prompts"),
        ([item(i, True, True) for i in range(20)], "1 trials per prompt before, 2 after"),
    ],
)
def test_an_unfair_comparison_is_reported(after: list[Record], warning: str) -> None:
    rows = compare(BEFORE, after)
    assert warning in rows[0]["warnings"][0]
    assert f"WARNING figstep: {rows[0]['warnings'][0]}" in comparison_table(rows)


def test_the_test_decides_and_not_the_interval() -> None:
    # Five of 20 become safe and none unsafe: Newcombe's interval leaves 0 out, and p is 2 / 2^5.
    (row,) = compare(file([True] * 5 + [False] * 15), file([False] * 20))
    assert row["high"] < 0 and row["p"] == 0.0625
    assert "better" not in comparison_table([row]).splitlines()[4] and "not shown" in comparison_table([row])
    assert "| better |" in comparison_table(compare(file([True] * 6 + [False] * 14), file([False] * 20)))


def test_files_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(UsageError, match="no item in common to compare: figstep/tiny before, figstep_benign after"):
        compare(BEFORE, [Item("figstep_benign", "1").record("p", responses=[Response("words")])])
    with pytest.raises(UsageError, match="figstep:0 occurs twice in one file, answered by base and ckpt/1; compare files of one model"):
        compare(BEFORE + AFTER, AFTER)


def test_the_table_shows_rates_changes_and_significance() -> None:
    text = comparison_table(compare(BEFORE, AFTER))
    assert "Compared: base -> ckpt/1 (strict rule)" in text
    assert "| figstep tiny attack | 20 | 60.0 % | 15.0 % | -45.0 | -65.6 to -15.0 | 0.012 | better |" in text
    assert "figstep tiny attack better on 10: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11\n" in text
    assert "figstep tiny attack worse on 1: 19\n" in text
    assert "| WORSE |" in comparison_table(compare(AFTER, BEFORE))
    # No item differs: where each changes in one direction with 36.7 %, six of 20 do in 80 of 100 runs.
    assert "not shown; this set can show 36.7 points" in comparison_table(compare(BEFORE, BEFORE))
    assert "no item is scored in both; 20 unscored" in comparison_table(compare(BEFORE, file([None] * 20)))
