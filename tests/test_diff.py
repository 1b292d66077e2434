"""dream diff: rows added, gone and changed, and the shifts of scores, on numbers worked out by hand."""

from __future__ import annotations

from typing import Any

from dream_cli.records.record import Record
from dream_cli.viewing.differing import difference
from tests.conftest import Workdir


def row(name: str, *scores: float, **more: Any) -> dict[str, Any]:
    return {"id": name, "prompt": name, "responses": [{"text": f"{s}", "judgement": {"score": s}} for s in scores]} | more


BEFORE = [row("a", 0.2, 0.4), row("b", 0.5), row("c", 0.9), row("gone")]
AFTER = [row("c", 0.9), row("a", 0.6, 0.8), row("b", 0.4, note="x"), row("new")]


def test_rows_are_matched_by_id_in_any_order(work: Workdir) -> None:
    work.write("before.jsonl", BEFORE)
    work.write("after.jsonl", AFTER)
    ran = work.dream("diff", "before.jsonl", "after.jsonl", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.rows == [
        {
            "before": 4,
            "after": 4,
            "added": ["new"],
            "gone": ["gone"],
            "changed": [
                {"id": "a", "fields": ["responses"], "before": 0.3, "after": 0.7},
                {"id": "b", "fields": ["responses", "note"], "before": 0.5, "after": 0.4},
            ],
            "same": 1,
            "scored": 3,
            "mean_before": 0.566667,
            "mean_after": 0.666667,
        }
    ]
    lines = [line.rstrip() for line in work.dream("diff", "before.jsonl", "after.jsonl").out.splitlines()]
    assert lines[0] == "before.jsonl: 4 rows, after.jsonl: 4 rows"
    assert "mean of 3 rows: 1 up, 1 down, 1 as before   0.567  0.667  +0.100" in lines
    assert "a                                           0.300  0.700  +0.400" in lines


def test_a_file_is_the_same_as_itself_in_another_format_and_folder(work: Workdir) -> None:
    work.picture("a.png")
    work.write("rows.jsonl", [row("a", 0.5, images=["a.png"]), {"prompt": "no id"}, {"prompt": "no id"}, row("e", error={"stage": "x"})])
    (work.path / "sub").mkdir()
    assert work.dream("convert", "rows.jsonl", "-o", "sub/rows.parquet").code in (0, 1)
    report = work.dream("diff", "rows.jsonl", "sub/rows.parquet", "--json").rows[0]
    assert (report["same"], report["changed"], report["added"], report["gone"]) == (4, [], [], [])


def records(*rows: dict[str, Any]) -> list[Record]:
    return [Record.from_dict(r) for r in rows]


def test_rows_of_one_id_are_matched_in_their_order() -> None:
    result = difference(records(row("a", 0.1), row("a", 0.2)), records(row("a", 0.1), row("a", 0.3), row("a", 0.4)))
    assert (result.same, [change.id for change in result.changed], result.added) == (1, ["a (2)"], ("a (3)",))


def test_a_row_without_a_score_on_one_side_shifts_nothing() -> None:
    result = difference(records(row("a", 0.1)), records(row("a")))
    assert (result.scored, result.mean_before, result.largest()) == (0, None, [])
    assert [(change.before, change.after) for change in result.changed] == [(0.1, None)]


def test_pairs_are_compared_by_their_margin() -> None:
    before, after = ({"id": "a", "prompt": "x", "chosen": "y", "rejected": "z", "margin": m} for m in (0.25, 0.75))
    result = difference(records(before), records(after))
    assert [(change.fields, change.shift) for change in result.changed] == [(("margin",), 0.5)]
