"""Families of models in training: which are refused before the weights are read, and what is particular about others."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dream_cli.errors import UsageError
from dream_cli.training.models import Start, find_start, target_modules
from dream_cli.training.settings import Schedule
from tests import training, zoo

pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(zoo.build("llava", tmp_path_factory.mktemp("zoo") / "llava"))


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_family_that_cannot_be_trained_is_named_before_the_weights_are_read(tmp_path: Path, method: str) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    model = zoo.build("paligemma", tmp_path / "model")
    (model / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="of the family paligemma, which cannot be trained here: its processor cannot read an answer"):
        training.check(method, training.job(source, model, tmp_path / "out"))


@pytest.mark.parametrize(
    ("family", "reason"), [("mllama", "end its cross-attention mask at the prompt"), ("llama4", "makes bfloat16 pixels")]
)
def test_a_family_that_would_fail_in_the_first_step_is_refused_by_the_check(
    tmp_path: Path, llava: str, monkeypatch: pytest.MonkeyPatch, family: str, reason: str
) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    monkeypatch.setattr(Start, "config", property(lambda _: {"model_type": family}))
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    with pytest.raises(UsageError, match=f"of the family {family}, which cannot be trained here: .*{reason}"):
        training.check("sft", training.job(source, Path(llava), tmp_path / "out"))


def test_an_adapter_on_experts_names_what_it_does_not_reach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 4))
    model = zoo.build("qwen3_vl_moe", tmp_path / "model")
    job = replace(training.job(source, model, tmp_path / "out", lora=training.lora()), quiet=False)
    training.check("sft", job)
    assert "the experts of" in (note := capsys.readouterr().err) and "are not adapted: they are one tensor" in note
    training.check("sft", replace(job, lora=None))
    assert "experts" not in capsys.readouterr().err


def test_a_head_inside_of_the_decoder_is_no_target(tmp_path: Path, llava: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Llama 4 has it, whose decoder is a language model with its head."""
    import torch

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.language_model = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(2, 2), "lm_head": torch.nn.Linear(2, 2)})

        def get_decoder(self) -> Any:
            return self.language_model

        def get_output_embeddings(self) -> Any:
            return self.language_model["lm_head"]

    monkeypatch.setattr("dream_cli.training.models._empty_model", lambda _: Model())
    pattern = target_modules(find_start(llava), training.job("in.jsonl", Path(llava), tmp_path, lora=training.lora()))
    assert re.fullmatch(pattern, "language_model.q_proj") and not re.fullmatch(pattern, "language_model.lm_head")


def test_a_text_model_is_refused_as_such_and_not_row_by_row(tmp_path: Path) -> None:
    import transformers as hf

    words = zoo.tokenizer()
    words.chat_template = zoo.template("")
    words.save_pretrained(tmp_path / "model")
    hf.Qwen2ForCausalLM(hf.Qwen2Config(**zoo.text_config(words))).save_pretrained(tmp_path / "model")
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    with pytest.raises(UsageError) as refused:
        training.check("dpo", training.job(source, tmp_path / "model", tmp_path / "out"))
    reason = "transformers does not load it as a model of images and text"
    first, *others = str(refused.value).splitlines()
    assert (first, len(others)) == ("1 problem before training:", 1)
    assert others[0].endswith(f"model is of the family qwen2, which cannot be trained here: {reason}")


def test_a_model_whose_encoder_reads_the_prompt_is_refused(tmp_path: Path, llava: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers as hf

    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    monkeypatch.setattr("dream_cli.training.models.model_config", lambda _: hf.Florence2Config())
    with pytest.raises(UsageError, match="cannot be trained here: its encoder reads the prompt apart from the answer"):
        training.check("sft", training.job(source, Path(llava), tmp_path / "out"))


@pytest.mark.parametrize("own", [{"auto_map": {"AutoConfig": "configuration_own.Own"}}, {}])
def test_a_model_with_code_of_its_own_is_refused_in_one_line(tmp_path: Path, llava: str, own: dict[str, Any]) -> None:
    shutil.copytree(llava, model := tmp_path / "model")
    config = json.loads((model / "config.json").read_text()) | {"model_type": "own_vl"} | own
    (model / "config.json").write_text(json.dumps(config))
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    hint = ".*; dream runs no code of a checkpoint, so use a copy in the format of transformers" if own else ""
    with pytest.raises(UsageError, match=f"cannot read the configuration of .*model: {hint}"):
        training.check("sft", training.job(source, model, tmp_path / "out"))


def test_experts_whose_number_trl_does_not_find_are_trained_without_the_loss_of_their_router(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GLM-4.5V: its configuration has `n_routed_experts`, TRL reads `num_experts`."""
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path, 4))
    job = training.job(source, zoo.build("glm4v_moe", tmp_path / "model"), tmp_path / "sft", schedule=Schedule(max_steps=1))
    assert training.train("sft", replace(job, quiet=False)).record["steps"] == 1
    assert "the load-balancing loss of the experts of" in capsys.readouterr().err
    assert training.train("dpo", replace(job, out=tmp_path / "dpo")).record["first_loss"] == pytest.approx(0.6931, abs=1e-4)


def test_features_that_are_not_all_that_a_model_reads_of_its_tower_are_not_kept(tmp_path: Path) -> None:
    """Ovis2, which also reads the features of its indicator tokens."""
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    job = training.job(source, zoo.build("ovis2", tmp_path / "model"), tmp_path / "out", lora=training.lora())
    record = training.train("dpo", job).record
    assert (record["path"], record["features_kept"]) == ("plain", False)


def test_minicpm_is_trained_without_the_part_of_its_processor_for_videos(tmp_path: Path) -> None:
    source = training.write(tmp_path / "in.jsonl", training.rows(tmp_path))
    job = training.job(source, zoo.build("minicpmv4_6", tmp_path / "model"), tmp_path / "out", lora=training.lora())
    record = training.train("dpo", job).record
    assert (record["path"], record["features_kept"]) == ("plain", True)
    assert "video" not in (tmp_path / "out" / "processor_config.json").read_text()
