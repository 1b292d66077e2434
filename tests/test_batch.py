"""The batch interface: calls that are written to a file instead of made, and their results."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from dream_cli.engines.batch import request_name
from tests.conftest import Workdir
from tests.loopback import Fault, Loopback

NAMED = ("--model", "loopback")


def answered(work: Workdir, server: Loopback, requests: str = "calls.jsonl", results: str = "results.jsonl") -> list[dict[str, Any]]:
    """Make the calls of a batch as its service does, and write its results; return the bodies of the requests."""
    lines = work.read(requests)
    rows: list[dict[str, Any]] = []
    for line in lines:
        assert set(line) == {"custom_id", "method", "url", "body"}
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        url = server.url.removesuffix("/v1") + line["url"]
        request = urllib.request.Request(url, json.dumps(line["body"]).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                status, body = response.status, json.load(response)
        except urllib.error.HTTPError as error:
            status, body = error.code, json.load(error)
        rows.append(
            {
                "id": f"batch_req_{len(rows)}",
                "custom_id": line["custom_id"],
                "response": {"status_code": status, "request_id": "r", "body": body},
                "error": None,
            }
        )
    # A service promises no order.
    work.write(results, rows[::-1])
    return [line["body"] for line in lines]


def verdict(body: dict[str, Any]) -> str:
    return "7" if "whole number" in json.dumps(body["messages"]) else "Yes"


def test_a_pipeline_by_batches_gives_what_calls_give(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": str(n), "prompt": f"Hi {n}", "images": [work.picture("a.png")]} for n in range(3)])
    plain = Loopback()
    with Loopback(reply=lambda body: verdict(body) if body.get("logprobs") else plain._text(body)) as server:
        stages = {"disentangle": ("in.jsonl",), "sample": ("-n", "2", "disentangle.jsonl"), "judge": ("sample.jsonl",)}
        passes = {}
        for stage, args in stages.items():
            line = (stage, *args, *NAMED, "--requests", "calls.jsonl", "-o", f"{stage}.jsonl")
            passes[stage] = 0
            while (ran := work.dream(*line)).code == 1:
                passes[stage] += 1
                assert passes[stage] < 6, ran.err
                waiting = [row for row in work.read(f"{stage}.jsonl") if (row.get("error") or {}).get("kind") == "unanswered"]
                assert f"written to calls.jsonl, and {len(waiting)} rows wait for them; send the file as a batch" in ran.err
                bodies = answered(work, server)
                if stage == "sample":
                    assert all(
                        body["messages"][-1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,") for body in bodies
                    )
                taken = work.dream("store", "import", "results.jsonl")
                assert taken.code == 0 and f"{len(bodies)} results are new, 0 known already" in taken.err
            assert (ran.code, (work.path / "calls.jsonl").read_text()) == (0, "")
            assert "no call is left to write to calls.jsonl" in ran.err
        # Is there a risk, which one, and is it so; all samples at once; all scores at once.
        assert passes == {"disentangle": 3, "sample": 1, "judge": 1}
        by_batches, paid = (work.path / "judge.jsonl").read_text(), server.calls
        work.env["DREAM_STORE"] = str(work.path / "other.sqlite")
        for stage, args in stages.items():
            assert work.dream(stage, *args, "--base-url", server.url, "-o", f"{stage}.jsonl").code == 0
        assert (work.path / "judge.jsonl").read_text() == by_batches
        assert server.calls == 2 * paid


def test_a_command_without_requests_goes_on_from_the_results(work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [{"id": str(n), "prompt": f"Hi {n}"} for n in range(3)])
    line = ("sample", "in.jsonl", "--base-url", server.url, "-v")
    assert work.dream(*line, "--limit", "2", "--requests", "calls.jsonl", "-o", "out.jsonl").code == 1
    assert server.calls == 0
    answered(work, server)
    assert work.dream("store", "import", "results.jsonl").code == 0
    ran = work.dream(*line)
    assert (ran.code, len(ran.rows), server.calls) == (0, 3, 3)
    assert "1 call made, 0 answered from the store, 2 by a batch" in ran.err
    again = work.dream("store", "import", "results.jsonl")
    assert again.code == 0 and "0 results are new, 2 known already" in again.err


def test_results_that_are_none_or_of_other_calls_are_reported(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": str(n), "prompt": f"Hi {n}"} for n in range(4)])
    line = ("sample", "in.jsonl", *NAMED, "--requests", "calls.jsonl", "-o", "out.jsonl")
    assert work.dream(*line).code == 1
    names = [row["custom_id"] for row in work.read("calls.jsonl")]
    reply = {"choices": [{"message": {"content": "Ho"}, "finish_reason": "stop"}]}
    work.write(
        "results.jsonl",
        [
            {"custom_id": names[0], "response": {"status_code": 200, "body": reply}, "error": None},
            {"custom_id": names[1], "response": None, "error": {"code": "batch_expired", "message": "not in time"}},
            {"custom_id": names[2], "response": {"status_code": 429, "body": {"error": {"message": "slow down"}}}},
            {"custom_id": names[3], "response": {"status_code": 200, "body": {"error": {"message": "too long", "code": 400}}}},
            {"custom_id": "theirs\u001b[2J", "response": {"status_code": 200, "body": reply}},
            {"custom_id": names[0], "method": "POST", "url": "/v1/chat/completions", "body": {}},
        ],
    )
    taken = work.dream("store", "import", "results.jsonl")
    assert taken.code == 1
    assert taken.err.startswith("dream store: 2 results are new, 0 known already; the command that wrote the calls continues with them; ")
    assert f"2 calls failed and will be requested again; the first: {names[1]}: " in taken.err and "batch_expired" in taken.err
    assert "1 result skipped, not of a call of this store; the first: no --requests with this store wrote the call theirs␛[2J" in taken.err
    assert "1 line skipped as not a call; the first: line 6: a request, not a result; import the results of the batch" in taken.err
    ran = work.dream(*line)
    assert ran.code == 1 and "2 calls written to calls.jsonl, and 2 rows wait for them" in ran.err
    assert [row["custom_id"] for row in work.read("calls.jsonl")] == names[1:3]
    kinds = [(row.get("error") or {}).get("kind") for row in work.read("out.jsonl")]
    assert kinds == [None, "unanswered", "unanswered", "engine"]
    assert "1 of 4 rows got an error (1 engine)" in ran.err and "too long" in ran.err


def test_a_parameter_that_the_batch_refuses_is_left_out_of_the_next_one(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "1", "prompt": "Hi"}])

    def refuse(body: dict[str, Any]) -> Fault | None:
        return (
            Fault(400, "Unsupported parameter: 'max_tokens' is not supported; use 'max_completion_tokens'")
            if "max_tokens" in body
            else None
        )

    line = ("sample", "in.jsonl", *NAMED, "--requests", "calls.jsonl", "-o", "out.jsonl")
    with Loopback(refuse=refuse) as server:
        for name in ("max_tokens", "max_completion_tokens"):
            assert work.dream(*line).code == 1
            (body,) = answered(work, server)
            assert name in body and work.dream("store", "import", "results.jsonl").code == 0
    assert work.dream(*line).code == 0


def test_eval_and_prefer_write_their_calls(work: Workdir) -> None:
    work.write("a.jsonl", [{"id": "1", "prompt": "Hi", "responses": [{"text": "Ho"}, {"text": "He"}]}])
    work.write("b.jsonl", [{"id": "1", "prompt": "Hi", "response": "Hu"}])
    work.write("own.jsonl", [{"id": str(n), "prompt": f"Hi {n}", "harmful": False} for n in range(2)])
    with Loopback(reply=lambda body: "A" if "logprobs" in body else "Sure") as server:
        prefer = ("prefer", "b.jsonl", "a.jsonl", *NAMED, "--requests", "calls.jsonl", "-o", "out.jsonl")
        assert work.dream(*prefer).code == 1
        assert len(answered(work, server)) == 4  # two responses, in both orders
        assert work.dream("store", "import", "results.jsonl").code == 0
        assert work.dream(*prefer).code == 0
        served = (*NAMED, "--judge", "loopback", "--judge-base-url", server.url)
        line = ("eval", "own.jsonl", *served, "--requests", "calls.jsonl", "-o", "out.jsonl")
        first = work.dream(*line)
        assert first.code == 1 and "2 calls written to calls.jsonl, and 2 rows wait for them" in first.err
        assert len(answered(work, server)) == 2
        assert work.dream("store", "import", "results.jsonl").code == 0
        second = work.dream(*line)
        assert second.code == 1 and "and 2 rows wait for them" in second.err, second.err
        assert all(row["error"]["kind"] == "unanswered" for row in work.read("out.jsonl"))


def test_lines_that_cannot_be_run_as_a_batch(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "1", "prompt": "Hi"}])
    for args, message in (
        (("--requests", "calls.jsonl"), "--requests writes the calls to a model; name it with --model"),
        ((*NAMED, "--requests", "calls.txt"), "a batch is JSONL; name a file that ends in .jsonl"),
        ((*NAMED, "--requests", "calls.jsonl", "--no-store"), "leave --no-store out"),
        ((*NAMED, "--requests", "calls.jsonl", "--dry-run"), "it cannot be combined with --dry-run or -o DIR/"),
        ((*NAMED, "--requests", "in.jsonl"), "--requests in.jsonl is the input itself"),
    ):
        ran = work.dream("sample", "in.jsonl", *args)
        assert ran.code == 2 and message in ran.err, (args, ran.err)
    assert not Path(work.path / "calls.jsonl").exists()


def test_a_request_has_one_name_with_and_without_defaults() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    assert request_name(body) == request_name({**body, "temperature": 1, "top_p": 1, "n": 1})
    assert request_name(body) != request_name({**body, "temperature": 0})
    assert len(request_name(body)) <= 64
