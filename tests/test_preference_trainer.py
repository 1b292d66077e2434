"""The fast path against TRL's own: the same losses, rewards and gradients, on every family, and nothing computed twice."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dream_cli.errors import DreamError
from tests.zoo import build

pytest.importorskip("trl")
pytest.importorskip("peft")
# TRL 1.16 uses names that transformers 5.23 will drop.
pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore:.* will be removed in v6:FutureWarning")]

FAMILIES = ("llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3", "smolvlm", "internvl")
# Of the same kinds; held to TRL with all weights and with an adapter.
NEWER = ("llava_next", "vipllava", "llava_onevision", "idefics2", "mistral3", "glm4v", "qwen3_vl_moe")
RECENT = ("llava_pixtral", "internvl_qwen3", "glm46v", "glm4v_moe")
REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
LANGUAGE_MODEL = r".*(language|text)_model.*\.(q_proj|v_proj)"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose more to waiting threads than they gain."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a tiny model of a family."""
    return functools.cache(lambda family: build(family, tmp_path_factory.mktemp(family)))


def pairs(count: int = 4) -> Any:
    """Rows of unlike lengths: the second has no image, the third has two."""
    import numpy
    from datasets import Dataset, Image, List
    from PIL import Image as Picture

    noise = numpy.random.default_rng(0)
    pictures = [Picture.fromarray(noise.integers(0, 255, (40, 40 + 16 * (n % 3), 3), dtype=numpy.uint8)) for n in range(count + 1)]
    images = [[] if n == 1 else pictures[n : n + (2 if n == 2 else 1)] for n in range(count)]
    texts = {
        "prompt": [[{"role": "user", "content": "What is in this picture?" + " yes" * n}] for n in range(count)],
        "chosen": [[{"role": "assistant", "content": "A harmless drawing" + " of a house" * (n % 3)}] for n in range(count)],
        "rejected": [[{"role": "assistant", "content": "No. no NO" + " 1 2 3" * (n % 4)}] for n in range(count)],
    }
    return Dataset.from_dict({"images": images, **texts}).cast_column("images", List(Image()))


def trainer(kind: Any, folder: Path, out: Path, rows: Any = None, lora: bool = False, model: Any = None, **more: Any) -> Any:
    """A trainer of the class `kind` over the model in the folder."""
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import DPOConfig

    own: dict[str, Any] = {name: more.pop(name) for name in ("settings", "eval_dataset", "compute_metrics") if name in more}
    if lora:
        from peft import LoraConfig

        own["peft_config"] = LoraConfig(r=4, target_modules=LANGUAGE_MODEL)
    options = {
        "per_device_train_batch_size": 4,
        "gradient_checkpointing": False,
        "max_steps": 1,
        "learning_rate": 1e-3,
        "beta": 0.5,
        "max_length": None,
    } | more
    quiet = {"use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32") if model is None else model
    words = AutoProcessor.from_pretrained(folder)
    return kind(model, args=DPOConfig(str(out), **(quiet | options)), train_dataset=rows or pairs(), processing_class=words, **own)


def fast(*args: Any, **more: Any) -> Any:
    """Our trainer."""
    from dream_cli.training.preference.preference_trainer import PreferenceTrainer

    return trainer(PreferenceTrainer, *args, **more)


def stock(*args: Any, **more: Any) -> Any:
    """TRL's own trainer."""
    from trl import DPOTrainer

    return trainer(DPOTrainer, *args, **more)


def train(it: Any) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Train; return what was logged of each step and the gradients of the first one."""
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    gradients: dict[str, Any] = {}

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            if not gradients:
                gradients.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    it.remove_callback(PrinterCallback)
    it.add_callback(Watch())
    it.train()
    return [entry for entry in it.state.log_history if "loss" in entry], gradients


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return |difference| / |one| of two sets of gradients, all parameters taken as one vector."""
    assert set(one) == set(other)
    return math.sqrt(sum(float((one[n] - other[n]).pow(2).sum()) for n in one) / sum(float(g.pow(2).sum()) for g in one.values()))


def assert_equal(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    """Hold two trainings to the same losses and rewards: within 1e-4 at the first step, 1e-3 at the last."""
    for step, close in ((0, 1e-4), (-1, 1e-3)):
        for name in ("loss", *REWARDS):
            assert other[step][name] == pytest.approx(one[step][name], rel=close, abs=close), (name, step)


@pytest.mark.parametrize("family", FAMILIES)
def test_twenty_steps_equal_those_of_trl(folder_of: Any, tmp_path: Path, family: str) -> None:
    ours = fast(folder_of(family), tmp_path, max_steps=20)
    assert (ours.path, ours.reason) == ("shared-prefix", "")
    theirs, their_gradients = train(stock(folder_of(family), tmp_path, max_steps=20))
    own, own_gradients = train(ours)
    assert len(own) == len(theirs) == 20
    assert_equal(theirs, own)
    assert difference(their_gradients, own_gradients) < 1e-4


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch speaks of kernels that are not compiled
@pytest.mark.parametrize("family", FAMILIES)
def test_the_blocks_of_flex_attention_give_the_same_gradients(
    folder_of: Any, tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward in FlexAttention's own arithmetic, which torch keeps from a CPU; the compiled kernels are a GPU's."""
    from torch.nn.attention import flex_attention as flex
    from transformers.integrations import flex_attention as theirs

    from dream_cli.training.preference.preference_trainer import FastPath

    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)
    monkeypatch.setattr(theirs, "compile_friendly_flex_attention", lambda *qkv, training, **more: flex.flex_attention(*qkv, **more))
    ours = fast(folder_of(family), tmp_path, settings=FastPath(blocks=True), max_steps=2)
    assert (ours.path, ours.model.get_decoder().config._attn_implementation) == ("shared-prefix", "flex_attention")
    blocks, block_gradients = train(ours)
    dense, dense_gradients = train(fast(folder_of(family), tmp_path, max_steps=2))
    assert_equal(dense, blocks)
    assert difference(dense_gradients, block_gradients) < 1e-5


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_an_adapter_learns_the_same_with_checkpointing_and_accumulation(folder_of: Any, tmp_path: Path, family: str) -> None:
    more = {
        "lora": True,
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": True,
    }
    theirs, their_gradients = train(stock(folder_of(family), tmp_path, **more))
    own, own_gradients = train(fast(folder_of(family), tmp_path, **more))
    assert_equal(theirs, own)
    assert difference(their_gradients, own_gradients) < 1e-4


@pytest.mark.parametrize(
    ("loss", "ld_alpha"), [(["ipo"], None), (["sigmoid_norm"], None), (["sigmoid", "bco_pair", "sft"], None), (["sigmoid"], 0.25)]
)
def test_other_losses_and_a_cut_are_those_of_trl(folder_of: Any, tmp_path: Path, loss: list[str], ld_alpha: float | None) -> None:
    more = {"loss_type": loss, "ld_alpha": ld_alpha, "max_steps": 2, "max_length": 42}
    assert_equal(*(train(kind(folder_of("llava"), tmp_path, **more))[0] for kind in (stock, fast)))


def test_a_pair_that_cannot_share_its_prompt_goes_trls_way(folder_of: Any, tmp_path: Path) -> None:
    from datasets import Dataset, Image, List

    rows = [
        row | {"prompt": "What is in this picture?" + "<image>" * len(row["images"]), "chosen": "Yes.", "rejected": "No."}
        for row in pairs()
    ]
    plain = Dataset.from_list(rows).cast_column("images", List(Image()))
    ours = fast(folder_of("llava"), tmp_path, rows=plain)
    assert ours.path == "shared-prefix" and "answers" not in ours.data_collator(list(plain))
    assert_equal(train(stock(folder_of("llava"), tmp_path, rows=plain))[0], train(ours)[0])


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Counts the passes through LLaVA and through its tower."""
    from transformers import LlavaModel

    counts = {"model": 0, "tower": 0}
    for name, method in (("model", "forward"), ("tower", "get_image_features")):
        original = getattr(LlavaModel, method)

        def counted(self: Any, *args: Any, _original: Any = original, _name: str = name, **more: Any) -> Any:
            counts[_name] += 1
            return _original(self, *args, **more)

        monkeypatch.setattr(LlavaModel, method, counted)
    yield counts


def test_the_reference_and_the_tower_are_asked_once(folder_of: Any, tmp_path: Path, forwards: dict[str, int]) -> None:
    from dream_cli.training.preference.preference_trainer import FastPath

    kept = FastPath(tmp_path / "cache")
    first, _ = train(fast(folder_of("llava"), tmp_path, lora=True, settings=kept, max_steps=3))
    assert forwards == {"model": 4, "tower": 1}  # one batch of the reference, three steps
    again, _ = train(fast(folder_of("llava"), tmp_path, lora=True, settings=kept, max_steps=3))
    assert forwards == {"model": 7, "tower": 1}
    assert [step["loss"] for step in again] == [step["loss"] for step in first]
    train(fast(folder_of("llava"), tmp_path, settings=kept, max_steps=2))
    assert forwards == {"model": 9, "tower": 3}  # full fine-tuning has the same reference, and trains the tower in each step


def test_features_over_the_limit_are_made_anew(folder_of: Any, tmp_path: Path, forwards: dict[str, int]) -> None:
    from dream_cli.training.preference.preference_trainer import FastPath

    steps = [train(fast(folder_of("llava"), tmp_path, lora=True, settings=FastPath(None, size), max_steps=2))[0] for size in (0, 1 << 20)]
    assert forwards["tower"] == 3 + 1
    assert_equal(*steps)


def test_every_round_starts_at_the_logarithm_of_two(folder_of: Any, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    from dream_cli.training.preference.preference_trainer import FastPath

    folder, kept = folder_of("llava"), FastPath(tmp_path / "cache")
    one = fast(folder, tmp_path, lora=True, settings=kept, max_steps=3, learning_rate=1e-2)
    steps, _ = train(one)
    one.save_model(str(tmp_path / "adapter"))
    learnt = PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(folder, dtype="float32"), tmp_path / "adapter", is_trainable=True
    )
    two = fast(folder, tmp_path, model=learnt, settings=kept, max_steps=3, learning_rate=1e-2)
    more, _ = train(two)
    for round_ in (steps, more):
        assert round_[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert round_[-1]["loss"] < 0.67
    assert len(list((tmp_path / "cache").glob("reference-*"))) == 2  # the base, and the base with the first adapter


def test_a_moved_policy_is_not_taken_for_its_reference(folder_of: Any, tmp_path: Path) -> None:
    rows = pairs()
    ours = fast(folder_of("llava"), tmp_path, rows=rows.select([0, 1]), eval_dataset=rows.select([2, 3]), max_steps=1, learning_rate=1e-2)
    train(ours)
    theirs = stock(
        folder_of("llava"), tmp_path, rows=rows.select([0, 1]), eval_dataset=rows.select([2, 3]), max_steps=1, learning_rate=1e-2
    )
    train(theirs)
    assert ours.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], rel=1e-4)
    with pytest.raises(DreamError, match="moved off its reference"):
        ours.evaluate(pairs(6).select([5]))


def test_a_family_with_masks_of_its_own_goes_trls_way_and_says_so(folder_of: Any, tmp_path: Path) -> None:
    ours = fast(folder_of("gemma3"), tmp_path)
    assert (ours.path, ours.reason.split(";")[0][:25]) == ("plain", "layers with a mask of the")
    steps, _ = train(ours)
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # GLM-4.1V's processor
@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("family", [*NEWER, *RECENT])
def test_newer_families_learn_on_the_shared_prefix_what_they_learn_with_trl(
    folder_of: Any, tmp_path: Path, family: str, adapter: bool
) -> None:
    """Three steps; with an adapter the features of the frozen tower are kept. The router's loss has its own test."""
    more = {"lora": adapter, "max_steps": 3, "router_aux_loss_coef": 0.0 if "moe" in family else None}
    theirs, their_gradients = train(stock(folder_of(family), tmp_path, **more))
    ours = fast(folder_of(family), tmp_path, **more)
    own, own_gradients = train(ours)
    assert (ours.path, ours._features is not None) == ("shared-prefix", adapter)
    assert own[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert_equal(theirs, own)
    assert difference(their_gradients, own_gradients) < 1e-4


def test_the_loss_of_the_router_is_that_of_trl_but_for_the_last_token_of_each_answer(folder_of: Any, tmp_path: Path) -> None:
    more = {"max_steps": 1, "router_aux_loss_coef": 0.5}
    (theirs,), their_gradients = train(stock(folder_of("qwen3_vl_moe"), tmp_path, **more))
    (own,), own_gradients = train(fast(folder_of("qwen3_vl_moe"), tmp_path, **more))
    assert own["aux_loss"] == pytest.approx(theirs["aux_loss"], rel=1e-2)
    assert own["loss"] == pytest.approx(math.log(2) + 0.5 * own["aux_loss"], abs=1e-5)
    assert difference(their_gradients, own_gradients) < 0.05


def test_the_loss_of_the_router_by_hand() -> None:
    """One layer, two experts, one of them per token: prompt tokens count twice, padding not at all."""
    from types import SimpleNamespace

    import torch

    from dream_cli.training.preference.prefix import router_loss

    config = SimpleNamespace(num_experts=2, num_experts_per_tok=1)
    sure = torch.tensor([[100.0, 0.0], [100.0, 0.0], [0.0, 100.0], [0.0, 100.0]])  # padding, prompt, chosen, rejected
    # Of 2 + 1 + 1 tokens two go to each expert, with a mean probability of 1/2: 2 * (1/2 * 1/2 + 1/2 * 1/2).
    assert float(router_loss(config, [sure], torch.tensor([[0, 1, 1, 1]]), 1)) == pytest.approx(1.0)
    # All to the first one: 2 * (1 * 1).
    assert float(router_loss(config, [sure[:2].repeat(2, 1)], torch.tensor([[0, 1, 1, 1]]), 1)) == pytest.approx(2.0)


@pytest.mark.parametrize("family", ["gemma3", "llava"])
def test_the_plain_path_keeps_reference_and_features_too(folder_of: Any, tmp_path: Path, family: str) -> None:
    from dream_cli.training.preference.preference_trainer import FastPath

    more = {"lora": True, "max_steps": 3}
    theirs, their_gradients = train(stock(folder_of(family), tmp_path, **more))
    ours = fast(folder_of(family), tmp_path, settings=FastPath(enabled=False), **more)
    own, own_gradients = train(ours)
    assert (ours.path, ours.keeps_reference, ours._features is not None) == ("plain", True, True)
    assert_equal(theirs, own)
    assert difference(their_gradients, own_gradients) < 1e-5
