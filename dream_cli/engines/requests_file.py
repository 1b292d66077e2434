"""The file of requests that are written instead of sent, in the format of OpenAI's Batch API."""

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
    """The file to which a run writes its requests instead of sending them."""

    path: str

    @cached_property
    def file(self) -> RequestsFile:
        """The open file, shared by all engines of the run."""
        return RequestsFile(self.path)


def written(requests: Requests | None) -> AbstractContextManager[None]:
    """Collect the requests of a run in its file during the body; do nothing if they are sent."""
    return nullcontext() if requests is None else requests.file.written()


class RequestsFile:
    """The requests of a run as lines of a batch, each once; the file is written atomically."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.models: Counter[str] = Counter()  # the number of requests to each model
        self._names: set[str] = set()
        self._file: IO[bytes] | None = None

    @contextmanager
    def written(self) -> Iterator[None]:
        """Collect requests during the body; raise UsageError if the file cannot be written."""
        with replacing(self.path) as self._file:
            yield

    def add(self, name: str, body: Json) -> bool:
        """Write a request; return whether it is new."""
        if name in self._names or self._file is None:
            return False
        self._names.add(name)
        self.models[str(body.get("model"))] += 1
        self._file.write(json.dumps({"custom_id": name, "method": "POST", "url": f"/v1{PATH}", "body": body}).encode() + b"\n")
        return True

    def report(self, rows: int) -> str:
        """Return a report of the written requests and the next step; `rows` is the number of rows that wait for answers."""
        if not self.models:
            return f"no call is left to write to {self.path}: every answer is in the store"
        per_model = "" if len(self.models) == 1 else f" ({', '.join(f'{n} to {model}' for model, n in self.models.items())})"
        waiting = f"{amount(rows, 'row')} {'waits' if rows == 1 else 'wait'} for them"
        after = "then dream store import RESULTS.jsonl, and the same command again"
        return f"{amount(self.models.total(), 'call')}{per_model} written to {self.path}, and {waiting}; send the file as a batch, {after}"
