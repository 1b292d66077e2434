"""What the tests of training share: small data, a tiny model of a family, and runs in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dream_cli.training import running
from dream_cli.training.dpo import Dpo
from dream_cli.training.running import Method
from dream_cli.training.settings import Hardware, Job, Lora, Schedule
from dream_cli.training.sft import Sft

SHORT = Schedule(max_steps=4, batch_size=4, learning_rate=1e-3)
METHODS: dict[str, Method] = {"sft": Sft(), "dpo": Dpo()}


def rows(folder: Path, count: int = 12) -> list[dict[str, Any]]:
    """Return answered prompts, with no, one or two images, that are also pairs."""
    from PIL import Image

    for i in range(2):
        Image.new("RGB", (40 + 8 * i, 40), ("navy", "olive")[i]).save(folder / f"{i}.png")
    images = [[], [str(folder / "0.png")], [str(folder / "0.png"), str(folder / "1.png")]]
    message = [
        {"response": f"A harmless drawing {i}.", "chosen": f"A harmless drawing {i}.", "rejected": "No. no no 3 7."} for i in range(count)
    ]
    return [{"id": str(i), "prompt": f"What is in picture {i}?", "images": images[i % 3], **message[i]} for i in range(count)]


def write(path: Path, records: list[dict[str, Any]]) -> str:
    """Write records as JSONL and return the name of the file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def job(source: str, model: Path, out: Path, **more: Any) -> Job:
    """Return a short job that saves every second step."""
    requests: dict[str, Any] = {"schedule": SHORT, "hardware": Hardware(save_every=2), "quiet": True} | more
    return Job(source, str(model), out, **requests)


def spread(processes: int) -> Schedule:
    """Return a schedule that takes the same rows in a step whatever the number of processes."""
    return Schedule(max_steps=4, batch_size=4 // processes, learning_rate=1e-3, warmup=0.0)


def lora(**more: Any) -> Lora:
    """Return a small adapter."""
    return Lora(rank=4, alpha=8, **more)


def train(method: str | Method, requests: Job) -> running.Done:
    """Run a job in this process."""
    return running.perform(requests, METHODS[method] if isinstance(method, str) else method)


def check(method: str | Method, requests: Job) -> running.Done:
    """Run the preflight of a job in this process."""
    return running.perform(requests, METHODS[method] if isinstance(method, str) else method, only_check=True)


def weights(folder: Path) -> bytes:
    """Return the bytes of the trained weights."""
    (file,) = folder.glob("*model.safetensors")
    return file.read_bytes()
