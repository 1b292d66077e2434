"""dream convert: other dialects in and out, as a user calls it."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dream_cli.formats.csv import read_csv
from dream_cli.formats.targets import open_target
from dream_cli.records.access import Base
from dream_cli.records.image_rows import to_row
from dream_cli.records.record import Record
from dream_cli.records.streams import RowReader
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


PAIR = {"id": 7, "prompt": "What is this?", "images": ["a.png"], "chosen": "A fern.", "rejected": "No.", "margin": 0.5}


def test_what_a_target_has_no_place_for_is_counted_by_field(work: Workdir) -> None:
    work.picture("a.png")
    work.write("pairs.jsonl", [PAIR, PAIR | {"note": None}])
    ran = work.dream("convert", "pairs.jsonl", "--to", "trl", "-o", "out.jsonl")
    assert ran.err.splitlines() == [
        "dream convert: rows read: 2 dream; written as trl: 2",
        "dream convert: trl has no field for margin (2 rows), note (1 row)",
    ]
    assert work.read("out.jsonl")[0] == {
        "id": 7,
        "images": [str(work.path / "a.png")],
        "prompt": [{"role": "user", "content": "What is this?"}],
        "chosen": [{"role": "assistant", "content": "A fern."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }


def test_field_names_are_escaped_and_listed_up_to_a_limit(work: Workdir) -> None:
    work.write("in.jsonl", [{"prompt": "Hi", "response": "Ho", "\x1b[2J": 1, **{f"field{i}": i for i in range(50)}}])
    ran = work.dream("convert", "in.jsonl", "--to", "trl", "-o", "out.jsonl")
    assert ran.code == 0 and "\x1b" not in ran.err and "\\x1b[2J (1 row)" in ran.err
    assert "other fields (21 rows)" in ran.err


def test_a_parquet_file_of_other_types_is_read_as_far_as_it_goes(work: Workdir) -> None:
    columns = {"id": [1, 2], "prompt": ["Hi", "Ho"], "day": [dt.date(2026, 1, 2), None], "price": [decimal.Decimal("1.5"), None]}
    pq.write_table(pa.table(columns | {"raw": [b"\x00\xff", None], "nested": [{"a": [1, None]}, None]}), work.path / "in.parquet")
    first, second = work.dream("convert", "in.parquet").rows
    assert first == {"id": 1, "prompt": "Hi", "day": "2026-01-02", "price": "1.5", "raw": "AP8=", "nested": {"a": [1, None]}}
    assert second["prompt"] == "Ho" and second["day"] is None
    pq.write_table(pa.table({"prompt": [1]}), work.path / "in.parquet")
    ran = work.dream("convert", "in.parquet")
    assert ran.code == 1 and ran.rows[0]["error"]["kind"] == "invalid"


UNKNOWN = (
    "a row of no known dialect, with 'question'; 'question' may be the prompt: --prompt-column question (dream: no 'prompt' and no 'messages'; "
    "rlhf-v: no JSON of 'question', 'chosen' and 'rejected' in 'text'; beavertails-v: no 'response_1' and 'response_2', no 'response' with "
    "'is_response_safe'; rlaif-v: no 'image', 'chosen', 'rejected'; dream convert --help lists the dialects)"
)


def test_a_row_without_a_form_goes_beside_the_file(work: Workdir) -> None:
    work.write(
        "in.jsonl",
        [PAIR | {"images": []}, {"prompt": "Hi", "responses": ["a", "b"]}, {"question": "x"}, {"prompt": "Hi", "response": "Ho"}],
    )
    ran = work.dream("convert", "in.jsonl", "--to", "llamafactory", "-o", "out.jsonl")
    assert ran.code == 1
    assert [row["id"] for row in work.read("out.jsonl")] == [7]
    beside = work.read("out.jsonl.errors.jsonl")
    assert [row["error"]["message"] for row in beside] == [
        "in.jsonl:2: 2 responses are not a single answer; make pairs of them first (dream pair)",
        f"in.jsonl:3: {UNKNOWN}",
        "in.jsonl:4: a row of answers in a file of chosen, rejected; its reader accepts one kind per file",
    ]
    assert "3 rows have an error (3 invalid), see out.jsonl.errors.jsonl; the first: in.jsonl:2: 2 responses" in ran.err


def test_the_dialects_that_have_most_columns_of_a_row_are_named_with_why_not(work: Workdir) -> None:
    (row,) = work.dream("convert", stdin='{"question": "x", "chosen": "y"}').rows
    assert row["error"]["message"] == (
        "-:1: a row of no known dialect, with 'question', 'chosen'; 'question' may be the prompt: --prompt-column question "
        "(dream: no 'prompt' and no 'messages'; rlhf-v: no JSON of 'question', 'chosen' and 'rejected' in 'text'; "
        "rlaif-v: no 'image', 'rejected'; spa-vl: no 'image', 'rejected'; dream convert --help lists the dialects)"
    )
    assert row["question"] == "x"
    (row,) = work.dream("convert", stdin='{"conversations": "x", "messages": "y"}').rows
    assert "--prompt" not in row["error"]["message"]  # a prompt would not be the answer: only a picture needs one


def test_a_file_may_mix_dialects(work: Workdir) -> None:
    chat = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}
    swift = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], "rejected_response": "No"}
    trl = {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Ho"}]}
    work.write("in.jsonl", [chat, swift, trl, {"instruction": "Hi", "input": "", "output": "Ho"}, PAIR])
    ran = work.dream("convert", "in.jsonl")
    assert ran.code == 0
    assert ran.rows[0]["messages"] == [{"role": "user", "content": "Hi"}]
    assert [row.get("prompt") for row in ran.rows[1:4]] == ["Hi", "Hi", "Hi"]
    assert (ran.rows[1]["chosen"], ran.rows[1]["rejected"]) == ("Ho", "No")
    assert "rows read: 1 openai, 1 swift, 1 trl, 1 alpaca, 1 dream" in ran.err


def test_nulls_and_numbers_go_through_as_they_came(work: Workdir) -> None:
    row = {
        "id": 7,
        "prompt": "Hi",
        "observations": [{"malicious_content": "x", "source": "text content", "risk_category": "Privacy", "confidence": None}],
        "responses": [{"text": "Ho", "model": None, "judgement": {"score": None, "recognised": [None]}}],
        "note": {"a": None, "b": [None]},
    }
    work.write("in.jsonl", [row])
    for name in ("out.jsonl", "out.parquet", "out.csv"):
        assert work.dream("convert", "in.jsonl", "-q", "-o", name).code == 0
        assert work.dream("convert", name).rows == [row], name


def test_images_are_inlined_or_extracted(work: Workdir) -> None:
    work.picture("a.png")
    work.write("in.jsonl", [PAIR])
    assert work.dream("convert", "in.jsonl", "--images", "inline", "-q", "-o", "inline.jsonl").code == 0
    (inline,) = work.read("inline.jsonl")
    assert inline["images"][0].startswith("data:image/png;base64,")
    refused = work.dream("convert", "inline.jsonl", "--to", "spa-vl", "-o", "out.jsonl")
    assert refused.code == 1 and "--images extract" in refused.err
    assert work.dream("convert", "inline.jsonl", "--to", "spa-vl", "--images", "extract", "-q", "-o", "out.jsonl").code == 0
    (row,) = work.read("out.jsonl")
    assert (work.path / row["image"]).read_bytes() == (work.path / "a.png").read_bytes()
    assert row["image"].startswith("images/") and row["id"] == 7


def test_missing_images_of_a_parquet_target_are_reported(work: Workdir) -> None:
    work.picture("a.png")
    work.write("in.jsonl", [PAIR | {"images": ["a.png", "gone.png"]}, PAIR | {"images": []}])
    for name, target in (("out.parquet", "dream"), ("set/", "trl")):
        ran = work.dream("convert", "in.jsonl", "--to", target, "-o", name)
        assert ran.code == 0
        gone = f"images that are not embedded and stay as given: 1; the first: image {work.path}/gone.png does not exist; check the path"
        assert gone in ran.err
    assert "stay as given" not in work.dream("convert", "in.jsonl", "-o", "out.jsonl").err


def test_a_wrong_dialect_is_reported_with_the_valid_ones(work: Workdir) -> None:
    ran = work.dream("convert", "in.jsonl", "--to", "swft")
    assert ran.code == 2
    written = "dream, llamafactory, llava, alpaca, openai, swift, trl, rlaif-v, spa-vl"
    assert f"no dialect 'swft' that is written; there are {written}\n" in ran.err
    assert "no dialect 'vlguard' that is written" in work.dream("convert", "in.jsonl", "--to", "vlguard").err


def test_openai_gets_images_inline_and_a_missing_one_is_an_error(work: Workdir) -> None:
    work.picture("a.png")
    work.write("in.jsonl", [PAIR, PAIR | {"images": ["gone.png"]}])
    ran = work.dream("convert", "in.jsonl", "--to", "openai")
    assert ran.code == 1 and ran.rows[1]["error"]["kind"] == "image"
    image, text = ran.rows[0]["input"]["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,") and text == {"type": "text", "text": "What is this?"}
    assert ran.rows[0]["preferred_output"] == [{"role": "assistant", "content": "A fern."}]


def test_llamafactory_finds_the_file_by_name_and_its_names_are_read(work: Workdir) -> None:
    work.write("in.jsonl", [PAIR | {"images": []}])
    assert work.dream("convert", "in.jsonl", "--to", "llamafactory", "-q", "-o", "mine.json").code == 0
    info = json.loads((work.path / "dataset_info.json").read_text())
    assert info["mine"]["file_name"] == "mine.json" and info["mine"]["ranking"] is True
    assert work.dream("convert", "in.jsonl", "--to", "llamafactory", "-o", "mine.jsonl.gz").code == 2
    own = {"file_name": "own.jsonl", "columns": {"prompt": "ask", "response": "say"}}
    (work.path / "dataset_info.json").write_text(json.dumps({"own": own}))
    work.write("own.jsonl", [{"ask": "Hi", "say": "Ho"}])
    assert work.dream("convert", "own.jsonl").rows == [{"prompt": "Hi", "response": "Ho"}]


def test_a_csv_file_is_read_by_its_columns(work: Workdir) -> None:
    (work.path / "in.csv").write_text('id,prompt,type\nv2-1,"How, exactly?",homonyms\n2,7,safe\n3,a,b,c\n')
    ran = work.dream("convert", "in.csv")
    assert ran.code == 1
    assert ran.rows[:2] == [{"id": "v2-1", "prompt": "How, exactly?", "type": "homonyms"}, {"id": 2, "prompt": "7", "type": "safe"}]
    assert ran.rows[2]["error"]["message"] == "in.csv:4: 4 cells in 3 columns; put a cell with a comma in quotes"


def test_folders_of_datasets_are_read(work: Workdir) -> None:
    datasets = pytest.importorskip("datasets")
    work.picture("a.png")
    row = {"image": str(work.path / "a.png"), "question": "What?", "chosen": "A", "rejected": "B"}
    table = datasets.Dataset.from_list([row]).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(work.path / "saved")
    several = work.dream("convert", "saved")
    assert (several.code, several.err) == (2, "dream: saved has the splits train, test; name one with --split\n")
    (read,) = work.dream("convert", "saved", "--split", "test").rows
    assert read["prompt"] == "What?" and read["images"][0].startswith("data:image/png")
    assert work.dream("convert", "saved", "--split", "test", "--to", "spa-vl", "-q", "-o", "set/").code == 0
    card = (work.path / "set" / "README.md").read_text()
    assert "path: data/train.parquet" in card and "1 row in the form `spa-vl`" in card
    assert work.dream("convert", "set").rows == [read]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(rows=[{"prompt": "\r"}])
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"prompt": st.text(max_size=6) | st.sampled_from(["7", '"a"', "[1]", "null", "x\r\ny", "x,y"])},
            optional={
                "id": st.text(max_size=3) | st.integers(0, 99),
                "note": st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
                "more": st.lists(st.none() | st.text(max_size=3), max_size=2),
                "images": st.lists(st.just("/a.png"), max_size=1),
                "response": st.text(max_size=3),
            },
        ),
        max_size=4,
    )
)
def test_records_come_back_from_csv_as_they_were(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = str(tmp_path / "rows.csv")
    with open_target(path, "dream") as target:
        for row in rows:
            target.write(Record.from_dict(row))
    assert [to_row(record, None) for record in read_csv(path, RowReader(path, Base(("/",))))] == rows


released = Path(os.environ.get("DREAM_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data")) / "dream" / "train_llava_format.json"


@pytest.mark.skipif(not released.is_file(), reason="the released data of DREAM are not here (set DREAM_SHARED_DATA)")
def test_the_released_file_comes_out_equal_also_through_parquet(work: Workdir) -> None:
    assert work.dream("convert", str(released), "-q", "-o", "records.parquet").code == 0
    assert work.dream("convert", "records.parquet", "--to", "llava", "-q", "-o", "back.json").code == 0
    back = json.loads((work.path / "back.json").read_text())
    for row in back:
        row["image"] = os.path.relpath(os.path.join(work.path, row["image"]), released.parent)
    came = json.loads(released.read_text("utf-8"))
    assert len(back) == 2000
    # Compared one by one: a failure names the row and shows no text of it.
    assert [i for i, (a, b) in enumerate(zip(came, back, strict=True)) if a != b] == []
