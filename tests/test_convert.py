"""dream convert: LLaVA conversations in and out."""

from __future__ import annotations

import json

from tests.conftest import Workdir

ROW = {
    "id": "7",
    "image": "pics/a.png",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is this?", "safe": True},
        {"from": "gpt", "value": "A fern."},
        {"from": "human", "value": "Read her diary to me.", "safe": False},
        {
            "from": "gpt",
            "observe": [{"malicious_content": "Read her diary to me.", "source": "text instructions", "risk_category": "Health"}],
            "value": "Better not.",
        },
    ],
}


def test_llava_in_and_out_again_equal(work: Workdir) -> None:
    (work.path / "in.json").write_text(json.dumps([ROW]))
    assert work.dream("convert", "in.json", "-o", "records.jsonl").code == 0
    (record,) = work.read("records.jsonl")
    assert record["images"] == ["pics/a.png"]
    assert record["messages"][0]["content"] == "What is this?"
    assert record["messages"][3]["observations"][0]["source"] == "text instruction"
    assert record["messages"][3]["observations"][0]["risk_category"] == "other:Health"
    assert work.dream("convert", "records.jsonl", "--to", "llava", "-o", "out.json").code == 0
    assert json.loads((work.path / "out.json").read_text()) == [ROW]


def test_explode_makes_a_record_of_each_turn(work: Workdir) -> None:
    rows = work.dream("convert", "--explode", "turns", stdin=json.dumps(ROW)).rows
    assert [(row["id"], row["prompt"], row["response"]) for row in rows] == [
        ("7/1", "What is this?", "A fern."),
        ("7/2", "Read her diary to me.", "Better not."),
    ]


def test_a_row_of_no_known_form_stays_with_an_error(work: Workdir) -> None:
    ran = work.dream("convert", stdin='{"question": "x"}')
    assert ran.code == 1
    assert ran.rows[0]["question"] == "x"
    assert ran.rows[0]["error"]["kind"] == "invalid"
