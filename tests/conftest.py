"""Run the real command in a temporary folder, as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.loopback import Loopback

# On a busy machine everything is slow, and no test is about that.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

CHECKOUT = Path(__file__).parent.parent


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The records on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]


class Workdir:
    """A temporary folder with `dream` in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("DREAM_")}
        self.env |= {"DREAM_STORE": str(path / "calls.sqlite"), "OMP_NUM_THREADS": "1"}

    def command(self, *args: str) -> list[str]:
        """Return the command line that runs `dream` with these arguments."""
        return [sys.executable, "-m", "dream_cli", *args]

    def dream(self, *args: str, stdin: str | bytes = "") -> Ran:
        """Run `dream` and return what it did."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(self.command(*args), check=False, input=data, capture_output=True, cwd=self.path, env=self.env, timeout=300)
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    def write(self, name: str, rows: list[dict[str, Any]]) -> Path:
        """Write records as JSONL."""
        path = self.path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def read(self, name: str) -> list[dict[str, Any]]:
        """Read records from JSONL."""
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    def picture(self, name: str, size: int = 16) -> str:
        """Make a small picture and return its name."""
        from PIL import Image

        Image.new("RGB", (size, size), "navy").save(self.path / name)
        return name


@pytest.fixture
def work(tmp_path: Path) -> Workdir:
    """Return an empty folder to run commands in."""
    return Workdir(tmp_path)


@pytest.fixture
def server() -> Iterator[Loopback]:
    """Return a running OpenAI-compatible server on loopback."""
    with Loopback() as running:
        yield running
