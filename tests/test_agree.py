"""`dream agree`, as a user calls it: labels of people against those of one judge and of several."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from dream_cli.errors import InvalidRecord
from dream_cli.evaluation.label_agreement import gold_labels
from dream_cli.records.record import Record
from tests.conftest import Workdir

Json = dict[str, Any]


def judged(number: int, question: str, value: Any, *, judge: str = "J", words: int = 10, **more: Any) -> Json:
    """Return a judged row as dream eval writes it."""
    verdict = {"value": value, "judge": judge} | more
    return {"id": f"b:{number}", "prompt": "p", "responses": [{"text": "word " * words, "verdicts": {"strict": {question: verdict}}}]}


def labelled(number: int, **gold: Any) -> Json:
    return {"id": f"b:{number}", "gold": gold}


def test_a_judge_of_a_yes_no_question(work: Workdir) -> None:
    # 40 labelled: of 20 safe ones the judge sees 18, of 20 unsafe ones 16. It judged 60 more and called 48 safe in all of 100.
    verdicts = [True] * 18 + [False] * 2 + [False] * 16 + [True] * 4 + [True] * 26 + [False] * 34
    work.write("judged.jsonl", [judged(i, "safe", value) for i, value in enumerate(verdicts)])
    work.write("gold.jsonl", [labelled(i, safe=i < 20) for i in range(40)])
    ran = work.dream("agree", "gold.jsonl", "judged.jsonl")
    assert ran.code == 0
    (row,) = ran.rows
    assert (row["question"], row["judge"], row["n"], row["unscored"], row["missing"]) == ("safe", "J", 40, 0, 0)
    assert (row["agreement"]["k"], row["agreement"]["n"]) == (34, 40)
    # Half of each by chance: (0.85 - 0.5) / 0.5.
    assert row["kappa"]["value"] == pytest.approx(0.7)
    assert row["confusion"] == {"False": {"False": 16, "True": 4}, "True": {"False": 2, "True": 18}}
    assert (row["tpr"]["rate"], row["tnr"]["rate"]) == (0.9, 0.8)
    assert (row["gold"]["rate"], row["apparent"]["rate"], row["apparent"]["n"]) == (0.5, 0.48, 100)
    # (0.48 + 0.8 - 1) / (0.9 + 0.8 - 1).
    assert row["corrected"]["value"] == pytest.approx(0.4)
    assert row["corrected"]["low"] < 0.3
    assert row["corrected"]["high"] > 0.5
    assert row["length_bias"] is None
    assert "true positive rate 90.0 % [69.9, 97.2] (18/20)" in ran.err
    assert "corrected for the judge's errors (Rogan-Gladen) 40.0 %" in ran.err


def test_a_judge_with_one_answer_has_no_kappa_and_a_rate_of_people_is_not_corrected(work: Workdir) -> None:
    work.write("judged.jsonl", [judged(i, "safe", True) for i in range(6)])
    work.write("gold.jsonl", [labelled(i, safe=i < 3) for i in range(6)])
    ran = work.dream("agree", "gold.jsonl", "judged.jsonl")
    (row,) = ran.rows
    assert (row["kappa"], row["gold"]["rate"]) == (None, 0.5) and "corrected" not in row
    assert "Cohen's kappa not defined" in ran.err and "Rogan-Gladen" not in ran.err


def test_the_probabilities_of_a_judge_have_an_area(work: Workdir) -> None:
    # 0.8 and 0.4 of the attacks, 0.6 and 0.2 of the others: 3 of 4 pairs in order.
    shares = [0.8, 0.4, 0.6, 0.2]
    work.write("judged.jsonl", [judged(i, "attack", p >= 0.5, probability=p) for i, p in enumerate(shares)])
    work.write("gold.jsonl", [labelled(i, attack=i < 2) for i in range(4)])
    ran = work.dream("agree", "gold.jsonl", "judged.jsonl")
    assert ran.rows[0]["auc"]["value"] == 0.75
    assert "area under the ROC curve of the judge's probabilities 0.75 [" in ran.err
    # One verdict in words has no probability, so there is no curve.
    work.write("judged.jsonl", [judged(i, "attack", p >= 0.5, probability=p if i else None) for i, p in enumerate(shares)])
    assert "auc" not in work.dream("agree", "gold.jsonl", "judged.jsonl", "-q").rows[0]


def test_refusals_have_an_area_by_their_facts_or_classes(work: Workdir) -> None:
    facts = [{"objects": 0.9, "only_refuses": 0.9}, {"objects": 0.9, "only_refuses": 0.2}]
    classes = [{"comply": 0.0, "partial": 0.1, "refuse": 0.9}, {"comply": 0.3, "partial": 0.5, "refuse": 0.2}]
    for given in (facts, classes):
        values = zip(("refuse", "partial"), given, strict=True)
        work.write("judged.jsonl", [judged(i, "refusal", v, probability=0.5, probabilities=p) for i, (v, p) in enumerate(values)])
        work.write("gold.jsonl", [labelled(0, refusal="refuse"), labelled(1, refusal="comply")])
        assert work.dream("agree", "gold.jsonl", "judged.jsonl", "-q").rows[0]["auc"]["value"] == 1.0


def test_labels_as_people_write_them(work: Workdir) -> None:
    work.write("judged.jsonl", [judged(i, "attack", i % 2 == 0) for i in range(6)])
    work.write("gold.jsonl", [labelled(i, attack=label) for i, label in enumerate(["yes", "No", 1, 0, True, None])])
    (row,) = work.dream("agree", "gold.jsonl", "judged.jsonl", "-q").rows
    assert (row["n"], row["agreement"]["k"]) == (5, 5)


def test_refusal_words_have_an_order(work: Workdir) -> None:
    gold = ["comply"] * 10 + ["partial"] * 5 + ["refuse"] * 5
    near = ["comply"] * 9 + ["partial"] * 7 + ["refuse"] * 4
    far = ["comply"] * 10 + ["partial"] * 4 + ["comply"] + ["refuse"] * 4 + ["comply"]
    rows = {}
    for name, verdicts in (("near", near), ("far", far)):
        work.write("judged.jsonl", [judged(i, "refusal", value) for i, value in enumerate(verdicts)])
        work.write("gold.jsonl", [labelled(i, refusal=value) for i, value in enumerate(gold)])
        (rows[name],) = work.dream("agree", "gold.jsonl", "judged.jsonl", "-q").rows
    # Two differ in each, but one of these takes a refusal for compliance.
    assert rows["near"]["agreement"] == rows["far"]["agreement"]
    assert rows["near"]["alpha"]["value"] > rows["far"]["alpha"]["value"]
    assert (rows["near"]["tpr"]["k"], rows["near"]["tpr"]["n"]) == (4, 5)


def test_scores_of_dream_judge(work: Workdir) -> None:
    def row(i: int) -> Json:
        judgement = (
            {"rubric": "global/parsed", "global_score": min(10, i + 1), "model": "J"} if i else {"unscored": "no number", "model": "J"}
        )
        return {"id": str(i), "prompt": "p", "responses": [{"text": "word " * (i + 1), "judgement": judgement}]}

    work.write("judged.jsonl", [row(i) for i in range(10)])
    work.write("gold.jsonl", [{"id": str(i), "gold": {"global_score": i}} for i in range(10)])
    (report,) = work.dream("agree", "gold.jsonl", "judged.jsonl", "-q").rows
    assert (report["question"], report["n"], report["unscored"]) == ("global_score", 9, 1)
    assert report["mean_error"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert (report["mean_absolute_error"], report["rank_correlation"]["value"]) == (1.0, 1.0)
    # Values 1..9 against 2..10: within 9 * 2 * 0.5, expected 18/17 * (60 + 60 + 18 * 0.25).
    assert report["alpha"]["value"] == pytest.approx(1 - 9 / (18 / 17 * 124.5))


def test_a_judge_that_likes_long_responses_is_seen(work: Workdir) -> None:
    work.write("judged.jsonl", [judged(i, "effective", i >= 15, words=5 + i) for i in range(30)])
    work.write("gold.jsonl", [labelled(i, effective=i % 2 == 0) for i in range(30)])
    (row,) = work.dream("agree", "gold.jsonl", "judged.jsonl", "-q").rows
    assert row["length_bias"]["low"] > 0.3


def test_a_judge_that_likes_the_first_place_is_seen(work: Workdir) -> None:
    orders = [[1.0, 1.0]] * 4 + [[1.0, 0.0]] * 6 + [[0.0, 0.0]] * 2
    work.write("judged.jsonl", [judged(i, "preference", sum(o) / 2, orders=o) for i, o in enumerate(orders)])
    work.write("gold.jsonl", [labelled(i, preference=1.0 if i < 8 else 0.0) for i in range(12)])
    ran = work.dream("agree", "gold.jsonl", "judged.jsonl")
    bias = ran.rows[0]["position_bias"]
    assert (bias["flipped"]["k"], bias["flipped"]["n"], bias["first"]["k"], bias["first"]["n"]) == (6, 12, 6, 6)
    assert bias["p"] == 2 / 64
    assert "swapping the order flips 50.0 %" in ran.err


def test_several_judges_are_held_against_people_and_each_other(work: Workdir) -> None:
    def row(i: int) -> Json:
        voices = [{"judge": "A", "value": i < 5}, {"judge": "B", "value": i < 6}, {"judge": "C", "value": i < 5}]
        return judged(i, "safe", i < 5, judge="A + B + C", judges=voices, disagree=i == 5)

    work.write("judged.jsonl", [row(i) for i in range(10)])
    work.write("gold.jsonl", [labelled(i, safe=i < 5) for i in range(10)])
    ran = work.dream("agree", "gold.jsonl", "judged.jsonl")
    assert [(r.get("judge"), r["n"], r["agreement"]["k"]) for r in ran.rows[:-1]] == [
        ("A", 10, 10),
        ("B", 10, 9),
        ("C", 10, 10),
        ("A + B + C", 10, 10),
    ]
    among = ran.rows[-1]
    assert (among["judges"], among["n"], among["disagree"]) == (["A", "B", "C"], 10, ["b:5"])
    assert "they differ on 1: b:5" in ran.err


def test_judges_in_files_of_their_own(work: Workdir) -> None:
    for judge in ("A", "B"):
        work.write(f"{judge}.jsonl", [judged(i, "safe", (i + (judge == "B" and i == 0)) % 2 == 0, judge=judge) for i in range(8)])
    work.write("gold.jsonl", [labelled(i, safe=i % 2 == 0) for i in range(8)])
    rows = work.dream("agree", "gold.jsonl", "A.jsonl", "B.jsonl", "-q").rows
    assert [r["agreement"]["k"] for r in rows[:2]] == [8, 7]
    assert rows[2]["disagree"] == ["b:0"]


def test_what_cannot_be_compared_is_counted(work: Workdir) -> None:
    work.write("judged.jsonl", [judged(0, "safe", True), judged(1, "safe", None, unscored="?"), judged(2, "safe", False)])
    gold = [labelled(0, safe=True), labelled(1, safe=True), labelled(9, safe=True), labelled(2, safe=False) | {"response": "other words"}]
    work.write("gold.jsonl", [*gold[:3], gold[3] | {"prompt": "p"}])
    ran = work.dream("agree", "gold.jsonl", "judged.jsonl")
    (row,) = ran.rows
    assert (row["n"], row["unscored"], row["missing"], row["other_response"]) == (1, 1, 1, 1)
    assert (row["kappa"], row["alpha"], row["corrected"]) == (None, None, None)
    assert "1 labelled, 1 unscored by the judge, 1 not judged, 1 of another response" in ran.err


def test_files_in_the_wrong_order_are_named(work: Workdir) -> None:
    work.write("judged.jsonl", [judged(0, "safe", True)])
    work.write("gold.jsonl", [labelled(0, safe=True)])
    ran = work.dream("agree", "judged.jsonl", "gold.jsonl")
    assert (ran.code, ran.err.rstrip().endswith("; the file with the labels comes first")) == (2, True)


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ([labelled(0, effective=True)], "labels no question that a judge answered in judged.jsonl: labels of effective, verdicts of safe"),
        ([labelled(0, safe="maybe")], "gold.jsonl:1: the gold label 'maybe' of 'safe' cannot be compared with the judge's True"),
        ([labelled(0, safe=True), labelled(0, safe=False)], "gold.jsonl:2: b:0 was labelled before, at gold.jsonl:1"),
        ([{"id": "b:0", "gold": "safe"}], "gold.jsonl:1: 'gold' is an object such as"),
        ([labelled(0, safe=[1])], "gold.jsonl:1: a gold label is true, false, a word or a number; this is [1]"),
    ],
)
def test_labels_that_fit_nothing_stop_the_command(work: Workdir, gold: list[Json], message: str) -> None:
    work.write("judged.jsonl", [judged(0, "safe", True)])
    work.write("gold.jsonl", gold)
    ran = work.dream("agree", "gold.jsonl", "judged.jsonl")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_an_unreadable_line_is_an_error_of_this_command(work: Workdir) -> None:
    work.write("judged.jsonl", [judged(i, "safe", i == 0) for i in range(2)])
    (work.path / "gold.jsonl").write_text('{"id": "b:0", "gold": {"safe": true}}\nnot json\n')
    ran = work.dream("agree", "gold.jsonl", "judged.jsonl")
    assert (ran.code, len(ran.rows)) == (1, 1)
    assert "1 row could not be read" in ran.err


def test_a_benchmark_field_of_another_kind_holds_no_labels() -> None:
    assert gold_labels([Record(prompt="x", id="a", extra={"benchmark": "siuo"})]) == {}
    item = {"name": "siuo", "item": "1", "gold": "yes"}
    with pytest.raises(InvalidRecord, match=r"^in\.jsonl:3: benchmark\.gold is of the wrong type"):
        gold_labels([Record(prompt="x", id="a", extra={"benchmark": item}, place="in.jsonl:3")])


def test_the_texts_of_many_judged_rows_are_not_kept(work: Workdir) -> None:
    judged = {"rubric": "helpfulness/expected", "score": 0.5}
    rows = [{"id": str(n), "prompt": "p", "responses": [{"text": f"{n} {'word ' * 40_000}", "judgement": judged}]} for n in range(1000)]
    work.write("judged.jsonl", rows)
    work.write("gold.jsonl", [{"id": str(n), "gold": {"score": n % 2}} for n in range(1000)])
    script = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
        "sys.stderr.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, *work.command("agree", "gold.jsonl", "judged.jsonl", "-q")]
    done = subprocess.run(command, check=False, capture_output=True, cwd=work.path, env=work.env, timeout=300)
    (report,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, report["n"]) == (0, 1000)
    assert int(done.stderr) < 200_000  # kB; the texts alone are 200 MB
