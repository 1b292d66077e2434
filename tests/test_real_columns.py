"""Names and values of columns as data sets have them: what counts as a prompt or an image, roles, parts, and files that are no image."""

from __future__ import annotations

from typing import Any

import pytest

from dream_cli.errors import ImageError
from dream_cli.records.columns import image_like, prompt_hint
from dream_cli.records.conversation import role_of
from dream_cli.records.image_bytes import kind_of, read_bytes
from dream_cli.records.parts import marked
from dream_cli.records.record import Image
from tests.conftest import Workdir
from tests.loopback import Loopback
from tests.record_files import png


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"id": "0001.jpg", "prompt": "What is in a.png?", "source": "coco/0001.jpg"}, "source"),
        ({"jpg": "a.jpg"}, "jpg"),
        ({"IMAGE": "a b.png"}, "IMAGE"),
        ({"decodedImage": {"bytes": b"x", "path": None}}, "decodedImage"),
        ({"image_base64": "iVBORw0KGgoAAAANSUhEUgAA"}, "image_base64"),
        ({"note": "iVBORw0KGgoAAAANSUhEUgAA"}, None),
        ({"response": "a.png", "note": "see a.png", "tags": ["a", "b"], "image_count": 2}, None),
    ],
)
def test_a_column_looks_like_an_image_by_its_name_or_by_a_path(row: dict[str, Any], column: str | None) -> None:
    assert image_like(row) == column


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"text": "a", "question": "b"}, "question"),
        ({"Question": "a", "Answer": "b"}, "Question"),
        ({"prompt_type": "a", "user_prompt": "b", "category": "c"}, "user_prompt"),
        ({"jailbreakQuery": "a", "target": "b"}, "jailbreakQuery"),
        ({"id": "x", "goal": "a", "image": "a.png", "n": 3}, "goal"),
        ({"goal_id": "a", "Behavior": "b"}, "Behavior"),
        ({"doc": "a"}, None),
        ({"response": "a"}, None),
    ],
)
def test_the_likely_prompt_is_named_in_messages(row: dict[str, Any], column: str | None) -> None:
    assert prompt_hint(row) == column


def test_roles_have_the_names_of_other_tools_in_any_case() -> None:
    names = ["User", "human", "gpt", "MODEL", "bot", "developer", "function", "narrator", None, 3]
    assert [role_of(name) for name in names] == ["user", "user", "assistant", "assistant", None, "system", "tool", None, None, None]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "data": "iVBO", "mimeType": "image/png"},
        {"inline_data": {"mime_type": "image/png", "data": "iVBO"}},
        {"inlineData": {"mimeType": "image/png", "data": "iVBO"}},
        {"type": "image", "source": {"type": "base64", "data": "iVBO"}},
    ],
)
def test_parts_of_gemini_and_mcp_hold_images(part: dict[str, Any]) -> None:
    assert marked([part, {"text": "hi"}], "x") == ("<image>hi", ["data:image/png;base64,iVBO"])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x93NUMPY\x01\x00", "a NumPy array; save it as PNG"),
        (b"\x00" * 128 + b"DICM", "DICOM; convert it to PNG"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "a video; extract a frame as PNG"),
        (b"a.txt".ljust(257, b"\x00") + b"ustar", "a tar archive; unpack it"),
    ],
)
def test_a_file_that_is_no_image_is_named_by_its_kind(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind


@pytest.mark.parametrize(
    ("path", "fix"),
    [
        ("img\\a.png", "write its folders with / in place of \\"),
        ("gone.png ", "remove the space at its beginning or end"),
        ("/data/~/a.png", "~ is not read as the home folder; write the whole path"),
    ],
)
def test_a_path_of_another_system_is_named(path: str, fix: str) -> None:
    with pytest.raises(ImageError) as refused:
        read_bytes(Image(path))
    assert str(refused.value) == f"image {path} does not exist; {fix}"


def test_images_as_json_text_or_numbers_are_sent_and_a_second_column_is_named(work: Workdir, server: Loopback) -> None:
    for name in ("a.png", "b.png"):
        work.picture(name)
    rows: list[dict[str, Any]] = [
        {"id": "a", "prompt": "x", "images": '["a.png", "b.png"]'},
        {"id": "b", "prompt": "x", "image": list(png())},
        {"id": "c", "prompt": "x", "image": "a.png", "images": ["b.png"]},
        {"id": "d", "prompt": "x", "images": "a.png"},
    ]
    work.write("in.jsonl", rows)
    ran = work.dream("sample", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url)
    a, b, c, d = work.read("out.jsonl")
    assert (a["images"], b["image"][:22], c["images"]) == (["a.png", "b.png"], "data:image/png;base64,", ["b.png"])
    assert d["error"]["message"] == "in.jsonl:4: 'images' is a string, not a list" and d["images"] == "a.png"
    assert ran.err.splitlines() == [
        "dream: in.jsonl:3: the column 'image' looks like an image and is not read; --image-column image reads it",
        f"dream sample: 1 of 4 rows got an error (1 invalid), see its `error` field; the first: {d['error']['message']}",
    ]


def test_a_named_column_that_the_first_row_lacks_is_reported_once(work: Workdir, server: Loopback) -> None:
    work.picture("a.png")
    rows = [{"id": str(n), "prompt": "x", "images": ["a.png"], "harmful": True} for n in range(3)]
    work.write("in.jsonl", rows)
    (work.path / "in.csv").write_text("id,prompt,image\n1,x,a.png\n")
    typo = "dream: {}: no column 'imges' (--image-column); did you mean 'images'?\n"
    far = "dream: {}: no column 'pixels' (--image-column); there are 'id', 'prompt', 'image'\n"
    url = ("--base-url", server.url, "--no-store")
    assert work.dream("sample", "in.jsonl", "--image-column", "imges", *url).err == typo.format("in.jsonl:1")
    assert work.dream("sample", "in.csv", "--image-column", "pixels", *url).err == far.format("in.csv:2")
    assert work.dream("convert", "in.jsonl", "--image-column", "imges").err.startswith(typo.format("in.jsonl:1"))
    assert work.dream("convert", "in.jsonl", "-o", "in.parquet").code == 0
    for name in ("in.jsonl", "in.parquet"):
        viewed = work.dream("view", name, "--image-column", "imges", "--json")
        assert (viewed.err, viewed.rows[0]["images"]["n"]) == (typo.format(name), 3)
    prompt = work.dream("sample", "in.jsonl", "--prompt-column", "promt", *url)
    assert prompt.err == "dream: in.jsonl:1: no column 'promt' (--prompt-column); did you mean 'prompt'?\n"
    assert work.dream("sample", "in.jsonl", "--image-column", "images", *url).err == ""
    labels = work.dream("eval", "in.jsonl", "--harmful-column", "harmfull", *url)
    assert (labels.code, labels.err.strip().rpartition("; ")[2]) == (2, "did you mean --harmful-column harmful?")
