"""Messages in parts, and the places of images: what a model is shown, and that a row comes back as it came."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.engines.protocol import ChatMessage
from dream_cli.errors import InvalidRecord
from dream_cli.records.access import Base
from dream_cli.records.parts import IMAGE, each_part_image, unmarked
from dream_cli.records.record import Image, Place, Record
from dream_cli.records.streams import to_record
from dream_cli.training.rows import pair_of, plain_messages, trl_messages
from tests.conftest import Workdir
from tests.loopback import Loopback


def shown(body: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the chat of a request: role and parts, an image as the last letters of its data."""
    contents = [(m["role"], m["content"]) for m in body["messages"]]
    return [
        (role, [content] if isinstance(content, str) else [p.get("text", "IMAGE") for p in content if p.get("text") != ""])
        for role, content in contents
    ]


def with_parts(*parts: Any) -> dict[str, Any]:
    return {"id": "a", "messages": [{"role": "user", "content": list(parts)}]}


TEXT = {"type": "text", "text": "What colour?"}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image", "url": "a.png"},
        {"type": "image", "image": {"path": "a.png", "bytes": None}},
        {"type": "image", "image": "a.png", "min_pixels": 4, "text": None},
        {"image": "a.png"},
        {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}},
        {"type": "image_url", "image_url": "a.png"},
        {"type": "input_image", "image_url": "a.png"},
        {"type": "image", "source": {"type": "url", "url": "a.png"}},
        "base64",
        "anthropic",
    ],
)
def test_every_form_of_an_image_part_is_shown_and_comes_back(part: Any, work: Workdir, server: Loopback) -> None:
    data = base64.b64encode((work.path / work.picture("a.png")).read_bytes()).decode()
    if part == "base64":
        part = {"type": "image", "base64": data}
    if part == "anthropic":
        part = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    row = with_parts(TEXT | {"image": None}, part)
    work.write("in.jsonl", [row])
    ran = work.dream("sample", "in.jsonl", "--base-url", server.url, "-o", "out.jsonl")
    assert (ran.code, ran.err) == (0, "")
    assert shown(server.bodies[0]) == [("user", ["What colour?", "IMAGE"])]
    (out,) = work.read("out.jsonl")
    assert {name: out[name] for name in row} == row
    assert "images" not in out
    assert work.dream("convert", "in.jsonl", "-o", "plain.jsonl").code == 0
    (plain,) = work.read("plain.jsonl")
    assert (plain["messages"][0]["content"], len(plain["images"])) == ("What colour?", 1)
    work.dream("sample", "plain.jsonl", "--base-url", server.url)
    assert shown(server.bodies[-1]) == shown(server.bodies[0])


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
def test_texts_of_parts_are_one_text(kind: str, work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [with_parts({"type": kind, "text": "What "}, None, "colour?")])
    assert work.dream("sample", "in.jsonl", "--base-url", server.url).code == 0
    assert shown(server.bodies[0]) == [("user", ["What colour?"])]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([TEXT, {"type": "video", "video": "a.mp4"}], "messages[0].content[1] is a part of type 'video'; only texts and images are read"),
        ([{"type": "input_image", "file_id": "f1"}], "content[0] is an image part without a path, a URL or bytes (it has 'file_id')"),
        ([TEXT, 7], "messages[0].content[1] is a number, not a part with a type"),
        ([TEXT, {"type": "image"}], "the text has a mark for an image (<image>), and the record has none"),
    ],
)
def test_a_part_that_cannot_be_shown_is_an_error_before_any_call(parts: list[Any], message: str, work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [with_parts(*parts)])
    ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
    assert (ran.code, server.bodies) == (1, [])
    assert message in ran.rows[0]["error"]["message"]
    assert ran.rows[0]["messages"][0]["content"] == parts


MARKS = ["<image>", "<|image|>", "<|image_1|>", "<|vision_start|><|image_pad|><|vision_end|>", "<image_soft_token>", "<start_of_image>"]


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_for_an_image_is_its_place_and_without_an_image_an_error(mark: str, work: Workdir, server: Loopback) -> None:
    work.picture("a.png")
    rows = [{"id": "a", "prompt": f"{mark}\nWhat colour?", "image": "a.png"}, {"id": "b", "prompt": f"What {mark} colour?"}]
    work.write("in.jsonl", rows)
    ran = work.dream("sample", "in.jsonl", "--base-url", server.url, "-o", "out.jsonl")
    assert ran.code == 1
    assert [shown(body) for body in server.bodies] == [[("user", ["IMAGE", "What colour?"])]]
    first, second = work.read("out.jsonl")
    assert first["prompt"] == rows[0]["prompt"]
    assert second["error"]["message"] == (
        "in.jsonl:2: the text has a mark for an image (<image>), and the record has none; name the image, or remove the mark"
    )


def test_an_image_stands_where_it_was_named_and_later_ones_are_not_shown(work: Workdir, server: Loopback) -> None:
    work.picture("a.png")
    work.picture("b.png", 24)
    row = {
        "id": "a",
        "images": ["a.png", "b.png"],
        "messages": [
            {"role": "user", "content": "Hello", "note": 1},
            {"role": "assistant", "content": "Hi. <image>"},
            {"role": "user", "content": "First", "image_tag": {"tail": "\n<image>"}},
            {"role": "assistant", "content": "Navy.", "observations": []},
            {"role": "user", "content": "And <image> this?"},
        ],
    }
    work.write("in.jsonl", [row])
    ran = work.dream("sample", "in.jsonl", "--base-url", server.url, "-o", "out.jsonl")
    assert (ran.code, ran.err) == (0, "")
    assert shown(server.bodies[0]) == [
        ("user", ["Hello"]),
        ("assistant", ["Hi. <image>"]),
        ("user", ["First", "IMAGE"]),
        ("assistant", ["Navy."]),
        ("user", ["And ", "IMAGE", " this?"]),
    ]
    assert {name: value for name, value in work.read("out.jsonl")[0].items() if name != "responses"} == row
    assert work.dream("judge", "out.jsonl", "--base-url", server.url).code == 0
    questions = server.bodies[1:]
    images = [sum(part == "IMAGE" for _, parts in shown(body) for part in parts) for body in questions]
    # The answer "Navy." is judged on the first image (helpfulness, harm), the last on both; "Hi." was never looked at.
    assert set(images) == {1, 2}
    both = next(shown(body)[-1][1][-1] for body, count in zip(questions, images, strict=True) if count == 2)
    assert "First[image 1]" in both
    assert "And [image 2] this?" in both


def test_a_conversation_that_waits_for_an_answer_is_not_judged_by_an_earlier_one(work: Workdir, server: Loopback) -> None:
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "What now?"}]
    waiting = {"id": "a", "messages": turns}
    answered = waiting | {"id": "b", "responses": [{"text": "Rest."}]}
    ended = {"id": "c", "messages": [*turns, {"role": "assistant", "content": "Sleep."}]}
    work.write("in.jsonl", [waiting, answered, ended])
    ran = work.dream("judge", "in.jsonl", "--base-url", server.url)
    first, second, third = ran.rows
    assert first["error"]["kind"] == "no-response"
    assert "the last message of the user is not answered" in first["error"]["message"]
    assert "judgement" in second["responses"][0]
    assert [("judgement" in message) for message in second["messages"]] == [False] * 3
    assert [("judgement" in message) for message in third["messages"]] == [False, False, False, True]
    assert server.bodies and all("What now?" in shown(body)[-1][1][-1] for body in server.bodies)


def test_developer_and_tool_messages_are_read(work: Workdir, server: Loopback) -> None:
    row = {
        "id": "a",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Is it raining?"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "content": "No rain.", "tool_call_id": "1"},
        ],
    }
    work.write("in.jsonl", [row])
    ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
    assert shown(server.bodies[0]) == [("system", ["Be brief."]), ("user", ["Is it raining?\n\nTool: No rain."])]
    assert {name: value for name, value in ran.rows[0].items() if name != "responses"} == row
    answered = row | {"messages": [*row["messages"], {"role": "assistant", "content": "No."}]}
    assert work.dream("judge", "--base-url", server.url, stdin=json.dumps(answered)).rows[0]["messages"][-1]["judgement"]


def test_messages_as_json_text_and_parts_padded_by_parquet(work: Workdir, server: Loopback) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    work.picture("a.png")
    texts = [json.dumps([{"role": "user", "content": "As text"}])]
    pq.write_table(pa.table({"messages": texts}), work.path / "text.parquet")
    work.dream("sample", "text.parquet", "--base-url", server.url)
    parts = [{"type": "image", "text": None, "image": {"bytes": (work.path / "a.png").read_bytes(), "path": None}}, TEXT | {"image": None}]
    pq.write_table(pa.Table.from_pylist([{"messages": [{"role": "user", "content": parts}]}]), work.path / "parts.parquet")
    ran = work.dream("sample", "parts.parquet", "--base-url", server.url)
    assert [shown(body) for body in server.bodies] == [[("user", ["As text"])], [("user", ["IMAGE", "What colour?"])]]
    (row,) = ran.rows
    assert row["messages"][0]["content"][0]["image"].startswith("data:image/png;base64,")
    assert work.dream("sample", "parts.parquet", "--base-url", server.url, "-o", "out.parquet").code == 0
    (stored,) = pq.read_table(work.path / "out.parquet").to_pylist()
    assert [image["bytes"] for image in stored["images"]] == [(work.path / "a.png").read_bytes()]


def test_images_in_parts_are_seen_from_where_the_row_is_written(work: Workdir) -> None:
    (work.path / "sub").mkdir()
    work.picture("sub/a.png")
    work.write("sub/in.jsonl", [with_parts({"type": "image", "image": "a.png"}, TEXT) | {"response": "Navy."}])
    assert work.dream("pair", "sub/in.jsonl").code == 0
    out = work.dream("view", "sub/in.jsonl", "-n", "1", "--json").rows[0]
    assert out["messages"][0]["content"][0]["image"] == str(work.path / "sub" / "a.png")


# Pure functions


@pytest.mark.parametrize(
    ("text", "words", "offsets"),
    [
        ("<image>\nWhat?", "What?", (0,)),
        ("<image><image>\nWhat?", "What?", (0, 0)),
        ("<image>\n<image>\nWhat?", "What?", (0, 0)),
        ("What?\n<image>", "What?", (5,)),
        ("Is <image> this\n<image>\nor that?", "Is  this\n\nor that?", (3, 9)),
        ("No mark", "No mark", ()),
        ("<image>", "", (0,)),
    ],
)
def test_marks_become_offsets(text: str, words: str, offsets: tuple[int, ...]) -> None:
    assert unmarked(text) == (words, offsets)


@given(st.lists(st.sampled_from([IMAGE, "a", " b\n", "\n"]), max_size=8))
def test_a_text_without_marks_has_one_offset_per_mark(pieces: list[str]) -> None:
    words, offsets = unmarked("".join(pieces))
    assert IMAGE not in words
    assert len(offsets) == pieces.count(IMAGE)
    assert sorted(offsets) == list(offsets)
    assert all(0 <= at <= len(words) for at in offsets)


def test_the_parts_of_a_chat_message() -> None:
    a, b = Image("a"), Image("b")
    assert list(ChatMessage("user", "words", (a, b)).parts) == [a, b, "words"]
    assert list(ChatMessage("user", "words", (a, b), (0, 3)).parts) == [a, "wor", b, "ds"]
    assert list(ChatMessage("user", "words", (a, b), (5, 5)).parts) == ["words", a, b, ""]
    assert list(ChatMessage("user", "words").parts) == ["words"]


def test_training_shows_an_image_in_its_place() -> None:
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "<image>\nThis?"},
    ]
    record = Record.from_dict({"messages": messages, "images": ["a.png"], "chosen": "Navy.", "rejected": "No."})
    row = pair_of(record)
    assert row.images == (Image("a.png"),)
    assert trl_messages(plain_messages(row.prompt)) == [
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Hi."}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "This?"}]},
    ]


def test_fewer_marks_than_images_and_more() -> None:
    images = ["a.png", "b.png", "c.png"]
    assert Record.from_dict({"prompt": "<image> and <image>?", "images": images}).turns()[0].places == (
        Place(0, 0),
        Place(1, 5),
        Place(2, 5),
    )
    assert Record.from_dict({"prompt": "What?", "images": images}).turns()[0].places == (Place(0, 0), Place(1, 0), Place(2, 0))
    with pytest.raises(InvalidRecord, match="marks for 4 images .<image>., and the record has 3"):
        Record.from_dict({"prompt": IMAGE * 4, "images": images}).require_images()
    unpaired = Record.from_dict({"prompt": IMAGE, "chosen": "Navy.", "rejected": "No."})
    with pytest.raises(InvalidRecord, match="a mark for an image .<image>., and the record has none"):
        pair_of(unpaired)
    with pytest.raises(InvalidRecord, match="named in parts of the messages and beside them"):
        Record.from_dict(with_parts({"type": "image", "image": "a.png"}) | {"images": images})


def test_a_picture_of_a_later_turn_stays_with_it(work: Workdir) -> None:
    work.picture("a.png")
    turns = [("user", "Hello"), ("assistant", "Hi."), ("user", "<image>\nThis?"), ("assistant", "Navy.")]
    row = {"id": "a", "image": "a.png", "messages": [{"role": role, "content": content} for role, content in turns]}
    work.write("in.jsonl", [row])
    ran = work.dream("convert", "in.jsonl", "--explode", "turns", "-o", "out.jsonl")
    assert ran.code == 0
    assert [Path(image).name for row in work.read("out.jsonl") for image in row.get("images", [])] == ["a.png"]
    assert [(row["id"], row["prompt"], bool(row.get("images"))) for row in work.read("out.jsonl")] == [
        ("a/1", "Hello", False),
        ("a/2", "This?", True),
    ]


@pytest.mark.parametrize("kind", [[], {}, ["text"], 5, None, True])
def test_a_part_of_any_type_keeps_its_picture(kind: object) -> None:
    messages = [{"role": "user", "content": [{"type": kind, "image_url": {"url": "a.png"}}]}]
    assert each_part_image(messages, lambda image: f"/b/{image}")[0]["content"][0]["type"] == kind


@pytest.mark.parametrize("kind", [[1], {"a": 1}, 7, True])
def test_a_part_whose_type_is_no_text_costs_its_row_only(kind: Any, work: Workdir) -> None:
    work.picture("a.png")
    odd = {"messages": [{"role": "user", "content": [{"type": kind, "image_url": {"url": "a.png"}}, {"type": "text", "text": "x"}]}]}
    work.write("in.jsonl", [odd, {"id": "b", "prompt": "Hello"}])
    ran = work.dream("convert", "in.jsonl", "-o", "out.jsonl")
    assert ran.code == 1 and [row.get("id") for row in work.read("out.jsonl") if "error" not in row] == ["b"]
    assert f"in.jsonl:1: messages[0].content[0] is a part of type {kind!r}; only texts and images are read" in ran.err


def test_a_row_that_fails_while_it_is_prepared_is_its_own_error(work: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(row: Any, change: Any) -> Any:
        raise KeyError("no such key")

    monkeypatch.setattr("dream_cli.records.streams.with_messages", broken)
    record = to_record({"id": "a", "prompt": "Hello"}, "in.jsonl", 1, Base((str(work.path),)))
    assert record.error is not None and (record.error.stage, record.error.kind) == ("read", "internal")
