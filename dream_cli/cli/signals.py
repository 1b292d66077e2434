"""Signals and streams of the process: SIGTERM and SIGHUP end a command like Ctrl-C, and closed streams are errors with a message."""

from __future__ import annotations

import os
import signal
import sys

# As type checkers know it: until `typing` is imported a signal would print a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def end_quietly() -> None:
    """End the process at a signal without a traceback: while a command is imported, there is nothing to save."""

    def leave(number: int, _: Any) -> None:
        os.write(2, b"dream: interrupted\n")
        os._exit(128 + number)

    _handle(leave)


def raise_interrupts() -> list[int]:
    """Let each signal raise KeyboardInterrupt; return the list to which the numbers of the signals are added."""
    received: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        received.append(number)
        # Both modules may be missing, or in the middle of their import.
        running_loop = getattr(sys.modules.get("asyncio"), "get_running_loop", None)
        loading = getattr(sys.modules.get("dream_cli.engines.loading"), "LOADING", None)
        try:
            loop = running_loop() if running_loop else None
        except RuntimeError:
            loop = None
        if loop is None or (loading is not None and loading.active):
            raise KeyboardInterrupt
        # Not here, in the middle of a callback: raised between two of them, it leaves the tasks in order.
        loop.call_soon_threadsafe(_interrupt)

    _handle(interrupt)
    return received


def _interrupt() -> None:
    raise KeyboardInterrupt


def ignore_signals() -> None:
    """Let nothing disturb the end of the process."""
    _handle(signal.SIG_IGN)


def _handle(handler: Any) -> None:
    for number in ENDING:
        # nohup and background jobs of a shell ignore some signals on purpose.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def occupy_closed_streams() -> None:
    """Open what the shell has closed (`>&-`): else the next file that is opened takes its place.

    A closed stdin stays None. A write to a closed stdout raises OSError; what goes to a closed stderr is lost.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the end of the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
