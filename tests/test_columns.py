"""Images and prompts in columns of other names, and rows with odd values: the real command on files as people have them."""

from __future__ import annotations

import base64
import gzip
import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from dream_cli.records.json_array import items
from dream_cli.records.strict_json import loads
from tests.conftest import Workdir
from tests.loopback import Loopback


def images_shown(body: dict[str, Any]) -> int:
    """Return the number of images in a request."""
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    return sum(part["type"] == "image_url" for content in contents for part in content)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (8, 8), "navy").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("wrapped", [str, lambda name: [name], lambda name: {"path": name}, lambda name: {"bytes": None, "path": name}])
def test_an_image_is_sent_and_comes_back_as_it_came(wrapped: Any, work: Workdir, server: Loopback) -> None:
    image = wrapped(work.picture("a.png"))
    work.write("in.jsonl", [{"id": "a", "image": image, "prompt": "What colour?"}])
    ran = work.dream("sample", "in.jsonl", "--base-url", server.url, "-o", "out.jsonl")
    assert (ran.code, ran.err) == (0, "")
    assert images_shown(server.bodies[0]) == 1
    (row,) = work.read("out.jsonl")
    assert list(row) == ["id", "image", "prompt", "responses"]
    assert row["image"] == image


def test_an_image_counts_in_the_id_and_is_read_by_every_stage(work: Workdir, server: Loopback) -> None:
    work.picture("a.png")
    texts: list[dict[str, Any]] = [{"image": "a.png", "prompt": "Same?"}, {"images": ["a.png"], "prompt": "Same?"}, {"prompt": "Same?"}]
    work.write("in.jsonl", texts)
    ids = [row["id"] for row in work.dream("sample", "in.jsonl", "--base-url", server.url).rows]
    assert ids[0] == ids[1] != ids[2]
    work.write("judge.jsonl", [{"id": "a", "image": "a.png", "prompt": "x", "observations": [], "response": "A leaf."}])
    work.dream("judge", "judge.jsonl", "--base-url", server.url)
    # The first two rows are one request, answered once.
    assert sorted(map(images_shown, server.bodies[:2])) == [0, 1]
    assert {images_shown(body) for body in server.bodies[2:]} == {1}


def test_an_images_column_that_is_empty_does_not_hide_an_image(work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [{"id": "a", "image": work.picture("a.png"), "images": [], "prompt": "x"}])
    (row,) = work.dream("sample", "in.jsonl", "--base-url", server.url).rows
    assert images_shown(server.bodies[0]) == 1
    assert row["images"] == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("img", "a.png"),
        ("image_path", "a.png"),
        ("img_path", ["a.png"]),
        ("image_url", "https://example.org/a"),
        ("picture", "a.png"),
        ("file_name", "a.png"),
        ("imageFile", "a.png"),
        ("photo", "data:image/png;base64,AAAA"),
        ("jpg", {"bytes": "AAAA", "path": None}),
    ],
)
def test_a_column_that_looks_like_an_image_is_named_once(column: str, value: Any, work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [{"id": str(n), "prompt": "x", column: value} for n in range(3)])
    ran = work.dream("sample", "in.jsonl", "--base-url", server.url, "-q")
    assert ran.code == 0
    assert ran.err == f"dream: in.jsonl:1: the column '{column}' looks like an image and is not read; --image-column {column} reads it\n"


@pytest.mark.parametrize("command", [("sample", "--base-url"), ("convert",)])
@pytest.mark.parametrize("column", ["video", "videos", "Audio"])
def test_a_video_or_a_sound_is_named_once(command: tuple[str, ...], column: str, work: Workdir, server: Loopback) -> None:
    image = work.picture("a.png")
    work.write("in.jsonl", [{"id": str(n), "prompt": "x", "image": image, column: ["a.mp4"] if n else []} for n in range(3)])
    ran = work.dream(command[0], "in.jsonl", "-q", *([command[1], server.url] if len(command) > 1 else []))
    assert (ran.code, ran.err) == (0, f"dream: in.jsonl:2: the column '{column}' is not read; no model is shown video or sound\n")


def test_a_second_numbered_image_is_named_beside_the_one_that_is_read(work: Workdir, server: Loopback) -> None:
    one, two = work.picture("a.png"), work.picture("b.png")
    work.write(
        "in.jsonl", [{"id": str(n), "prompt": f"x{n}", "image_1": one, "image_2": two if n else None, "image_3": None} for n in range(3)]
    )
    ran = work.dream("sample", "in.jsonl", "--image-column", "image_1", "--base-url", server.url, "-q")
    assert ran.code == 0 and [images_shown(body) for body in server.bodies] == [1, 1, 1]
    assert ran.err == "dream: in.jsonl:2: the column 'image_2' looks like an image and is not read; --image-column image_2 reads it\n"


@pytest.mark.parametrize("row", [{"image_id": 7}, {"file_name": "notes.txt"}, {"text": "see a.png"}, {"picture": ""}, {"image_tag": {}}])
def test_what_holds_no_image_is_not_named(row: dict[str, Any], work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "x"} | row])
    assert work.dream("sample", "in.jsonl", "--base-url", server.url, "-q").err == ""


def test_columns_named_by_options_are_read_and_keep_their_names(work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [{"id": "a", "question": "What colour?", "img": work.picture("a.png"), "prompt": "not this"}])
    ran = work.dream("sample", "in.jsonl", "--image-column", "img", "--prompt-column", "question", "--base-url", server.url)
    (body,) = server.bodies
    assert images_shown(body) == 1
    assert body["messages"][-1]["content"][-1]["text"] == "What colour?"
    (row,) = ran.rows
    assert (row["question"], row["prompt"], Path(row["img"]).name) == ("What colour?", "not this", "a.png")
    assert "images" not in row
    converted = work.dream("convert", "in.jsonl", "--image-column", "img", "--prompt-column", "question", "-o", "out.jsonl")
    assert converted.code == 0
    assert work.read("out.jsonl") == [{"id": "a", "prompt": "What colour?", "images": ["a.png"]}]


def test_the_environment_names_columns_for_a_whole_pipe(work: Workdir, server: Loopback) -> None:
    work.env |= {"DREAM_PROMPT_COLUMN": "query", "DREAM_IMAGE_COLUMN": "img"}
    work.write("in.jsonl", [{"id": "a", "query": "x", "img": work.picture("a.png"), "observations": []}])
    sampled = work.dream("sample", "in.jsonl", "--base-url", server.url)
    judged = work.dream("judge", "--base-url", server.url, stdin=sampled.out)
    assert judged.code == 0
    # One sample, and the questions of the judge.
    assert len(server.bodies) > 2 and {images_shown(body) for body in server.bodies} == {1}


def test_a_missing_prompt_names_the_column_that_may_be_it(work: Workdir, server: Loopback) -> None:
    ran = work.dream("sample", "--base-url", server.url, stdin='{"id": "a", "instruction": "Describe it."}')
    assert ran.code == 1
    assert ran.rows[0]["error"]["message"] == (
        "stdin:1: missing field 'prompt' (or 'messages', a conversation); 'instruction' may be it: --prompt-column instruction"
    )


def test_parquet_of_the_hub_is_read_by_its_image_column_and_written_with_ours(work: Workdir, server: Loopback) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"id": [1.0, None], "prompt": ["x", "y"], "image": [{"bytes": jpeg(), "path": "a.jpg"}, None]})
    pq.write_table(table, work.path / "in.parquet")
    ran = work.dream("sample", "in.parquet", "--base-url", server.url)
    assert (ran.code, sorted(map(images_shown, server.bodies))) == (0, [0, 1])
    assert ran.rows[0]["image"] == "data:image/jpeg;base64," + base64.b64encode(jpeg()).decode()
    assert (ran.rows[0]["id"], len(ran.rows[1]["id"])) == (1.0, 16)
    assert work.dream("sample", "in.parquet", "--base-url", server.url, "-o", "out.parquet").code == 0
    (first, second) = pq.read_table(work.path / "out.parquet").to_pylist()
    assert first["images"] == [{"bytes": jpeg(), "path": "a.jpg"}]
    assert not second["images"]


def test_view_diff_and_dpo_see_an_image(work: Workdir) -> None:
    pair = {"id": "a", "prompt": "What?", "chosen": "A leaf.", "rejected": "No idea at all."}
    work.write("one.jsonl", [pair | {"image": work.picture("a.png")}])
    work.write("list.jsonl", [pair | {"images": ["a.png"]}])
    work.write("none.jsonl", [pair])
    assert json.loads(work.dream("view", "one.jsonl", "--json").out)["images"]["n"] == 1
    assert json.loads(work.dream("view", "none.jsonl", "--json").out)["images"]["n"] == 0
    assert json.loads(work.dream("diff", "one.jsonl", "list.jsonl", "--json").out)["same"] == 1
    (change,) = json.loads(work.dream("diff", "one.jsonl", "none.jsonl", "--json").out)["changed"]
    assert change["fields"] == ["images"]


@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
def test_the_summary_of_a_file_names_a_column_that_looks_like_an_image(name: str, work: Workdir) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {"id": "a", "prompt": "x", "photo": work.picture("a.png")}
    work.write("in.jsonl", [row])
    pq.write_table(pa.Table.from_pylist([row]), work.path / "in.parquet")
    ran = work.dream("view", name, "--json")
    assert ran.err == f"dream: {name}: the column 'photo' looks like an image and is not read; --image-column photo reads it\n"
    read = work.dream("view", name, "--json", "--image-column", "photo")
    assert (read.err, json.loads(read.out)["images"]["n"]) == ("", 1)


def test_the_summary_counts_images_embedded_in_a_column_of_another_name(work: Workdir) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": ["x"], "image": [{"bytes": jpeg(), "path": None}]}), work.path / "in.parquet")
    images = json.loads(work.dream("view", "in.parquet", "--json").out)["images"]
    assert (images["n"], images["embedded"], images["unreadable"]) == (1, 1, 0)


# Odd values


NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400]


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
def test_an_odd_number_costs_its_own_row_which_keeps_its_fields(name: str, value: str, work: Workdir) -> None:
    rows = ['{"id": "a", "prompt": "x", "margin": ' + value + "}", '{"id": "b", "prompt": "y"}']
    (work.path / name).write_text("[" + ",\n".join(rows) + "]" if name == "in.json" else "\n".join(rows) + "\n")
    ran = work.dream("convert", name)
    assert ran.code == 1
    first, second = ran.rows
    assert (first["id"], first["prompt"], first["margin"]) == ("a", "x", None)
    assert first["error"]["kind"] == "unreadable"
    assert ("out of range" if "1" in value else f"{value} is not a JSON value; write null") in first["error"]["message"]
    assert second == {"id": "b", "prompt": "y"}


def test_an_array_reads_as_the_same_lines_do(work: Workdir) -> None:
    rows = [
        '{"prompt": "half \\ud83d here"}',
        '{"prompt": "tab\\q"}',
        '{"prompt": "brackets ]}[{ \\"quoted, ]\\" \\\\"}',
        "5",
        '{"prompt": 1}',
    ]
    (work.path / "in.jsonl").write_text("\n".join(rows) + "\n")
    (work.path / "in.json").write_text("\ufeff  [" + " ,\n".join(rows) + "\n]\n")
    lines, array = work.dream("convert", "in.jsonl").rows, work.dream("convert", "in.json").rows
    assert len(lines) == len(array) == 5
    assert [row.get("prompt") for row in lines] == [row.get("prompt") for row in array]
    assert [row["prompt"] for row in (lines[0], lines[2])] == ["half \ud83d here", 'brackets ]}[{ "quoted, ]" \\']
    assert [bool(row.get("error")) for row in array] == [False, True, False, True, True]


@given(st.lists(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))))
def test_any_array_is_cut_into_its_items(values: list[Any]) -> None:
    texts = [text for text in items(io.BytesIO(json.dumps(values, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")), 10**6)]
    assert [json.loads((text or b"").decode("utf-8", "surrogatepass")) for text in texts] == values


def test_an_item_across_blocks_and_one_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream_cli.records.json_array._CHUNK", 3)
    assert list(items(io.BytesIO(b'[{"a": "\\\\"}, "\\"]", [1, [2]]]  '), 20)) == [b'{"a": "\\\\"}', b' "\\"]"', b" [1, [2]]"]
    assert list(items(io.BytesIO(b'["' + b"x" * 50 + b'", 7, "broken'), 20)) == [None, b" 7", b' "broken']


def test_nesting_has_a_limit(work: Workdir) -> None:
    assert loads("[" * 100 + "]" * 100)[1] is None
    assert loads("[" * 101 + "]" * 101) == (None, "nested deeper than 100 levels")
    deep = ['{"prompt": "x", "y": ' + "[" * depth + "1e999" + "]" * depth + "}" for depth in (800, 3000)]
    ran = work.dream("convert", stdin="\n".join([*deep, '{"id": "c", "prompt": "z"}']))
    assert ran.code == 1
    assert [row.get("error", {}).get("message", "").partition(": ")[2] for row in ran.rows] == [
        "not JSON: nested deeper than 100 levels",
        "not JSON: nested deeper than 100 levels",
        "",
    ]


@pytest.mark.parametrize(
    ("command", "row"),
    [
        ("pair", {"prompt": "x", "responses": [{"text": "p", "judgement": {"score": 99}}, {"text": "q", "judgement": {"score": 0}}]}),
        ("pair", {"prompt": "x", "responses": [{"text": "p", "judgement": {"global_score": 1000}}]}),
        ("convert", {"prompt": "x", "images": [{"bytes": 5}]}),
        ("view", {"prompt": "x", "images": [{"bytes": 5}]}),
        ("view-summary", {"prompt": "x", "images": [{"bytes": 5}]}),
        ("view-summary", {"prompt": "x", "images": [{"bytes": "not base64!"}, 7, None]}),
        ("diff", {"prompt": "x", "margin": 10**300}),
    ],
)
def test_no_odd_row_ends_a_command(command: str, row: dict[str, Any], work: Workdir) -> None:
    work.write("in.jsonl", [row, {"id": "b", "prompt": "y"}])
    files = ["in.jsonl", "in.jsonl"] if command == "diff" else ["in.jsonl", "-n", "9"] if command == "view" else ["in.jsonl"]
    ran = work.dream(command.removesuffix("-summary"), *files)
    assert ran.code in (0, 1)
    assert "Traceback" not in ran.err


def test_a_date_beyond_the_calendar_costs_its_own_row(work: Workdir) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    days = pa.array([date(2026, 1, 1).toordinal() - date(1970, 1, 1).toordinal(), 10**7], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"id": ["a", "b"], "prompt": ["x", "y"], "day": days}), work.path / "in.parquet")
    ran = work.dream("convert", "in.parquet")
    assert ran.code == 1
    assert ran.rows[0] == {"id": "a", "prompt": "x", "day": "2026-01-01"}
    assert "in.parquet:2: the column 'day' holds a value that cannot be read" in ran.rows[1]["error"]["message"]


def test_a_parquet_column_that_occurs_twice_is_refused(work: Workdir) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["prompt", "prompt"]), work.path / "in.parquet")
    for command in ("convert", "view"):
        ran = work.dream(command, "in.parquet")
        assert (ran.code, ran.out) == (2, "")
        assert "in.parquet has more than one column named 'prompt'" in ran.err


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("in.jsonl", gzip.compress(b'{"prompt": "x"}\n', mtime=0), "in.jsonl is compressed with gzip; name it in.jsonl.gz"),
        ("in.jsonl", '{"prompt": "x"}\n'.encode("utf-16"), "in.jsonl is UTF-16; save it as UTF-8"),
        ("in.json", '[{"prompt": "x"}]\n'.encode("utf-16"), "in.json is UTF-16; save it as UTF-8"),
        ("in.jsonl.gz", b'{"prompt": "x"}\n', "in.jsonl.gz is not compressed with gzip; name it in.jsonl"),
        ("in.jsonl", b'[\n  {"prompt": "x"}\n]\n', "in.jsonl is a JSON array; name it in.json"),
        ("in.jsonl", b'[{"prompt": "x"}, {"prompt": "y"}]\n', "in.jsonl is a JSON array; name it in.json"),
        ("in.jsonl", b'{\n  "prompt": "x"\n}\n', "in.jsonl is JSON over several lines; a record is one line (jq -c . in.jsonl)"),
        ("in.json", b'{"data": [{"prompt": "x"}]}', "in.json is a JSON object; its rows seem to be in 'data' (jq .data in.json)"),
        (
            "in.json",
            b'{"0": {"prompt": "x"}, "1": {"prompt": "y"}}',
            "in.json is a JSON object; its rows seem to be its values (jq '[.[]]' in.json)",
        ),
        ("in.json", b'{"prompt": "x"}', "in.json is not a JSON array; if it holds one object per line, name it in.jsonl"),
    ],
)
def test_a_file_of_another_layout_is_refused_by_its_cause(name: str, data: bytes, message: str, work: Workdir) -> None:
    (work.path / name).write_bytes(data)
    ran = work.dream("convert", name)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_a_completion_beside_a_prompt_is_the_response_and_keeps_its_name(work: Workdir, server: Loopback) -> None:
    own: list[dict[str, Any]] = [{"id": "c", "prompt": "x", "completion": {"tokens": 12}}, {"id": "d", "prompt": "x", "completion": [1, 2]}]
    rows: list[dict[str, Any]] = [
        {"id": "a", "prompt": "x", "completion": "red"},
        {"id": "b", "prompt": "x", "completion": [{"role": "assistant", "content": "blue"}]},
    ]
    work.write("in.jsonl", rows + own)
    line = "dream: in.jsonl:1: the column 'completion' is read as the response\n"
    ran = work.dream("judge", "in.jsonl", "--base-url", server.url)
    a, b, *rest = ran.rows
    assert line in ran.err and [row.pop("error")["stage"] for row in rest] == ["judge"] * 2 and rest == own
    assert (a["completion"], [r["text"] for r in a["responses"]], [r["text"] for r in b["responses"]]) == ("red", ["red"], ["blue"])
    # A stage that needs no response leaves the column as it was.
    ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
    assert [row.get("completion") for row in ran.rows] == ["red", None, {"tokens": 12}, [1, 2]] and len(ran.rows[0]["responses"]) == 1
    assert [row["completion"] for row in work.dream("convert", "in.jsonl").rows[2:]] == [{"tokens": 12}, [1, 2]]
