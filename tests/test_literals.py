"""Lists that a table holds as text: JSON, or the Python that pandas and NumPy write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.formats.sources import read_records
from dream_cli.records.literals import MAX_LITERAL, literal
from tests.conftest import Workdir
from tests.loopback import Loopback

CHAT = [{"role": "user", "content": 'Who\'s "it"?\nSay <image>.'}, {"role": "assistant", "content": None}]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES) | st.dictionaries(st.text(), VALUES))
def test_what_python_writes_is_read(value: Any) -> None:
    assert literal(repr(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['a.png' 'b.png'\n 'c.png']", ["a.png", "b.png", "c.png"]),
        (f"[{CHAT[0]!r}\n {CHAT[1]!r}]", CHAT),
        ("[['a' 'b']\n ['c' 'd']]", [["a", "b"], ["c", "d"]]),
        ("['\u2028' 'b' \"c\"]", ["\u2028", "b", "c"]),
        ("[('a', 1), (2,)]", [["a", 1], [2]]),
        ("{'bytes': b'\\x89PNG', 'path': None}", {"bytes": b"\x89PNG", "path": None}),
    ],
)
def test_what_numpy_writes_without_commas_is_read(text: str, value: Any) -> None:
    assert literal(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.png",
        "[a.png, b.png]",
        "['a' ... 'b']",
        "[nan]",
        "[1e999]",
        "['a'",
        "['a' + 'b']",
        "[__import__('os')]",
        "[{1, 2}]",
        "[1j]",
        "{1: 2}",
        "[array(['a'], dtype=object)]",
        "[" * 200 + "]" * 200,
        "[" * 50_000,
        "['" + "a" * MAX_LITERAL + "']",
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        literal(text)


def shown(body: dict[str, Any]) -> list[str]:
    """Return the parts of the last message of a request."""
    content = body["messages"][-1]["content"]
    return [content] if isinstance(content, str) else [part.get("text", "IMAGE") for part in content]


def test_cells_of_pandas_are_read(work: Workdir, server: Loopback) -> None:
    pandas = pytest.importorskip("pandas")
    for name in ("a.png", "b.png"):
        work.picture(name)
    rows: list[dict[str, Any]] = [
        {"id": "1", "prompt": "Both?", "images": ["a.png", "b.png"]},
        {"id": "2", "messages": [{"role": "user", "content": "It's <image>?"}], "images": ["b.png"]},
        {"id": "3", "prompt": "Which?", "images": "a.png", "responses": [{"text": "This.", "model": None}], "observations": []},
        {"id": "4", "prompt": "['a', 'list']", "tags": ["x"]},
    ]
    pandas.DataFrame(rows).to_csv(work.path / "in.csv", index=False)
    assert work.dream("sample", "in.csv", "--base-url", server.url).code == 0
    sent = [shown(body) for body in server.bodies]
    assert ["IMAGE", "IMAGE", "Both?"] in sent and ["It's ", "IMAGE", "?"] in sent
    assert work.dream("convert", "in.csv", "-o", "out.jsonl").code == 0
    first, second, third, fourth = work.read("out.jsonl")
    assert (first["images"], second["messages"], second["images"]) == (["a.png", "b.png"], rows[1]["messages"], ["b.png"])
    assert (third["images"], third["responses"][0]["text"], third["observations"]) == (["a.png"], "This.", [])
    # An ordinary text and a column of the user stay as they are.
    assert (fourth["prompt"], fourth["tags"]) == ("['a', 'list']", "['x']")


def test_conversations_and_pairs_of_pandas_are_read(work: Workdir) -> None:
    pandas = pytest.importorskip("pandas")
    work.picture("a.png")
    turns = [{"from": "human", "value": "<image>\nWhat's this?"}, {"from": "gpt", "value": 'A "leaf".'}]
    prompt = [{"role": "user", "content": "What's this?"}]
    sides = {side: [{"role": "assistant", "content": f"It's {side}."}] for side in ("chosen", "rejected")}
    pandas.DataFrame([{"id": "1", "image": "a.png", "conversations": turns}]).to_csv(work.path / "llava.csv", index=False)
    pandas.DataFrame([{"prompt": prompt, **sides}]).to_csv(work.path / "pairs.csv", index=False)
    (record,) = read_records(str(work.path / "llava.csv"))
    assert record.error is None
    assert [(m.role, m.content) for m in record.messages] == [("user", "What's this?"), ("assistant", 'A "leaf".')]
    assert len(record.images) == 1
    ran = work.dream("convert", "pairs.csv")
    assert ran.rows == [{"prompt": "What's this?", "chosen": "It's chosen.", "rejected": "It's rejected."}]


@pytest.mark.parametrize("name", ["messages", "observations", "responses"])
def test_a_text_that_is_no_list_is_an_error_that_says_so(name: str, work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "x", name: "[{'role': nan}]"}])
    (row,) = work.dream("convert", "in.jsonl").rows
    assert row["error"]["message"] == f"in.jsonl:1: {name!r} is a text that is neither a JSON nor a Python list; write it as JSON"
    assert json.dumps(row[name]) == json.dumps("[{'role': nan}]")
