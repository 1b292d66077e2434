"""The options of a local model: its adapter, and the options of the vLLM engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dream_cli.cli.arguments import source_of
from dream_cli.errors import UsageError


def read_engine_args(text: str | None) -> dict[str, Any]:
    """Return the engine options of a JSON object by name; raise UsageError for any other text."""
    try:
        given = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--engine-args is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UsageError("""--engine-args is not a JSON object, for example '{"tensor_parallel_size": 2}'""")
    if "model" in given:
        raise UsageError("--engine-args cannot set model, which --model names")
    return given


def _engine_args(ctx: typer.Context, text: str | None) -> str | None:
    # The variable is for all commands of a loop, of which some use a server or another engine. Eager options are read before this one.
    elsewhere = source_of(ctx, "base_url") != "DEFAULT" or ctx.params.get("engine") not in (None, "vllm")
    if elsewhere and source_of(ctx, "engine_args") == "ENVIRONMENT":
        return None
    read_engine_args(text)
    return text


def _adapter(folder: Path | None) -> Path | None:
    if folder is not None and not (folder / "adapter_config.json").exists():
        raise UsageError(f"--adapter {folder} holds no adapter: there is no adapter_config.json in it")
    return folder


EngineArgs = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        envvar="DREAM_ENGINE_ARGS",
        callback=_engine_args,
        help="""Options of the vLLM engine by their names there, e.g. {"tensor_parallel_size": 2, "max_model_len": 8192}.""",
    ),
]
Adapter = Annotated[
    Path | None, typer.Option(metavar="DIR", callback=_adapter, help="LoRA adapter on top of --model, such as one of dream dpo --lora.")
]
