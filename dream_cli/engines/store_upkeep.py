"""Maintenance of a call store: its contents, the deletion of calls, and their export and import as JSONL."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dream_cli.engines.batch import take_result
from dream_cli.engines.store import Call, call_key, connected, has_stages
from dream_cli.errors import UsageError
from dream_cli.records.atomic import as_usage_error, replacing
from dream_cli.records.streams import check_source, standard_input
from dream_cli.records.visible import amount, visible_line

Json = dict[str, Any]


@dataclass(frozen=True)
class CallSelection:
    """A selection of calls: by stage, by model and before a time; None selects all."""

    stage: str | None = None
    model: str | None = None
    before: datetime | None = None

    @property
    def is_everything(self) -> bool:
        """Whether all calls are selected."""
        return self == CallSelection()

    def where(self) -> tuple[str, list[str]]:
        """Return the condition in SQL and its values."""
        before = self.before.isoformat(timespec="seconds") if self.before else None
        named = {"stage = ?": self.stage, "model = ?": self.model, "created_at < ?": before}
        conditions = {condition: value for condition, value in named.items() if value is not None}
        return " AND ".join(conditions) or "1", list(conditions.values())


@dataclass(frozen=True)
class Contents:
    """The contents of a store: the calls by stage and model (the stage is empty if it is unknown), and when they were made."""

    path: str
    bytes: int
    calls: int
    by_stage: tuple[tuple[str, str, int], ...]
    oldest: str | None
    newest: str | None

    def to_json(self) -> str:
        """Return the contents as one line of JSON."""
        groups = [{"stage": stage or None, "model": model, "calls": calls} for stage, model, calls in self.by_stage]
        span = {"oldest": self.oldest, "newest": self.newest}
        return json.dumps({"path": self.path, "bytes": self.bytes, "calls": self.calls, **span, "by_stage": groups}) + "\n"

    def report(self) -> str:
        """Return the contents as lines of text."""
        lines = [self.path, f"{amount(self.calls, 'call')}, {self.bytes / 1e6:,.1f} MB"]
        if self.calls:
            lines.append(f"made from {self.oldest} to {self.newest}")
        lines += [f"  {stage or 'stage not known'}, {model}: {calls:,}" for stage, model, calls in self.by_stage]
        return "".join(f"{line}\n" for line in lines)


def contents(path: Path, selection: CallSelection) -> Contents:
    """Return the contents of a store for a selection; the file is only read. Raises UsageError if there is no store."""
    condition, values = selection.where()
    with connected(path, write=False) as db:
        calls, oldest, newest = db.execute(
            f"SELECT count(*), min(created_at), max(created_at) {_calls(db)} WHERE {condition}", values
        ).fetchone()
        groups = db.execute(
            f"SELECT stage, model, count(*) {_calls(db)} WHERE {condition} GROUP BY stage, model ORDER BY count(*) DESC, stage, model",
            values,
        ).fetchall()
    return Contents(str(path), path.stat().st_size, calls=calls, by_stage=tuple(groups), oldest=oldest, newest=newest)


def prune(path: Path, selection: CallSelection) -> str:
    """Delete the calls of a selection and free their space; return a report. Other processes wait until it is done.

    Raises UsageError if the store cannot be written.
    """
    condition, values = selection.where()
    before = path.stat().st_size if path.exists() else 0
    with connected(path, write=True) as db:
        # VACUUM may change the row ids, to which the subjects are linked: no other process may write in between.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        with db:
            deleted = db.execute(f"DELETE FROM calls WHERE {condition}", values).rowcount
            db.execute("CREATE TEMP TABLE links AS SELECT subject, key FROM subjects JOIN calls ON calls.rowid = call")
        db.execute("VACUUM")
        with db:
            db.execute("DELETE FROM subjects")
            db.execute("INSERT OR IGNORE INTO subjects SELECT subject, calls.rowid FROM links JOIN calls USING (key)")
        (left,) = db.execute("SELECT count(*) FROM calls").fetchone()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    freed = max(0, before - path.stat().st_size)
    return f"{deleted:,} of {amount(deleted + left, 'call')} deleted, {freed / 1e6:,.1f} MB freed"


def export(path: Path, selection: CallSelection) -> Iterator[Json]:
    """Yield the calls of a selection in the order in which they were made; a damaged one has the field `error`.

    The file is only read. Raises UsageError if there is no store.
    """
    condition, values = selection.where()
    with connected(path, write=False) as db, closing(db.cursor()) as cursor:
        linked = has_stages(db)
        names = ", ".join(Call._fields)
        for rowid, *fields in cursor.execute(f"SELECT rowid, {names} {_calls(db)} WHERE {condition} ORDER BY created_at, rowid", values):
            call: Json = dict(zip(Call._fields, fields, strict=True))
            links = db.execute("SELECT subject FROM subjects WHERE call = ? ORDER BY subject", (rowid,)) if linked else [("",)]
            try:
                texts = {name: json.loads(call.pop(name)) for name in ("request", "reply")}
            except (ValueError, TypeError, RecursionError) as error:
                yield {"key": call["key"], "error": f"the call is damaged: {error}"}
                continue
            yield call | {"subjects": [subject for (subject,) in links]} | texts


def export_to(path: Path, selection: CallSelection, out: str | None) -> tuple[str, int]:
    """Write the calls of a selection as JSONL to a file or stdout; return a report and the number of damaged calls, which are left out.

    Raises UsageError if there is no store or the file cannot be written.
    """
    written = damaged = 0
    with nullcontext(sys.stdout.buffer) if out is None or out == "-" else replacing(out) as file, as_usage_error(out or "stdout"):
        for call in export(path, selection):
            if "error" in call:
                damaged += 1
                continue
            file.write(json.dumps(call).encode() + b"\n")
            written += 1
        file.flush()
    return f"{amount(written, 'call')} exported" + (f", {amount(damaged, 'damaged call')} left out" if damaged else ""), damaged


def import_from(path: Path, source: str | None) -> tuple[str, int]:
    """Add exported calls or the results of a batch to a store; create the store if there is none, and keep existing calls unchanged.

    Return a report and the number of lines that could not be used. Raises UsageError if the store cannot be written.
    """
    new = known = unreadable = 0
    first = ""
    results: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    with ExitStack() as stack:
        check_source(source, tables=False)
        lines = standard_input() if source is None or source == "-" else stack.enter_context(open(source, "rb"))
        db = stack.enter_context(connected(path, write=True, make=True))
        stack.enter_context(db)
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if isinstance(row, dict) and "custom_id" in row:
                    outcome, reason = take_result(db, row)
                    results[outcome] += 1
                    reasons.setdefault(outcome, reason)
                    continue
                call, subjects = _exported(row)
            except (ValueError, TypeError, RecursionError) as error:
                unreadable += 1
                first = first or f"line {number}: {error}"
                continue
            added = db.execute("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", call).rowcount
            new, known = new + added, known + 1 - added
            links = [(subject, call.key) for subject in subjects]
            db.executemany("INSERT OR IGNORE INTO subjects SELECT ?, rowid FROM calls WHERE key = ?", links)
    left_out = f", {amount(unreadable, 'line')} skipped as not a call; the first: {first}" if unreadable else ""
    if not results:
        return f"{amount(new, 'call', 'are')} new, {known:,} known already{left_out}", unreadable
    return _batch_report(results, reasons) + left_out, unreadable + results["failed"] + results["foreign"]


def _batch_report(results: Mapping[str, int], reasons: Mapping[str, str]) -> str:
    report = f"{amount(results['new'], 'result', 'are')} new, {results['known']:,} known already; the command that wrote the calls continues with them"
    if results["failed"]:
        report += f"; {amount(results['failed'], 'call')} failed and will be requested again; the first: {reasons['failed']}"
    if results["foreign"]:
        report += f"; {amount(results['foreign'], 'result')} skipped, not of a call of this store; the first: {reasons['foreign']}"
    return visible_line(report)


def time_before(age: str) -> datetime:
    """Return the time that is an age ago, such as 30d, 12h or 8w; raise UsageError if it is not an age."""
    match = re.fullmatch(r"(\d{1,6})([hdw])", age.strip())
    if match is None:
        raise UsageError(f"--older-than {age!r} is not an age; it looks like 30d, 12h or 8w")
    return datetime.now(UTC) - int(match[1]) * {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}[match[2]]


def _exported(row: Any) -> tuple[Call, list[str]]:
    """Return the call of an exported line and its subjects; raise ValueError if the line is not a call."""
    if not isinstance(row, dict) or not isinstance(row.get("request"), dict) or not isinstance(row.get("reply"), dict):
        raise ValueError("not a call with a request and a reply")  # noqa: TRY004 - a value of the line is wrong, not an argument
    if row.get("key") != call_key(row["request"]):
        raise ValueError("the key is not that of the request")
    texts = {name: row.get(name, "") for name in ("verb", "model", "created_at", "stage")}
    subjects = row.get("subjects", [""])
    if not all(isinstance(text, str) for text in [*texts.values(), *subjects]):
        raise ValueError("verb, model, created_at, stage and subjects are texts")
    return Call(key=row["key"], request=json.dumps(row["request"]), reply=json.dumps(row["reply"]), **texts), subjects


def _calls(db: sqlite3.Connection) -> str:
    return "FROM calls" if has_stages(db) else "FROM (SELECT rowid, *, '' AS stage FROM calls)"
