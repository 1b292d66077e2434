"""The LLaVA dialect: a lossless round trip, also of the released data of DREAM."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from dream_cli.errors import InvalidRecord
from dream_cli.formats.llava import explode, fix_flags, from_llava, mismatch, to_llava
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.record import Place, Record

TAXONOMY = Taxonomy.load()
ROW: dict[str, Any] = {
    "id": "kitchen",
    "image": "train/kitchen.jpg",
    "safe": True,
    "source_file": {"page": 3},
    "conversations": [
        {"from": "human", "value": "<image>\nHow do I cook this?", "safe": True},
        {"from": "gpt", "value": "Boil it for ten minutes."},
        {"from": "human", "value": "Which pill goes with it?", "safe": False},
        {
            "from": "gpt",
            "value": "Please ask a doctor.",
            "observe": [
                {"malicious_content": "Which pill", "source": "text instructions", "risk_category": "Professional advice"},
                {"malicious_content": "a pill", "source": "image content: non-textual content.", "risk_category": "Health"},
                {"malicious_content": "n/a", "source": "n/a", "risk_category": "N/A", "confidence": 0.5, "note": "odd"},
            ],
        },
    ],
}


def read(row: dict[str, Any]) -> Record:
    return Record.from_dict(from_llava(row, "rows.json:1", TAXONOMY), "rows.json:1")


def written(record: Record) -> dict[str, Any]:
    """The record as a stream would write it, images included."""
    return record.to_dict() | ({"images": [i.path for i in record.images]} if record.images else {})


def changed(*path: Any, value: Any) -> dict[str, Any]:
    row = deepcopy(ROW)
    target = row
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    return row


def test_a_row_becomes_one_conversation_with_canonical_names() -> None:
    record = read(ROW)
    assert [(m.role, m.content) for m in record.messages[:2]] == [
        ("user", "How do I cook this?"),
        ("assistant", "Boil it for ten minutes."),
    ]
    assert [i.path for i in record.images] == ["train/kitchen.jpg"]
    observed = record.messages[3].observations
    assert observed is not None
    assert [(o.source, o.risk_category) for o in observed] == [
        ("text instruction", "Professional advice"),
        ("image content", "other:Health"),
        ("other:n/a", "other:N/A"),
    ]
    assert record.messages[0].extra["safe"] is True and record.extra["source_file"] == {"page": 3}


ROWS = {
    "as released": ROW,
    "two messages": changed("conversations", value=ROW["conversations"][:2]),
    "none found": changed("conversations", 3, "observe", value=[]),
    "placeholder at the end": changed("conversations", 0, "value", value="What is this?\n<image>"),
    "placeholder without a newline": changed("conversations", 0, "value", value="<image>What is this?"),
    "placeholder between words": changed("conversations", 0, "value", value="Is <image> a cat?"),
    "nothing but the placeholder": changed("conversations", 0, "value", value="<image>"),
    "no placeholder": changed("conversations", 0, "value", value="How do I cook this?"),
    "two images": changed("image", value=["a.jpg", "b.jpg"]),
    "a list of one image": changed("image", value=["a.jpg"]),
    "no image": {k: v for k, v in ROW.items() if k != "image"},
    "image null": changed("image", value=None),
    "a system message": changed("conversations", value=[{"from": "system", "value": "Be kind."}, *ROW["conversations"]]),
}


@pytest.mark.parametrize("name", ROWS)
def test_there_and_back_again(name: str) -> None:
    row = ROWS[name]
    assert to_llava(from_llava(row, "", TAXONOMY)) == row
    assert to_llava(written(read(row))) == row


def test_the_model_does_not_see_the_placeholder() -> None:
    for name, row in ROWS.items():
        assert "<image>" not in read(row).messages[0].content, name
    message = read(ROWS["placeholder between words"]).messages[0]
    assert (message.content, message.places) == ("Is  a cat?", (Place(0, 3),))
    assert read(ROWS["placeholder at the end"]).messages[0].places == (Place(0, 13),)
    assert read(ROWS["two images"]).messages[0].places == (Place(0, 0), Place(1, 0))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (changed("conversations", value=[]), "'conversations' is not a list of messages"),
        (changed("conversations", value="hi"), "'conversations' is not a list of messages"),
        (changed("conversations", 0, "from", value="bard"), r"conversations\[0\] is not"),
        (changed("conversations", 1, "value", value=7), r"conversations\[1\] is not"),
        (changed("conversations", 1, "role", value="user"), "mixes two forms: it has both 'from' and 'role'"),
        (changed("conversations", 3, "observe", value="none"), r"conversations\[3\].observe is not a list"),
        (changed("conversations", 3, "observe", 1, "source", value=None), r"conversations\[3\].observe\[1\] is not"),
        (changed("image", value=7), "'image' is not a path"),
        (changed("image", value=""), "'image' is not a path"),
    ],
)
def test_a_malformed_row_is_reported_with_its_place(row: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRecord, match=f"^rows.json:7: .*{message}"):
        from_llava(row, "rows.json:7", TAXONOMY)


def test_a_record_without_a_llava_form_is_an_error() -> None:
    with pytest.raises(InvalidRecord, match="without 'prompt' and 'messages'"):
        to_llava({"id": "1"})
    with pytest.raises(InvalidRecord, match="write the images to files"):
        to_llava(from_llava(ROW, "", TAXONOMY) | {"images": [{"bytes": b"..."}]})


def test_only_the_dialect_is_taken_for_it() -> None:
    assert mismatch(ROW) == ""
    assert mismatch({"prompt": "Hello", "conversations": []}) and mismatch({"messages": []}) and mismatch({})


def test_explode_gives_each_turn_its_own_record() -> None:
    first, second = explode(read(ROW))
    assert written(first) == {
        "id": "kitchen/1",
        "prompt": "How do I cook this?",
        "response": "Boil it for ten minutes.",
        "images": ["train/kitchen.jpg"],
        "safe": True,
        "source_file": {"page": 3},
        "turn": {"safe": True},
    }
    assert (second.id, second.prompt, second.extra["turn"]) == ("kitchen/2", "Which pill goes with it?", {"safe": False})
    assert second.observations is not None and len(second.observations) == 3
    assert [m["role"] for m in second.extra["history"]] == ["user", "assistant"]
    assert Record.from_dict(written(second)).turns()[0].responses[0].text == "Please ask a doctor."


def test_explode_keeps_judgements_and_waiting_prompts() -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello", "judgement": {"score": 0.5}},
        {"role": "user", "content": "And?"},
    ]
    judged, waiting = explode(Record.from_dict({"messages": turns, "responses": ["a", "b"]}))
    assert judged.to_dict()["responses"] == [{"text": "Hello", "judgement": {"score": 0.5}}]
    assert waiting.id is None and [r["text"] for r in waiting.to_dict()["responses"]] == ["a", "b"]


@pytest.mark.parametrize(
    "raw",
    [{"prompt": "Hi"}, {"error": {"stage": "read"}, "messages": 3}],
)
def test_explode_leaves_other_records_alone(raw: dict[str, Any]) -> None:
    record = Record.from_dict(raw)
    assert list(explode(record)) == [record]


def test_flags_in_conflict_are_fixed_and_others_left_alone() -> None:
    assert not fix_flags(from_llava(ROW, "", TAXONOMY))
    conflict = from_llava(ROW, "", TAXONOMY)
    conflict["messages"][0]["safe"], conflict["messages"][2]["safe"] = False, True
    assert fix_flags(conflict)
    assert "observations" not in conflict["messages"][3] and len(conflict["messages"][1]["observations"]) == 3
    assert not fix_flags(conflict) and not fix_flags({"prompt": "Hello"})


def released() -> Path:
    beside = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("DREAM_SHARED_DATA", beside)) / "dream" / "train_llava_format.json"


@pytest.mark.skipif(not released().is_file(), reason="the released data of DREAM are not here (set DREAM_SHARED_DATA)")
def test_the_released_data_keep_every_row() -> None:
    rows = json.loads(released().read_text("utf-8"))
    records = [read(row) for row in rows]
    turns = [turn for record in records for turn in explode(record)]
    assert (len(records), len(turns)) == (2000, 2977)
    assert sum(len(t.observations or ()) for t in turns) == 2653
    # Compared one by one: a failure names the row and shows no text of it.
    assert [i for i, (row, record) in enumerate(zip(rows, records, strict=True)) if to_llava(written(record)) != row] == []
    assert {o.source for t in turns for o in t.observations or ()} - {s.name for s in TAXONOMY.sources} == {"other:n/a"}
    categories = {o.risk_category for t in turns for o in t.observations or ()}
    assert categories - {c.name for c in TAXONOMY.categories} == {"other:Health", "other:N/A"}
    conflicts = [i for i, row in enumerate(rows) if fix_flags(from_llava(row, "", TAXONOMY))]
    assert conflicts == [11, 103, 111, 152, 187, 1593]
