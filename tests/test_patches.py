"""Parts of transformers, trl and peft that can go in any release: a version without one is named, before anything goes wrong unseen."""

from __future__ import annotations

import functools
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dream_cli.engines.patches import TESTED, attention_of, private_part, set_attention
from dream_cli.errors import UsageError
from tests.test_preference_trainer import FAMILIES, fast, train
from tests.zoo import build

pytest.importorskip("trl")
pytest.importorskip("peft")
# TRL 1.16 uses names that transformers 5.23 will drop.
pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore:.* will be removed in v6:FutureWarning")]

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the folder of a tiny model of a family."""
    return functools.cache(lambda family: build(family, tmp_path_factory.mktemp(family)))


def error(package: str, what: str) -> str:
    """Return the whole message, as a pattern."""
    tested, bounds = TESTED[package]
    return re.escape(f"{package} {version(package)} lacks {what}; dream is tested with {package} {tested}; pip install '{package}{bounds}'")


def test_the_bounds_are_those_of_the_package() -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    required = [line for name in ("local", "train") for line in extras[name]]
    assert all(f"{package}{bounds}" in required for package, (_, bounds) in TESTED.items())


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    pinned = dict(line.split("==") for line in (CHECKOUT / "constraints" / "cpu.txt").read_text().splitlines() if "==" in line)
    assert {package: ".".join(pinned[package].split(".")[:2]) for package in TESTED} == {p: tested for p, (tested, _) in TESTED.items()}


def test_a_part_that_is_there_is_returned() -> None:
    assert private_part(SimpleNamespace(_inner=3), "_inner", "trl") == 3
    with pytest.raises(UsageError, match=error("trl", "SimpleNamespace._inner")):
        private_part(SimpleNamespace(), "_inner", "trl")


@pytest.mark.parametrize(
    ("owner", "name", "package"),
    [
        ("transformers.Trainer", "_prepare_for_training", "transformers"),
        ("transformers.Trainer", "_load_from_checkpoint", "transformers"),
        ("trl.DPOTrainer", "compute_ref_log_probs", "trl"),
        ("trl.trainer.utils", "_CHUNKED_LOGPROB_CHUNK_SIZE", "trl"),
        ("trl.trainer.utils", "use_adapter", "trl"),
    ],
)
def test_the_trainer_of_pairs_names_what_is_missing(
    folder_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str, name: str, package: str
) -> None:
    folder = folder_of("llava")
    monkeypatch.delattr(f"{owner}.{name}")
    shown = owner if owner == "trl.trainer.utils" else owner.partition(".")[2]
    with pytest.raises(UsageError, match=error(package, f"{shown}.{name}")):
        fast(folder, tmp_path)


def test_the_trainer_of_pairs_names_a_setting_that_is_read_no_more(folder_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import DPOTrainer

    construct = DPOTrainer.__init__

    def without(self: Any, *args: Any, **named: Any) -> None:
        construct(self, *args, **named)
        del self.precompute_ref_logps

    monkeypatch.setattr(DPOTrainer, "__init__", without)
    with pytest.raises(UsageError, match=error("trl", "PreferenceTrainer.precompute_ref_logps")):
        fast(folder_of("llava"), tmp_path)


@pytest.mark.parametrize("name", ["_get_output_dir", "_save_checkpoint", "_load_from_checkpoint"])
def test_checkpoints_name_the_method_that_would_never_be_called(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import transformers

    from dream_cli.training.patches import ExactCheckpoints

    monkeypatch.delattr(transformers.Trainer, name)
    with pytest.raises(UsageError, match=error("transformers", f"Trainer.{name}")):
        type("Trainer", (ExactCheckpoints, transformers.Trainer), {})


@pytest.mark.parametrize("name", ["get_attributes", "from_args_and_dict"])
def test_processors_without_torchvision_name_the_missing_method(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from transformers.processing_utils import ProcessorMixin

    from dream_cli.engines import patches

    monkeypatch.setattr(patches, "_torchvision_works", lambda: False)
    monkeypatch.delattr(ProcessorMixin, "_dream_image_only", raising=False)
    monkeypatch.delattr(ProcessorMixin, name)
    construct = ProcessorMixin.__init__
    with pytest.raises(UsageError, match=error("transformers", f"ProcessorMixin.{name}")):
        patches.allow_image_only_processors()
    assert ProcessorMixin.__init__ is construct
    assert not hasattr(ProcessorMixin, "_dream_image_only")


def test_a_configuration_without_an_attention_is_named() -> None:
    config = SimpleNamespace(_attn_implementation="sdpa")
    set_attention(config, "pair")
    assert attention_of(config) == "pair"
    for use in (attention_of, lambda config: set_attention(config, "pair")):
        with pytest.raises(UsageError, match=error("transformers", "SimpleNamespace._attn_implementation")):
            use(SimpleNamespace())


def test_a_tower_without_features_is_named() -> None:
    from dream_cli.training.preference.image_features import recorded

    with pytest.raises(UsageError, match=error("transformers", "SimpleNamespace.get_image_features")), recorded(SimpleNamespace(), [1]):
        pass


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_features_in_place_of_pixels(folder_of: Any, family: str) -> None:
    from transformers import AutoModelForImageTextToText

    from dream_cli.training.preference.image_features import takes_features

    assert takes_features(AutoModelForImageTextToText.from_pretrained(folder_of(family)))
    assert not takes_features(SimpleNamespace(forward=lambda input_ids, **more: None))


def test_a_model_that_would_ignore_features_gets_pixels(folder_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, _ = train(fast(folder_of("llava"), tmp_path / "a", lora=True))
    monkeypatch.setattr("dream_cli.training.preference.image_features.takes_features", lambda _: False)
    it = fast(folder_of("llava"), tmp_path / "b", lora=True)
    pixels, _ = train(it)
    assert it._features is None
    assert pixels[0]["loss"] == pytest.approx(usual[0]["loss"], rel=1e-5)


def test_other_names_of_an_adapter_are_named() -> None:
    from dream_cli.training.preference.reference_scores import reference_weights

    model = SimpleNamespace(peft_config={}, state_dict=lambda: {"model.layer.weight": 1})
    what = "the names of weights that begin with base_model.model. (here is model.layer.weight)"
    with pytest.raises(UsageError, match=error("peft", what)):
        list(reference_weights(model))
