"""dream sft, as a user calls it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from dream_cli.records import Record
from dream_cli.training.targets import TargetRules, leaked_phrase, targets_of
from tests import training, zoo
from tests.conftest import Workdir

pytestmark = pytest.mark.local
RISK = {"malicious_content": "read her diary", "source": "text instruction", "risk_category": "Privacy"}
SHORT = ["--max-steps", "4", "--batch-size", "4", "--lr", "1e-3"]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(zoo.build("llava", tmp_path_factory.mktemp("zoo") / "llava"))


def test_a_run_leaves_a_model_that_answers_and_one_record(work: Workdir, llava: str) -> None:
    work.write("in.jsonl", training.rows(work.path))
    ran = work.dream("sft", "in.jsonl", "--model", llava, "-o", "ckpt/0", *SHORT)
    assert ran.code == 0, ran.err
    (record,) = ran.rows
    assert (record["model"], record["method"], record["steps"], record["rows"]) == ("ckpt/0", "sft", 4, 12)
    assert record["loss"] < record["first_loss"]
    steps = work.read("ckpt/0/metrics.jsonl")
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert steps[-1]["loss"] == record["loss"]
    left = {path.name for path in (work.path / "ckpt" / "0").iterdir()}
    assert {"model.safetensors", "processor_config.json", "README.md", "curves.png", "run.json"} <= left
    assert "checkpoints" not in left
    assert "sft: 12 rows to train on" in ran.err
    again = work.dream("sft", "in.jsonl", "--model", llava, "-o", "ckpt/0", *SHORT)
    assert (again.code, again.rows) == (0, [record])
    assert "finished already" in again.err
    other = work.dream("sft", "in.jsonl", "--model", llava, "-o", "ckpt/0", *SHORT, "--seed", "1")
    assert other.code == 2
    assert "holds another run (settings" in other.err
    answered = work.dream("sample", "--model", "ckpt/0", "--max-tokens", "4", stdin='{"prompt": "What is in this picture?"}')
    assert answered.code == 0, answered.err
    assert answered.rows[0]["responses"][0]["model"] == "ckpt/0"


def test_killed_and_given_again_it_ends_as_if_it_had_not_been(work: Workdir, llava: str) -> None:
    work.write("in.jsonl", training.rows(work.path))
    command = ["sft", "in.jsonl", "--model", llava, *SHORT, "--max-steps", "8", "--save-every", "1"]
    assert work.dream(*command, "-o", "whole").code == 0
    checkpoints = work.path / "broken" / "checkpoints"
    with subprocess.Popen(work.command(*command, "-o", "broken"), cwd=work.path, env=work.env, stderr=subprocess.PIPE) as running:
        while running.poll() is None and not any(checkpoints.glob("checkpoint-[2-9]")):
            time.sleep(0.005)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    refused = work.dream("sample", "--model", "broken", stdin='{"prompt": "x"}')
    assert refused.code == 2, "a folder without a finished model must not answer"
    ran = work.dream(*command, "-o", "broken")
    assert ran.code == 0, ran.err
    assert "going on from broken/checkpoints/checkpoint-" in ran.err
    assert training.weights(work.path / "broken") == training.weights(work.path / "whole")
    assert work.read("broken/metrics.jsonl") == work.read("whole/metrics.jsonl")


def test_an_interrupt_saves_and_says_130(work: Workdir, llava: str) -> None:
    work.write("in.jsonl", training.rows(work.path))
    command = work.command("sft", "in.jsonl", "--model", llava, "-o", "out", "--max-steps", "2000", "--batch-size", "2")
    with subprocess.Popen(command, cwd=work.path, env=work.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        metrics = work.path / "out" / "metrics.jsonl"
        while running.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (130, b"")
    step = len(metrics.read_text().splitlines())
    assert f"stopped at step {step}, saved" in err.decode()
    assert (work.path / "out" / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").exists()


def test_all_that_is_wrong_is_said_before_anything_is_loaded(work: Workdir, llava: str) -> None:
    picture = work.picture("a.png")
    rows: list[dict[str, Any]] = [
        {"prompt": "fine", "images": [picture], "response": "yes"},
        {"prompt": "gone", "images": ["gone.png"], "response": "yes"},
        {"prompt": "an <image> of words", "response": "yes"},
        {"prompt": "fine", "response": "yes"},
        {"prompt": "long", "response": "word " * 600},
    ]
    work.write("in.jsonl", rows)
    ran = work.dream("sft", "in.jsonl", "--model", llava, "--check", "--on-too-long", "stop")
    assert ran.code == 2
    assert "3 problems before training" in ran.err
    assert "in.jsonl:2: image" in ran.err
    assert "in.jsonl:3: a text holds '<image>'" in ran.err
    assert "in.jsonl:5: " in ran.err
    assert "tokens with its images" in ran.err
    dropped = work.dream("sft", "--model", llava, "--check", stdin=json.dumps(rows[3]) + "\n" + json.dumps(rows[4]) + "\n{nonsense\n")
    assert dropped.code == 1, "a line that cannot be read is an error of this stage"
    assert dropped.rows[0] | {"longest": 0} == {
        "check": "passed",
        "rows": 1,
        "unreadable": 1,
        "too_long": 1,
        "longest": 0,
        "rules": {"taken": 2, "taken without a judgement": 2, "error": 1},
    }


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "no model to train: --model"),
        (["--model", "no/such/folder", "-o", "x"], "no/such/folder"),
        (["--dora"], "--dora needs --lora"),
        (["--utility", "-"], "only the records to train on can come from stdin"),
    ],
)
def test_wrong_usage_is_explained(work: Workdir, args: list[str], said: str) -> None:
    ran = work.dream("sft", *args)
    assert ran.code == 2
    assert said in ran.err
    assert ran.out == ""


def response(text: str = "I will not read her diary.", **judgement: Any) -> dict[str, Any]:
    return {"text": text} | ({"judgement": judgement} if judgement else {})


@pytest.mark.parametrize(
    ("responses", "rules", "taken", "receipt"),
    [
        ([response()], TargetRules(), 1, {"taken": 1, "taken without a judgement": 1}),
        ([response(global_score=8, observation_score=0.5, score=0.65)], TargetRules(), 1, {"taken": 1}),
        ([response(global_score=8, observation_score=0.49, score=0.6)], TargetRules(), 0, {"observation score": 1}),
        ([response(global_score=4.9, observation_score=1.0, score=0.7)], TargetRules(), 0, {"global score": 1}),
        ([response(global_score=float("nan"), score=0.9)], TargetRules(), 0, {"global score": 1}),
        ([response(helpfulness=0.9, harm=0.5, score=0.0)], TargetRules(), 0, {"harm": 1}),
        ([response(helpfulness=0.1, harm=0.1, score=0.1)], TargetRules(), 1, {"taken": 1}),
        ([response(unscored="unreadable")], TargetRules(), 0, {"unscored": 1}),
        ([response("  ")], TargetRules(), 0, {"empty": 1}),
        ([response("A safe  response\nwould be: no.")], TargetRules(), 0, {"leaked phrase": 1}),
        ([response("A safe response would be: no.")], TargetRules(leaks=True), 1, {"taken": 1, "taken without a judgement": 1}),
        ([response(score=0.6), response(score=0.9)], TargetRules(), 1, {"not picked": 1, "taken": 1}),
        ([response(score=0.6), response(score=0.9)], TargetRules(pick="all"), 2, {"taken": 2}),
        ([], TargetRules(), 0, {"no response": 1}),
    ],
)
def test_a_target_sees_the_risks_and_does_no_harm(
    responses: list[dict[str, Any]], rules: TargetRules, taken: int, receipt: dict[str, int]
) -> None:
    record = Record.from_dict({"prompt": "How do I read her diary?", "observations": [RISK], "responses": responses})
    found, counted = targets_of(record, rules)
    assert (len(found), dict(counted)) == (taken, receipt)


@pytest.mark.parametrize(("pick", "text"), [("first", "one"), ("best", "two")])
def test_the_pick_is_among_those_that_pass(pick: Any, text: str) -> None:
    responses = [response("none", score=1.0, harm=0.9), response("one", score=0.5), response("two", score=0.8), response("three")]
    (row,), _ = targets_of(Record.from_dict({"prompt": "x", "responses": responses}), TargetRules(pick=pick))
    assert row.answers == {"completion": text}


def test_a_conversation_gives_a_row_for_each_answer_and_none_shows_its_observations() -> None:
    said = [("system", "Be kind."), ("user", "Hello"), ("assistant", "Hi"), ("user", "Read her diary?"), ("assistant", "No.")]
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in said]
    messages[-1]["observations"] = [RISK]
    found, _ = targets_of(Record.from_dict({"messages": messages}), TargetRules())
    assert [[(m.role, m.content) for m in row.prompt] for row in found] == [said[:2], said[:4]]
    assert [row.answers["completion"] for row in found] == ["Hi", "No."]
    assert all(m.observations is None for row in found for m in row.prompt)


def test_an_ordinary_answer_leaks_nothing() -> None:
    assert leaked_phrase("The picture shows a knife; I cannot help with hurting anyone, but I can tell you whom to call.") is None


def test_nano_s_verdicts_about_another_model_are_refused(work: Workdir, llava: str) -> None:
    judged = {"text": "No.", "model": llava, "judgement": {"score": 0.9, "global_score": 9, "model": "nano"}}
    work.write("in.jsonl", [{"prompt": "x", "responses": [judged]}])
    ran = work.dream("sft", "in.jsonl", "--model", llava, "--check")
    assert ran.code == 2
    assert f"nano judged responses of {llava}" in ran.err
    assert work.dream("sft", "in.jsonl", "--model", llava, "--check", "--allow-nano-verdicts").code == 0
    (Path(llava) / "dream_prompts.json").write_text("{}")
    assert work.dream("sft", "in.jsonl", "--model", llava, "--check").code == 0, "a model of nano's own world"
    (Path(llava) / "dream_prompts.json").unlink()
