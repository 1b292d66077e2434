"""The files of a local model: where they are, what they were trained with, and what tells them from others."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream_cli.errors import UsageError

PROMPTS_FILE = "dream_prompts.json"
RUN_FILE = "run.json"
_MIB = 1 << 20
_LARGE = 1 << 30
_PARTS = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model")
# Written by trainers beside the model; the answers do not depend on them.
_NOT_PARTS = (PROMPTS_FILE, "trainer_state.json", "training_args.bin", "optimizer.bin", "scheduler.bin")


@dataclass(frozen=True)
class Checkpoint:
    """The folder of a model, and the folder of the adapter that is laid over it, where there is one."""

    folder: Path
    adapter: Path | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Both folders, or the one that is there."""
        return (self.folder,) if self.adapter is None else (self.folder, self.adapter)

    @property
    def processor(self) -> Path:
        """The folder that holds the processor: the adapter's own where it was saved with one."""
        names = ("processor_config.json", "preprocessor_config.json")
        own = self.adapter is not None and any((self.adapter / name).exists() for name in names)
        return self.adapter if own and self.adapter is not None else self.folder


def check_model(model: str) -> None:
    """Raise UsageError where a name is neither a folder that holds a model nor a hub id; nothing is fetched."""
    if not _is_hub_id(model):
        _holding_model(_folder(model), model)


def find_checkpoint(model: str) -> Checkpoint:
    """Return the folders of a path or hub id; raise UsageError where there are none."""
    folder = _holding_model(_folder(model), model)
    if not (folder / "adapter_config.json").exists():
        return Checkpoint(folder)
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    beside = folder / base
    try:
        return Checkpoint(beside if beside.is_dir() else _moved_base(folder) or _folder(base), adapter=folder)
    except UsageError as error:
        raise UsageError(
            f"{model} is an adapter, and its base model cannot be found: {error}; "
            f"write where it is now into {folder / 'adapter_config.json'}, as base_model_name_or_path"
        ) from None


def _moved_base(adapter: Path) -> Path | None:
    """Return the base of an adapter that was moved together with it; None where what lies there now is another model."""
    run = adapter / RUN_FILE
    known = json.loads(run.read_text()).get("base") if run.exists() else None
    if not known:
        return None
    place = (adapter / known["beside"]).resolve()
    return place if place.is_dir() and fingerprint(Checkpoint(place)) == known["fingerprint"] else None


def check_prompts(checkpoint: Checkpoint, sha256: str | None) -> None:
    """Raise UsageError where the model was trained with other prompts than those with the hash `sha256`."""
    for folder in checkpoint.folders:
        file = folder / PROMPTS_FILE
        if sha256 and file.exists() and json.loads(file.read_text()).get("sha256") != sha256:
            raise UsageError(f"the model in {folder} was trained with other prompts than the ones in use; train it anew or use its prompts")


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return a hash of everything in the folders that the answers depend on, whatever the folders are called."""
    total = hashlib.sha256()
    for folder in checkpoint.folders:
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.suffix in _PARTS and file.name not in _NOT_PARTS:
                total.update(f"{file.name}\0{_file_hash(file)}\n".encode())
        total.update(b"\n")
    return total.hexdigest()


def _is_hub_id(model: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*/[\w.-]+", model) is not None and not Path(model).parent.is_dir()


def _holding_model(folder: Path, model: str) -> Path:
    if not any((folder / name).exists() for name in ("config.json", "adapter_config.json")):
        raise UsageError(f"{model} holds no model: there is neither config.json nor adapter_config.json in it")
    return folder


def _folder(model: str) -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if _is_hub_id(model):
        return _download(model)
    near = _neighbours(path)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(f"there is no model folder {model}{hint}")


def _neighbours(path: Path) -> list[str]:
    """Return the folders whose names are close to one that does not exist."""
    if not path.parent.is_dir():
        return []
    names = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    prefix = "" if path.parent == Path(".") else f"{path.parent}/"
    return [prefix + name for name in difflib.get_close_matches(path.name, names, n=2)]


def _download(model: str) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(model, allow_patterns=wanted, ignore_patterns=["original/*"]))
    except Exception as error:  # noqa: BLE001 - the hub client raises errors of many libraries
        reason = str(error).strip().splitlines()[:1]
        raise UsageError(f"{model} is no folder here and cannot be had from the hub: {' '.join(reason)}") from None


def _file_hash(file: Path) -> str:
    seen = file.stat()
    return _hash(file.resolve(), seen.st_size, seen.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _hash(file: Path, size: int, changed: int) -> str:
    """Return the hash of the content; of very large files only the ends, the size and the time are looked at."""
    if file.name == "adapter_config.json":
        return _adapter_hash(file)
    with file.open("rb") as stream:
        if size <= _LARGE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        ends = stream.read(_MIB)
        stream.seek(-_MIB, os.SEEK_END)
        return hashlib.sha256(f"{size}\0{changed}\0".encode() + ends + stream.read()).hexdigest()


def _adapter_hash(file: Path) -> str:
    """Return the hash of an adapter's configuration without the place of its base, whose files are hashed themselves."""
    config: dict[str, Any] = json.loads(file.read_text())
    config.pop("base_model_name_or_path", None)
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
