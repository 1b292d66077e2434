"""The registry of engines, and the choice of an engine for a model. No other module names the engines.

A plug-in of the group `dream.engines` is a coroutine function that takes an `EngineSpec` and returns an `Engine`; `--engine NAME` chooses
it. The plug-in decides how it reads the model name.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from dream_cli.engines import checkpoint
from dream_cli.engines.address import public_address, read_address
from dream_cli.engines.loading import LOADING
from dream_cli.engines.protocol import Engine, EngineSpec
from dream_cli.errors import UsageError, with_extra
from dream_cli.records import plugins
from dream_cli.records.choices import EngineName, LocalEngine
from dream_cli.records.record import Record

# The embedded models: a teacher and judge, which is the default model, and a policy to align.
DEFAULT_MODEL, EMBEDDED_POLICY = "nano", "nano-policy"
_HOME = Path(__file__).parent.parent / "nano"
_LOCAL: tuple[str, ...] = get_args(LocalEngine)
_BUILT_IN: tuple[str, ...] = get_args(EngineName)
EMBEDDED = {DEFAULT_MODEL: _HOME / "weights", EMBEDDED_POLICY: _HOME / "policy"}


def check_engine(name: str) -> None:
    """Raise UsageError if no engine of that name, built in or a plug-in, runs models on this machine."""
    others = _plugins()
    if name not in (*_LOCAL, *others):
        raise UsageError(f"no engine {name!r} for models on this machine; there are {', '.join((*_LOCAL, *others))}")


def check_model(model: str | None, engine: str | None = None) -> None:
    """Raise UsageError if a model cannot run on this machine; the model is not loaded."""
    if engine is not None and engine not in _LOCAL:
        return
    _require_local(model or DEFAULT_MODEL, engine)
    if model is not None and model not in EMBEDDED:
        checkpoint.check_model(model)


def uses_gpu(spec: EngineSpec) -> bool:
    """Whether the model of a spec runs in this process, on a GPU if there is one."""
    return spec.base_url is None and spec.device != "cpu" and (spec.model or DEFAULT_MODEL) not in EMBEDDED


def world_of(model: str) -> checkpoint.World | None:
    """Return the small world that a model, named as in a record, is limited to.

    None if it declares none, or is neither embedded nor a local folder: nothing is downloaded. Raises UsageError if the
    declaration is malformed.
    """
    folder = EMBEDDED.get(model, Path(model).expanduser())
    return checkpoint.Checkpoint(folder).world if folder.is_dir() else None


def border_of(world: checkpoint.World) -> Callable[[Record], str | None]:
    """Return the check of records against a small world, which returns the part of a record outside it, or None.

    The check of an unknown world accepts every record.
    """
    if world.name != DEFAULT_MODEL:
        return lambda _: None
    from dream_cli.nano.border import outside

    return outside


def check_address(base_url: str) -> None:
    """Raise UsageError if a base URL is not valid."""
    read_address(base_url)


async def open_engine(spec: EngineSpec) -> Engine:
    """Return the engine for `spec`, with its store if it has one; raise UsageError if it cannot be opened."""
    if spec.store is None:
        return await _open(spec)
    from dream_cli.engines.store import CallStore
    from dream_cli.engines.stored_engine import StoredEngine

    # The store first: fail on an unusable store before a model is loaded.
    store = CallStore(Path(spec.store))
    try:
        return StoredEngine(await _open(spec), store)
    except BaseException:
        store.close()
        raise


@dataclass(frozen=True)
class EngineChoice:
    """The chosen engine, and the reason for the choice."""

    engine: str
    why: str


def choose_engine(spec: EngineSpec, has_gpu: Callable[[], bool] | None = None) -> EngineChoice:
    """Return the engine for `spec`; raise UsageError if there is none. `has_gpu` is called only if it matters."""
    if spec.engine is not None and spec.engine not in _LOCAL:
        return EngineChoice(spec.engine, "it is a plug-in, named by --engine")
    if spec.requests is not None and spec.base_url is None:
        return EngineChoice("openai", "its requests are written for a batch")
    if spec.base_url is not None:
        return EngineChoice("openai", f"a server is named, {public_address(spec.base_url)}")
    model = spec.model or DEFAULT_MODEL
    _require_local(model, spec.engine)
    if model in EMBEDDED:
        return EngineChoice("transformers", f"{model}, an embedded model, answers on the CPU")
    if spec.engine is not None:
        return EngineChoice(spec.engine, "it is named by --engine")
    if spec.device == "cpu":
        return EngineChoice("transformers", "--device is cpu")
    if importlib.util.find_spec("vllm") is None:
        return EngineChoice("transformers", "vllm is not installed")
    if not (has_gpu or _has_gpu)():
        return EngineChoice("transformers", "vllm is installed, but torch finds no GPU")
    return EngineChoice("vllm", "vllm is installed and there is a GPU")


def _check_local_options(spec: EngineSpec, choice: EngineChoice) -> None:
    """Raise UsageError if an option of local models is given that this engine would ignore."""
    if spec.adapter is not None and choice.engine == "openai":
        raise UsageError(
            f"--adapter is for a model on this machine, and {choice.why}; give the adapter to the server (vllm serve --enable-lora "
            "--lora-modules NAME=DIR) and name it with --model NAME"
        )
    if spec.engine_args and choice.engine in ("openai", "transformers"):
        raise UsageError(f"--engine-args is for --engine vllm, and the engine is {choice.engine}: {choice.why}")


async def _open(spec: EngineSpec) -> Engine:
    choice = choose_engine(spec)
    _check_local_options(spec, choice)
    if choice.engine == "openai":
        from dream_cli.engines.openai_server import open_openai

        return await open_openai(spec)
    if choice.engine == "vllm":
        from dream_cli.engines.vllm import open_vllm

        with LOADING.model():
            return open_vllm(spec)
    if choice.engine not in _BUILT_IN:
        return await _open_plugin(choice.engine, spec)
    from dream_cli.engines.transformers import open_transformers

    model = spec.model or DEFAULT_MODEL
    with LOADING.model():
        return open_transformers(_embedded(spec, model) if model in EMBEDDED else spec)


def _plugins() -> tuple[str, ...]:
    return plugins.names("engines", _BUILT_IN)


async def _open_plugin(name: str, spec: EngineSpec) -> Engine:
    engine: Engine = await plugins.load("engines", name)(spec)
    missing = [part for part in ("kind", "model", "fingerprint", "concurrency", "usage", "generate", "choose") if not hasattr(engine, part)]
    if missing:
        raise UsageError(f"the plug-in {name} returns no engine: it has no {', '.join(missing)} (see dream_cli.engines.protocol.Engine)")
    return engine


def _embedded(spec: EngineSpec, name: str) -> EngineSpec:
    """Return the spec of an embedded model, as a local folder."""
    if not (EMBEDDED[name] / "config.json").exists():
        raise UsageError(f"this installation has no weights of {name}, an embedded model; name a model with --model or --base-url")
    # On the CPU its answers are the same on every machine, and the model is small enough.
    return replace(spec, model=str(EMBEDDED[name]), name=name, device=spec.device or "cpu")


def _require_local(model: str, engine: str | None) -> None:
    needed = ("torch", "transformers", *(["vllm"] if engine == "vllm" else []))
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        extra = "vllm" if engine == "vllm" else "local"
        needs = f"to run {model} here, {' and '.join(missing)} must be installed"
        raise UsageError(f"{needs}; {with_extra(extra)}, or use a server: --base-url")


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
