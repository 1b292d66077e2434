"""The batch interface: requests that are written to a file instead of sent, and their results in the call store.

Both files have the format of OpenAI's Batch API, which `vllm run-batch` also reads and writes. The name of a request is a hash of its
body, so that a result answers the same request of any command.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dream_cli.engines.openai_attempt import Attempt, embedded_failure, is_of_account, is_passing
from dream_cli.engines.protocol import PURPOSE
from dream_cli.engines.requests_file import RequestsFile
from dream_cli.engines.store import connected
from dream_cli.errors import RunFailure, UsageError

Json = dict[str, Any]

# The server's defaults: a request is the same with and without them.
_DEFAULTS: Json = {"temperature": 1, "top_p": 1, "n": 1}


class Batch:
    """The requests and results of batches in one call store; with a file, requests without a result are written to it."""

    def __init__(self, store: Path, file: RequestsFile | None) -> None:
        self.file = file
        self._store = store
        self._new: list[tuple[str, str, str, str]] = []
        self._open = ExitStack()
        self._db = self._open.enter_context(connected(store, write=file is not None, make=True))

    @classmethod
    def in_store(cls, store: str | None) -> Batch | None:
        """Return the batch of a store that holds results; None if the store holds none."""
        if store is None or not Path(store).is_file():
            return None
        with suppress(UsageError, sqlite3.Error):
            batch = cls(Path(store), None)
            with suppress(sqlite3.Error):
                if batch._db.execute("SELECT 1 FROM batch WHERE status IS NOT NULL LIMIT 1").fetchone():
                    return batch
            batch.close()
        return None

    def result(self, body: Json) -> Attempt | None:
        """Return the result of a request; None if it is not imported yet."""
        try:
            row = self._db.execute("SELECT status, reply FROM batch WHERE id = ? AND status IS NOT NULL", (request_name(body),)).fetchone()
        except sqlite3.Error as error:
            raise RunFailure(f"the results of batches in {self._store} cannot be read: {error}") from None
        return None if row is None else Attempt(*row)

    def request(self, body: Json) -> str:
        """Write a request to the file; return the file's name."""
        assert self.file is not None, "the batch has no file for requests"
        name = request_name(body)
        if self.file.add(name, body):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self._new.append((name, PURPOSE.get().stage, str(body.get("model")), now))
        return self.file.path

    def forget(self, body: Json) -> None:
        """Delete the result of a request, so that the request is made again."""
        with suppress(UsageError, sqlite3.Error), connected(self._store, write=True) as db, db:
            db.execute("UPDATE batch SET status = NULL, reply = NULL WHERE id = ?", (request_name(body),))

    def close(self) -> None:
        """Record the written requests, so that their results are recognised, and close the store."""
        with self._open:
            if self._new:
                with self._db:
                    self._db.executemany("INSERT OR IGNORE INTO batch VALUES (?, ?, ?, ?, NULL, NULL)", self._new)


def request_name(body: Mapping[str, Any]) -> str:
    """Return the name of a request in a batch; equivalent requests have the same name."""
    # Keys are not sorted: the order of a schema's properties is part of the request.
    return f"dream-{hashlib.sha256(json.dumps(_DEFAULTS | dict(body)).encode()).hexdigest()[:32]}"


def take_result(db: sqlite3.Connection, row: Json) -> tuple[str, str]:
    """Store one line of results; return its outcome (new, known, foreign or failed) and the reason.

    A call with a transient failure stays without a result. Raises ValueError for a line that is not a result.
    """
    name, error = str(row["custom_id"]), row.get("error")
    if "response" not in row and not error:
        raise ValueError("a request, not a result; import the results of the batch" if "body" in row else "a line without a response")
    held = db.execute("SELECT status FROM batch WHERE id = ?", (name,)).fetchone()
    if held is None:
        return "foreign", f"no --requests with this store wrote the call {name[:80]}"
    response = row.get("response")
    if not isinstance(response, dict) or not isinstance(response.get("body"), dict):
        return "failed", f"{name}: {json.dumps(error)[:200]}"
    status = response.get("status_code", 200)
    attempt = Attempt(status if isinstance(status, int) else 0, json.dumps(response["body"]))
    if 200 <= attempt.status < 300:
        attempt = embedded_failure(response["body"]) or attempt
    elif is_passing(attempt) or is_of_account(attempt):
        return "failed", f"{name}: {attempt.status}: {attempt.text[:200]}"
    if held[0] is not None:
        return "known", ""
    db.execute("UPDATE batch SET status = ?, reply = ? WHERE id = ?", (attempt.status, attempt.text, name))
    return "new", ""
