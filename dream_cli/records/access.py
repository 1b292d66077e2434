"""The image files that the rows of a source may name, and the maximum size at which a model sees them.

A data file can come from anywhere, and a path in it could name any image on the disk. So the images of a file must be in its folder,
those of a pipe in the current folder. `--image-root` adds a folder, `--allow-outside` allows all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from dream_cli.records.origins import folders_of


@dataclass(frozen=True)
class Access:
    """How an image may be read and shown.

    `roots` are the real paths of the folders it may be in (None: any), `max_pixels` is its maximum size for a model.
    `prepared` marks an image whose bytes are already those for a model. `origin` is the key of the source where it may be an
    output of dream: its images may then also be in the recorded folders of its own input.
    """

    roots: tuple[str, ...] | None = None
    max_pixels: int | None = None
    prepared: bool = False
    origin: str | None = None

    def allows(self, path: str) -> bool:
        """Whether a file, symbolic links resolved, is in one of the folders."""
        if self.roots is None:
            return True
        real = os.path.realpath(path)
        return _lies_in(real, self.roots) or (self.origin is not None and _lies_in(real, folders_of(self.origin)))

    def folders(self) -> tuple[str, ...]:
        """Return all folders that images may be in."""
        if self.roots is None:
            return (os.sep,)
        return self.roots if self.origin is None else (*self.roots, *folders_of(self.origin))


def _lies_in(path: str, folders: Iterable[str]) -> bool:
    return any(os.path.commonpath((folder, path)) == folder for folder in folders)


ANYWHERE = Access()


@dataclass(frozen=True)
class Base:
    """The folders that the relative image paths of a source start from (the first that has the file), and the access to its images."""

    folders: tuple[str, ...]
    access: Access = ANYWHERE

    def path(self, relative: str) -> str:
        """Return the path in the first folder that has the file; in the first folder where none has it."""
        if len(self.folders) == 1:
            return _joined(self.folders[0], relative)
        paths = [_joined(folder, relative) for folder in self.folders]
        return next((path for path in paths if os.path.exists(path)), paths[0])


def _joined(folder: str, relative: str) -> str:
    """Return the normal form of a path in a folder; cached, because the rows of a source name files in few folders."""
    inner, _, name = relative.rpartition("/")
    if name in ("", ".", ".."):
        return os.path.normpath(os.path.join(folder, relative))
    return f"{_normal(folder, inner).rstrip('/')}/{name}"


@lru_cache(maxsize=1024)
def _normal(folder: str, inner: str) -> str:
    return os.path.normpath(os.path.join(folder, inner))
