"""dream dpo, as a user calls it."""

from __future__ import annotations

import json
import math
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dream_cli.engines.checkpoint import Checkpoint, find_checkpoint
from dream_cli.errors import UsageError
from dream_cli.training.dpo import Dpo
from dream_cli.training.settings import Hardware, Lora, Schedule
from tests import training, zoo
from tests.conftest import Workdir

pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.build("llava", tmp_path_factory.mktemp("zoo") / "llava")


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_one_adapter_goes_through_the_rounds(work: Workdir, llava: Path) -> None:
    """sft, then dpo on its adapter: the round starts at ln 2 and leaves one adapter, which names its base."""
    source = work.write("in.jsonl", training.rows(work.path))
    first = work.path / "ckpt" / "0"
    training.train("sft", training.job(str(source), llava, first, lora=training.lora()))
    short = ["--lora", "--max-steps", "3", "--batch-size", "4", "--lr", "1e-3", "--warmup", "0"]
    ran = work.dream("dpo", "--model", "ckpt/0", "-o", "ckpt/1", *short, stdin=source.read_bytes())
    assert ran.code == 0, ran.err
    (record,) = ran.rows
    assert record["model"] == "ckpt/1"
    assert math.isclose(record["first_loss"], math.log(2), abs_tol=1e-6)
    assert record["loss"] < record["first_loss"]
    assert not (work.path / "ckpt" / "1" / "ref").exists()
    plan = json.loads((work.path / "ckpt" / "1" / "adapter_config.json").read_text())
    assert plan["base_model_name_or_path"] == str(llava)
    run = json.loads((work.path / "ckpt" / "1" / "run.json").read_text())
    assert run["parent"]["method"]["name"] == "sft"
    assert training.weights(work.path / "ckpt" / "1") != training.weights(first)


def test_two_processes_learn_what_one_does(work: Workdir, llava: Path) -> None:
    work.write("pairs.jsonl", training.rows(work.path))
    plan = ["dpo", "pairs.jsonl", "--model", str(llava), "--max-steps", "3", "--lr", "1e-3", "--warmup", "0"]
    ran = work.dream(*plan, "-o", "two", "--batch-size", "2", "--nproc", "2")
    assert ran.code == 0, ran.err
    assert len(ran.rows) == 1
    training.train(
        "dpo",
        training.job(
            str(work.path / "pairs.jsonl"),
            llava,
            work.path / "one",
            schedule=Schedule(max_steps=3, batch_size=4, learning_rate=1e-3, warmup=0.0),
        ),
    )
    one, two = ([line["loss"] for line in metrics(work.path / name)] for name in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-5)


def test_the_processes_that_are_there_are_those_asked_for(work: Workdir, llava: Path) -> None:
    work.write("pairs.jsonl", training.rows(work.path))
    work.env |= {"WORLD_SIZE": "1", "RANK": "0"}
    ran = work.dream("dpo", "pairs.jsonl", "--model", str(llava), "-o", "x", "--nproc", "2")
    assert (ran.code, ran.out) == (2, "")
    assert "--nproc 2, but the launcher started 1 processes" in ran.err


def test_separable_pairs_are_told_apart_also_where_they_were_not_seen(tmp_path: Path, llava: Path) -> None:
    rows = training.rows(tmp_path, 48)
    seen, unseen = training.write(tmp_path / "seen.jsonl", rows[:32]), training.write(tmp_path / "unseen.jsonl", rows[32:])
    plan = Schedule(epochs=3, batch_size=8, learning_rate=1e-3)
    done = training.train("dpo", training.job(seen, llava, tmp_path / "out", schedule=plan, held_out=unseen, lora=training.lora()))
    assert done.record["eval_rewards/accuracies"] > 0.9
    assert done.record["rewards/margins"] > 0


def test_a_merged_adapter_is_the_plain_model_that_it_was(tmp_path: Path, llava: Path) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    for merge in (False, True):
        training.train("dpo", training.job(source, llava, tmp_path / str(merge), lora=training.lora(merge=merge)))
    assert not (tmp_path / "True" / "adapter_config.json").exists()
    ids = torch.arange(5, 25)[None]
    adapted, merged, base = (
        AutoModelForImageTextToText.from_pretrained(folder)(input_ids=ids).logits
        for folder in (tmp_path / "False", tmp_path / "True", llava)
    )
    assert torch.allclose(adapted, merged, atol=1e-5)
    assert not torch.allclose(merged, base, atol=1e-3)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize("plain", [False, True])
def test_an_adapter_learns_on_a_base_in_four_bits(tmp_path: Path, plain: bool) -> None:
    """On a CPU whose kernels pack the base as soon as it only answers, which the reference does before the first step."""
    from transformers import AutoModelForImageTextToText

    model = zoo.build("qwen2_5_vl", tmp_path / "model", width=64)
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    requests = training.job(source, model, tmp_path / "out", lora=training.lora(quantize=True, merge=True), held_out=source)
    record = training.train(Dpo(plain=plain), requests).record
    assert record["path"] == ("plain" if plain else "shared-prefix")
    assert math.isclose(record["first_loss"], math.log(2), abs_tol=1e-6)
    assert record["eval_loss"] < record["loss"] < 0.69
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert not hasattr(merged, "hf_quantizer")


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is here")
def test_four_bits_without_bitsandbytes_are_refused_beside_what_else_is_wrong(work: Workdir, llava: Path) -> None:
    ran = work.dream("dpo", "--model", str(llava), "--qlora", "--dora", "--merge")
    assert ran.code == 2
    assert "--qlora needs bitsandbytes; install the extra 'qlora' in the checkout: pip install '.[qlora]' or pipx install" in ran.err
    assert "no folder for the trained model" in ran.err and "--dora needs" not in ran.err


def test_an_adapter_can_be_trained_on_in_full(tmp_path: Path, llava: Path) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    training.train("sft", training.job(source, llava, tmp_path / "0", lora=training.lora()))
    done = training.train("dpo", training.job(source, tmp_path / "0", tmp_path / "1"))
    assert math.isclose(done.record["first_loss"], math.log(2), abs_tol=1e-6)
    assert (tmp_path / "1" / "model.safetensors").exists()


def test_what_is_no_pair_is_named_row_by_row(tmp_path: Path, llava: Path) -> None:
    rows = training.rows(tmp_path, 5)
    rows[1]["rejected"] = rows[1]["chosen"] + " "
    del rows[2]["chosen"]
    rows[3] |= {"policy": "some/model", "judge": "nano"}
    rows[4] |= {"error": {"stage": "sample", "kind": "image", "message": "gone"}}
    source = training.write(tmp_path / "in.jsonl", rows)
    with pytest.raises(UsageError) as refused:
        training.check("dpo", training.job(source, llava, tmp_path / "out"))
    message = str(refused.value).splitlines()
    assert message[0] == "3 problems before training:"
    assert message[1].startswith(f"  {source}:2: chosen and rejected are the same text")
    assert message[2].startswith(f"  {source}:3: no chosen text; `dream pair` makes pairs")
    assert message[3].startswith("  nano judged responses of some/model")


@pytest.mark.parametrize("rows", [[], [{"prompt": "x", "error": {"stage": "pair", "kind": "x", "message": "y"}}]])
def test_no_pairs_are_no_run(tmp_path: Path, llava: Path, rows: list[dict[str, Any]]) -> None:
    source = training.write(tmp_path / "in.jsonl", rows)
    with pytest.raises(UsageError, match=r"in\.jsonl: no pair to learn from; `dream pair` makes pairs"):
        training.train("dpo", training.job(source, llava, tmp_path / "out"))
    assert not (tmp_path / "out" / "rows.arrow").exists()


def test_pairs_that_are_all_too_long_are_named_as_such(tmp_path: Path, llava: Path) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 2))
    with pytest.raises(UsageError, match=r"in\.jsonl: all usable rows are longer than 3 tokens \(--max-length.*2 too long"):
        training.train("dpo", training.job(source, llava, tmp_path / "out", max_length=3))


def test_one_pair_is_enough(tmp_path: Path, llava: Path) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 2)[1:])
    assert training.train("dpo", training.job(source, llava, tmp_path / "out", schedule=Schedule())).record["steps"] == 1


def test_an_adapter_finds_its_base_where_both_were_moved_and_takes_no_other(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    base = zoo.build("llava", old / "base")
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    training.train("dpo", training.job(source, base, old / "0", lora=training.lora()))
    old.rename(new)
    assert find_checkpoint(str(new / "0")) == Checkpoint((new / "base").resolve(), new / "0")
    assert training.train("dpo", training.job(source, new / "0", new / "1", lora=training.lora())).record["adapter"]
    shutil.rmtree(new / "base")
    zoo.build("llava", new / "base", seed=1)
    with pytest.raises(UsageError, match=r"there is no model folder .*old/base; write its present path into .*0/adapter_config\.json"):
        find_checkpoint(str(new / "0"))


def test_an_adapter_that_goes_on_is_not_asked_to_be_another(tmp_path: Path, llava: Path) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    training.train("sft", training.job(source, llava, tmp_path / "0", lora=training.lora()))
    assert training.check("dpo", training.job(source, tmp_path / "0", tmp_path / "1", lora=Lora(rank=4))).exit_code == 0
    with pytest.raises(UsageError) as refused:
        training.check("dpo", training.job(source, tmp_path / "0", tmp_path / "1", lora=Lora(16, 8, "q_proj", dora=True)))
    message = str(refused.value)
    assert message.startswith("3 problems") and "not with --rank 16 (4 is its own); --merge in its own run lets a new one begin" in message
    assert "--dora True (False is its own)" in message and "--targets q_proj" in message and "--alpha" not in message


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, llava: Path) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    training.train("sft", training.job(source, llava, tmp_path / "0", lora=training.lora()))
    other = zoo.build("idefics3", tmp_path / "idefics3")
    plan = tmp_path / "0" / "adapter_config.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"base_model_name_or_path": str(other)}))
    with pytest.raises(
        UsageError, match=r"the base of .*0 is no longer the model that the adapter was trained on \(.*idefics3\); restore it"
    ):
        training.check("dpo", training.job(source, tmp_path / "0", tmp_path / "1", lora=training.lora()))
    (tmp_path / "0" / "run.json").unlink()  # of an adapter that was trained elsewhere nothing more is known
    with pytest.raises(UsageError, match="the adapter .* does not fit its base"):
        training.train("dpo", training.job(source, tmp_path / "0", tmp_path / "1", lora=training.lora(), hardware=Hardware()))
