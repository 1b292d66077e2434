"""Records in and out: every format, in order, nothing lost, and a row for every line that cannot be read."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_cli.errors import UsageError
from dream_cli.formats.sources import read_records
from dream_cli.records import atomic, streams
from dream_cli.records.columns import Reading
from dream_cli.records.failure import Failure
from dream_cli.records.image_rows import to_row
from dream_cli.records.outputs import open_writer
from dream_cli.records.record import Image, Record
from tests.record_files import lines, png, read, write

ALL = [".jsonl", ".jsonl.gz", ".json", ".parquet"]
Row = dict[str, Any]


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def one(data: bytes, tmp_path: Path) -> Record:
    (tmp_path / "in.jsonl").write_bytes(data)
    (record,) = read(tmp_path / "in.jsonl")
    return record


# Reading


def test_stdin_is_jsonl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stdin(monkeypatch, b'{"prompt": "hi", "images": ["a.png", "/b.png", "data:image/png;base64,AA=="]}\n')
    (record,) = read_records("-", Reading(tmp_path))
    assert record.prompt == "hi"
    assert [i.path for i in record.images] == [str(tmp_path / "a.png"), "/b.png", "data:image/png;base64,AA=="]
    assert record.place == "stdin:1"


def test_stdin_images_start_at_the_current_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    stdin(monkeypatch, b'{"prompt": "hi", "images": ["x/../a.png"]}')
    (record,) = read_records(None)
    assert record.images == (Image(str(tmp_path / "a.png")),)


def test_the_first_record_comes_before_the_input_ends() -> None:
    code = "from dream_cli.records.outputs import *\nfrom dream_cli.formats.sources import read_records\nfor r in read_records(None):\n with open_writer(None) as w: w.write(r)"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"prompt": "one"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"prompt": "one"}
        process.stdin.close()


@pytest.mark.parametrize("suffix", ALL)
def test_every_format_reads_what_it_wrote(suffix: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": "hi", "images": ["/no/a.png"], "observations": [], "more": {"a": [1, 2.5, None]}},
        {"messages": [{"role": "user", "content": "ho"}], "id": "7"},
        {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 0.5, "images": []},
        {"prompt": "p", "error": {"stage": "judge", "kind": "engine", "message": "no"}, "images": ["/no/b.png"], "id": 3},
    ]
    records = read(lines(tmp_path / "in.jsonl", *rows))
    back = read(write(tmp_path / f"out{suffix}", *records))
    assert [to_row(r, None) for r in back] == rows
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", f"out{suffix}"]


def test_bom_crlf_and_blank_lines_are_no_matter(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n  \n{"prompt": "b"}')
    assert [(r.prompt, r.place[-2:]) for r in read(tmp_path / "in.jsonl")] == [("a", ":1"), ("b", ":4")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{oops}\n", "not JSON: "),
        (b'{"prompt": "a\n', "not JSON: Unterminated string"),
        (b'{"prompt": "a', "the last line looks cut off"),
        (b'{"prompt": "a", "x": NaN}\n', "NaN is not a JSON value; write null"),
        (b'{"prompt": "a", "x": -Infinity}\n', "-Infinity is not a JSON value"),
        (b'{"prompt": "\0"}\n', "not JSON: "),
        (b"\0\0\0\n", "not JSON: "),
        (b'{"prompt": "\xff"}\n', "not UTF-8 (byte 13 of the line); save the file as UTF-8"),
        (b"[1, 2]\n", "a record is a JSON object {...}; this is [1, 2]"),
        (b"null\n", "this is null"),
        (b"[" * 100_000 + b"\n", "not JSON: "),
        (b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}\n", "not JSON: "),
    ],
)
def test_a_line_that_cannot_be_read_becomes_a_row(data: bytes, message: str, tmp_path: Path) -> None:
    record = one(data, tmp_path)
    file = str(tmp_path / "in.jsonl")
    assert record.error is not None
    assert (record.error.stage, record.error.kind, record.error.extra) == ("read", "unreadable", {"file": file, "line": 1})
    assert record.error.message.startswith(f"{file}:1: ")
    assert message in record.error.message


def test_a_line_too_long_is_skipped_and_the_next_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_LINE", 40)
    monkeypatch.setattr(streams, "_SKIP", 7)
    first, second = read(lines(tmp_path / "in.jsonl", {"prompt": "x" * 500}, {"prompt": "b"}))
    assert first.error is not None
    assert "the line is longer than" in first.error.message
    assert (second.prompt, second.place) == ("b", f"{tmp_path}/in.jsonl:2")


def test_a_malformed_field_keeps_the_row(tmp_path: Path) -> None:
    raw = {"x": 1, "prompt": 5, "images": ["/no/a.png"], "error": None}
    (record,) = read(lines(tmp_path / "in.jsonl", raw))
    assert record.error == Failure("read", "invalid", f"{tmp_path}/in.jsonl:1: 'prompt' is a number, not a string")
    row = to_row(record, None)
    assert list(row) == ["x", "prompt", "images", "error"]
    assert row == raw | {"error": record.error.to_dict()}


def test_an_empty_error_does_not_hide_the_next_one(tmp_path: Path) -> None:
    (record,) = read(lines(tmp_path / "in.jsonl", {"error": None, "prompt": "a"}))
    failed = replace(record, error=Failure("judge", "engine", "down"))
    assert to_row(failed, None) == {"prompt": "a", "error": {"stage": "judge", "kind": "engine", "message": "down"}}


def test_images_may_be_base64_bytes(tmp_path: Path) -> None:
    encoded = base64.b64encode(png()).decode()
    (record,) = read(lines(tmp_path / "in.jsonl", {"prompt": "a", "images": [{"bytes": encoded, "path": "cat.png"}, {"path": "b.png"}]}))
    assert record.images == (Image("cat.png", png()), Image(str(tmp_path / "b.png")))


def test_a_limit_reads_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b'{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c"}\n')
    assert [r.prompt for r in read_records(None, limit=2)] == ["a", "b"]
    assert sys.stdin.buffer.read() == b'{"prompt": "c"}\n'


def test_a_cut_gzip_file_gives_its_rows_and_an_error(tmp_path: Path) -> None:
    data = gzip.compress(b"".join(b'{"prompt": "%d%s"}\n' % (i, os.urandom(20).hex().encode()) for i in range(2000)))
    (tmp_path / "in.jsonl.gz").write_bytes(data[: len(data) // 2])
    records = read(tmp_path / "in.jsonl.gz")
    assert len(records) > 100
    assert records[-1].error is not None
    assert "the file is truncated or damaged here" in records[-1].error.message


def test_a_broken_array_gives_its_items_and_an_error(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('\ufeff [{"prompt": "a"}, 5, {"prompt": ')
    first, second, third = read(tmp_path / "in.json")
    assert first.prompt == "a"
    assert [r.error and r.error.kind for r in (second, third)] == ["unreadable", "unreadable"]
    assert third.error is not None
    assert "not JSON in item 3 of the array" in third.error.message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pars.jsonl", "does not exist; did you mean .*/pairs.jsonl?"),
        ("no/pairs.jsonl", "does not exist; nor does the folder"),
        ("notes.txt", r"the suffix gives the format, and must be one of \.jsonl, \.jsonl\.gz, \.json, \.parquet"),
        ("", "is a directory; name a file in it; did you mean .*/pairs.jsonl"),
        ("object.json", "is not a JSON array; if it holds one object per line, name it .*/object.jsonl"),
        ("bad.parquet", "is not a Parquet file"),
    ],
)
def test_a_wrong_file_is_a_usage_error_at_once(name: str, message: str, tmp_path: Path) -> None:
    for file in ("pairs.jsonl", "notes.txt", "bad.parquet"):
        (tmp_path / file).write_text("{}")
    (tmp_path / "object.json").write_text('{"prompt": "a"}')
    with pytest.raises(UsageError, match=message):
        read_records(str(tmp_path / name))


# Writing


def test_stdout_has_one_line_a_record_with_absolute_paths(capfdbinary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_writer(None) as writer:
        writer.write(Record(prompt="é", images=(Image("a.png"), Image("/b.png"))))
        writer.write(Record(prompt="\ud800"))
    first, second = capfdbinary.readouterr().out.splitlines()
    assert first.decode() == f'{{"prompt": "é", "images": ["{tmp_path}/a.png", "/b.png"]}}'
    assert second == b'{"prompt": "\\ud800"}'


class Refusing(io.RawIOBase):
    """A file that takes nothing."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def writable(self) -> bool:
        return True

    def write(self, _: Any) -> int:
        raise self.error


def onto_stdout(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    stdout = SimpleNamespace(buffer=Refusing(error), write=sys.stdout.write, flush=sys.stdout.flush)
    monkeypatch.setattr("sys.stdout", stdout)
    with open_writer("-") as writer:
        writer.write(Record(prompt="a"))


def test_a_closed_pipe_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokenPipeError):
        onto_stdout(monkeypatch, BrokenPipeError(32, "Broken pipe"))


def test_a_full_disk_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="cannot write stdout: No space left on device; free some space"):
        onto_stdout(monkeypatch, OSError(28, "No space left on device"))


@pytest.mark.parametrize("suffix", ALL)
def test_a_full_disk_leaves_no_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UsageError, match="No space left on device"):
        write(tmp_path / f"o{suffix}", Record(prompt="a"))
    assert os.listdir(tmp_path) == []


def test_paths_are_relative_to_the_output_and_still_resolve(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    rows: list[Row] = [{"prompt": "a", "images": ["img/a.png"]}, {"images": ["img/b.png"], "error": {"kind": "engine"}}]
    out = write(tmp_path / "out" / "o.jsonl", *read(lines(tmp_path / "in.jsonl", *rows)))
    assert [json.loads(line)["images"] for line in out.read_text().splitlines()] == [["../img/a.png"], ["../img/b.png"]]
    assert read(out)[0].images == (Image(str(tmp_path / "img/a.png")),)


def test_paths_resolve_through_a_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "deep" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "real")
    image = Image(str(tmp_path / "a.png"))
    write(tmp_path / "link" / "o.jsonl", Record(prompt="a", images=(image,)))
    assert read(tmp_path / "deep" / "real" / "o.jsonl")[0].images == (image,)
    assert read(tmp_path / "link" / "o.jsonl")[0].images == (image,)


def test_fields_keep_their_order(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"z": 1, "images": [], "prompt": "a", "b": None},
        {"images": ["/a.png"], "prompt": "a", "id": "1"},
        {"prompt": "a", "images": None},
        {"prompt": "a", "images": ["/a.png"], "id": "1"},
        {"prompt": "a"},
    ]
    back = [to_row(r, None) for r in read(lines(tmp_path / "in.jsonl", *rows))]
    assert [list(row.items()) for row in back] == [list(row.items()) for row in rows]


def test_a_new_id_stands_first_and_new_images_after_the_prompt(tmp_path: Path) -> None:
    (record,) = read(lines(tmp_path / "in.jsonl", {"images": ["/a.png"], "prompt": "a"}))
    assert list(to_row(replace(record, id="1"), None)) == ["id", "images", "prompt"]
    assert list(to_row(Record(prompt="a", images=(Image("/a"),), extra={"x": 1}), None)) == ["prompt", "images", "x"]


def test_bytes_become_a_data_uri_in_json(tmp_path: Path) -> None:
    (record,) = read(write(tmp_path / "o.jsonl", Record(prompt="a", images=(Image("cat", png()),))))
    assert record.images == (Image("data:image/png;base64," + base64.b64encode(png()).decode()),)


@pytest.mark.parametrize("suffix", ALL)
def test_an_interrupted_output_leaves_no_file_and_keeps_the_old_one(suffix: str, tmp_path: Path) -> None:
    out = write(tmp_path / f"o{suffix}", Record(prompt="old"))
    before = out.read_bytes()

    def interrupted() -> None:
        with open_writer(str(out)) as writer:
            writer.write(Record(prompt="new"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert out.read_bytes() == before
    assert os.listdir(tmp_path) == [out.name]


@pytest.mark.parametrize("suffix", ALL)
def test_no_rows_make_an_empty_file_that_can_be_read(suffix: str, tmp_path: Path) -> None:
    assert read(write(tmp_path / f"o{suffix}")) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/o.jsonl", "the folder .*/no does not exist; make it"),
        ("o.txt", "the suffix gives the format"),
        ("d.jsonl", "is a directory; name a file in it"),
    ],
)
def test_an_impossible_output_is_a_usage_error(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").mkdir()
    with pytest.raises(UsageError, match=message), open_writer(str(tmp_path / name)):
        pass


def test_a_folder_in_place_of_a_file_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="^o/ is a folder; name a file in it, such as o/records.jsonl$"), open_writer("o/"):
        pass


def test_an_output_without_permission_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(atomic, "open", refuse, raising=False)
    with pytest.raises(UsageError, match="cannot write .*o.jsonl: Permission denied"), open_writer(str(tmp_path / "o.jsonl")):
        pass


def test_what_json_does_not_know_is_still_json(tmp_path: Path) -> None:
    out = write(tmp_path / "o.jsonl", Record(prompt="a", extra={"x": [float("nan"), float("inf")], "b": b"hi"}))
    assert json.loads(out.read_text()) == {"prompt": "a", "x": [None, None], "b": "aGk="}


# Nothing is lost, whatever the fields are.

numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
text = st.text(max_size=8) | st.sampled_from(["\ud800", "\0", "\u2028", "é", '{"a": 1}'])
values = st.recursive(
    st.none() | st.booleans() | numbers | text, lambda v: st.lists(v, max_size=3) | st.dictionaries(text, v, max_size=3), max_leaves=6
)
observation = st.fixed_dictionaries(
    {"malicious_content": text, "source": text, "risk_category": text}, optional={"confidence": st.none() | numbers, "note": values}
)
response = st.fixed_dictionaries(
    {"text": text}, optional={"model": text, "judgement": st.fixed_dictionaries({}, optional={"score": numbers})}
)
known = {
    "id": text,
    "images": st.none() | st.lists(st.sampled_from(["/no/a.png", "/no/b.jpg", {"bytes": None, "path": "/no/c.png"}, 5, ""]), max_size=2),
    "observations": st.none() | st.lists(observation, max_size=2),
    "responses": st.none() | st.lists(response, max_size=2),
    "chosen": values,
    "rejected": text,
    "margin": values,
    "extra": values,
    "error": values,
}
rows = st.builds(
    lambda a, b: {**b, **a}, st.fixed_dictionaries({"prompt": text}, optional=known), st.dictionaries(text, values, max_size=3)
)


def as_record(row: Row, folder: Path) -> Record:
    return next(read_records(str(lines(folder / "in.jsonl", row))))


@pytest.mark.parametrize(("suffix", "same"), [(".jsonl", lambda r: r), (".parquet", lambda r: replace(r, order=()))])
def test_reading_what_was_written_gives_it_back(suffix: str, same: Callable[[Record], Record]) -> None:
    @settings(deadline=None, max_examples=150)
    @given(rows)
    def check(row: Row) -> None:
        with tempfile.TemporaryDirectory() as folder:
            record = as_record(row, Path(folder))
            (back,) = read(write(Path(folder) / f"out{suffix}", record))
        assert replace(same(back), place="") == replace(same(plain(record)), place="")
        assert to_row(back, None) == to_row(plain(record), None)

    check()


def plain(record: Record) -> Record:
    """The record as it is written: what was found wrong on reading has become a field of its own."""
    if record.error is None or "error" in record.order:
        return record
    error = record.error.to_dict()
    return replace(record, extra={**record.extra, "error": error}, order=(*record.order, "error"))
