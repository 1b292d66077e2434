"""`dream prefer`, as a user calls it: two files of responses, compared by a judge in both orders."""

from __future__ import annotations

import re
from typing import Any

from tests.conftest import Workdir
from tests.loopback import Json, Loopback


def shown(body: Json) -> tuple[str, str]:
    """Return the two responses in the order in which a request shows them."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    match = re.search(r"<response_a>\n(.*)\n</response_a>\n<response_b>\n(.*)\n</response_b>\n", text)
    assert match
    return match[1], match[2]


def judge(body: Json) -> str:
    """Prefer "good"; between two others take the first."""
    first, second = shown(body)
    return "B" if second == "good" and first != "good" else "A"


def rows(*texts: str) -> list[dict[str, Any]]:
    return [{"id": str(i), "prompt": f"question {i}", "responses": [{"text": text, "model": "m"}]} for i, text in enumerate(texts)]


def test_a_win_is_a_win_in_both_orders(work: Workdir) -> None:
    work.write("before.jsonl", rows("bad", "good", "so", "same"))
    work.write("after.jsonl", rows("good", "bad", "la", "same"))
    with Loopback(reply=judge, ignore=("logprobs",)) as server:
        ran = work.dream("prefer", "before.jsonl", "after.jsonl", "--base-url", server.url, "--model", "loopback")
    assert ran.code == 0
    verdicts = [row["responses"][0]["verdicts"]["strict"]["preference"] for row in ran.rows]
    assert [(v["value"], v.get("orders")) for v in verdicts] == [(1.0, [1.0, 1.0]), (0.0, [0.0, 0.0]), (0.5, [1.0, 0.0]), (0.5, None)]
    assert {(v["judge"], v["other"]) for v in verdicts} == {("loopback", "m")}
    assert ran.err == (
        f"dream: {server.url}: the server returns no log-probabilities; verdicts are read from the words of the reply\n"
        "prefer: 4 rows, 4 comparisons, 0 unscored\n"
        "  win rate 50.0 % [15.0, 85.0]\n"
        "  1 better in both orders, 1 worse in both, 2 neither\n"
        "  swapping the order flips 1 of 3; of these 1 for the response shown first (p 1.000)\n"
    )


def test_thoughts_are_not_compared(work: Workdir) -> None:
    work.write("before.jsonl", rows("<think>good</think>bad", "<think>so</think>la"))
    work.write("after.jsonl", rows("<think>bad</think>\ngood", "<think>do</think>la"))
    with Loopback(reply=judge, ignore=("logprobs",)) as server:
        ran = work.dream("prefer", "before.jsonl", "after.jsonl", "--base-url", server.url, "--model", "loopback")
        assert [sorted(shown(body)) for body in server.bodies] == [["bad", "good"]] * 2
    assert [row["responses"][0]["text"] for row in ran.rows] == ["good", "la"]
    assert [row["responses"][0]["reasoning"] for row in ran.rows] == ["bad", "do"]


def test_what_cannot_be_read_is_unscored(work: Workdir) -> None:
    work.write("before.jsonl", rows("bad", "good"))
    work.write("after.jsonl", rows("good", "bad"))
    with Loopback(reply=lambda body: "both" if "question 0" in str(body) else judge(body), ignore=("logprobs",)) as server:
        ran = work.dream("prefer", "before.jsonl", "after.jsonl", "--base-url", server.url, "--model", "loopback")
    assert ran.code == 1
    verdict = ran.rows[0]["responses"][0]["verdicts"]["strict"]["preference"]
    assert (verdict["value"], verdict["unscored"]) == (None, "unparsed: the answer is not one of A, B")
    assert "prefer: 2 rows, 1 comparison, 1 unscored\n  win rate 0.0 %" in ran.err


def test_a_row_without_its_rival_gets_an_error(work: Workdir) -> None:
    work.write("before.jsonl", [*rows("bad"), {"id": "1", "prompt": "another", "responses": [{"text": "x"}]}])
    work.write("after.jsonl", rows("good", "bad", "more"))
    with Loopback(reply=judge, ignore=("logprobs",)) as server:
        ran = work.dream("prefer", "before.jsonl", "after.jsonl", "--base-url", server.url, "--model", "loopback")
    assert ran.code == 1
    assert [(row.get("error") or {}).get("kind") for row in ran.rows] == [None, "no-rival", "no-rival"]
    assert "a different prompt in the other file" in ran.rows[1]["error"]["message"]


def test_a_repeated_id_stops_the_command(work: Workdir) -> None:
    work.write("before.jsonl", rows("bad") * 2)
    ran = work.dream("prefer", "before.jsonl", stdin="")
    assert (ran.code, ran.err) == (2, "dream: before.jsonl:2: 0 occurs twice; compare files of one model each\n")
