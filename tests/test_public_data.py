"""Rows of public data sets, imitated from the columns on their cards: read as they are, or with the option that the message names."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dream_cli.formats.converting import Conversion, convert
from dream_cli.formats.sources import Source, read_records
from dream_cli.records.columns import DEFAULT_READING, Reading
from dream_cli.records.images import size
from dream_cli.records.record import Record
from tests.conftest import Workdir

Json = dict[str, Any]
PICTURE = {"bytes": b"", "path": "fern.png"}  # its bytes are those of a picture made for the test


@dataclass(frozen=True)
class Case:
    """A data set: the file it is in, one of its rows, what is expected of the record, the images, and the columns that are named for it."""

    name: str
    file: str
    row: Json
    record: Json
    images: int = 1
    reading: Reading = DEFAULT_READING


def turn(role: str, content: Any) -> Json:
    return {"role": role, "content": content}


QUESTION, YES, NO = "What grows here?", "A fern grows in the shade.", "Nothing."
PAIR = {"prompt": QUESTION, "chosen": YES, "rejected": NO}
TWO = [{"text": NO, "model": "a"}, {"text": YES, "model": "b"}]
COMPARED = {
    "question": QUESTION,
    "image": PICTURE,
    "category": "plants",
    "image_severity": 0,
    "response_1": NO,
    "response_2": YES,
    "response_1_from": "a",
    "response_2_from": "b",
    "more_helpful_response_id": "2",
    "is_response_1_safe": "yes",
    "is_response_2_safe": "yes",
    "safer_response_id": "1",
    "response_1_harmless_rate": 1,
    "response_2_harmless_rate": 1,
    "response_1_helpful_rate": -1,
    "response_2_helpful_rate": 2,
}
RATINGS = {name: {"Rating": "4", "Rationale": "It is seen."} for name in ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")}
CHAT = [turn("user", QUESTION), turn("assistant", YES)]
WHOLE = {"chosen": CHAT, "rejected": [CHAT[0], turn("assistant", NO)]}
SEEN = [{"text": None, "type": "image"}, {"text": QUESTION, "type": "text"}]
ORIGIN = {"ds_name": "toy", "origin_dataset": "toy", "origin_split": "{}", "image_path": "fern.png"}

CASES = [
    Case("saferlhf-v/BeaverTails-V", "train.parquet", COMPARED, PAIR | {"responses": TWO, "safer_response_id": "1"}),
    Case(
        "PKU-Alignment/PKU-SafeRLHF-V",
        "train.parquet",
        {"question": QUESTION, "image": PICTURE, "category": "plants", "image_severity": 0, "response": YES, "is_response_safe": "yes"},
        {"prompt": QUESTION, "response": YES, "is_response_safe": "yes", "category": "plants"},
    ),
    Case(
        "PKU-Alignment/PKU-SafeRLHF",
        "train.jsonl",
        {"prompt": QUESTION, "response_0": YES, "response_1": NO, "response_0_source": "b", "response_1_source": "a"}
        | {"is_response_0_safe": True, "is_response_1_safe": False, "better_response_id": 1, "safer_response_id": 0},
        PAIR | {"responses": TWO[::-1], "better_response_id": 1},
        images=0,
    ),
    Case(
        "sqrti/SPA-VL",
        "train.parquet",
        {"image": PICTURE, "question": QUESTION, "chosen": YES, "rejected": NO, "image_name": "fern.png"},
        PAIR | {"image_name": "fern.png"},
    ),
    Case(
        "openbmb/RLHF-V-Dataset",
        "RLHF-V-Dataset.parquet",
        ORIGIN | {"image": PICTURE, "idx": 0, "text": json.dumps({"question": QUESTION, "chosen": YES, "rejected": NO})},
        PAIR | {"ds_name": "toy", "idx": 0},
    ),
    Case(
        "openbmb/RLAIF-V-Dataset",
        "train.parquet",
        ORIGIN | {"image": PICTURE, "idx": "0", "question": QUESTION, "chosen": YES, "rejected": NO},
        PAIR | {"origin_dataset": "toy", "idx": "0"},
    ),
    Case(
        "MMInstruction/VLFeedback",
        "train.parquet",
        {"id": "toy-1", "prompt": QUESTION, "models": ["a", "b"], "img_path": "fern.png"}
        | {"completions": {"annotations": [RATINGS, RATINGS], "model": ["a", "b"], "response": [NO, YES]}},
        {"id": "toy-1", "prompt": QUESTION, "responses": [response | {"annotations": RATINGS} for response in TWO]},
    ),
    Case(
        "ys-zong/VLGuard",
        "train.json",
        {"id": "toy", "image": "fern.png", "safe": True}
        | {"instr-resp": [{"safe_instruction": QUESTION, "response": YES}, {"unsafe_instruction": "Dig it up.", "response": NO}]},
        {"id": "toy", "safe": True}
        | {"messages": [CHAT[0] | {"safe": True}, CHAT[1], turn("user", "Dig it up.") | {"safe": False}, turn("assistant", NO)]},
    ),
    Case(
        "PKU-Alignment/MM-SafetyBench",
        "SD.parquet",
        {"id": "0", "question": QUESTION, "image": PICTURE},
        {"id": "0", "prompt": QUESTION},
        reading=Reading(prompt_column="question"),
    ),
    Case(
        "felfri/MSTS",
        "english.parquet",
        {"hazard_category": "Plants", "case_id": "P1", "case_text": "digging it up", "unsafe_image_id": "P1_1", "prompt_text": QUESTION}
        | {"prompt_type": "assistance", "unsafe_image_url": "https://example.org/fern.png", "unsafe_image": PICTURE},
        {"prompt": QUESTION, "case_id": "P1"},
        reading=Reading(prompt_column="prompt_text", image_column="unsafe_image"),
    ),
    Case(
        "etri-vilab/holisafe-bench",
        "holisafe_bench.json",
        {"id": 1, "image": "fern.png", "query": QUESTION, "category": "plants", "subcategory": "ferns", "type": "SSS", "image_safe": True},
        {"id": 1, "prompt": QUESTION, "type": "SSS"},
        reading=Reading(prompt_column="query"),
    ),
    Case(
        "Foreshhh/vlsbench",
        "data.json",
        {"instruction_id": 0, "instruction": QUESTION, "image_path": "fern.png", "category": "plants", "safety_reason": "harmless"},
        {"prompt": QUESTION, "instruction_id": 0},
        reading=Reading(prompt_column="instruction", image_column="image_path"),
    ),
    Case(
        "liuhaotian/LLaVA-Instruct-150K",
        "llava_instruct_150k.json",
        {"id": "1", "image": "fern.png"}
        | {"conversations": [{"from": "human", "value": f"{QUESTION}\n<image>"}, {"from": "gpt", "value": YES}]},
        {"id": "1", "messages": [CHAT[0] | {"image_tag": {"tail": "\n<image>"}}, CHAT[1]]},
    ),
    Case(
        "lmms-lab/LLaVA-OneVision-Data",
        "train.parquet",
        {"id": "1", "image": PICTURE, "data_source": "toy"}
        | {"conversations": [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": YES}]},
        {"id": "1", "messages": CHAT, "data_source": "toy"},
    ),
    Case(
        "HuggingFaceH4/ultrafeedback_binarized",
        "train_prefs.parquet",
        WHOLE | {"prompt": QUESTION, "prompt_id": "f0", "messages": CHAT, "score_chosen": 8.5, "score_rejected": 2.0},
        PAIR | {"prompt_id": "f0", "score_chosen": 8.5},
        images=0,
    ),
    Case(
        "HuggingFaceH4/rlaif-v_formatted",
        "train.parquet",
        {"images": [PICTURE], "prompt": [turn("user", SEEN)]}
        | {side: [turn("assistant", [{"text": text, "type": "text"}])] for side, text in (("chosen", YES), ("rejected", NO))},
        PAIR,
    ),
    Case(
        "llamafactory/RLHF-V",
        "rlhf-v.json",
        {"conversations": [{"from": "human", "value": f"<image>{QUESTION}"}], "images": ["fern.png"]}
        | {"chosen": {"from": "gpt", "value": YES}, "rejected": {"from": "gpt", "value": NO}},
        PAIR,
    ),
    Case(
        "distilabel, task UltraFeedback",
        "train.parquet",
        {"instruction": QUESTION, "generations": [NO, YES], "model_names": ["a", "b"], "ratings": [1, 5], "rationales": ["short", None]}
        | {"distilabel_metadata": {"raw_output_ultra_feedback_0": "..."}, "model_name": "c"},
        {"prompt": QUESTION, "responses": [TWO[0] | {"rating": 1, "rationale": "short"}, TWO[1] | {"rating": 5}], "model_name": "c"},
        images=0,
    ),
    Case(
        "argilla, Record.to_dict",
        "records.jsonl",
        {"id": "1", "fields": {"image": "fern.png", "instruction": QUESTION, "response": YES}, "metadata": {"origin": "toy"}, "vectors": {}}
        | {"suggestions": {"good": {"value": "yes", "score": 0.9}}, "responses": {"good": [{"value": "yes", "user_id": "u"}]}},
        {"id": "1", "prompt": QUESTION, "response": YES}
        | {
            "annotations": {
                "suggestions": {"good": {"value": "yes", "score": 0.9}},
                "responses": {"good": [{"value": "yes", "user_id": "u"}]},
            }
            | {"metadata": {"origin": "toy"}}
        },
    ),
    Case(
        "OpenRLHF/prompt-collection-v0.1",
        "train.jsonl",
        {"dataset": "toy", "context_messages": [CHAT[0]], "source": "toy"},
        {"prompt": QUESTION, "dataset": "toy"},
        images=0,
    ),
    Case(
        "OpenRLHF-M",
        "train.jsonl",
        {
            "message": json.dumps([turn("user", [{"type": "image", "image": "fern.png"}, {"type": "text", "text": QUESTION}])]),
            "answer": "fern",
        },
        {"prompt": QUESTION, "answer": "fern"},
    ),
    Case(
        "Anthropic/hh-rlhf",
        "train.jsonl",
        {side: f"\n\nHuman: {QUESTION}\n\nAssistant: {text}" for side, text in (("chosen", YES), ("rejected", NO))},
        PAIR,
        images=0,
    ),
    Case(
        "HuggingFaceM4/FineVision",
        "train.parquet",
        {"images": [PICTURE], "texts": [{"user": QUESTION, "assistant": YES}], "source": "toy", "relevance_ratings": [5]},
        {"messages": CHAT, "source": "toy", "relevance_ratings": [5]},
    ),
    Case(
        "HuggingFaceM4/the_cauldron",
        "train.parquet",
        {"images": [PICTURE], "texts": [{"user": QUESTION, "assistant": YES, "source": "toy"}]},
        {"messages": [CHAT[0] | {"source": "toy"}, CHAT[1]]},
    ),
    Case(
        "lmsys/lmsys-chat-1m",
        "train.parquet",
        {"conversation_id": "c", "model": "b", "conversation": CHAT, "turn": 1, "language": "English", "redacted": False},
        {"messages": CHAT, "conversation_id": "c", "model": "b"},
        images=0,
    ),
    Case(
        "YiyangAiLab/POVID_preference_data_for_VLLMs",
        "povid.json",
        {"id": "1", "image": "fern.png"}
        | {
            column: [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": text}]
            for column, text in (("conversations", YES), ("rejected_conversations", NO))
        },
        {"id": "1"} | PAIR,
    ),
    Case(
        "HuggingFaceH4/llava-instruct-mix-vsft",
        "train.parquet",
        {"images": [PICTURE]}
        | {
            "messages": [
                turn("user", [{"index": None, "text": QUESTION, "type": "text"}, {"index": 0, "text": None, "type": "image"}]),
                turn("assistant", [{"index": None, "text": YES, "type": "text"}]),
            ]
        },
        {"messages": [CHAT[0] | {"image_tag": {"tail": "<image>"}}, CHAT[1]]},
    ),
    Case(
        "allenai/wildguardmix",
        "train.jsonl",
        {"prompt": QUESTION, "adversarial": False, "response": YES, "prompt_harm_label": "unharmful", "subcategory": "benign"},
        {"prompt": QUESTION, "response": YES, "prompt_harm_label": "unharmful"},
        images=0,
    ),
    Case(
        "HuggingFaceM4/ChartQA",
        "train.parquet",
        {"image": PICTURE, "query": QUESTION, "label": ["14"], "human_or_machine": 0},
        {"prompt": QUESTION, "label": ["14"]},
        reading=Reading(prompt_column="query"),
    ),
    Case(
        "MMMU/MMMU",
        "dev.parquet",
        {"id": "dev_Art_1", "question": QUESTION, "options": "['a', 'b']", "image_1": PICTURE, "image_2": None, "answer": "B"},
        {"id": "dev_Art_1", "prompt": QUESTION, "answer": "B"},
        reading=Reading(prompt_column="question", image_column="image_1"),
    ),
    Case(
        "VLMEvalKit, MMBench",
        "MMBench_DEV_EN.tsv",
        {
            "index": "7",
            "image": "BASE64",
            "question": QUESTION,
            "hint": "Look down.",
            "A": "Ferns",
            "B": "7",
            "answer": "A",
            "category": "plants",
        },
        {"id": 7, "answer": "A", "category": "plants"}
        | {
            "prompt": f"Hint: Look down.\nQuestion: {QUESTION}\nOptions:\nA. Ferns\nB. 7\nPlease select the correct answer from the options above."
        },
    ),
]


def written(folder: Path, case: Case) -> str:
    """Write the row of a case as the file of its data set, beside a picture."""
    work = Workdir(folder)
    work.picture("fern.png")
    data = (folder / "fern.png").read_bytes()
    path = folder / case.file
    row = json.loads(json.dumps(case.row, default=lambda _: None))
    if case.file.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist([filled(case.row, data)]), path)
    elif case.file.endswith(".tsv"):
        cells = {name: base64.b64encode(data).decode() if cell == "BASE64" else cell for name, cell in row.items()}
        path.write_text("\t".join(cells) + "\n" + "\t".join(cells.values()) + "\n")
    else:
        path.write_text(json.dumps([row]) if case.file.endswith(".json") else json.dumps(row) + "\n")
    return str(path)


def filled(value: Any, data: bytes) -> Any:
    """Return a row with the bytes of the picture in its image structs."""
    if value == PICTURE:
        return {"bytes": data, "path": "fern.png"}
    if isinstance(value, dict):
        return {name: filled(part, data) for name, part in value.items()}
    return [filled(part, data) for part in value] if isinstance(value, list) else value


def converted(path: str, reading: Reading) -> tuple[list[Record], str]:
    out = f"{path}.records.jsonl"
    receipt = convert(Source(path, reading), out, Conversion())
    return list(read_records(out)), receipt.report("dream")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_first_row_of_a_public_data_set_is_read(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, case)
    if case.reading != DEFAULT_READING:
        # Without the options it is an error whose message names the prompt column, and the image column if it is not `image`.
        (record,), report = converted(path, DEFAULT_READING)
        assert record.error is not None and f"--prompt-column {case.reading.prompt_column} (" in record.error.message
        if case.reading.image_column is not None:
            assert f"--image-column {case.reading.image_column} reads it" in capsys.readouterr().err
    (record,), report = converted(path, case.reading)
    assert record.error is None, report
    row = record.to_dict()
    assert {name: row.get(name) for name in case.record} == case.record
    assert [size(image) for image in record.images] == [(16, 16)] * case.images
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_first_row_of_a_public_data_set_is_read_without_convert(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, case)
    _, report = converted(path, case.reading)
    name = report.partition("rows read: 1 ")[2].partition(";")[0]
    capsys.readouterr()
    (record,) = read_records(path, case.reading)
    assert record.error is None
    assert [size(image) for image in record.images] == [(16, 16)] * case.images
    # A row that is a record of ours as it stands keeps its form and its columns.
    if note := capsys.readouterr().err:
        assert note == f"dream: {record.place}: a row of {name} is read as `dream convert` reads it\n"
        row = record.to_dict()
        assert {field: row.get(field) for field in case.record} == case.record
    else:
        assert name in ("dream", "trl") and record.turns()[0].prompt == QUESTION
