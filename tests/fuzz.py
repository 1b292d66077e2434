"""Fuzzing of the places where replies and files enter: random and damaged input, and what must hold of every one.

python -m tests.fuzz TARGET [--seconds 600] [--seed 0]      (TARGET: one of TARGETS)

Prints the number of inputs, or the smallest input that fails with its seed, and then exits with 1. The test suite runs a few of each.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from dream_cli.cli.request_fields import read_body, read_headers
from dream_cli.cli.shard_options import part_of
from dream_cli.engines.address import public_address, read_address
from dream_cli.engines.openai_attempt import seconds
from dream_cli.engines.store import CallStore, call_key
from dream_cli.engines.store_upkeep import CallSelection, export, import_from, time_before
from dream_cli.errors import ImageError, UsageError
from dream_cli.formats.rows import read_row
from dream_cli.formats.table import names
from dream_cli.records.access import Base
from dream_cli.records.image_rows import to_row
from dream_cli.records.images import open_rgb, prepare, size
from dream_cli.records.record import Image, Record
from dream_cli.records.streams import RowReader, _read_lines
from dream_cli.records.strict_json import dumps
from tests.fuzz_input import Json, changed, damaged, pieces, values
from tests.fuzz_replies import (
    CHANNELS,
    ERROR,
    EVENTS,
    LIST,
    LISTED,
    MARKS,
    REPLY,
    RISK,
    WORDS,
    check_list,
    check_refusal,
    check_reply,
    check_stream,
    check_thoughts,
    check_verdict,
)

Check = Callable[[Any], None]


RECORD = {
    "id": "a",
    "prompt": "What is it?",
    "images": ["a.png", {"bytes": "AAAA", "path": "x"}],
    "observations": [RISK | {"confidence": 0.5}],
    "responses": [
        {"text": "t", "model": "m", "judgement": {"rubric": "sum/expected", "global_score": 8, "recognised": [0.9, None], "score": 0.85}}
    ],
    "extra": {"a": 1},
}
ROWS: tuple[dict[str, Json], ...] = (
    RECORD,
    {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "observations": []}], "images": ["a.png"]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "x"}]}]},
    {"conversations": [{"from": "human", "value": "<image>\nx"}, {"from": "gpt", "value": "y"}], "image": "a.png"},
    {
        "prompt": [{"role": "user", "content": "x"}],
        "chosen": [{"role": "assistant", "content": "y"}],
        "rejected": [{"role": "assistant", "content": "z"}],
    },
    {"question": "x", "chosen": "y", "rejected": "z", "image": {"bytes": "AAAA"}},
    {"instruction": "x", "input": "", "output": "y", "images": ["a.png"]},
    {"query": "x", "response": "y", "history": [["a", "b"]], "rejected_response": "z", "images": ["a.png"]},
    {"image": "a.png", "safe": False, "harmful_category": "risky", "instr-resp": [{"instruction": "x", "response": "y"}]},
    {"prompt": "x", "response": "y", "is_response_safe": "yes", "category": "a", "image": "a.png"},
)
BASE = Base((".",))


def reread(record: Record) -> Json:
    """Return the row of a record after it was written as a line of strict JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    line = dumps(to_row(record, None))
    assert b"\n" not in line
    return json.loads(line.decode(), parse_constant=refuse)


def check_row(row: Json) -> None:
    """A row of any shape is a record or an error with a reason, in every dialect; what is written is strict JSON."""
    record = RowReader("f", BASE).record(row, 1)
    assert record.error is None or record.error.kind != "internal", record.error
    if not isinstance(row, dict):
        return
    reread(record)
    for source in (None, *names()):
        _, converted = read_row(record, BASE, source=source)
        assert converted.error is None or converted.error.kind != "internal", (source, converted.error)
        reread(converted)


def check_lines(data: bytes) -> None:
    """Each line of a file is one record; a record that is written and read again is the same."""
    records = list(_read_lines(io.BytesIO(data), RowReader("f", BASE)))
    assert len(records) == sum(bool(line.strip()) for line in data.split(b"\n"))
    for record in records:
        assert record.error is None or record.error.kind != "internal", record.error
        row = reread(record)
        if record.error is None:
            (again,) = _read_lines(io.BytesIO(json.dumps(row).encode()), RowReader("f", BASE))
            assert again.error is None, again.error
            assert reread(again) == row


def _pictures() -> list[bytes]:
    pictures = []
    for kind, modes in {
        "PNG": ("RGB", "P", "RGBA", "I;16", "1"),
        "GIF": ("P",),
        "BMP": ("RGB",),
        "WEBP": ("RGB",),
        "JPEG": ("L", "CMYK"),
        "TIFF": ("RGB",),
    }.items():
        for mode in modes:
            file = io.BytesIO()
            Pillow.new(mode, (9, 7)).save(file, kind)
            pictures.append(file.getvalue())
    return pictures


def check_image(data: bytes) -> None:
    """Bytes decode as an image that can be sent, or are an error of the row."""
    try:
        width, height = size(Image(data=data))
        picture = open_rgb(Image(data=data))
        prepared = prepare(Image(data=data))
    except ImageError:
        return
    assert picture.mode == "RGB"
    assert picture.size in ((width, height), (height, width))
    assert open_rgb(prepared).size == picture.size or max(picture.size) > 64


# --- options, and calls from another store


def check_options(text: str) -> None:
    """A value of an option is read or refused as a fault of usage, and nothing that is printed holds a password."""
    for read in (read_body, lambda value: read_headers([value]), read_address, part_of, time_before):
        try:
            read(text)
        except UsageError as error:
            assert "\n" not in str(error) or "\n" in text
    for url in (f"http://user:hidden-pw@{text}", f"http://host/{text}?key=hidden-pw"):
        assert "hidden-pw" not in public_address(url) or "@" in text or "#" in text
    assert seconds(text) is None or cast("float", seconds(text)) >= 0


def _exported() -> list[bytes]:
    request = {"version": 1, "verb": "generate", "engine": "e", "messages": [], "sampling": {"seed": 0}, "sample": 0}
    call = {"key": call_key(request), "verb": "generate", "model": "m", "created_at": "2026-01-01T00:00:00+00:00", "stage": "sample"}
    return [json.dumps(call | {"subjects": ["a"], "request": request, "reply": {"text": "t"}}).encode() + b"\n"]


def check_import(data: bytes) -> None:
    """Lines that are not calls are counted and skipped; what is imported can be read and exported again."""
    with tempfile.TemporaryDirectory() as folder:
        path, source = Path(folder, "calls.sqlite"), Path(folder, "calls.jsonl")
        source.write_bytes(data)
        try:
            import_from(path, str(source))
        except UsageError:
            # A file that is not JSON lines at all.
            return
        for call in export(path, CallSelection()):
            assert "error" not in call, call
            assert call["key"] == call_key(call["request"])
        store = CallStore(path)
        store.get("0" * 64)
        store.close()


def joined(parts: Sequence[str]) -> st.SearchStrategy[str]:
    """Draw a text of these parts and of others."""
    return st.lists(st.sampled_from(parts) | st.text(max_size=3), max_size=9).map("".join)


retry_afters = st.none() | pieces("1e400|-|1|120|nan|inf|Mon, 01 Jan 0001 00:00:00 GMT| -0000|Fri, 31 Dec 9999 23:59:59 |+2359")
addresses = pieces('http://|https://|host|:|/|@|?|#|[|]|%|v1|8000|\n|\x00|X-A: b|{|}|"n"|1/2|30d|user:pw@')
TARGETS: Mapping[str, tuple[st.SearchStrategy[Any], Check]] = {
    "reply": (st.tuples(changed(REPLY), st.booleans()), check_reply),
    "refusal": (st.tuples(changed(ERROR), retry_afters), check_refusal),
    "verdict": (pieces(WORDS), check_verdict),
    "list": (st.tuples(damaged([text.encode() for text in LISTED], MARKS), changed(LIST)), check_list),
    "thoughts": (pieces("<think>|</think>|<THINK>|[THINK]|[/THINK]|◁think▷|\n| |<answer>|</answer>|8|<seed:think>"), check_thoughts),
    "channels": (joined(CHANNELS), check_thoughts),
    "stream": (joined(EVENTS), check_stream),
    "row": (st.sampled_from(ROWS).flatmap(changed) | values, check_row),
    "lines": (
        damaged([json.dumps(row).encode() + b"\n" for row in ROWS], [*MARKS, b"\n", b"\r\n", b"\xef\xbb\xbf", b"\\ud800", b"1" * 400]),
        check_lines,
    ),
    "image": (
        damaged(_pictures(), [b"\xff\xff\xff\xff", b"\x7f\xff", b"IHDR", b"IDAT", b"tRNS", b"Exif\0\0II*\0", b"GIF89a"]),
        check_image,
    ),
    "options": (addresses | st.text(max_size=30), check_options),
    "import": (damaged(_exported(), [*MARKS, b"\n", b'"key"', b'"reply"', b"2026"]), check_import),
}


def run(target: str, inputs: int, number: int) -> None:
    """Check that many inputs of a target; raise what the smallest failing one raises."""
    strategy, check = TARGETS[target]
    limits = settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    seed(number)(limits(given(strategy)(check)))()


def main() -> None:
    """Check batches of inputs until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=list(TARGETS))
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    batch, end, number, began = 200, time.monotonic() + options.seconds, options.seed, time.process_time()
    while time.monotonic() < end:
        try:
            run(options.target, batch, number)
        except Exception:
            sys.stdout.write(f"{options.target}: fails with --seed {number}\n")
            raise
        number += 1
    checked = batch * (number - options.seed)
    sys.stdout.write(
        f"{options.target}: {checked} inputs from seed {options.seed} in {time.process_time() - began:.0f} s of CPU time, none fails\n"
    )


if __name__ == "__main__":
    main()
