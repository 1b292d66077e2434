"""The file of requests to a server that are written instead of made: lines of OpenAI's Batch API."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

from dream_cli.records.atomic import replacing
from dream_cli.records.visible import amount

Json = dict[str, Any]

PATH = "/chat/completions"


@dataclass(frozen=True)
class Requests:
    """Where the requests of a run are written instead of made."""

    path: str

    @cached_property
    def file(self) -> RequestsFile:
        """The file, one for all engines of the run."""
        return RequestsFile(self.path)


def written(requests: Requests | None) -> AbstractContextManager[None]:
    """Collect the requests of a run in its file during the body, where they are not made."""
    return nullcontext() if requests is None else requests.file.written()


class RequestsFile:
    """The requests of a run as lines of a batch, each once; the file appears whole or not at all."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.models: Counter[str] = Counter()  # the requests to each model
        self._names: set[str] = set()
        self._file: IO[bytes] | None = None

    @contextmanager
    def written(self) -> Iterator[None]:
        """Collect requests during the body; raise UsageError where the file cannot be written."""
        with replacing(self.path) as self._file:
            yield

    def add(self, name: str, body: Json) -> bool:
        """Write a request, and return whether it is a new one."""
        if name in self._names or self._file is None:
            return False
        self._names.add(name)
        self.models[str(body.get("model"))] += 1
        self._file.write(json.dumps({"custom_id": name, "method": "POST", "url": f"/v1{PATH}", "body": body}).encode() + b"\n")
        return True

    def report(self, rows: int) -> str:
        """Return in words what was written, and what to do next; `rows` wait for answers."""
        if not self.models:
            return f"no call is left to write to {self.path}: every answer is in the store"
        per_model = "" if len(self.models) == 1 else f" ({', '.join(f'{n} to {model}' for model, n in self.models.items())})"
        waiting = f"{amount(rows, 'row')} {'waits' if rows == 1 else 'wait'} for them"
        after = "then dream store import RESULTS.jsonl, and the same command again"
        return f"{amount(self.models.total(), 'call')}{per_model} written to {self.path}, and {waiting}; send the file as a batch, {after}"
