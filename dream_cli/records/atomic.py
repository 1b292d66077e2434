"""Atomic writes of files: a temporary file beside the target is renamed when it is complete.

A temporary is named `.NAME.PID.tmp`. A killed process can leave one behind; the next writer of the same target removes it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from dream_cli.errors import UsageError
from dream_cli.records.remote import is_url, uploading


@contextmanager
def replacing(out: str) -> Iterator[IO[bytes]]:
    """Yield an open temporary file that replaces `out` when the body succeeds and is removed when it does not.

    Raises UsageError where the file cannot be written; errors of the body are raised unchanged.
    """
    if out == os.devnull:
        with open(out, "wb") as nowhere:
            yield nowhere
        return
    if is_url(out):
        with uploading(out) as upload:
            yield upload
        return
    check_place(out)
    target = Path(os.path.realpath(out))
    with _temporary(target) as temporary:
        with as_usage_error(out):
            file = open(temporary, "wb")  # noqa: SIM115 - closed on success and on error
        try:
            yield file
            with as_usage_error(out):
                file.close()
                _commit(temporary, target)
        finally:
            with suppress(OSError):
                file.close()


@contextmanager
def replacing_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path for the body to create, a file or a folder; it replaces `target` when the body succeeds.

    For libraries that open the file themselves. Raises OSError where `target` cannot be replaced, for example a folder that is not empty.
    """
    target = Path(os.path.realpath(target))
    with _temporary(target) as temporary:
        yield temporary
        _commit(temporary, target)


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically; raise OSError where it cannot be written.

    Bytes of a file name that are not UTF-8 are escaped as in JSON.
    """
    with replacing_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_once(target: Path, data: bytes) -> None:
    """Write a cache file, named by its content, unless it exists; create its folder. Raises OSError.

    The file is not synced to disk: a cache can be computed again, and it holds many small files.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep_cache(target.parent)
    temporary = _temporary_path(target)
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    except FileNotFoundError:
        # A process with the same id on another machine can share the folder, and can remove or rename this temporary file as its own.
        if not target.exists():
            raise
    finally:
        _remove(temporary)


def check_own_input(out: str | None, *sources: str | None, option: str = "-o") -> None:
    """Raise UsageError where a command that drops rows would replace one of its sources, by any name; None and - are stdin."""
    for source in sources:
        with suppress(OSError):
            opened = os.fstat(0) if source in (None, "-") else os.stat(str(source))
            if out not in (None, "-", os.devnull) and os.path.samestat(opened, os.stat(str(out))):
                name = "stdin" if source in (None, "-") else source
                raise UsageError(
                    f"{option} {out} is the input itself ({name}), and the rows that are dropped would be lost; name another file"
                )


def check_place(out: str) -> None:
    """Raise UsageError where no file can be written at this path."""
    if is_url(out):
        return
    target = os.path.realpath(out)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise UsageError(f"cannot write {out}: it is a directory; name a file in it")
    if os.path.exists(target) and not os.path.isfile(target):
        # A rename would replace the device or the pipe by a regular file.
        raise UsageError(f"cannot write {out}: it is not a regular file; write to stdout and redirect it (> {out})")
    if not os.path.isdir(folder):
        raise UsageError(f"cannot write {out}: the folder {os.path.dirname(out)} does not exist; make it (mkdir -p)")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write {out}: the folder {folder} may not be written to; choose another place with -o")


class as_usage_error:
    """Turn an OSError of a write into a UsageError that names the file; BrokenPipeError is no failure and is raised unchanged.

    A class instead of a generator function: it is entered for each row, and a class is faster.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            reason = error.strerror or error
            raise UsageError(f"cannot write {self.name}: {reason}; free some space or choose another place with -o") from error


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; what is left there at the end is removed, also on an interrupt."""
    _sweep(target.parent, re.escape(target.name))
    temporary = _temporary_path(target)
    try:
        yield temporary
    finally:
        _remove(temporary)


def _temporary_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


def _commit(temporary: Path, target: Path) -> None:
    """Sync a temporary file to disk and rename it: after a power failure the target is the old file or the new one."""
    if temporary.is_file():
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
    os.replace(temporary, target)


@cache
def _sweep_cache(folder: Path) -> None:
    """Remove the stale temporary files of a cache folder, once per process: its listing can be long."""
    _sweep(folder, r"[0-9a-f]{16,}\.\w+")


def _sweep(folder: Path, name: str) -> None:
    """Remove the temporary files of dead processes for targets in `folder` whose name matches the regular expression `name`."""
    pattern = re.compile(rf"\.{name}\.(\d+)\.tmp")
    with suppress(OSError):
        for entry in os.listdir(folder):
            match = pattern.fullmatch(entry)
            if match is not None and not _is_alive(int(match[1])):
                _remove(folder / entry)


def _is_alive(process: int) -> bool:
    if os.name != "posix":
        return True  # on Windows, os.kill with signal 0 does not test the process: it ends it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
