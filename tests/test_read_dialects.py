"""The dialects that are only read, and the further forms of those that are written too: each rule of theirs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dream_cli.formats.rows import read_row
from dream_cli.formats.table import DIALECTS, WRITTEN, dialect
from dream_cli.records.access import Base
from dream_cli.records.image_rows import to_row
from dream_cli.records.record import Json, Record
from dream_cli.records.streams import to_record

BASE = Base(("/",))
CHAT = [{"role": "user", "content": "What grows here?"}, {"role": "assistant", "content": "A fern."}]


def read(row: Json) -> tuple[str, Record]:
    return read_row(to_record(row, "rows.jsonl", 1, BASE), BASE)


def failed(row: Json) -> str:
    """Return the message of a row that cannot be read."""
    _, record = read(row)
    assert record.error is not None
    return record.error.message


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ({"is_response_1_safe": "no", "is_response_2_safe": "yes", "more_helpful_response_id": "1", "safer_response_id": "1"}, 2),
        ({"is_response_1_safe": "yes", "is_response_2_safe": "yes", "more_helpful_response_id": "1", "safer_response_id": "2"}, 1),
        ({"is_response_1_safe": "no", "is_response_2_safe": "no", "more_helpful_response_id": "1", "safer_response_id": "2"}, 2),
        ({"overall_response": 2}, 2),
        ({"more_helpful_response_id": "0"}, None),
        ({}, None),
    ],
)
def test_of_two_answers_the_safe_one_is_chosen_then_the_label_that_fits(labels: Json, chosen: int | None) -> None:
    name, record = read({"question": "What grows here?", "response_1": "1", "response_2": "2"} | labels)
    assert name == "beavertails-v" and record.responses is not None
    assert [response.text for response in record.responses] == ["1", "2"]
    assert record.extra.get("chosen") == (None if chosen is None else str(chosen))
    assert record.extra.get("rejected") == (None if chosen is None else str(3 - chosen))


def test_completions_may_be_a_list_of_objects() -> None:
    row = {"prompt": "What grows here?", "img_path": "", "completions": [{"response": "A fern.", "model": "a", "annotations": None}]}
    name, record = read(row)
    assert name == "vlfeedback" and to_row(record, None) == {
        "prompt": "What grows here?",
        "responses": [{"text": "A fern.", "model": "a"}],
    }


@pytest.mark.parametrize("text", ["{", '{"question": "x"}', "[1]", "A text.", '{"question": NaN, "chosen": "a", "rejected": "b"}'])
def test_a_text_that_is_not_a_pair_in_json_is_not_rlhf_v(text: str) -> None:
    assert "no JSON of 'question', 'chosen' and 'rejected' in 'text'" in failed({"text": text, "idx": 1})


def test_a_generation_that_failed_is_left_out() -> None:
    _, record = read(
        {"instruction": "Hi", "generations": [None, "Ho"], "ratings": [1, 5], "model_names": ["a", "b"], "rationales": ["short"]}
    )
    assert to_row(record, None) == {
        "prompt": "Hi",
        "responses": [{"text": "Ho", "model": "b", "rating": 5}],
        "rationales": ["short"],
    }


def test_a_chat_of_argilla_is_a_conversation() -> None:
    _, record = read({"id": "1", "fields": {"chat": CHAT, "image": "a.png"}, "suggestions": {}})
    assert to_row(record, None) == {"id": "1", "messages": CHAT, "images": ["/a.png"]}
    assert "'fields' has no prompt and no chat; it has 'label'" in failed({"fields": {"label": "x"}, "suggestions": {}})


def test_the_input_of_a_request_may_be_parts_and_its_output_messages() -> None:
    parts = [{"type": "input_text", "text": "Look: "}, {"type": "input_image", "image_url": "a.png"}]
    _, record = read({"input": [{"role": "user", "content": parts}], "output": [CHAT[1]]})
    assert [(place.image, place.at) for place in record.messages[0].places] == [(0, 6)]
    assert record.images[0].path == "/a.png" and record.messages[1].content == "A fern."
    assert to_row(read({"input": "Hi", "output": "Ho", "note": 1})[1], None) == {"prompt": "Hi", "response": "Ho", "note": 1}


def test_a_request_of_a_batch_file_is_read_with_its_id() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}]}
    name, record = read({"custom_id": "7", "method": "POST", "url": "/v1/chat/completions", "body": body})
    assert (name, record.id) == ("openai", "7") and record.images[0].path == "/a.png"
    assert record.extra["body"] == {"model": "m"}


def test_two_conversations_are_a_pair_beside_their_prompt_and_messages() -> None:
    row = {"prompt": "What grows here?", "messages": CHAT, "chosen": CHAT, "rejected": [CHAT[0], {"role": "assistant", "content": "No."}]}
    name, record = read(row)
    assert (name, record.prompt) == ("trl", "What grows here?")
    assert (record.extra["chosen"], record.extra["rejected"]) == ("A fern.", "No.")
    assert "'prompt' is no message of 'chosen'" in failed(row | {"prompt": "Another one?"})
    assert "do not begin with the same prompt" in failed(row | {"rejected": [{"role": "user", "content": "?"}, CHAT[1]]})


def test_conversations_of_other_speakers_and_images_in_marks() -> None:
    _, record = read({"conversations": CHAT, "image": "a.png"})
    assert record.messages[0].content == "What grows here?" and record.images[0].path == "/a.png"
    turns = [
        {"from": "user", "value": "Picture 1: <img>a.png</img>\nAnd: <img>b.png</img>\nWhich?"},
        {"from": "assistant", "value": "The first."},
    ]
    _, record = read({"id": "q", "conversations": turns})
    assert [image.path for image in record.images] == ["/a.png", "/b.png"]
    assert [(place.image, place.at) for place in record.messages[0].places] == [(0, 11), (1, 17)]
    assert [message.role for message in record.messages] == ["user", "assistant"]


def test_a_fault_of_a_record_is_reported_with_its_place_once() -> None:
    assert failed({"prompt": "Hi", "images": [None]}).count("rows.jsonl:1: ") == 1
    assert failed({"instruction": 5, "generations": []}).count("rows.jsonl:1: ") == 1


PLACED = {
    "images": ["/a.png", "/b.png", "/c.png"],
    "messages": [
        {"role": "user", "content": "First <image> then <image>: which is green?"},
        {"role": "assistant", "content": "The second."},
        {"role": "user", "content": "<image>And this?"},
        {"role": "assistant", "content": "Also."},
    ],
}


def shown(record: Record) -> list[tuple[str, str, tuple[tuple[str | None, int], ...]]]:
    """The messages of a record with the image and the offset of each place."""
    return [
        (message.role, message.content, tuple((record.images[place.image].path, place.at) for place in message.places))
        for message in record.messages
    ]


@pytest.mark.parametrize("name", [name for name in WRITTEN if name not in ("trl", "alpaca", "rlaif-v", "spa-vl")])
def test_the_places_of_images_in_a_conversation_are_kept(name: str) -> None:
    # TRL puts images before the first text, the others hold no conversation.
    record = Record.from_dict(PLACED)
    assert shown(record)[0][2] == (("/a.png", 6), ("/b.png", 12)) and shown(record)[2][2] == (("/c.png", 0),)
    row, left = dialect(name).write(PLACED)
    _, back = read(json.loads(json.dumps(row)))
    assert shown(back) == shown(record) and "image_tag" not in left


IN_PARTS: dict[str, Any] = {
    "openai": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image_url", "image_url": {"url": "a.png"}}]}
        ]
    },
    "trl": {"prompt": [{"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"}]}], "image": "a.png"},
    "llava": {"conversations": [{"from": "human", "value": "Look: <image>"}], "image": "a.png"},
    "openrlhf": {
        "message": json.dumps([{"role": "user", "content": [{"text": "Look: ", "type": "text"}, {"type": "image", "image": "a.png"}]}])
    },
}


@pytest.mark.parametrize("name", IN_PARTS)
def test_the_place_of_an_image_in_a_prompt_is_kept(name: str) -> None:
    _, record = read(IN_PARTS[name])
    (turn,) = record.turns()
    assert (turn.prompt, [(place.image, place.at) for place in turn.places]) == ("Look: ", [(0, 6)])


def test_image_parts_with_an_index_are_in_the_order_of_the_images() -> None:
    def row(*indices: int) -> Json:
        parts = [{"type": "image", "index": index, "text": ""} for index in indices]
        return {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "Hi"}]}], "images": ["/a.png", "/b.png"]}

    _, record = read(row(0, 1))
    assert record.error is None and [(place.image, place.at) for place in record.turns()[0].places] == [(0, 0), (1, 0)]
    assert failed(row(1, 0)) == (
        "rows.jsonl:1: messages[0].content[1] is image 0 of the row, out of order; list the images in the order of the parts"
    )


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("value", [5, "x", None, [], [5], {"a": 5}, [[]], [{}]])
def test_odd_values_in_the_fields_of_a_dialect_are_errors_of_their_row(name: str, value: Any) -> None:
    fields = ["text", "prompt", "completions", "question", "response_1", "response_2", "instr-resp", "instruction", "generations", "fields"]
    fields += ["suggestions", "message", "context_messages", "input", "output", "conversations", "chosen", "rejected", "messages", "index"]
    for field in [*fields, "image", "images", "body", "is_response_safe", "completion", "preferred_output"]:
        for row in ({field: value}, dict.fromkeys(fields, value), {"question": "x", "index": 1, "image": value, field: value}):
            _, record = read_row(to_record(row, "rows.jsonl", 1, BASE), BASE, source=name)
            assert isinstance(record, Record)
