"""What an update is: its learning rate, the same mean however it is split, and what a run reports of its weights."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.errors import DreamError, UsageError
from dream_cli.training import lineage, measuring
from dream_cli.training.dpo import Dpo
from dream_cli.training.preference import start
from dream_cli.training.preference.losses import PreferenceLoss
from dream_cli.training.settings import Hardware, Schedule
from dream_cli.training.sft import Sft
from dream_cli.training.updates import LengthGroups, warmed
from tests import training, zoo

pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("zoo")
    return {family: zoo.build(family, folder / family) for family in ("llava", "qwen2_5_vl")}


def test_the_warm_up_rises_from_the_first_update_to_the_peak() -> None:
    rates = [warmed(step, lambda step: 1 - step / 10, 3) for step in range(6)]
    assert rates == pytest.approx([1 / 4, 2 / 4, 3 / 4, 0.7, 0.6, 0.5])
    assert warmed(0, lambda step: 1.0, 0) == 1.0


@pytest.mark.parametrize(("decay", "rates"), [("linear", [0.5, 1.0, 2 / 3, 1 / 3]), ("constant", [0.5, 1.0, 1.0, 1.0])])
def test_no_update_of_a_run_has_a_learning_rate_of_zero(tmp_path: Path, models: dict[str, Path], decay: Any, rates: list[float]) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    plan = Schedule(max_steps=4, batch_size=4, learning_rate=1e-3, decay=decay, warmup=0.03)
    training.train("sft", training.job(source, models["llava"], tmp_path / "out", schedule=plan))
    logged = [json.loads(line)["learning_rate"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert logged == pytest.approx([1e-3 * rate for rate in rates])


def test_a_single_update_of_dpo_moves_the_weights(tmp_path: Path, models: dict[str, Path]) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 4))
    done = training.train("dpo", training.job(source, models["llava"], tmp_path / "out", schedule=Schedule(learning_rate=1e-4)))
    assert done.record["steps"] == 1
    assert done.record["weights_moved"] > 0.4  # the rest are words that no row has
    assert math.isclose(done.record["first_loss"], math.log(2), abs_tol=1e-6)


def test_weight_decay_shrinks_a_weight_that_has_no_gradient(tmp_path: Path, models: dict[str, Path]) -> None:
    from safetensors.torch import load_file

    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 4))
    plan = Schedule(max_steps=1, batch_size=4, learning_rate=0.01, warmup=0.0, weight_decay=0.5)
    training.train("sft", training.job(source, models["llava"], tmp_path / "out", schedule=plan))
    before, after = (load_file(folder / "model.safetensors") for folder in (models["llava"], tmp_path / "out"))
    (name,) = (name for name in before if name.endswith("embed_tokens.weight"))
    # AdamW multiplies by 1 - rate * decay; most words of the vocabulary are in no row.
    shrunk = (after[name] / before[name] - (1 - 0.01 * 0.5)).abs() < 1e-5
    assert float(shrunk.all(1).float().mean()) > 0.5


def gradients(method: Any, job: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the gradients of the first update, before they are clipped."""
    seen: dict[str, Any] = {}

    def clip(self: Any, model: Any) -> Any:
        if not seen:
            seen.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    from transformers import Trainer

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_clip_grad_norm", clip)
        training.train(method, job)
    return seen


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return |difference| / |one| of two sets of gradients, all parameters taken as one vector."""
    assert set(one) == set(other)
    return math.sqrt(sum(float((one[n] - other[n]).pow(2).sum()) for n in one) / sum(float(g.pow(2).sum()) for g in one.values()))


@pytest.mark.parametrize(
    ("method", "family", "adapter"),
    [
        (Sft(), "llava", False),
        (Sft(), "qwen2_5_vl", False),
        (Dpo(), "qwen2_5_vl", True),
        (Dpo(PreferenceLoss({"sigmoid": 1.0, "sft": 1.0})), "qwen2_5_vl", False),
        (Dpo(PreferenceLoss({"sigmoid": 1.0, "sft": 1.0}), plain=True), "llava", False),
    ],
)
def test_an_update_in_uneven_micro_batches_is_that_of_one_batch(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, method: Any, family: str, adapter: bool
) -> None:
    """Five rows of very different lengths, at once and as 2, 2, 1."""
    rows = training.rows(tmp_path, 5)
    for number, row in enumerate(rows):
        row["chosen"] = row["response"] = row["response"] + " no yes" * (8 * number)
    source = training.write(tmp_path / "in.jsonl", rows)

    def job(out: str, batch: int, accumulate: int) -> Any:
        plan = Schedule(max_steps=1, batch_size=batch, accumulate=accumulate, learning_rate=1e-3)
        return training.job(source, models[family], tmp_path / out, schedule=plan, lora=training.lora() if adapter else None)

    whole = gradients(method, job("whole", 5, 1), monkeypatch)
    assert difference(whole, gradients(method, job("parts", 2, 3), monkeypatch)) < 1e-5


def test_the_policy_is_held_to_its_reference_before_the_first_update(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that do not reach the policy, as happened with forward passes that swallow unknown arguments."""
    import torch

    from dream_cli.training.preference import image_features

    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    given = image_features.as_encoder_outputs
    monkeypatch.setattr(image_features, "as_encoder_outputs", lambda *kept: None if torch.is_grad_enabled() else given(*kept))
    with pytest.raises(DreamError, match=r"the policy differs from its reference before the first update, by .* nats per token"):
        training.train("dpo", training.job(source, models["llava"], tmp_path / "out", lora=training.lora()))


def test_rounding_is_allowed_and_more_is_not() -> None:
    import torch

    policy, reference, tokens = torch.tensor([-10.0, -20.0]), torch.tensor([-10.001, -20.002]), torch.tensor([10, 10])
    start.check_equal(policy, reference, tokens, exact=True)  # (0.0001 + 0.0002) / 2 = 0.00015 per token
    start.check_equal(policy, reference - 0.4, tokens, exact=False)
    for other in (reference - 0.01, reference * torch.nan):
        with pytest.raises(DreamError, match="nats per token"):
            start.check_equal(policy, other, tokens, exact=True)


@pytest.mark.parametrize("plain", [False, True])
def test_attention_dropout_of_the_configuration_is_off_in_dpo(tmp_path: Path, plain: bool) -> None:
    model = zoo.build("llava", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["text_config"]["attention_dropout"] = config["vision_config"]["attention_dropout"] = 0.5
    (model / "config.json").write_text(json.dumps(config))
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 4))
    job = training.job(source, model, tmp_path / "out", schedule=Schedule(max_steps=1))
    assert math.isclose(training.train(Dpo(plain=plain), job).record["first_loss"], math.log(2), abs_tol=1e-6)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]["attention_dropout"] == 0.5


def test_bfloat16_weights_are_refused_where_their_optimiser_would_lose_the_updates(tmp_path: Path, models: dict[str, Path]) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 4))
    job = training.job(source, models["llava"], tmp_path / "out", hardware=Hardware(dtype="bfloat16"))
    for method in ("sft", "dpo"):
        with pytest.raises(UsageError, match="--dtype bfloat16 rounds most updates of --optim adamw away .* use --optim adamw_8bit"):
            training.check(method, job)
        training.check(method, replace(job, lora=training.lora()))
        training.check(method, replace(job, schedule=Schedule(optimiser="adamw_8bit")))


def test_weights_that_hardly_moved_are_named(tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 4))
    plan = Schedule(max_steps=1, learning_rate=1e-12)
    done = training.train("sft", training.job(source, models["llava"], tmp_path / "out", schedule=plan))
    assert done.record["weights_moved"] < measuring.FEW
    assert "of the trained weights changed, so little was learnt; raise --lr" in capsys.readouterr().err


def test_the_share_of_moved_weights_by_hand() -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.Linear(2, 1, bias=False))
    before = measuring.sample(model)
    with torch.no_grad():
        model[0].weight[0, :2] += 1  # 2 of 6, and 0 of 2
    assert measuring.share_moved(model, before) == pytest.approx(2 / 8)


def test_a_finished_folder_names_no_place_and_holds_no_data(tmp_path: Path, models: dict[str, Path]) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 4))
    done = training.train("dpo", training.job(source, models["llava"], tmp_path / "out", lora=training.lora(), held_out=source))
    assert {"rows.arrow", "held-out.arrow", "checkpoints", "cache"}.isdisjoint(path.name for path in (tmp_path / "out").iterdir())
    card, run = (tmp_path / "out" / "README.md").read_text(), (tmp_path / "out" / "run.json").read_text()
    assert str(tmp_path) not in card + run and "base_model" not in card
    usage = done.record["usage"]
    assert set(usage) == {"seconds", "rows_per_second", "tokens_per_second", "peak_memory_mib", "device", "processes"}
    assert usage["peak_memory_mib"] > 100 and usage["rows_per_second"] > 0 and usage["device"].startswith("CPU")
    assert "| rows per second |" in card and "| weights_moved |" in card
    assert done.record["model"] == str(tmp_path / "out")


def test_places_are_cut_to_their_last_part_and_ids_are_not() -> None:
    before = {"a": ["/home/me/pairs.jsonl", "--model=/home/me/m", "org/model", "a/b.jsonl"], "b": 3, "c": {"d": r"C:\me\x", "e": "~/y"}}
    after = {"a": ["pairs.jsonl", "--model=m", "org/model", "a/b.jsonl"], "b": 3, "c": {"d": "x", "e": "y"}}
    assert lineage.without_places(before) == after


@given(st.lists(st.integers(1, 99), max_size=60), st.integers(1, 5), st.integers(0, 3))
def test_groups_of_length_hold_every_row_once_and_batches_of_neighbours(lengths: list[int], batch: int, epoch: int) -> None:
    groups = LengthGroups(lengths, batch, seed=1)
    groups.set_epoch(epoch)
    order = list(groups)
    assert sorted(order) == list(range(len(lengths))) and order == list(groups)
    # One pool: no row outside of a full batch has a length strictly between two of its rows.
    ranks = sorted(lengths)
    for first in range(0, len(order) - batch + 1, batch):
        part = sorted(lengths[row] for row in order[first : first + batch])
        assert any(ranks[at : at + batch] == part for at in range(0, len(ranks), batch))


def test_another_epoch_has_another_order() -> None:
    groups = LengthGroups(list(range(64)), 4, seed=1)
    first = list(groups)
    groups.set_epoch(1)
    assert list(groups) != first


def test_batches_of_like_length_are_trained_and_held_out_rows_evaluated_on_the_way(tmp_path: Path, models: dict[str, Path]) -> None:
    rows = training.rows(tmp_path, 12)
    for number, row in enumerate(rows):
        row["chosen"] += " no yes" * (number % 3 * 8)
    source = training.write(tmp_path / "in.jsonl", rows)
    plan = Schedule(epochs=2, batch_size=4, learning_rate=1e-3, group_by_length=True)
    hardware = Hardware(save_every=2, eval_every=2)
    job = training.job(source, models["llava"], tmp_path / "out", schedule=plan, held_out=source, hardware=hardware)
    assert training.train("dpo", job).record["steps"] == 6
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line for line in lines if "eval_loss" in line]
    assert [line["step"] for line in evaluated] == [2, 4, 6]
    assert evaluated[-1]["eval_loss"] < evaluated[0]["eval_loss"] < math.log(2)
    assert {"eval_rewards/chosen", "eval_rewards/rejected"} <= set(evaluated[0]) and {"grad_norm", "rewards/chosen"} <= set(lines[0])
