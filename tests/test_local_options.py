"""The options of a model on this machine: which are refused before anything is loaded, and what of them is in the fingerprint."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from dream_cli.engines.checkpoint import find_checkpoint
from dream_cli.engines.protocol import EngineSpec
from dream_cli.engines.registry import open_engine
from dream_cli.engines.vllm import check_options, options_tag
from dream_cli.errors import UsageError
from tests.conftest import Workdir


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--engine-args", "{"], "--engine-args is not JSON"),
        (["--engine-args", "[1]"], "--engine-args is not a JSON object"),
        (["--engine-args", '{"model": "x"}'], "--engine-args cannot set model"),
        (["--adapter", "in.jsonl"], "--adapter in.jsonl holds no adapter"),
        (["--engine-args", '{"max_model_len": 512}'], "--engine-args is for --engine vllm, and the engine is transformers"),
    ],
)
def test_what_cannot_hold_is_refused(work: Workdir, line: list[str], message: str) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "Hello"}])
    ran = work.dream("sample", "in.jsonl", *line)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


@pytest.mark.parametrize("line", [["--base-url", "http://127.0.0.1:9/v1"], ["--engine", "transformers"]])
@pytest.mark.parametrize("variable", ["DREAM_ENGINE_ARGS", "DREAM_SAMPLE_ENGINE_ARGS"])
def test_engine_options_in_the_environment_are_for_vllm_alone(work: Workdir, variable: str, line: list[str]) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "Hello"}])
    work.env[variable] = '{"max_model_len": 512}'
    ran = work.dream("sample", "in.jsonl", *line)
    assert "--engine-args" not in ran.err
    refused = work.dream("sample", "in.jsonl", *line, "--engine-args", '{"max_model_len": 512}')
    assert (refused.code, "--engine-args is for --engine vllm" in refused.err) == (2, True)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """Return a folder that holds a model, and one that holds an adapter."""
    for name, file in (("base", "config.json"), ("safe", "adapter_config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"base_model_name_or_path": "/gone", "r": 8}')
    return str(tmp_path / "base"), str(tmp_path / "safe")


def test_an_adapter_goes_on_the_model_that_is_named_and_not_on_the_one_that_it_notes(folders: tuple[str, str]) -> None:
    base, safe = folders
    assert find_checkpoint(base, safe).folders == (Path(base), Path(safe))
    with pytest.raises(UsageError, match="is an adapter itself; with --adapter, --model names the base"):
        find_checkpoint(safe, safe)
    with pytest.raises(UsageError, match="holds no adapter"):
        find_checkpoint(base, base)


def test_the_records_name_the_adapter() -> None:
    assert EngineSpec(model="org/vlm", adapter="ckpt/1").label == "org/vlm+ckpt/1"
    assert EngineSpec(model="/nano/weights", name="nano").label == "nano"


def test_a_server_gets_no_option_of_a_local_model(folders: tuple[str, str]) -> None:
    for spec in (
        EngineSpec(base_url="http://localhost:9/v1", adapter=folders[1]),
        EngineSpec(base_url="http://x/v1", engine_args={"seed": 1}),
    ):
        with pytest.raises(UsageError, match=r"give the adapter to the server|the engine is openai"):
            asyncio.run(open_engine(spec))


def test_options_that_change_answers_are_in_the_fingerprint() -> None:
    running = {
        "tensor_parallel_size": 2,
        "data_parallel_size": 2,
        "gpu_memory_utilization": 0.8,
        "max_num_seqs": 4,
        "enable_prefix_caching": False,
    }
    assert options_tag({}) == options_tag(running) == ""
    tags = {options_tag(options) for options in ({"dtype": "half"}, {"dtype": "bfloat16"}, {"quantization": "fp8"}, {"max_model_len": 9})}
    assert len(tags) == 4
    assert "" not in tags
    assert options_tag({"dtype": "half", "seed": 1}) == options_tag({"seed": 1, "dtype": "half", **running})


def test_an_option_that_vllm_does_not_have_is_named_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class EngineArgs:
        tensor_parallel_size: int = 1

    vllm = ModuleType("vllm")
    vars(vllm)["EngineArgs"] = EngineArgs
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    check_options({"tensor_parallel_size": 2})
    with pytest.raises(UsageError, match="no engine option 'tensor-parallel-size'; did you mean tensor_parallel_size"):
        check_options({"tensor-parallel-size": 2})
    with pytest.raises(UsageError, match="no engine option 'colour'; `vllm serve --help=all` lists them"):
        check_options({"colour": "red"})
