"""What is read besides files of records: folders of pictures, image folders, WebDataset, tables of tabs and rows of other dialects."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dream_cli.errors import InvalidRecord, UsageError
from dream_cli.formats.converting import Conversion, Receipt, convert
from dream_cli.formats.sources import Source, read_records
from dream_cli.records.images import size
from dream_cli.records.pair import Pair
from dream_cli.records.record import Record
from dream_cli.records.shards import expanded
from tests.conftest import Workdir
from tests.loopback import Loopback

Json = dict[str, Any]


def converted(source: Path | str, **options: Any) -> tuple[list[Record], Receipt]:
    """Convert a source in this process and return its records and the receipt."""
    out = f"{source}.records.jsonl"
    receipt = convert(Source(str(source), **options), out, Conversion())
    return list(read_records(out)), receipt


def sizes(records: list[Record]) -> list[list[tuple[int, int]]]:
    return [[size(image) for image in record.images] for record in records]


# Pictures


@pytest.fixture
def folder(work: Workdir) -> Path:
    """A folder of pictures with other files among them."""
    for place in ("img/more", "img/.cache"):
        (work.path / place).mkdir(parents=True)
    for name in ("img/b.png", "img/a.png", "img/more/c.jpg", "img/.cache/d.png"):
        work.picture(name)
    (work.path / "img" / "notes.txt").write_text("To do.")
    (work.path / "img" / "late.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    return work.path / "img"


def test_a_folder_of_pictures_becomes_a_record_for_each(work: Workdir, folder: Path) -> None:
    ran = work.dream("convert", "img/", "--prompt", "What is this?", "-o", "set/records.jsonl")
    assert ran.code == 2 and "set does not exist" in ran.err
    ran = work.dream("convert", "img/", "--prompt", "What is this?", "-o", "records.jsonl")
    assert ran.code == 0
    assert work.read("records.jsonl") == [
        {"id": name, "prompt": "What is this?", "images": [f"img/{name}"]} for name in ("a.png", "b.png", "more/c.jpg")
    ]
    assert ran.err.splitlines() == [
        "dream convert: rows read: 3 dream; written as dream: 3",
        "dream convert: files that are skipped: 2; the first: image img/late.png is a Git LFS pointer, not the image itself;"
        " fetch the file with git lfs pull".replace("img/late.png", str(folder / "late.png")),
    ]


def test_pictures_need_a_prompt_and_a_folder_without_any_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"or the prompt of its pictures with --prompt TEXT"):
        converted(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="is a folder without pictures"):
        converted(tmp_path / "empty", prompt="What is this?")


def test_a_picture_behind_a_link_that_leaves_the_folder_is_skipped(folder: Path, work: Workdir) -> None:
    os.symlink(work.path / work.picture("outside.png"), folder / "link.png")
    records, receipt = converted(folder, prompt="What is this?")
    assert [record.id for record in records] == ["a.png", "b.png", "more/c.jpg"]
    assert receipt.skipped == 3


# Image folders


ROWS = [{"file_name": "a.png", "text": "A leaf."}, {"file_name": "more/c.jpg", "text": "A fern, seen from below."}]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_an_image_folder_names_its_pictures(folder: Path, name: str) -> None:
    lines = ["file_name,text", "a.png,A leaf.", 'more/c.jpg,"A fern, seen from below."'] if name.endswith("csv") else map(json.dumps, ROWS)
    (folder / name).write_text("\n".join(lines))
    for source in (folder, folder / name):
        (record, _), receipt = converted(source)
        assert record.error is not None and "'text' may be the prompt: --prompt-column text" in record.error.message
        records, receipt = converted(source, prompt="What is this?")
        assert not receipt.errors
        assert [(record.prompt, record.extra["text"]) for record in records] == [("What is this?", row["text"]) for row in ROWS]
        assert sizes(records) == [[(16, 16)], [(16, 16)]]


def test_the_splits_of_an_image_folder_are_folders(work: Workdir) -> None:
    for split in ("train", "test"):
        (work.path / "set" / split).mkdir(parents=True)
        work.picture(f"set/{split}/{split}.png")
        work.write(f"set/{split}/metadata.jsonl", [{"file_name": f"{split}.png", "prompt": split}])
    with pytest.raises(UsageError, match="has the splits test, train; name one with --split"):
        converted(work.path / "set")
    records, _ = converted(work.path / "set", split="train")
    assert [record.prompt for record in records] == ["train"] and sizes(records) == [[(16, 16)]]


# WebDataset


def packed(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members.items() if isinstance(members, dict) else members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def png(work: Workdir) -> bytes:
    return (work.path / work.picture("one.png")).read_bytes()


@pytest.mark.parametrize("name", ["shard-000.tar", "shard-000.tar.gz"])
def test_the_members_of_one_key_are_one_record(tmp_path: Path, png: bytes, name: str) -> None:
    members = {
        "a/1.png": png,
        "a/1.json": json.dumps({"prompt": "What is this?", "source": "toy"}).encode(),
        "a/2.json": json.dumps({"conversations": [{"from": "human", "value": "Look: <image> and <image>"}], "image": "gone.png"}).encode(),
        "a/2.0.png": png,
        "a/2.1.png": png,
        "a/3.txt": b"What grows here?\n",
        "a/3.png": png,
        "a/4.mp4": b"\0",
        "a/5.png": png,
        "a/5.json": b"{",
    }
    records, receipt = converted(packed(tmp_path / name, members))
    assert [(record.id, record.prompt) for record in records[:3:2]] == [("a/1", "What is this?"), ("a/3", "What grows here?")]
    assert records[0].extra["source"] == "toy"
    assert [(place.image, place.at) for place in records[1].messages[0].places] == [(0, 6), (1, 11)]
    assert sizes(records[:3]) == [[(16, 16)], [(16, 16)] * 2, [(16, 16)]]
    assert records[3].error is not None and records[3].error.message.startswith(f"{tmp_path / name}:4: a/5.json is not JSON: ")
    assert len(records) == 4 and receipt.errors.total() == 1
    assert (receipt.skipped, receipt.first_skipped) == (1, f"{tmp_path / name}: a/4.mp4 is not a picture, JSON or text")


def test_a_prompt_replaces_the_texts_of_samples(tmp_path: Path, png: bytes) -> None:
    tar = packed(tmp_path / "a.tar", {"1.png": png, "1.txt": b"A fern."})
    records, _ = converted(tar, prompt="What is this?")
    assert [(record.prompt, record.extra["txt"]) for record in records] == [("What is this?", "A fern.")]


def test_a_tar_that_breaks_off_gives_its_samples_and_an_error(tmp_path: Path, png: bytes) -> None:
    tar = packed(tmp_path / "a.tar", {"1.txt": b"One?", "1.png": png, "2.txt": b"Two?", "2.png": os.urandom(40_000)})
    tar.write_bytes(tar.read_bytes()[:20_000])
    records, _ = converted(tar)
    assert records[0].prompt == "One?" and records[-1].error is not None
    assert "the file is truncated or damaged here" in records[-1].error.message
    (tmp_path / "b.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(UsageError, match=r"b.tar is not a tar file"):
        converted(tmp_path / "b.tar")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_sample_whose_members_are_not_adjacent_is_one_error_that_names_it(tmp_path: Path, png: bytes, name: str) -> None:
    members = [
        ("1.png", png),
        ("2.png", png),
        ("1.txt", b"One?"),
        ("3.png", png),
        ("3.txt", b"Three?"),
        ("4.txt", b"Four?"),
        ("1.json", b"{}"),
    ]
    records, receipt = converted(packed(tmp_path / name, members))
    assert [(record.id or record.extra["id"], record.prompt) for record in records] == [
        ("1", None),
        ("2", None),
        ("3", "Three?"),
        ("4", "Four?"),
    ]
    assert records[0].error is not None and records[0].error.message == (
        f"{tmp_path / name}:1: the members of the sample 1 are not adjacent in the tar file; pack its files in the order of their names"
        " (tar --sort=name -cf NEW.tar -C FOLDER .)"
    )
    assert receipt.errors.total() == 2


def test_a_member_that_is_packed_twice_is_an_error_of_its_sample(tmp_path: Path, png: bytes) -> None:
    members = [("1.txt", b"One?"), ("1.png", png), ("1.png", png), ("2.txt", b"Two?"), ("2.png", png)]
    first, second = converted(packed(tmp_path / "a.tar", members))[0]
    assert first.error is not None and "the sample 1 has two members 1.png; pack each file once" in first.error.message
    assert second.prompt == "Two?" and second.error is None


def test_a_folder_of_shards_is_read_in_order(work: Workdir, png: bytes) -> None:
    (work.path / "set").mkdir()
    for number in (1, 0):
        packed(work.path / "set" / f"{number}.tar", {f"{number}.png": png, f"{number}.txt": b"Which?"})
    records, _ = converted(work.path / "set")
    assert [record.id for record in records] == ["0", "1"]


# Tables of tabs


def test_a_cell_of_images_is_base64_a_list_or_the_index_of_another_row(tmp_path: Path, png: bytes) -> None:
    image = base64.b64encode(png).decode()
    lines = [
        "index\timage\tquestion\tanswer",
        f"0\t{image}\tWhat is this?\t7",
        f'1\t{[image, image]}\t"Which of\nthe two?"\tnull',
        "2\t0\tAnd this?\t",
        "3\t99\tAnd that?\t",
    ]
    (tmp_path / "set.tsv").write_text("\n".join(lines) + "\n")
    records, _ = converted(tmp_path / "set.tsv")
    assert [(record.id, record.prompt) for record in records[:3]] == [
        ("0", "What is this?"),
        ("1", "Which of\nthe two?"),
        ("2", "And this?"),
    ]
    assert [record.extra.get("answer") for record in records[:3]] == ["7", "null", None]
    assert sizes(records[:3]) == [[(16, 16)], [(16, 16)] * 2, [(16, 16)]]


@pytest.mark.parametrize("name", ["set.csv", "set.tsv"])
def test_a_cell_that_is_too_long_is_an_error_of_its_row(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream_cli.formats.csv.MAX_LINE", 100)
    tab = "\t" if name == "set.tsv" else ","
    (tmp_path / name).write_text(f"id{tab}prompt\na{tab}Hi\nb{tab}{'x' * 200}\nc{tab}Ho\n")
    records, receipt = converted(tmp_path / name)
    assert [record.prompt for record in records] == ["Hi", None, "Ho"] and receipt.errors == {"unreadable": 1}
    assert records[1].error is not None and ":3: not CSV: field larger than field limit (100)" in records[1].error.message


@pytest.mark.parametrize("name", ["set.csv", "set.tsv"])
@pytest.mark.parametrize(
    ("lines", "prompts", "fault"),
    [
        (['1,"How?', "2,Hi", '3,"Ho, ho"'], [None, "Hi", "Ho, ho"], "',' expected after '\"'"),
        (["1,Hi", '2,"How?', "3,Ho"], ["Hi", None, "Ho"], "unexpected end of data"),
        (['1,"say "hi" now"', "2,Hi"], [None, "Hi"], "',' expected after '\"'"),
        (['1,"a "" quote"', '2,"two\nlines"', "", "3,Hi"], ['a " quote', "two\nlines", "Hi"], ""),
    ],
)
def test_a_quote_that_is_not_closed_costs_its_own_line_alone(
    lines: list[str], prompts: list[str | None], fault: str, name: str, tmp_path: Path
) -> None:
    tab = name == "set.tsv"
    text = "\n".join(["id,prompt", *lines]) + "\n"
    (tmp_path / name).write_text(text.replace("Ho, ho", "Ho; ho").replace(",", "\t").replace("Ho; ho", "Ho, ho") if tab else text)
    records, receipt = converted(tmp_path / name)
    assert [record.prompt for record in records] == prompts
    assert receipt.errors == ({"unreadable": 1} if fault else {})
    message = "".join(record.error.message for record in records if record.error is not None)
    assert f"not CSV: {fault.replace(',', chr(9)) if tab else fault}" in message or not fault


def test_an_image_is_found_by_its_row_after_a_line_that_cannot_be_split(tmp_path: Path, png: bytes) -> None:
    image = base64.b64encode(png).decode()
    lines = ["index\timage\tquestion", '0\t\t"open', f"1\t{image}\tWhat is this?", "2\t1\tAnd this?"]
    (tmp_path / "set.tsv").write_text("\n".join(lines) + "\n")
    records, _ = converted(tmp_path / "set.tsv")
    assert [record.prompt for record in records] == [None, "What is this?", "And this?"]
    assert sizes(records[1:]) == [[(16, 16)], [(16, 16)]]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_csv_may_be_separated_by_semicolons_or_tabs(delimiter: str, tmp_path: Path) -> None:
    lines = ["\ufeffid,prompt", 'a,"Hi; you\tthere"', "b,Ho", "c,x,y"]
    (tmp_path / "set.csv").write_text("\n".join(lines).replace(",", delimiter) + "\n")
    records, _ = converted(tmp_path / "set.csv")
    assert [(record.id, record.prompt) for record in records[:2]] == [("a", "Hi; you\tthere"), ("b", "Ho")]
    fault = records[2].error
    assert fault is not None and f"put a cell with a {'semicolon' if delimiter == ';' else 'tab'} in quotes" in fault.message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_csv_in_utf_16_is_refused_by_name(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_bytes("\ufeffid,prompt\na,Hi\n".encode(encoding))
    with pytest.raises(UsageError, match=r"set.csv is UTF-16; save it as UTF-8"):
        converted(tmp_path / "set.csv")


def test_a_first_line_with_an_open_quote_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text('id,"prompt\n1,Hi\n')
    with pytest.raises(UsageError, match=r"its first line, which names the columns, is not CSV: unexpected end of data"):
        converted(tmp_path / "set.csv")


# In a stage


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Hi"}, "missing field 'prompt' (or 'messages', a conversation); 'question' may be it: --prompt-column question"),
        ({"doc": "Hi"}, "missing field 'prompt' (or 'messages', a conversation); `dream convert` reads rows of other forms"),
        ({"prompt": [{"role": "boss", "content": "Hi"}]}, "prompt[0] has no 'role' of system, user, assistant, developer, tool"),
        ({"instr-resp": [{}]}, "instr-resp[0] has none of 'safe_instruction', 'unsafe_instruction', 'instruction'"),
    ],
)
def test_the_fault_of_a_row_is_reported_with_its_place(row: Json, message: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    (record,) = read_records(str(tmp_path / "in.jsonl"))
    assert record.error is not None and record.error.message == f"{tmp_path / 'in.jsonl'}:1: {message}"


def test_rows_of_another_dialect_are_read_by_a_stage_and_reported_once(work: Workdir, png: bytes, server: Loopback) -> None:
    rows = [{"id": n, "image": "one.png", "instr-resp": [{"instruction": f"What is {n}?", "response": "A leaf."}]} for n in "ab"]
    work.write(
        "in.jsonl", [*rows, {"id": "c", "prompt": "Ours?", "response": "No."}, {"id": "d", "prompt": "Theirs?", "completion": "Yes."}]
    )
    ran = work.dream("judge", "in.jsonl", "--base-url", server.url, "--no-store")
    assert ran.code == 0
    assert [[m["content"] for m in row["messages"]] for row in ran.rows[:2]] == [["What is a?", "A leaf."], ["What is b?", "A leaf."]]
    assert [row["images"] for row in ran.rows[:2]] == [[str(work.path / "one.png")]] * 2
    assert ran.rows[3]["completion"] == "Yes."
    assert [[response["text"] for response in row["responses"]] for row in ran.rows[2:]] == [["No."], ["Yes."]]
    notes = [line for line in ran.err.splitlines() if " read as " in line]
    assert notes == [
        "dream: in.jsonl:1: a row of vlguard is read as `dream convert` reads it",
        "dream: in.jsonl:4: the column 'completion' is read as the response",
    ]
    work.write("out.jsonl", ran.rows)
    again = work.dream("judge", "out.jsonl", "--base-url", server.url, "--no-store")
    assert again.rows == ran.rows and " read as " not in again.err


def test_a_stage_reads_tables_and_image_folders(work: Workdir, folder: Path, png: bytes, server: Loopback) -> None:
    image = base64.b64encode(png).decode()
    (work.path / "set.tsv").write_text(f"index\timage\tquestion\tA\tanswer\n1\t{image}\tWhich?\tThis\tA\n")
    (folder / "metadata.csv").write_text("file_name,prompt\na.png,Which?\n")
    packed(work.path / "shard.tar", {"1.png": png, "1.txt": b"Which?"})
    for number, source in enumerate(("set.tsv", "img", "img/metadata.csv", "shard.tar"), 1):
        ran = work.dream("sample", source, "--base-url", server.url, "--no-store", "-q")
        assert (ran.code, server.calls) == (0, number), ran.err
        parts = server.bodies[-1]["messages"][-1]["content"]
        assert [part["type"] for part in parts] == ["image_url", "text"] and "Which?" in parts[1]["text"]


def test_a_pair_of_conversations_names_the_command_that_reads_it() -> None:
    chat = [{"role": "assistant", "content": "Ho"}]
    with pytest.raises(InvalidRecord, match="'chosen' is a list, not a string; `dream convert` makes a pair of two conversations"):
        Pair.read({"prompt": "Hi", "chosen": chat, "rejected": chat})


@pytest.mark.parametrize("name", ["set.tsv", "set.csv", "set.tar", "set.tar.gz"])
def test_view_names_the_command_that_reads_a_table(name: str, work: Workdir) -> None:
    (work.path / name).write_bytes(b"x")
    ran = work.dream("view", name)
    message = f"{name} is not a file of records; make one from it: dream convert {name} -o FILE.jsonl"
    assert ran.code == 2 and message in ran.err


def test_a_stage_names_the_command_that_reads_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a directory; name a file in it, or make records from it: dream convert \S+$"):
        read_records(str(tmp_path))
    (tmp_path / "my photo.JPG").write_bytes(b"x")
    command = rf'make records from its pictures: dream convert {tmp_path} --prompt "\.\.\." -o in\.jsonl$'
    with pytest.raises(UsageError, match=f"is a directory; name a file in it, or {command}"):
        read_records(str(tmp_path))
    with pytest.raises(UsageError, match=f"my photo.JPG is a picture, not a file of records; {command}"):
        read_records(str(tmp_path / "my photo.JPG"))
    with pytest.raises(UsageError, match=rf"holds no file of records \(.+\); {command}"):
        expanded([str(tmp_path)])


def test_a_missing_folder_is_named_once() -> None:
    with pytest.raises(UsageError, match="^no/ does not exist$"):
        read_records("no/")
