"""The files of a local model: its folders, the prompts it was trained with, and the fingerprint of its content."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream_cli.errors import UsageError

# Optional files beside the weights: the hashes of the training prompts, the prompts themselves, and the world of the model.
PROMPTS_FILE = "dream_prompts.json"
PROMPTS_FOLDER = "prompts"
WORLD_FILE = "dream_world.json"
RUN_FILE = "run.json"
_MIB = 1 << 20
_LARGE = 1 << 30
_PARTS = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model")
# Written by trainers beside the model; the answers do not depend on them.
_NOT_PARTS = (PROMPTS_FILE, WORLD_FILE, "trainer_state.json", "training_args.bin", "optimizer.bin", "scheduler.bin")


@dataclass(frozen=True)
class TrainedPrompts:
    """The SHA-256 of the prompt of each role that a model was trained with; older models have one hash of `all_roles` instead."""

    roles: Mapping[str, str]
    all_roles: str | None = None


@dataclass(frozen=True)
class World:
    """The small world that a model is limited to: its answers about anything else are meaningless.

    A model declares it in `dream_world.json`; a model trained from it inherits the file.
    """

    name: str


@dataclass(frozen=True)
class Checkpoint:
    """The folder of a model, and the folder of the adapter on top of it, if any."""

    folder: Path
    adapter: Path | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folder of the model, and the folder of the adapter if there is one."""
        return (self.folder,) if self.adapter is None else (self.folder, self.adapter)

    @property
    def processor(self) -> Path:
        """The folder of the processor: the adapter's if it was saved with one, else the base model's."""
        names = ("processor_config.json", "preprocessor_config.json")
        own = self.adapter is not None and any((self.adapter / name).exists() for name in names)
        return self.adapter if own and self.adapter is not None else self.folder

    @property
    def prompts(self) -> Path | None:
        """The folder of the model's own templates, one `ROLE.txt` per role; None if it has none."""
        own = (folder / PROMPTS_FOLDER for folder in reversed(self.folders))
        return next((folder for folder in own if folder.is_dir()), None)

    @property
    def trained_prompts(self) -> TrainedPrompts:
        """The hashes of the prompts that the model was trained with; raise UsageError if the file is malformed."""
        declared = self._declared(PROMPTS_FILE, {})
        roles, all_roles = declared.get("roles", {}), declared.get("sha256")
        if not isinstance(roles, dict) or not isinstance(all_roles, str | None):
            raise UsageError(f'{PROMPTS_FILE} of the model in {self.folders[-1]} is malformed; it should be {{"roles": {{ROLE: SHA256}}}}')
        return TrainedPrompts(roles, all_roles)

    @property
    def world(self) -> World | None:
        """The small world that the model is limited to; None if it declares none. Raises UsageError if the file is malformed."""
        declared = self._declared(WORLD_FILE, None)
        if declared is None:
            return None
        if not isinstance(declared.get("name"), str):
            raise UsageError(f'{WORLD_FILE} of the model in {self.folders[-1]} is malformed; it should be {{"name": NAME}}')
        return World(declared["name"])

    def _declared(self, name: str, default: Any) -> Any:
        """Return the JSON object of a file beside the weights, the adapter's before the base model's; `default` if there is none."""
        file = next((folder / name for folder in reversed(self.folders) if (folder / name).exists()), None)
        if file is None:
            return default
        try:
            declared = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{file}: cannot be read as JSON ({error})") from error
        if not isinstance(declared, dict):
            raise UsageError(f"{file}: is not a JSON object")
        return declared


def check_model(model: str) -> None:
    """Raise UsageError if a name is neither a folder with a model nor a hub id; nothing is downloaded."""
    if not _is_hub_id(model):
        _holding_model(_folder(model), model)


def find_checkpoint(model: str, adapter: str | None = None) -> Checkpoint:
    """Return the folders of a path or hub id, with `adapter` on top if given; raise UsageError if there are none."""
    folder = _holding_model(_folder(model), model)
    if adapter is not None:
        if not (folder / "config.json").exists():
            raise UsageError(f"{model} is an adapter itself; with --adapter, --model names the base model")
        if not (Path(adapter) / "adapter_config.json").exists():
            raise UsageError(f"{adapter} holds no adapter: there is no adapter_config.json in it")
        return Checkpoint(folder, Path(adapter))
    if not (folder / "adapter_config.json").exists():
        return Checkpoint(folder)
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    beside = folder / base
    try:
        return Checkpoint(beside if beside.is_dir() else _moved_base(folder) or _folder(base), adapter=folder)
    except UsageError as error:
        raise UsageError(
            f"{model} is an adapter, and its base model cannot be found: {error}; "
            f"write its present path into {folder / 'adapter_config.json'}, as base_model_name_or_path"
        ) from None


def _moved_base(adapter: Path) -> Path | None:
    """Return the base model that was moved together with its adapter; None if that folder now holds another model."""
    known = (read_run(adapter) or {}).get("base") or {}
    folder = (adapter / str(known.get("beside"))).resolve()
    return folder if folder.is_dir() and fingerprint(Checkpoint(folder)) == known.get("fingerprint") else None


def read_run(folder: Path) -> dict[str, Any] | None:
    """Return the metadata that a training run wrote beside its model; None if there is none or it cannot be read."""
    try:
        run = json.loads((folder / RUN_FILE).read_text())
    except (OSError, ValueError):
        return None
    return run if isinstance(run, dict) else None


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return a hash of all files that the answers depend on; the names of the folders do not matter."""
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
    # A name without an owner is not a hub id, but may be a model of a server.
    other = "; --base-url names the server of a model, and ORG/NAME is a model of the hub" if "/" not in model else ""
    hint = f"; did you mean {' or '.join(near)}?" if near else other
    raise UsageError(f"there is no model folder {model}{hint}")


def _neighbours(path: Path) -> list[str]:
    """Return the folders whose names are close to a missing one."""
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
        raise UsageError(f"{model} is not a folder here and cannot be loaded from the hub: {' '.join(reason)}") from None


def _file_hash(file: Path) -> str:
    status = file.stat()
    return _hash(file.resolve(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _hash(file: Path, size: int, changed: int) -> str:
    """Return the hash of the content; of a very large file, the hash of both ends, the size and the modification time."""
    if file.name == "adapter_config.json":
        return _adapter_hash(file)
    with file.open("rb") as stream:
        if size <= _LARGE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        ends = stream.read(_MIB)
        stream.seek(-_MIB, os.SEEK_END)
        return hashlib.sha256(f"{size}\0{changed}\0".encode() + ends + stream.read()).hexdigest()


def _adapter_hash(file: Path) -> str:
    """Return the hash of an adapter's configuration without the path of its base model, whose files are hashed themselves."""
    config: dict[str, Any] = json.loads(file.read_text())
    config.pop("base_model_name_or_path", None)
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
