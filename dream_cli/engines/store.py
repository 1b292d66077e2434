"""The call store: replies in SQLite under a hash of their request, so that each call is paid for once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from dream_cli.engines.protocol import NO_PURPOSE, PURPOSE, ChatMessage, Choice, Completion, Engine, Purpose, Sampling
from dream_cli.errors import EngineError, UsageError
from dream_cli.records.cache import cache_folder
from dream_cli.records.record import Image

Json = dict[str, Any]

VERSION = 1  # part of every key: a new meaning of requests or replies never meets an old reply
BUSY = 30.0
_OLD = ["key", "verb", "model", "created_at", "request", "reply"]  # the columns of calls, without and with the stage
_NEW = [*_OLD, "stage"]
_SUBJECT = 16  # hexadecimal digits: what is looked up by them is looked into

_CALLS = """CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, verb TEXT NOT NULL, model TEXT NOT NULL, created_at TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL,
    stage TEXT NOT NULL DEFAULT ''
)"""
# The calls by what they are about, `subject_of` a prompt or an image. Where nothing is known of a call, its subject is ''.
_SUBJECTS = "CREATE TABLE IF NOT EXISTS subjects (subject TEXT NOT NULL, call INTEGER NOT NULL, PRIMARY KEY (subject, call)) WITHOUT ROWID"


def default_store() -> Path:
    """Return where calls are kept: $DREAM_STORE, else dream/calls.sqlite in the user's cache."""
    named = os.environ.get("DREAM_STORE")
    return Path(named) if named else cache_folder() / "calls.sqlite"


def check_store(path: str) -> None:
    """Raise UsageError where calls cannot be kept in a file of this name; nothing is made."""
    if os.path.isdir(path):
        raise UsageError(f"--store {path} is a directory; name a file in it")
    folder = next((folder for folder in Path(path).absolute().parents if folder.exists()), Path("/"))
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"--store {path}: {folder} may not be written to; name another place with --store or DREAM_STORE")


class CallStore:
    """The replies on disk; safe for several processes, and a written reply outlives a killed process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _guard(self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Prompts and answers are for the owner's eyes; SQLite gives the files beside it the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            # IMMEDIATE: a writer waits for its turn at the start, where waiting is possible.
            self._db = sqlite3.connect(path, timeout=BUSY, isolation_level="IMMEDIATE", check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        deadline = time.monotonic() + BUSY
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:
                # The change to WAL does not wait for another process that makes it at the same moment.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        # Enough for a killed process; only a power failure can lose the last calls, and none is ever torn.
        self._db.execute("PRAGMA synchronous=NORMAL")
        if _columns(self._db) != _NEW:
            self._create_or_migrate()
        self._db.execute(f"SELECT {', '.join(_NEW)} FROM calls LIMIT 0")

    def _create_or_migrate(self) -> None:
        """Make the tables; in a store of an older version the calls get an empty stage and the empty subject."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if _columns(self._db) == _OLD:
                self._db.execute("ALTER TABLE calls ADD COLUMN stage TEXT NOT NULL DEFAULT ''")
                self._db.execute(_SUBJECTS)
                self._db.execute("INSERT INTO subjects SELECT '', rowid FROM calls")
            self._db.execute(_CALLS)
            self._db.execute(_SUBJECTS)

    def get(self, key: str) -> Json | None:
        """Return the reply kept under a key, None if there is none."""
        with _guard(self.path):
            row = self._db.execute("SELECT reply FROM calls WHERE key = ?", (key,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def put(self, verb: str, model: str, calls: Sequence[tuple[str, Json, Json]], purpose: Purpose = NO_PURPOSE) -> None:
        """Keep (key, request, reply) of finished calls, all or none of them; a reply that is there stays."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [(key, verb, model, now, json.dumps(request), json.dumps(reply), purpose.stage) for key, request, reply in calls]
        links = [(subject, key) for key, request, _ in calls for subject in _subjects(request, purpose)]
        with _guard(self.path), self._db:
            self._db.executemany("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany("INSERT OR IGNORE INTO subjects SELECT ?, rowid FROM calls WHERE key = ?", links)

    def drop(self, key: str) -> None:
        """Forget the reply kept under a key."""
        with _guard(self.path), self._db:
            self._db.execute("DELETE FROM calls WHERE key = ?", (key,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _columns(db: sqlite3.Connection) -> list[str]:
    return [row[1] for row in db.execute("PRAGMA table_info(calls)")]


@contextmanager
def _guard(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UsageError(f"the store of calls at {path} cannot be used: {error}; name another with --store or DREAM_STORE") from None


class Call(NamedTuple):
    """One call as it is kept, request and reply in JSON; `stage` is empty where an older version or no run made it."""

    key: str
    verb: str
    model: str
    created_at: str
    request: str
    reply: str
    stage: str


def calls_about(path: Path, subjects: Iterable[str]) -> Iterator[Call]:
    """Yield the calls about any of the subjects, and those of which no subject is known, in the order in which they were made.

    The file is only read, whatever its version. Raises UsageError where it cannot be.
    """
    with _guard(path), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        if _columns(db) == _OLD:
            rows = db.execute(f"SELECT {', '.join(_OLD)}, '' FROM calls ORDER BY created_at, rowid")
        else:
            rows = db.execute(
                f"""SELECT {", ".join(_NEW)} FROM calls WHERE rowid IN (
                    SELECT call FROM subjects WHERE subject IN (SELECT value FROM json_each(?))
                ) ORDER BY created_at, rowid""",
                (json.dumps(["", *subjects]),),
            )
        yield from map(Call._make, rows)


def subject_of(prompt: str) -> str:
    """Return the subject of calls about a prompt."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:_SUBJECT]


def subject_of_image(sha256: str) -> str:
    """Return the subject of calls about an image, which is named by the SHA-256 of its bytes."""
    return sha256[:_SUBJECT]


def _subjects(request: Json, purpose: Purpose) -> set[str]:
    images = {subject_of_image(image) for message in request.get("messages", ()) for image in message["images"]}
    return images | ({subject_of(prompt) for prompt in purpose.prompts} or {""})


class StoredEngine(Engine):
    """An engine that answers from the store, and calls another engine for the rest."""

    def __init__(self, inner: Engine, store: CallStore) -> None:
        self.kind, self.model, self.fingerprint = inner.kind, inner.model, inner.fingerprint
        self.concurrency, self.usage, self.checkpoint = inner.concurrency, inner.usage, inner.checkpoint
        self._inner, self._store = inner, store
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Held until a reply is on disk: what a kill costs is then no more than what was in flight.
        self._room = asyncio.Semaphore(inner.concurrency)

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Return one completion for each sample index; only the missing ones are generated."""
        about = self._request("generate", chat) | {"sampling": _sampling_json(sampling)}
        requests = {sample: about | {"sample": sample} for sample in samples}

        async def call(missing: list[int]) -> list[Json]:
            return [asdict(completion) for completion in await self._inner.generate(chat, sampling, missing)]

        replies = await self._replies(requests, call)
        return [Completion(**replies[sample]) for sample in samples]

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Return how probable each of the answers is, from the store where it is there."""
        request = self._request("choose", chat) | {"answers": list(answers)}

        async def call(_: list[int]) -> list[Json]:
            choice = await self._inner.choose(chat, answers)
            probabilities = None if choice.probabilities is None else dict(choice.probabilities)
            return [{"probabilities": probabilities, "covered": choice.covered, "text": choice.text}]

        return Choice(**(await self._replies({0: request}, call))[0])

    def forget(self, chat: Sequence[ChatMessage], about: Sampling | Sequence[str]) -> None:
        """Drop the reply to a choice, or to the first sample of a text: one that could not be read is then requested again."""
        if isinstance(about, Sampling):
            request = self._request("generate", chat) | {"sampling": _sampling_json(about), "sample": 0}
        else:
            request = self._request("choose", chat) | {"answers": list(about)}
        self._store.drop(call_key(request))

    async def close(self) -> None:
        """Close the engine and the store."""
        await self._inner.close()
        self._store.close()

    def _request(self, verb: str, chat: Sequence[ChatMessage]) -> Json:
        messages = [
            {"role": m.role, "text": m.text, "images": [_image_sha256(image) for image in m.images]}
            # A message with its images at the head has the key that it always had.
            | ({"places": m.places} if any(m.places) else {})
            for m in chat
        ]
        return {"version": VERSION, "verb": verb, "engine": self.fingerprint, "messages": messages}

    async def _replies(self, requests: Mapping[int, Json], call: Callable[[list[int]], Awaitable[list[Json]]]) -> dict[int, Json]:
        """Return the reply to each request; new replies are on disk before this returns."""
        keys = {name: call_key(request) for name, request in requests.items()}
        async with AsyncExitStack() as held:
            # Identical requests wait for the first one and then find its reply. If that one failed or was
            # cancelled the next one asks, which a shared future could not do. The order keeps two waiters from a deadlock.
            for key in sorted(keys.values()):
                await held.enter_async_context(self._lock(key))
            stored = {name: self._store.get(key) for name, key in keys.items()}
            replies = {name: reply for name, reply in stored.items() if reply is not None and _is_answer(reply)}
            missing = [name for name in keys if name not in replies]
            self.usage.reused += len(replies)
            if missing:
                async with self._room:
                    fresh = dict(zip(missing, await call(missing), strict=True))
                    kept = [(keys[n], requests[n], fresh[n]) for n in missing if _is_answer(fresh[n])]
                    self._store.put(requests[missing[0]]["verb"], self.model, kept, PURPOSE.get())
                replies |= fresh
        return replies

    def _lock(self, key: str) -> asyncio.Lock:
        """Return the lock of a key; it lives as long as someone holds or awaits it."""
        return self._locks.setdefault(key, asyncio.Lock())


def _is_answer(reply: Json) -> bool:
    """Whether a reply is worth keeping: what a filter held back, or what came empty, is requested again."""
    return reply.get("probabilities") is not None or Completion(reply["text"], reply.get("finish_reason")).is_answer


def call_key(request: Json) -> str:
    """Return the hash of everything that a reply depends on."""
    # Keys are not sorted: ours come in a fixed order, and the order of a schema's properties is part of the request.
    return hashlib.sha256(json.dumps(request, separators=(",", ":")).encode()).hexdigest()


def _sampling_json(sampling: Sampling) -> Json:
    return {
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "schema": None if sampling.schema is None else dict(sampling.schema),
    }


def _image_sha256(image: Image) -> str:
    if image.data is None:
        raise EngineError(f"the image {image.path} was not read before it was sent")
    return hashlib.sha256(image.data).hexdigest()
