"""Names and values of columns as data sets have them: what counts as a prompt or an image, roles, parts, and files that are no image."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from dream_cli.errors import ImageError
from dream_cli.records.access import Base
from dream_cli.records.columns import image_like, prompt_hint
from dream_cli.records.conversation import role_of
from dream_cli.records.image_bytes import kind_of, read_bytes
from dream_cli.records.parts import marked
from dream_cli.records.record import Image
from dream_cli.records.streams import to_record
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
        {"id": "e", "prompt": "x", "images": "['a.png' 'b.png']"},
        {"id": "f", "prompt": "x", "images": "[a.png, b.png]"},
    ]
    work.write("in.jsonl", rows)
    ran = work.dream("sample", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url)
    a, b, c, d, e, f = work.read("out.jsonl")
    assert (a["images"], b["image"][:22], c["images"]) == (["a.png", "b.png"], "data:image/png;base64,", ["b.png"])
    assert (d["images"], e["images"], f["images"]) == (["a.png"], ["a.png", "b.png"], "[a.png, b.png]")
    assert f["error"]["message"] == "in.jsonl:6: 'images' is a text that is neither a JSON nor a Python list; write it as JSON"
    assert ran.err.splitlines() == [
        "dream: in.jsonl:3: the column 'image' looks like an image and is not read; --image-column image reads it",
        f"dream sample: 1 of 6 rows got an error (1 invalid), see its `error` field; the first: {f['error']['message']}",
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


@pytest.mark.parametrize(
    "image",
    [
        {"url": "a.png"},
        {"url": "DATA"},
        {"path": "a.png"},
        {"path": None, "bytes": None, "url": "a.png"},
        {"image": "a.png"},
        {"image": {"bytes": None, "path": "a.png"}},
        {"image_url": {"url": "a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "DATA"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "BASE64"}},
        {"inline_data": {"mime_type": "image/png", "data": "BASE64"}},
        {"base64": "BASE64"},
        {"file_name": "a.png", "height": 16, "width": 16},
    ],
)
@pytest.mark.parametrize("column", ["images", "image"])
def test_an_image_as_an_object_is_read_as_in_a_part_of_a_message(image: Any, column: str, work: Workdir) -> None:
    data = (work.path / work.picture("a.png")).read_bytes()
    text = base64.b64encode(data).decode()
    image = json.loads(json.dumps(image).replace("DATA", f"data:image/png;base64,{text}").replace("BASE64", text))
    for value in (image, [image]):
        record = to_record({"prompt": "x", column: value}, "in.jsonl", 1, Base((str(work.path),)))
        assert record.error is None and [read_bytes(one) for one in record.images] == [data]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"url": "https://host/a.png"}, "is a URL, and URLs are not fetched"),
        ({"url": 5}, "images[0] is a number"),
        ({"id": 5}, "is an object"),
    ],
)
def test_an_object_without_an_image_is_an_error_as_its_value_would_be(image: Any, message: str, work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "x", "images": [image]}])
    assert message in work.dream("sample", "in.jsonl", "--base-url", server.url).rows[0]["error"]["message"]


SYSTEM = {"role": "system", "content": "Answer briefly."}


@pytest.mark.parametrize(
    ("row", "reported"),
    [
        ({"prompt": "x", "system": "Answer briefly."}, "system"),
        ({"prompt": "x", "System_Prompt": "Answer briefly."}, "System_Prompt"),
        ({"prompt": "x", "images": ["a.png"], "history": [["a", "b"]]}, "history"),
        ({"messages": [{"role": "user", "content": "x"}], "system": "Answer briefly."}, "system"),
        ({"messages": [SYSTEM, {"role": "user", "content": "x"}], "system": "Answer briefly."}, None),
        ({"prompt": "x", "system": ""}, None),
        ({"instruction": "x", "output": "y", "system": "Answer briefly."}, None),
    ],
)
def test_a_system_message_beside_the_prompt_is_named_once(
    row: dict[str, Any], reported: str | None, work: Workdir, server: Loopback
) -> None:
    work.picture("a.png")
    work.write("in.jsonl", [row | {"id": "a"}, row | {"id": "b"}])
    warning = "the column {!r} is not shown to a model; write it as the first of 'messages', the conversation"
    for ran in (work.dream("sample", "in.jsonl", "--base-url", server.url), work.dream("convert", "in.jsonl")):
        lines = [line for line in ran.err.splitlines() if "not shown to a model" in line]
        assert (ran.code, lines) == (0, [f"dream: in.jsonl:1: {warning.format(reported)}"] if reported else [])


@pytest.mark.parametrize(
    "form", ["{'bytes': None, 'path': 'a.png'}", '{"path": "a.png"}', "BYTES", "b'BASE64'", "image/png;base64,BASE64", "\n DATA"]
)
def test_an_image_that_a_table_holds_as_text_is_read(form: str, work: Workdir) -> None:
    data = (work.path / work.picture("a.png")).read_bytes()
    text = base64.b64encode(data).decode()
    value = form.replace("BASE64", text).replace("BYTES", repr(data)).replace("DATA", f"data:image/png;base64,{text}")
    for images in ({"image": value}, {"images": [value]}, {"images": value}):
        record = to_record({"prompt": "x", **images}, "in.jsonl", 1, Base((str(work.path),)))
        assert record.error is None and [read_bytes(one) for one in record.images] == [data]


def test_a_path_with_percent_signs_is_named(work: Workdir) -> None:
    work.picture("a b.png")
    with pytest.raises(ImageError, match="write its characters as they are: a b.png"):
        read_bytes(Image(str(work.path / "a%20b.png")))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("What is this? ![leaf](a.png)", "![leaf](a.png)"),
        ("Picture 1: <img>a.png</img>", "<img"),
        ('<IMG src="a.png"> What is this?', "<IMG"),
        ("What is in <image 1>?", "<image 1>"),
        ("[IMG] What is this?", "[IMG]"),
        ("What is in [1] and <b>this</b>, and what does a[i](x) mean?", None),
    ],
)
def test_a_picture_that_only_the_text_names_is_reported_once(text: str, shown: str | None, work: Workdir, server: Loopback) -> None:
    work.picture("a.png")
    rows: list[dict[str, Any]] = [{"id": "0", "prompt": text, "image": "a.png"}, {"id": "1", "prompt": text}, {"id": "2", "prompt": text}]
    rows.append({"id": "3", "messages": [{"role": "user", "content": text}]})
    warning = "dream: in.jsonl:{}: the text names a picture ({}) and the row has none; name it in 'images'\n"
    for count, line in ((4, 2), (1, None)):
        work.write("in.jsonl", rows[:count])
        ran = work.dream("sample", "in.jsonl", "--base-url", server.url)
        assert (ran.code, ran.err) == (0, warning.format(line, shown) if shown and line else "")


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]},
        {"conversations": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]},
    ],
)
def test_the_system_message_of_a_conversation_may_be_a_column(row: dict[str, Any], work: Workdir) -> None:
    work.write("in.jsonl", [row | {"system": "s"}])
    ran = work.dream("convert", "in.jsonl")
    assert [(m["role"], m["content"]) for m in ran.rows[0]["messages"]] == [("system", "s"), ("user", "x"), ("assistant", "y")]
    assert "not shown to a model" not in ran.err
