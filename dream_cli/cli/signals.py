"""Signals and streams of the process: SIGTERM and SIGHUP act like Ctrl-C, and closed streams are errors with a message."""

from __future__ import annotations

import os
import signal
import sys

# Type checkers know this name. `typing` is not imported, because a signal during the import would print a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REPEAT = 10.0  # seconds between the interrupts of a loading model
AGAIN = 0.1  # seconds until an interrupt is raised again that was raised where Python ignores it
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def end_quietly() -> None:
    """Make signals end the process without a traceback while a command is imported: there is nothing to save yet."""

    def leave(number: int, _: Any) -> None:
        os.write(2, b"dream: interrupted\n")
        os._exit(128 + number)

    _handle(leave)


def raise_interrupts() -> list[int]:
    """Make each signal raise KeyboardInterrupt; return the list that collects the numbers of received signals."""
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
        if loading is not None and loading.active and hasattr(signal, "setitimer"):
            # vLLM swallows a KeyboardInterrupt while it waits for its processes, and then waits for ten minutes.
            loading.interrupted = True
            signal.signal(signal.SIGALRM, lambda *_: interrupt(number, None) if loading.interrupted else None)
            signal.setitimer(signal.ITIMER_REAL, REPEAT)
        if loop is None or (loading is not None and loading.active):
            raise KeyboardInterrupt
        # Not raised here, in the middle of a callback: raised between two callbacks, it leaves the tasks in a consistent state.
        loop.call_soon_threadsafe(_interrupt)

    def ignored(raised: Any) -> None:
        # In a finalizer or the callback of a weak reference, such as that of an import lock, Python only reports an exception.
        if issubclass(raised.exc_type, KeyboardInterrupt) and received and hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, lambda *_: interrupt(received[0], None))
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        else:
            sys.__unraisablehook__(raised)

    _handle(interrupt)
    sys.unraisablehook = ignored
    return received


def _interrupt() -> None:
    raise KeyboardInterrupt


def ignore_signals() -> None:
    """Ignore all signals while the process ends."""
    _handle(signal.SIG_IGN)
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _handle(handler: Any) -> None:
    for number in ENDING:
        # nohup and background jobs of a shell ignore some signals on purpose.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def occupy_closed_streams() -> None:
    """Open the standard streams that the shell has closed (`>&-`): otherwise the next opened file would take their numbers.

    A closed stdin stays None. A write to a closed stdout raises OSError; output to a closed stderr is lost.
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
