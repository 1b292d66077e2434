"""The progress of a stage on stderr: a bar if no other stage uses the terminal, else whole lines that begin with the stage's name."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dream_cli.records.visible import amount

# Seconds between two lines: in a pipe on a terminal, where other stages also write, and in a log.
TERMINAL_SECONDS, LOG_SECONDS = 10.0, 60.0


@dataclass(frozen=True)
class Shown:
    """The source of the progress: the stage, its counts so far (rows, errors), and the total number of rows, None if it is unknown.

    `to_stdout`: the rows go to stdout. `report` writes one line. `cost` returns the cost so far as text, "" without prices.
    """

    stage: str
    counts: Callable[[], tuple[int, int]]
    total: Callable[[], int | None]
    report: Callable[[str], None]
    to_stdout: bool
    cost: Callable[[], str] = lambda: ""


def is_fifo(stream: int) -> bool:
    """Whether a file descriptor is a pipe; False for a closed one."""
    try:
        return stat.S_ISFIFO(os.fstat(stream).st_mode)
    except OSError:
        return False


@contextmanager
def progress(shown: Shown, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """Show progress during the body; the body calls the yielded function after each change of the counts."""
    terminal = sys.stderr.isatty()
    if quiet or (terminal and shown.to_stdout and sys.stdout.isatty()):
        # The rows themselves are printed on the terminal.
        yield lambda: None
    elif not terminal:
        with _lines(shown, LOG_SECONDS):
            yield lambda: None
    elif shown.to_stdout and is_fifo(1):
        with _lines(shown, TERMINAL_SECONDS, last=True):
            yield lambda: None
    else:
        with _bar(shown) as advance:
            yield advance


def duration(seconds: float) -> str:
    """Return a duration as text, rounded as an estimate: in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def _lines(shown: Shown, seconds: float, last: bool = False) -> Iterator[None]:
    """Report a line every `seconds` seconds, and with `last` one at the end; each is written in a single call."""
    began, done = time.monotonic(), threading.Event()
    total: list[int | None] = []

    def report() -> None:
        total.append(total[0] if total else shown.total())
        rows, errors = shown.counts()
        seen, of = (rows, "") if total[0] is None else (total[0], f"{rows:,} of ")
        failed = f", {amount(errors, 'error')}" if errors else ""
        passed = time.monotonic() - began
        cost = f", {shown.cost()}" if shown.cost() else ""
        left = f", about {duration(passed * (seen - rows) / rows)} left" if total[0] is not None and 0 < rows < seen else ""
        shown.report(f"{of}{amount(seen, 'row')}{failed}, {passed:.0f} s{left}{cost}")

    def repeat() -> None:
        while not done.wait(seconds):
            report()

    reporter = threading.Thread(target=repeat, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        done.set()
        reporter.join()
        if last:
            report()


@contextmanager
def _bar(shown: Shown) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    total = shown.total()
    rows = TextColumn("{task.completed} rows") if total is None else MofNCompleteColumn()
    details = [TextColumn("{task.fields[errors]}"), TextColumn("{task.fields[cost]}"), TimeElapsedColumn()]
    left = [] if total is None else [TextColumn("left"), TimeRemainingColumn()]
    columns = (SpinnerColumn(), TextColumn(shown.stage), rows, *details, *left)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(shown.stage, total=total, errors="", cost="")

        def advance() -> None:
            rows, errors = shown.counts()
            bar.update(task, completed=rows, errors=amount(errors, "error") if errors else "", cost=shown.cost())

        yield advance
