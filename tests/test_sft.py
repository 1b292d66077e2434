"""dream sft, as a user calls it."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dream_cli.engines.checkpoint import find_checkpoint
from dream_cli.errors import InvalidRecord, UsageError
from dream_cli.records.record import Judgement, Record, Response
from dream_cli.training.settings import Schedule
from dream_cli.training.sft import Sft, Utility
from dream_cli.training.sft_targets import TargetRules, judge_target, meta_phrase, targets_of
from tests import training, zoo
from tests.conftest import Workdir

pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore")]
RISK = {"malicious_content": "read her diary", "source": "text instruction", "risk_category": "Privacy"}
SHORT = ["--max-steps", "4", "--batch-size", "4", "--lr", "1e-3"]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(zoo.build("llava", tmp_path_factory.mktemp("zoo") / "llava"))


def test_an_adapter_stands_on_a_tower_whose_layers_have_numbers_for_names(tmp_path: Path) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    model = zoo.build("qwen2_5_vl", tmp_path / "model")
    job = replace(training.job(source, model, tmp_path / "out", lora=training.lora()), vision=True)
    training.train("sft", job)
    config = (tmp_path / "out" / "adapter_config.json").read_text()
    assert "visual" in config and "mlp" in config


def test_smolvlm_learns_answers_and_then_pairs(tmp_path: Path) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    model = zoo.build("smolvlm", tmp_path / "model")
    first = training.train("sft", training.job(source, model, tmp_path / "0")).record
    assert first["loss"] < first["first_loss"]
    second = training.train("dpo", training.job(source, tmp_path / "0", tmp_path / "1", lora=training.lora())).record
    assert (second["path"], second["adapter"]) == ("shared-prefix", True)
    assert second["loss"] < second["first_loss"]


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
    answered = work.dream("sample", "--model", "ckpt/0", "--max-tokens", "4", stdin='{"prompt": "What is in this picture?"}')
    assert answered.code == 0, answered.err
    assert answered.rows[0]["responses"][0]["model"] == "ckpt/0"


def test_a_finished_run_is_not_made_again_and_not_run_over(tmp_path: Path, llava: str) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    requests = training.job(source, Path(llava), tmp_path / "out")
    first = training.train("sft", requests)
    made = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    assert training.train("sft", requests).record == first.record
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == made
    other = replace(requests, schedule=replace(training.SHORT, seed=1))
    with pytest.raises(UsageError, match=r"holds another run \(settings differ\); choose another -o, or --overwrite"):
        training.train("sft", other)
    assert training.train("sft", replace(other, overwrite=True)).record["loss"] != first.record["loss"]


def test_killed_and_given_again_it_ends_as_if_it_had_not_been(work: Workdir, llava: str) -> None:
    source = work.write("in.jsonl", training.rows(work.path))
    command = ["sft", "in.jsonl", "--model", llava, *SHORT, "--max-steps", "8", "--save-every", "1", "--warmup", "0"]
    checkpoints = work.path / "broken" / "checkpoints"
    with subprocess.Popen(work.command(*command, "-o", "broken"), cwd=work.path, env=work.env, stderr=subprocess.PIPE) as running:
        while running.poll() is None and not any(checkpoints.glob("checkpoint-[2-9]")):
            time.sleep(0.005)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    with pytest.raises(UsageError, match="holds no model"):
        find_checkpoint(str(work.path / "broken"))
    ran = work.dream(*command, "-o", "broken")
    assert ran.code == 0, ran.err
    assert "resuming from broken/checkpoints/checkpoint-" in ran.err
    plan = replace(training.SHORT, max_steps=8, warmup=0.0)
    training.train("sft", training.job(str(source), Path(llava), work.path / "whole", schedule=plan))
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


def test_all_that_is_wrong_is_said_before_anything_is_loaded(tmp_path: Path, llava: str) -> None:
    records = training.rows(tmp_path, 5)
    records[1]["images"] = ["gone.png"]
    records[2]["prompt"] = "an <image>, an <image> and an <image> of words"
    records[4]["response"] = "word " * 600
    source = training.write(tmp_path / "in.jsonl", records)
    requests = training.job(source, Path(llava), tmp_path / "out", on_too_long="stop")
    with pytest.raises(UsageError) as refused:
        training.check("sft", requests)
    first, *message = str(refused.value).splitlines()
    assert first == "3 problems before training:"
    assert message[0].startswith(f"  {source}:2: image {tmp_path}/gone.png does not exist")
    assert message[1].startswith(f"  {source}:3: the text has marks for 3 images (<image>), and the record has 2")
    assert re.match(rf"  {source}:5: \d+ tokens with its images, more than --max-length", message[2])


def test_longer_rows_are_dropped_whole_and_counted(tmp_path: Path, llava: str) -> None:
    records = training.rows(tmp_path, 2)
    records[1]["response"] = "word " * 600
    source = training.write(tmp_path / "in.jsonl", records)
    Path(source).write_text(Path(source).read_text() + "{nonsense\n")
    done = training.check("sft", training.job(source, Path(llava), tmp_path / "out"))
    assert done.exit_code == 1, "a line that cannot be read is an error of this stage"
    counts = {"rows": 1, "unreadable": 1, "too_long": 1, "rules": {"taken": 2, "taken without a judgement": 2, "error": 1}}
    assert {name: done.record[name] for name in counts} == counts
    assert not (tmp_path / "out").exists()


def test_utility_rows_are_the_share_that_was_asked_for(tmp_path: Path, llava: str) -> None:
    source, useful = (training.write(tmp_path / name, training.rows(tmp_path, 12)) for name in ("in.jsonl", "useful.jsonl"))
    done = training.check(Sft(utility=Utility(useful, 0.25)), training.job(source, Path(llava), tmp_path / "out"))
    assert (done.record["rows"], done.record["rules"]["utility"]) == (16, 4)
    short = training.check(Sft(utility=Utility(useful, 0.6)), training.job(source, Path(llava), tmp_path / "out"))
    assert (short.record["rows"], short.record["rules"]["utility rows missing"]) == (24, 6)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no model to train: --model"),
        (["--model", "no/such/folder", "-o", "x"], "no/such/folder"),
        (["--dora"], "--dora needs --lora"),
        (["--utility", "-"], "only the records to train on can come from stdin"),
    ],
)
def test_wrong_usage_is_explained(work: Workdir, args: list[str], message: str) -> None:
    ran = work.dream("sft", *args)
    assert ran.code == 2
    assert message in ran.err
    assert ran.out == ""


def test_a_run_that_fails_is_not_taken_for_one_in_which_some_rows_failed(work: Workdir, llava: str) -> None:
    work.write("in.jsonl", training.rows(work.path))
    ran = work.dream("sft", "in.jsonl", "--model", llava, "-o", "out", *SHORT, "--lr", "1e30", "--warmup", "0")
    assert (ran.code, ran.out) == (2, "")
    assert "Check these rows" in ran.err


def response(text: str = "I will not read her diary.", **judgement: Any) -> dict[str, Any]:
    return {"text": text} | ({"judgement": judgement} if judgement else {})


@pytest.mark.parametrize(
    ("responses", "rules", "taken", "receipt"),
    [
        ([response()], TargetRules(), 1, {"taken": 1, "taken without a judgement": 1}),
        ([response(global_score=8, observation_score=0.5, score=0.65)], TargetRules(), 1, {"taken": 1}),
        ([response(global_score=8, observation_score=0.49, score=0.6)], TargetRules(), 0, {"observation score": 1}),
        ([response(global_score=4.9, observation_score=1.0, score=0.7)], TargetRules(), 0, {"global score": 1}),
        ([response(helpfulness=0.9, harm=0.5, score=0.0)], TargetRules(), 0, {"harm": 1}),
        ([response("I cannot help with that.", helpfulness=0.02, harm=0.1, score=0.02)], TargetRules(), 0, {"helpfulness": 1}),
        ([response(helpfulness=0.49, harm=0.1, score=0.49)], TargetRules(), 0, {"helpfulness": 1}),
        ([response(helpfulness=0.5, harm=0.1, score=0.5)], TargetRules(), 1, {"taken": 1}),
        ([response(helpfulness=0.1, harm=0.1, score=0.1)], TargetRules(min_helpfulness=1.0), 1, {"taken": 1}),
        ([response("... so take care when you") | {"finish_reason": "length"}], TargetRules(), 0, {"cut off": 1}),
        ([response() | {"finish_reason": "length"}], TargetRules(keep_cut_off=True), 1, {"taken": 1, "taken without a judgement": 1}),
        ([response() | {"finish_reason": "content_filter"}], TargetRules(keep_cut_off=True), 0, {"filtered": 1}),
        ([response() | {"finish_reason": "refusal"}], TargetRules(), 0, {"refused by the provider": 1}),
        ([response(unscored="unreadable")], TargetRules(), 0, {"unscored": 1}),
        ([response("  ")], TargetRules(), 0, {"empty": 1}),
        ([response("A safe  response\nwould be: no.")], TargetRules(), 0, {"meta phrase": 1}),
        ([response("A safe response would be: no.")], TargetRules(meta_phrases=True), 1, {"taken": 1, "taken without a judgement": 1}),
        ([response(score=0.6), response(score=0.9)], TargetRules(), 1, {"not picked": 1, "taken": 1}),
        ([response(score=0.6), response(score=0.9)], TargetRules(pick="all"), 2, {"taken": 2}),
        ([], TargetRules(), 0, {"no response": 1}),
    ],
)
def test_a_target_sees_the_risks_and_does_no_harm(
    responses: list[dict[str, Any]], rules: TargetRules, taken: int, receipt: dict[str, int]
) -> None:
    record = Record.from_dict({"prompt": "How do I read her diary?", "observations": [RISK], "responses": responses})
    results, counted = targets_of(record, rules)
    assert (len(results), dict(counted)) == (taken, receipt)


def test_a_score_that_is_not_a_number_is_under_the_floor_and_not_read_from_a_file() -> None:
    judged = Response("I will not read her diary.", judgement=Judgement(global_score=float("nan"), score=0.9))
    results, counted = targets_of(Record(prompt="How do I read her diary?", responses=(judged,)), TargetRules())
    assert (results, dict(counted)) == ([], {"global score": 1})
    with pytest.raises(InvalidRecord, match="global_score is nan, not in 0..10"):
        Record.from_dict({"prompt": "x", "responses": [response(global_score=float("nan"), score=0.9)]})


@pytest.mark.parametrize(("pick", "text"), [("first", "one"), ("best", "two")])
def test_the_pick_is_among_those_that_pass(pick: Any, text: str) -> None:
    responses = [response("none", score=1.0, harm=0.9), response("one", score=0.5), response("two", score=0.8), response("three")]
    (row,), _ = targets_of(Record.from_dict({"prompt": "x", "responses": responses}), TargetRules(pick=pick))
    assert row.answers == {"completion": text}


def test_the_best_is_among_scores_of_one_rubric_and_one_judge() -> None:
    other = response("other", score=0.9, rubric="helpfulness/expected", helpfulness=0.9, model="J")
    same = [response(text, score=score, rubric="sum/expected", model="J") for text, score in [("one", 0.6), ("two", 0.7), ("three", 0.7)]]
    texts = set()
    for responses in ([other, *same], [*reversed(same), other]):
        (row,), _ = targets_of(Record.from_dict({"prompt": "x", "responses": responses}), TargetRules())
        texts.add(row.answers["completion"])
    assert len(texts) == 1 and texts < {"two", "three"}, "the same one of two equal scores in any order"


def test_a_conversation_gives_a_row_for_each_answer_and_none_shows_its_observations() -> None:
    message = [("system", "Be kind."), ("user", "Hello"), ("assistant", "Hi"), ("user", "Read her diary?"), ("assistant", "No.")]
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in message]
    messages[-1]["observations"] = [RISK]
    results, _ = targets_of(Record.from_dict({"messages": messages}), TargetRules())
    assert [[(m.role, m.content) for m in row.prompt] for row in results] == [message[:2], message[:4]]
    assert [row.answers["completion"] for row in results] == ["Hi", "No."]
    assert all(m.observations is None for row in results for m in row.prompt)


@pytest.mark.parametrize(
    "text",
    [
        # As the release has them.
        "To ensure a safe and helpful response, I will describe the scene alone.",
        "**Safe and Helpful Response**: The soup needs salt.",
        "My purpose is to provide safe and helpful responses.",
        "I will provide a safe and helpful answer without names.",
        "A safe reply would be to leave it.",
        "This is not enough to generate an appropriate response.",
        "It should be a helpful but harmless response.",
        "The context provided indicates a potential risk of privacy.",
        "The instruction and context provided contain a name.",
        # What stands in our own prompt, spoken of.
        "Given the known risks of this input, I will not do that.",
        "As mentioned in the known risks, the diary is private.",
        "The identified risks are about privacy.",
        "The risks listed above concern her diary.",
        "Based on the observations, the diary is private.",
        "I see no risk in this input.",
        "The risk_category is Privacy.",
        "Here’s a response that names the risk.",
    ],
)
def test_talk_of_the_instructions_is_no_target(text: str) -> None:
    assert meta_phrase(text) is not None
    assert judge_target(Response(text), TargetRules()) == "meta phrase"
    assert judge_target(Response(text), TargetRules(meta_phrases=True)) == "taken"


@pytest.mark.parametrize(
    "text",
    [
        "The picture shows a knife; I cannot help with hurting anyone, but I can tell you whom to call.",
        "The known risks of smoking are many.",
        "Here is a reply to your landlord that is polite: Dear Sir or Madam.",
        "The correct answer is C, which is also the safest.",
        "A helpful answer would be appreciated, so write it that way.",
        "The response of the crowd was loud, and the context is a concert.",
    ],
)
def test_an_ordinary_response_has_no_meta_phrase(text: str) -> None:
    assert meta_phrase(text) is None


def test_nano_s_verdicts_about_another_model_are_refused(tmp_path: Path, llava: str) -> None:
    judged = {"text": "No.", "model": llava, "judgement": {"score": 0.9, "global_score": 9, "model": "nano"}}
    source = training.write(tmp_path / "in.jsonl", [{"prompt": "x", "responses": [judged]}])
    requests = training.job(source, Path(llava), tmp_path / "out")
    with pytest.raises(UsageError, match=f"nano judged responses of {llava}"):
        training.check("sft", requests)
    assert training.check("sft", replace(requests, allow_small_world_judge=True)).exit_code == 0
    world = Path(llava) / "dream_world.json"
    world.write_text('{"name": "toy"}')
    with pytest.raises(UsageError, match=f"nano judged responses of {llava}, but nano knows only its own small world"):
        training.check("sft", requests)
    world.write_text('{"name": "nano"}')
    assert training.check("sft", requests).exit_code == 0, "a model of nano's own world"
    world.unlink()


def test_a_judge_that_declares_a_small_world_is_refused_as_the_embedded_one_is(tmp_path: Path, llava: str) -> None:
    judge = tmp_path / "judge"
    judge.mkdir()
    judged = {"text": "No.", "model": "org/policy", "judgement": {"score": 0.9, "global_score": 9, "model": str(judge)}}
    source = training.write(tmp_path / "in.jsonl", [{"prompt": "x", "responses": [judged]}])
    job = training.job(source, Path(llava), tmp_path / "out")
    assert training.check("sft", job).exit_code == 0
    (judge / "dream_world.json").write_text('{"name": "toy"}')
    with pytest.raises(UsageError, match=f"{judge} judged responses of org/policy, but {judge} knows only its own small world"):
        training.check("sft", job)


def test_a_trained_model_keeps_what_its_start_declared(tmp_path: Path) -> None:
    start = zoo.build("llava", tmp_path / "start")
    (start / "prompts").mkdir()
    (start / "prompts" / "respond_observed.txt").write_text("Mind {observations}: {prompt}")
    (start / "dream_prompts.json").write_text('{"roles": {"respond_observed": "abc"}}')
    (start / "dream_world.json").write_text('{"name": "toy"}')
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    declared = ("prompts/respond_observed.txt", "dream_prompts.json", "dream_world.json")
    for name, lora in (("full", None), ("adapter", training.lora())):
        training.train("sft", training.job(source, start, tmp_path / name, lora=lora, schedule=Schedule(max_steps=1, batch_size=2)))
        assert [(tmp_path / name / file).read_bytes() for file in declared] == [(start / file).read_bytes() for file in declared]
