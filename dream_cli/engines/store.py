"""The call store: replies in SQLite, keyed by a hash of their request, so that each call is paid for once."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import socket
import sqlite3
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from dream_cli.engines.protocol import NO_PURPOSE, Purpose
from dream_cli.errors import UsageError
from dream_cli.records.cache import cache_folder

Json = dict[str, Any]

# Part of every key: after a change of the format or of its reading, old replies are not reused. Version 1 of choices with a common
# beginning ("1" of "10") was read without the probability of a "1" that the server does not complete.
VERSION, VERSION_OF_BEGINNINGS = 1, 2
BUSY = 30.0
_OLD = ["key", "verb", "model", "created_at", "request", "reply"]  # the columns of `calls` without and with the stage
_NEW = [*_OLD, "stage"]
_SUBJECT = 16  # hexadecimal digits; callers check the calls of a lookup, as two subjects may share them

_CALLS = """CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, verb TEXT NOT NULL, model TEXT NOT NULL, created_at TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL,
    stage TEXT NOT NULL DEFAULT ''
)"""
# The calls by subject: `subject_of` a prompt, or `subject_of_image`. A call without known subjects has the subject ''.
_SUBJECTS = "CREATE TABLE IF NOT EXISTS subjects (subject TEXT NOT NULL, call INTEGER NOT NULL, PRIMARY KEY (subject, call)) WITHOUT ROWID"
# The calls in flight in some process, so that others wait for the reply: the owner, and when the claim expires.
_CLAIMS = """CREATE TABLE IF NOT EXISTS claims (
    key TEXT PRIMARY KEY, host TEXT NOT NULL, process INTEGER NOT NULL, began TEXT NOT NULL, until REAL NOT NULL
)"""
# The requests of batches and their results: an HTTP status and a body, NULL before the result is imported.
_BATCH = """CREATE TABLE IF NOT EXISTS batch (
    id TEXT PRIMARY KEY, stage TEXT NOT NULL, model TEXT NOT NULL, created_at TEXT NOT NULL, status INTEGER, reply TEXT
)"""
LEASE = 900.0  # seconds before a claim of another machine expires, whose processes are not visible here
# Errors of a path that may hold a store but is not writable.
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)
_owners = itertools.count()


def default_store() -> Path:
    """Return the path of the default store: $DREAM_STORE, else dream/calls.sqlite in the user's cache folder."""
    named = os.environ.get("DREAM_STORE")
    return Path(named) if named else cache_folder() / "calls.sqlite"


def is_unnamed(store: str | None) -> bool:
    """Whether a store is the default one because neither --store nor DREAM_STORE names another."""
    return "DREAM_STORE" not in os.environ and store == str(default_store())


def check_store(path: str) -> None:
    """Raise UsageError if there can be no store at a path; nothing is created."""
    if os.path.isdir(path):
        raise UsageError(f"--store {path} is a directory; name a file in it")
    if os.path.exists(path):
        return  # a file without write access is still read
    folder = next((folder for folder in Path(path).absolute().parents if folder.exists()), Path("/"))
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"--store {path}: {folder} may not be written to; name another place with --store or DREAM_STORE")


class CallStore:
    """The replies on disk; safe for several processes, and a written reply survives a killed process.

    If the file cannot be written, its replies are still read; if it cannot be read either, it counts as empty. Both are reported
    once on stderr. Raises UsageError if the path is not a store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unkept = 0  # calls that could not be written
        self._owner = Owner.here()
        self._warned = False
        self._db: sqlite3.Connection | None = None
        self._writable = True
        with _guard(path):
            try:
                self._db = self._opened()
            except (sqlite3.OperationalError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _NO_ACCESS:
                    raise
                self._writable = False
                self._db = _read_only(path)
                self._warn(f"cannot be {'written' if self._db else 'used'}: {error}", "what it holds is used" if self._db else "")

    def _opened(self) -> sqlite3.Connection | None:
        """Open the file for reading and writing; return None, with a warning, if a newer version created it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Prompts and answers are private to the owner; SQLite gives the files beside it the same mode.
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        regular = stat.S_ISREG(os.fstat(file).st_mode)
        os.close(file)
        if not regular:
            raise sqlite3.DatabaseError("it is not a regular file")
        # IMMEDIATE: a writer waits at the start of its transaction, where SQLite can wait.
        db = sqlite3.connect(self.path, timeout=BUSY, isolation_level="IMMEDIATE", check_same_thread=False)
        try:
            columns = _columns(db)
            if columns and not set(_OLD) <= set(columns):
                raise sqlite3.DatabaseError("its table of calls is that of another program")
            if set(_OLD) < set(columns) and columns != _NEW:
                db.close()
                self._writable = False
                self._warn("was made by a newer version of dream")
                return None
            _prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def get(self, key: str) -> Json | None:
        """Return the reply of a key, None if there is none; a reply that is not a JSON object is returned as an empty one."""
        if self._db is None:
            return None
        try:
            row = self._db.execute("SELECT reply FROM calls WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._fail("cannot be read", error)
            return None
        if row is None:
            return None
        try:
            reply = json.loads(row[0])
        except (ValueError, TypeError, RecursionError):
            return {}
        return reply if isinstance(reply, dict) else {}

    def put(self, verb: str, model: str, calls: Sequence[tuple[str, Json, Json]], purpose: Purpose = NO_PURPOSE) -> Mapping[str, Json]:
        """Store (key, request, reply) of finished calls, all or none; return the other replies, by key, that were there before and stay."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [(key, verb, model, now, json.dumps(request), json.dumps(reply), purpose.stage) for key, request, reply in calls]
        links = [(subject, key) for key, request, _ in calls for subject in _subjects(request, purpose)]
        if self._db is None or not self._writable:
            self.unkept += len(rows)
            return {}
        try:
            with self._db:
                new = self._db.executemany("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", rows).rowcount
                self._db.executemany("INSERT OR IGNORE INTO subjects SELECT ?, rowid FROM calls WHERE key = ?", links)
        except sqlite3.Error as error:
            self.unkept += len(rows)
            self._fail("cannot be written", error)
            return {}
        if new == len(rows):
            return {}
        return {key: kept for key, _, reply in calls if (kept := self.get(key)) and kept != reply}

    def drop(self, key: str) -> None:
        """Delete the reply of a key."""
        self._write("DELETE FROM calls WHERE key = ?", [(key,)])

    def claim(self, keys: Sequence[str]) -> set[str]:
        """Claim the keys that no other live process holds, until their release or the end of the lease; return them."""
        if self._db is None or not self._writable:
            return set(keys)
        try:
            if self._held_by_others(keys) == set(keys):
                return set()
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                free = set(keys) - self._held_by_others(keys)
                rows = [(key, *self._owner, time.time() + LEASE) for key in free]
                self._db.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._fail("cannot be written", error)
            return set(keys)
        return free

    def release(self, keys: Iterable[str]) -> None:
        """Release claimed keys."""
        self._write("DELETE FROM claims WHERE key = ? AND host = ? AND process = ? AND began = ?", [(key, *self._owner) for key in keys])

    def close(self) -> None:
        """Close the file; replies of calls in flight are not stored."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _held_by_others(self, keys: Sequence[str]) -> set[str]:
        assert self._db is not None
        claims = self._db.execute("SELECT * FROM claims WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(keys),))
        now = time.time()
        return {key for key, *owner, until in claims if until > now and Owner(*owner) != self._owner and Owner(*owner).may_live}

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if self._db is None or not self._writable or not rows:
            return
        try:
            with self._db:
                self._db.executemany(statement, rows)
        except sqlite3.Error as error:
            self._fail("cannot be written", error)

    def _fail(self, fault: str, error: sqlite3.Error) -> None:
        """Report the first fault, and stop waiting for locks: otherwise every call would wait for a lasting lock."""
        self._warn(f"{fault}: {error}")
        if self._db is not None:
            self._db.execute("PRAGMA busy_timeout = 100")

    def _warn(self, fault: str, rest: str = "") -> None:
        if not self._warned:
            self._warned = True
            consequence = f"{rest + ', and ' if rest else ''}calls that are not kept are made again by a rerun"
            sys.stderr.write(f"dream: the call store at {self.path} {fault}; {consequence}\n")


class Owner(NamedTuple):
    """A process on a machine; `began` distinguishes it from a later process with the same id."""

    host: str
    process: int
    began: str

    @classmethod
    def here(cls) -> Owner:
        """Return a new owner of this process, different from its earlier ones."""
        return cls(socket.gethostname(), os.getpid(), f"{_began(os.getpid())} {next(_owners)}")

    @property
    def may_live(self) -> bool:
        """Whether the process may be alive; True for a process on another machine, about which nothing is known."""
        return self.host != socket.gethostname() or (began := _began(self.process)) is None or began == self.began.split()[0]


def _began(process: int) -> str | None:
    """Return the start time of a process on this machine, "" if there is no such process; None if that is not visible."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "" if Path("/proc/self/stat").exists() else None


def _read_only(path: Path) -> sqlite3.Connection | None:
    """Return a read-only connection to a store, None if that is impossible."""
    # SQLite needs to write files beside a store. If it cannot, other processes cannot either, so the file is immutable.
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=1.0, check_same_thread=False)
        except sqlite3.Error:
            continue
        try:
            db.execute("SELECT key, reply FROM calls LIMIT 1").fetchone()
        except sqlite3.Error:
            db.close()
        else:
            return db
    return None


def _prepare(db: sqlite3.Connection) -> None:
    """Set up a connection for writing, and create or migrate the tables."""
    deadline = time.monotonic() + BUSY
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            # SQLite does not wait here for another process that switches to WAL at the same time.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    # Safe if a process is killed; a power failure can lose the last calls, but never corrupts one.
    db.execute("PRAGMA synchronous=NORMAL")
    if _columns(db) != _NEW or not _columns(db, "claims") or not _columns(db, "batch"):
        with db:
            db.execute("BEGIN IMMEDIATE")
            if _columns(db) == _OLD:
                # Calls of an older version have an empty stage and the empty subject.
                db.execute("ALTER TABLE calls ADD COLUMN stage TEXT NOT NULL DEFAULT ''")
                db.execute(_SUBJECTS)
                db.execute("INSERT INTO subjects SELECT '', rowid FROM calls")
            for table in (_CALLS, _SUBJECTS, _CLAIMS, _BATCH):
                db.execute(table)
    db.execute(f"SELECT {', '.join(_NEW)} FROM calls LIMIT 0")


def _columns(db: sqlite3.Connection, table: str = "calls") -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


@contextmanager
def _guard(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UsageError(f"the call store at {path} cannot be used: {error}; name another with --store or DREAM_STORE") from None


@contextmanager
def connected(path: Path, *, write: bool, make: bool = False) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a store for maintenance; raise UsageError if there is no store or it cannot be opened."""
    if not make and not path.exists():
        raise UsageError(f"there is no call store at {path} yet; name another with --store or DREAM_STORE")
    with _guard(path):
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        mode = "rw" if write else "ro"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY)) as db:
            if write:
                _prepare(db)
            yield db


def has_stages(db: sqlite3.Connection) -> bool:
    """Whether a store has the stages and subjects of calls; a store of an older version has not."""
    return "stage" in _columns(db)


class Call(NamedTuple):
    """One stored call, with request and reply as JSON; `stage` is empty if an older version or no run made it."""

    key: str
    verb: str
    model: str
    created_at: str
    request: str
    reply: str
    stage: str


def calls_about(path: Path, subjects: Iterable[str], signs: Sequence[str]) -> Iterator[Call]:
    """Yield the calls whose request contains one of the signs, of those about any of the subjects or without known subjects.

    They come in the order in which they were made. The file is only read, whatever its version: one of an older version has no
    subjects, so that each request is searched. Raises UsageError if it cannot be read.
    """
    contains = " OR ".join(["instr(request, ?)"] * len(signs)) or "0"
    with connected(path, write=False) as db:
        if has_stages(db):
            about = "rowid IN (SELECT call FROM subjects WHERE subject IN (SELECT value FROM json_each(?)))"
            columns, values = ", ".join(_NEW), [json.dumps(["", *subjects])]
        else:
            about, columns, values = "1", f"{', '.join(_OLD)}, ''", []
        rows = db.execute(f"SELECT {columns} FROM calls WHERE {about} AND ({contains}) ORDER BY created_at, rowid", [*values, *signs])
        yield from map(Call._make, rows)


def subject_of(prompt: str) -> str:
    """Return the subject of calls about a prompt."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:_SUBJECT]


def subject_of_image(sha256: str) -> str:
    """Return the subject of calls about an image, from the SHA-256 of its bytes."""
    return sha256[:_SUBJECT]


def _subjects(request: Json, purpose: Purpose) -> set[str]:
    images = {subject_of_image(image) for message in request.get("messages", ()) for image in message["images"]}
    return images | ({subject_of(prompt) for prompt in purpose.prompts} or {""})


def call_key(request: Json) -> str:
    """Return the key of a request: the hash of everything that its reply depends on."""
    # The fields are not sorted: ours have a fixed order, and the order of a schema's properties is part of the request.
    return hashlib.sha256(json.dumps(request, separators=(",", ":")).encode()).hexdigest()
