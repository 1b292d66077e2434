"""The origins of the images of an output, so that the next command of a pipe or script is allowed to read them.

The records of an output name images in the folder of its input, which is usually not the folder of the output. So the folders of
the images of an output are recorded in the cache folder. Such a note belongs to one pipe or one file (device and inode,
and for a file its size and time): a copy, an edited file or a file from another machine has none.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dream_cli.records.atomic import write_text
from dream_cli.records.cache import cache_folder

_KEPT_DAYS = {"file": 90, "pipe": 7}


def note(output: str | int, folders: Iterable[str]) -> None:
    """Record the folders of the images of an output, a path or an open file; a cache that cannot be written is skipped."""
    key, folder = key_of(output), _folder()
    if key is None:
        return
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_text(folder / key, json.dumps(sorted(folders)))
        _remove_old(folder)


def _remove_old(folder: Path) -> None:
    for old in folder.iterdir():
        # The other commands of the pipe write and rename their notes at the same time.
        with suppress(OSError):
            if old.stat().st_mtime < time.time() - 86400 * _KEPT_DAYS.get(old.name.partition("-")[0], 1):
                old.unlink()


def folders_of(key: str) -> tuple[str, ...]:
    """Return the folders recorded for an output, or none."""
    try:
        noted = json.loads((_folder() / key).read_text())
    except (OSError, ValueError):
        return ()
    return tuple(folder for folder in noted if isinstance(folder, str)) if isinstance(noted, list) else ()


def key_of(output: str | int) -> str | None:
    """Return the identity of a pipe or a regular file, given as a path or an open file; None for anything else."""
    try:
        state = os.stat(output)
    except (OSError, ValueError):
        return None
    if stat.S_ISFIFO(state.st_mode):
        return f"pipe-{_boot()}-{state.st_dev}-{state.st_ino}"
    if stat.S_ISREG(state.st_mode):
        return f"file-{state.st_dev}-{state.st_ino}-{state.st_size}-{state.st_mtime_ns}"
    return None


def _folder() -> Path:
    return cache_folder() / "origins"


def _boot() -> str:
    """Return the identity of this boot of the system: pipe numbers start again after a reboot."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "boot"
