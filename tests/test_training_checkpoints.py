"""A run that was broken off goes on exactly, and a checkpoint is whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dream_cli.errors import DreamError, UsageError
from dream_cli.training import running
from dream_cli.training.settings import Hardware, Job, Schedule
from tests import training, zoo

pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("zoo")
    return {family: zoo.build(family, folder / family) for family in ("llava", "qwen2_5_vl")}


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return what makes the runs of this test break off after a step, as a killed process does: nothing is saved."""
    from transformers import TrainerCallback

    make = running._trainer

    def after(step: int) -> None:
        class Break(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step == step:
                    raise ConnectionAbortedError

        def made(*args: Any) -> Any:
            trainer = make(*args)
            if step:
                trainer.add_callback(Break())
            return trainer

        monkeypatch.setattr(running, "_trainer", made)

    return after


@pytest.mark.parametrize(
    ("method", "family", "adapter"),
    [("sft", "llava", False), ("sft", "qwen2_5_vl", True), ("dpo", "qwen2_5_vl", False), ("dpo", "llava", True)],
)
def test_broken_off_and_given_again_it_is_the_same_to_the_last_bit(
    tmp_path: Path, models: dict[str, Path], breaking: Callable[[int], None], method: str, family: str, adapter: bool
) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))

    def job(out: str) -> Job:
        return training.job(source, models[family], tmp_path / out, lora=training.lora() if adapter else None)

    whole = training.train(method, job("whole"))
    breaking(3)
    with pytest.raises(ConnectionAbortedError):
        training.train(method, job("broken"))
    assert [path.name for path in (tmp_path / "broken" / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    breaking(0)
    again = training.train(method, job("broken"))
    apart = {"model": "", "usage": {}}  # of the last process alone
    assert again.record | apart == whole.record | apart
    assert training.weights(tmp_path / "broken") == training.weights(tmp_path / "whole")
    assert (tmp_path / "broken" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("adapter", [False, True])
def test_the_last_checkpoints_are_kept_as_models(tmp_path: Path, models: dict[str, Path], adapter: bool) -> None:
    from dream_cli.engines.checkpoint import find_checkpoint
    from dream_cli.engines.local_model import load_weights, with_adapter

    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    hardware = Hardware(save_every=1, keep=2)
    lora = training.lora() if adapter else None
    training.train("dpo", training.job(source, models["llava"], tmp_path / "out", hardware=hardware, lora=lora))
    kept = sorted((tmp_path / "out" / "checkpoints").iterdir())
    assert [path.name for path in kept] == ["checkpoint-3", "checkpoint-4"]
    assert training.weights(kept[0]) != training.weights(kept[1]) == training.weights(tmp_path / "out")
    published = {path.name for path in (tmp_path / "out").iterdir()} - {
        "checkpoints",
        "run.json",
        "metrics.jsonl",
        "curves.png",
        "README.md",
    }
    assert {path.name for path in kept[0].iterdir()} == published
    checkpoint = find_checkpoint(str(kept[0]))
    assert checkpoint.folder == (models["llava"].resolve() if adapter else kept[0])
    model = load_weights(checkpoint.folder, "kept", "float32")
    assert (with_adapter(model, checkpoint) if adapter else model).get_decoder() is not None


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    requests = training.job(source, models["llava"], tmp_path / "out")
    save, saved = torch.save, []

    def full(*args: Any, **named: Any) -> None:
        saved.append(1)
        if len(saved) > 5:
            raise OSError(28, os.strerror(28))
        save(*args, **named)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DreamError, match=r"step 4: .*No space left on device; the last good one is .*checkpoint-2\. Free some space"):
        training.train("sft", requests)
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir() if path.is_dir()] == ["checkpoint-2"]
    monkeypatch.setattr(torch, "save", save)
    assert training.train("sft", requests).record["steps"] == 4


def test_a_loss_that_is_no_number_stops_and_names_the_batch(tmp_path: Path, models: dict[str, Path]) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 4))
    wild = Schedule(max_steps=9, batch_size=2, learning_rate=1e30, warmup=0.0)
    with pytest.raises(DreamError, match=rf"the loss of step \d is (nan|inf); its batch: {source}:\d, {source}:\d\. Check these rows"):
        training.train("sft", training.job(source, models["llava"], tmp_path / "out", schedule=wild))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, models: dict[str, Path], breaking: Callable[[int], None]) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    requests = training.job(source, models["llava"], tmp_path / "out")
    breaking(3)
    with pytest.raises(ConnectionAbortedError):
        training.train("sft", requests)
    breaking(0)
    config = tmp_path / "out" / "checkpoints" / "checkpoint-2" / "config.json"
    wider = json.loads(config.read_text())
    wider["text_config"]["num_hidden_layers"] = 3
    config.write_text(json.dumps(wider))
    with pytest.raises(DreamError, match="does not fit the model"):
        training.train("sft", requests)


def test_a_folder_of_another_version_is_named_and_a_damaged_one_is_no_run(
    tmp_path: Path, models: dict[str, Path], breaking: Callable[[int], None]
) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    job = training.job(source, models["llava"], tmp_path / "out")
    breaking(3)
    with pytest.raises(ConnectionAbortedError):
        training.train("dpo", job)
    breaking(0)
    file = tmp_path / "out" / "run.json"
    older = json.loads(file.read_text()) | {"identity": "0", "check": "0", "method": {"name": "dpo", "kind": "sigmoid"}}
    file.write_text(json.dumps(older | {"versions": {"dream": "0.0.9"}}))
    with pytest.raises(UsageError, match=r"out holds another run \(method differ, of dream 0\.0\.9\); choose another -o, or --overwrite"):
        training.train("dpo", job)
    file.write_text('["not a run"]')
    assert training.train("dpo", job).record["steps"] == 4


def test_a_parent_of_another_version_is_named_in_the_card_as_far_as_it_is_known(tmp_path: Path, models: dict[str, Path]) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    training.train("sft", training.job(source, models["llava"], tmp_path / "0", lora=training.lora()))
    (tmp_path / "0" / "run.json").write_text(json.dumps({"command": ["dream", "sft", "old.jsonl"]}))
    training.train("dpo", training.job(source, tmp_path / "0", tmp_path / "1", lora=training.lora()))
    card = (tmp_path / "1" / "README.md").read_text()
    assert "1. `unknown`\n2. `dream sft old.jsonl` on ? rows\n3. `" in card


@pytest.mark.parametrize("place", ["transformers.Trainer._move_model_to_device", "dream_cli.training.checkpoints.WithRows.__call__"])
def test_memory_that_ends_says_what_to_lower(tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """While the weights go to the card, and in a step."""
    import torch

    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(place, full)
    requests = training.job(source, models["llava"], tmp_path / "out", hardware=Hardware())
    with pytest.raises(DreamError, match=r"out of memory with --batch-size 4; .*--batch-size 2 --accumulate 2 .*--lora"):
        training.train("sft", requests)
