"""The provenance of a model: `run.json` beside it, and its model card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PureWindowsPath
from typing import Any

from dream_cli import __version__
from dream_cli.engines.checkpoint import PROMPTS_FILE, PROMPTS_FOLDER, RUN_FILE, WORLD_FILE, Checkpoint, fingerprint, read_run
from dream_cli.errors import UsageError
from dream_cli.records.atomic import write_text
from dream_cli.records.record import Json
from dream_cli.training.launching import world_size
from dream_cli.training.models import Start

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
# Settings that do not change the result: a run may be resumed with other values.
_FREE = (
    "out",
    "source",
    "held_out",
    "reading",
    "limit",
    "max_length",
    "on_too_long",
    "allow_small_world_judge",
    "quiet",
    "overwrite",
    "hardware",
    "model",
)

# Settings that the model card leaves out.
_NOT_SHOWN = {"out", "allow_small_world_judge", "quiet", "overwrite"}


def input_key(start: Start, method: Json, job: Any, files: Sequence[str | None]) -> str | None:
    """Return a hash of all inputs of the row check except the images; None if a source is not a file, because it cannot be read twice."""
    if not all(file is not None and Path(file).is_file() for file in files):
        return None
    settings = dataclasses.asdict(job)
    for name in ("out", "quiet", "overwrite"):
        del settings[name]
    known = [
        settings,
        method,
        start.fingerprint,
        [file_hash(Path(str(file))) for file in files],
        world_size(),
        str(Path.cwd()),
        _versions(),
    ]
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def manifest(start: Start, method: Json, job: Any, rows: str) -> Json:
    """Return the content of `run.json`: settings, versions, rows (their hash) and start; `identity` is equal for runs with the same result."""
    settings = json.loads(json.dumps(dataclasses.asdict(job), default=str))
    learnt = {k: v for k, v in settings.items() if k not in _FREE} | {"dtype": job.hardware.dtype, "processes": world_size()}
    if job.reading.max_pixels is not None:
        learnt["max_pixels"] = job.reading.max_pixels
    known = {"settings": learnt, "method": method, "start": start.fingerprint, "rows": rows}
    run = {
        "identity": hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest(),
        "command": ["dream", *sys.argv[1:]],
        "method": method,
        "settings": settings,
        "start": {"model": start.name, "fingerprint": start.fingerprint},
        "base": _base(start, job.out),
        "rows": {"sha256": rows},
        "versions": _versions(),
        "parent": read_run(start.checkpoint.folders[-1]),
    }
    public: Json = without_places(run)
    return public


def without_places(value: Any) -> Any:
    """Return a JSON value with absolute paths cut to their last part: a published model must not reveal its author's folders."""
    if isinstance(value, dict):
        return {key: without_places(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_places(part) for part in value]
    if not isinstance(value, str):
        return value
    before, equals, path = value.rpartition("=")  # --model=/home/...
    is_place = path.startswith(("/", "~", "file:")) or PureWindowsPath(path).is_absolute()
    return before + equals + PureWindowsPath(path).name if is_place else value


def write_run(folder: Path, run: Json) -> None:
    """Write `run.json` atomically."""
    write_text(folder / RUN_FILE, json.dumps(run, indent=2, ensure_ascii=False) + "\n")


def check_folder(folder: Path, run: Json, overwrite: bool) -> Json | None:
    """Return the final record if this run is already finished, else None; raise UsageError where the folder holds another run or model.

    With `overwrite` the other run is removed.
    """
    earlier = read_run(folder)
    if earlier is not None and earlier.get("identity") == run["identity"]:
        record: Json | None = earlier.get("result")
        return record
    is_taken = earlier is not None or any((folder / name).exists() for name in ("config.json", "adapter_config.json"))
    if is_taken and not overwrite:
        raise UsageError(f"{folder} holds another {_other_run(earlier, run)}; choose another -o, or --overwrite")
    if is_taken:
        _clear(folder)
    return None


def _other_run(earlier: Json | None, run: Json) -> str:
    """Return a phrase that describes how an earlier run differs from this one."""
    parts = [name for name in ("settings", "method", "start", "rows") if earlier and earlier.get(name) != run[name]]
    if earlier is None or not parts:
        return "model"
    versions = earlier.get("versions")
    version_then = versions.get("dream") if isinstance(versions, dict) else None
    by = f", of dream {version_then}" if version_then and version_then != __version__ else ""
    return f"run ({', '.join(parts)} differ{by})"


def _clear(folder: Path) -> None:
    # The files that identify a model are removed first, so that a reader never finds a mixture of two models.
    for name in (RUN_FILE, "config.json", "adapter_config.json", "metrics.jsonl", PROMPTS_FILE, WORLD_FILE):
        (folder / name).unlink(missing_ok=True)
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")):
        file.unlink()
    for name in ("checkpoints", PROMPTS_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)


def card(run: Json, base: str) -> str:
    """Return the model card of a finished run, as Markdown with the front matter for model hubs; `base` is the base's hub id, or ""."""
    method, result = run["method"], run["result"]
    numbers = "\n".join(f"| {name} | {value:.4g} |" for name, value in result.items() if isinstance(value, int | float))
    usage = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in result["usage"].items())
    settings = "\n".join(f"| {name} | {value} |" for name, value in _flat(run["settings"] | method) if name not in _NOT_SHOWN)
    steps = "\n".join(f"{i}. {line}" for i, line in enumerate(_lineage(run), 1))
    return f"""---
{f"base_model: {base}{chr(10)}" if base else ""}library_name: {"peft" if result.get("adapter") else "transformers"}
pipeline_tag: image-text-to-text
tags: [dream, {method["name"]}, safety-alignment]
---
# {Path(str(result["model"])).name}

Trained with `dream {method["name"]}` (DREAM, arXiv 2504.18053). Safety and helpfulness are not measured by training:
`dream eval` measures both.

## Lineage
{steps}

## Figures of the last step
| figure | value |
|---|---|
{numbers}

![curves](curves.png)

## Time and memory
| figure | value |
|---|---|
{usage}

## Settings
| setting | value |
|---|---|
{settings}

Everything else (versions, file hashes, what each rule dropped) is in `run.json`, the figures of each step in `metrics.jsonl`.
"""


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _base(start: Start, out: Path) -> Json:
    """Return the relative path and the fingerprint that identify the base of an adapter after both were moved."""
    folder = start.checkpoint.folder.resolve()
    return {"beside": os.path.relpath(folder, out.resolve()), "fingerprint": fingerprint(Checkpoint(folder))}


def _lineage(run: Json) -> list[str]:
    """Return one line per run of the model's history, the oldest first."""
    parent = run.get("parent")
    # The parent may be of another version: a missing field must not end a run that took hours.
    before = _lineage(parent) if parent and "command" in parent else [f"`{run.get('start', {}).get('model', 'unknown')}`"]
    return [*before, f"`{' '.join(run['command'])}` on {run.get('receipt', {}).get('rows', '?')} rows"]


def _flat(settings: Json, before: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in settings.items():
        pairs += _flat(value, f"{before}{name}.") if isinstance(value, dict) else [(before + name, value)] if value is not None else []
    return pairs


def _versions() -> Json:
    return {"dream": __version__, "python": sys.version.split()[0]} | {name: _version(name) for name in _LIBRARIES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
