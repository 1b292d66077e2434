"""Export of the finished model: its weights, and the unchanged processor files of the base."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from dream_cli.engines.checkpoint import PROMPTS_FILE, PROMPTS_FOLDER, WORLD_FILE
from dream_cli.training import checkpoints, sharding
from dream_cli.training.models import Start, merge
from dream_cli.training.settings import Job

# Copied unchanged: the files that a processor saves on a machine without torchvision cannot be read on one with it.
PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.*",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    PROMPTS_FILE,
    WORLD_FILE,
)
# Training state, and the model card of another library.
_STATE = ("training_args.bin", "optimizer.*", "scheduler.*", "rng_state*", "scaler.*", "trainer_state.json", "README.md")
_LAST = ("config.json", "adapter_config.json")


def export(trainer: Any, start: Start, job: Job) -> None:
    """Write the trained model into the job's folder, atomically."""
    staging = job.out / ".model"
    if trainer.args.should_save:
        shutil.rmtree(staging, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    sharding.gather_when_saving(trainer)
    trainer.save_model(str(staging), _internal_call=True)
    trainer.accelerator.wait_for_everyone()
    if not trainer.args.should_save:
        return
    if job.lora is not None and job.lora.merge:
        merge(start, staging, staging / "merged")
        staging = staging / "merged"
    _make_model(staging, start)
    for file in sorted(staging.iterdir(), key=lambda f: f.name in _LAST):
        if file.is_dir():
            # A folder cannot replace one that an interrupted export left.
            shutil.rmtree(job.out / file.name, ignore_errors=True)
        os.replace(file, job.out / file.name)
    shutil.rmtree(job.out / ".model", ignore_errors=True)


def keep_checkpoints(start: Start, job: Job) -> None:
    """Turn the checkpoints that the job keeps into models, and remove the rest of its `checkpoints` folder, such as image features."""
    folder = job.out / "checkpoints"
    for path in (kept := checkpoints.all_checkpoints(folder)):
        _make_model(path, start)
    for path in folder.iterdir():
        if path not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _make_model(folder: Path, start: Start) -> None:
    """Turn a checkpoint into a model: remove the training state, copy the base's processor, and name the base of an adapter."""
    config = folder / "adapter_config.json"
    if config.exists():
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": start.base}, indent=2) + "\n")
    for file in [*folder.iterdir()]:
        if file.is_dir():
            shutil.rmtree(file)
        elif any(file.match(pattern) for pattern in (*_STATE, *PROCESSOR_FILES)):
            file.unlink()
    copy_processor(start, folder)


def copy_processor(start: Start, out: Path) -> None:
    """Copy the files of the processor, and those that declare the model's prompts and its world, to `out`."""
    for folder in dict.fromkeys((start.checkpoint.folder, start.checkpoint.processor, *start.checkpoint.folders)):
        for file in folder.iterdir():
            if file.is_file() and any(file.match(pattern) for pattern in PROCESSOR_FILES):
                shutil.copyfile(file, out / file.name)
    if start.checkpoint.prompts is not None:
        shutil.copytree(start.checkpoint.prompts, out / PROMPTS_FOLDER)
