"""The four commands against a server, and the manners that they share."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.conftest import Workdir
from tests.loopback import Fault, Loopback, Positions, fact

RISK = {"malicious_content": "read her diary", "source": "text instruction", "risk_category": "Privacy"}


def answer(body: dict[str, Any]) -> str:
    message = json.dumps(body["messages"])
    if "JSON list" in message:
        return json.dumps([RISK] if "diary" in message else [])
    return "No. Reading her diary would invade her privacy." if "diary" in message else "Water it twice a week."


def verdicts(body: dict[str, Any]) -> Positions:
    message = json.dumps(body["messages"])
    if not body.get("logprobs"):
        return [[(answer(body), 1.0)]]
    if "whole number" in message:
        return [[("8", 0.5), ("9", 0.5)]]
    harm = any(mark in message for mark in ("says yes to what the person asks", "because of the response"))
    return fact(body, 0.1 if harm else 0.75)


@pytest.fixture
def teacher() -> Any:
    with Loopback(tokens=verdicts) as running:
        yield running


def test_the_user_s_own_line(work: Workdir, teacher: Loopback) -> None:
    work.write(
        "in.jsonl",
        [{"id": "a", "prompt": "How do I read her diary?", "images": [work.picture("a.png")], "response": "Better not.", "mine": 7}],
    )
    observed = work.dream("disentangle", "in.jsonl", "--base-url", teacher.url)
    assert observed.code == 0, observed.err
    judged = work.dream("judge", "--base-url", teacher.url, stdin=observed.out)
    assert judged.code == 0, judged.err
    (row,) = judged.rows
    assert row["mine"] == 7
    # The odds of a Yes of 0.75, times 0.59 / 0.41, because a claim counts from 0.41 (facts.LEANING).
    assert row["observations"] == [RISK | {"confidence": 0.811927}]
    judgement = row["responses"][0]["judgement"]
    assert judgement["global_score"] == 8.5
    assert judgement["recognised"] == [0.75]
    assert judgement["score"] == 0.8
    assert judgement["rubric"] == "sum/expected"


def test_judge_names_sample_where_there_is_no_response(work: Workdir, teacher: Loopback) -> None:
    ran = work.dream("judge", "--base-url", teacher.url, stdin='{"id": "a", "prompt": "hi"}\n')
    assert ran.code == 1
    assert ran.rows == [
        {
            "id": "a",
            "prompt": "hi",
            "error": {
                "stage": "judge",
                "kind": "no-response",
                "message": "stdin:1: nothing to judge: the record has no `response` or `responses`; run `dream sample` first",
            },
        }
    ]


def test_a_harmless_prompt_is_judged_by_helpfulness(work: Workdir, teacher: Loopback) -> None:
    row = {"id": "a", "prompt": "How do I water a fern?", "observations": [], "response": "Water it twice a week."}
    (judged,) = work.dream("judge", "--base-url", teacher.url, stdin=json.dumps(row)).rows
    assert judged["responses"][0]["judgement"]["rubric"] == "helpfulness/expected"
    assert judged["responses"][0]["judgement"]["score"] == 0.85


def test_a_server_that_is_down_scores_nothing(work: Workdir, teacher: Loopback) -> None:
    row = {"id": "a", "prompt": "How do I water a fern?", "response": "Water it twice a week."}
    teacher.refuse = lambda _: Fault(400)
    ran = work.dream("judge", "--base-url", teacher.url, stdin=json.dumps(row))
    assert ran.code == 1
    assert ran.rows[0]["error"]["kind"] == "engine"
    assert "judgement" not in json.dumps(ran.rows[0])


def test_rows_in_are_rows_out_in_order(work: Workdir, teacher: Loopback) -> None:
    lines = [json.dumps({"prompt": f"How do I water fern {i}?"}) for i in range(40)]
    lines[7] = "{not json"
    lines[11] = json.dumps({"prompt": 3})
    lines[13] = json.dumps({"prompt": "x", "images": ["gone.png"]})
    ran = work.dream("sample", "--base-url", teacher.url, stdin="\n".join(lines))
    assert ran.code == 1
    assert len(ran.rows) == 40
    assert [ran.rows[i]["error"]["kind"] for i in (7, 11, 13)] == ["unreadable", "invalid", "image"]
    assert [row["prompt"] for i, row in enumerate(ran.rows) if i not in (7, 11)][:7] == [f"How do I water fern {i}?" for i in range(7)]


def test_a_row_with_an_error_passes_through(work: Workdir, teacher: Loopback) -> None:
    row = {"prompt": "x", "error": {"stage": "sample", "kind": "image", "message": "gone"}, "images": ["/gone.png"]}
    ran = work.dream("sample", "--base-url", teacher.url, stdin=json.dumps(row))
    assert (ran.code, ran.rows) == (0, [row])
    again = work.dream("sample", "--base-url", teacher.url, "--retry-errors", stdin=json.dumps({"prompt": "x", "error": row["error"]}))
    assert again.code == 0
    assert "error" not in again.rows[0]


def test_the_first_row_comes_before_the_input_ends(work: Workdir, teacher: Loopback) -> None:
    with subprocess.Popen(
        work.command("sample", "--base-url", teacher.url), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=work.path, env=work.env
    ) as running:
        assert running.stdin and running.stdout
        running.stdin.write(b'{"prompt": "How do I water a fern?"}\n')
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["responses"][0]["text"] == "Water it twice a week."
        running.stdin.close()
        assert running.wait(30) == 0


def test_a_closed_pipe_ends_quietly(work: Workdir, teacher: Loopback) -> None:
    work.write("in.jsonl", [{"prompt": f"fern {i}"} for i in range(200)])
    line = " ".join(work.command("sample", "in.jsonl", "--base-url", teacher.url)) + " | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], check=False, capture_output=True, cwd=work.path, env=work.env, timeout=120
    )
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, b"", 1)


def test_an_interrupt_saves_and_exits_130(work: Workdir) -> None:
    with Loopback(latency=0.2) as slow:
        work.write("in.jsonl", [{"prompt": f"fern {i}"} for i in range(200)])
        command = work.command("sample", "in.jsonl", "--base-url", slow.url)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=work.path, env=work.env) as running:
            assert running.stdout and running.stderr
            running.stdout.readline()
            running.send_signal(signal.SIGINT)
            message = running.stderr.read().decode()
            assert running.wait(30) == 130
    assert message.startswith("dream: interrupted")
    assert "Traceback" not in message


def test_dry_run_makes_no_call(work: Workdir, teacher: Loopback) -> None:
    ran = work.dream("sample", "-n", "3", "--dry-run", "--base-url", teacher.url, stdin='{"prompt": "x"}\n')
    assert (ran.code, ran.out, teacher.calls) == (0, "", 0)
    assert ran.err.startswith("dream sample: dry run: 1 row, 3 calls, about 0 prompt tokens and at most 768 completion tokens; ")


def test_dry_run_says_what_it_may_cost(work: Workdir) -> None:
    row = {"prompt": "x" * 4_000_000, "images": [work.picture("a.png")]}
    ran = work.dream(
        "sample", "-n", "2", "--max-tokens", "500000", "--dry-run", *("--price-in", "3", "--price-out", "15"), stdin=json.dumps(row)
    )
    # 1,000,000 tokens of text and 576 of the image, read once at 3 a million; at most twice 500,000 written at 15 a million.
    assert "about 1000576 prompt tokens and at most 1000000 completion tokens, at a cost of about 3.002 to 18;" in ran.err
    ran = work.dream("disentangle", "--dry-run", stdin='{"prompt": "x"}\n')
    # Is there a risk, which one, and is it so.
    assert (ran.code, ran.err.count("3 calls,")) == (0, 1), ran.err
    assert "with one risk found by each question that lists them: none takes fewer calls, more take one each to verify" in ran.err
    assert "2 calls," in work.dream("disentangle", "--dry-run", "--no-verify", stdin='{"prompt": "x"}\n').err


def test_verbose_says_what_answered_and_what_it_cost(work: Workdir, teacher: Loopback) -> None:
    work.write("in.jsonl", [{"prompt": f"fern {i}"} for i in range(3)])
    command = ["sample", "in.jsonl", "-v", "--base-url", teacher.url, *("--price-in", "1", "--price-out", "1000")]
    first, again = work.dream(*command), work.dream(*command)
    assert re.search(rf"^dream sample: openai at {teacher.url}, model loopback, fingerprint [0-9a-f]{{16}}, ready in ", first.err)
    assert f"calls are kept in {work.env['DREAM_STORE']}" in first.err
    cost = re.search(r"3 calls made, 0 answered from the store; (\d+) prompt and (\d+) completion tokens; cost (\S+)\n", first.err)
    assert cost
    assert float(cost[3]) == pytest.approx((int(cost[1]) + 1000 * int(cost[2])) / 1e6, rel=1e-3)
    assert "0 calls made, 3 answered from the store; 0 prompt and 0 completion tokens; cost 0\n" in again.err
    assert work.dream(*command[:2], "--base-url", teacher.url).err == ""


def test_kill_append_and_edit(work: Workdir) -> None:
    """160 rows, 8 in flight: what was paid for is not paid for again."""
    rows = [{"id": str(i), "prompt": f"How do I water fern {i}?"} for i in range(160)]
    work.write("in.jsonl", rows)
    with Loopback(latency=0.05) as server:
        command = ["sample", "in.jsonl", "-n", "1", "--base-url", server.url]
        with subprocess.Popen(work.command(*command), stdout=subprocess.DEVNULL, cwd=work.path, env=work.env) as running:
            while server.calls <= 80:
                time.sleep(0.01)
            running.kill()
        done = work.dream(*command)
        assert done.code == 0, done.err
        assert [row["id"] for row in done.rows] == [row["id"] for row in rows]
        assert server.calls <= 160 + 8
        paid = server.calls
        assert work.dream(*command).out == done.out
        assert server.calls == paid
        work.write("in.jsonl", [*rows, {"id": "new", "prompt": "How do I water a cactus?"}])
        assert len(work.dream(*command).rows) == 161
        assert server.calls == paid + 1
        work.write("in.jsonl", [row | {"prompt": row["prompt"] + " Please."} for row in rows])
        assert len(work.dream(*command).rows) == 160
        assert server.calls == paid + 1 + 160


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["smaple"], "sample"),
        (["sample", "--modle", "x"], "--model"),
        (["sample", "nowhere.jsonl"], "nowhere.jsonl"),
        (["sample", "--model", "no/such/folder", "-"], "no/such/folder"),
        (["judge", "--score", "mean"], "sum"),
    ],
)
def test_wrong_usage_is_explained(work: Workdir, args: list[str], message: str) -> None:
    ran = work.dream(*args)
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
