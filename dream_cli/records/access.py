"""The image files that the rows of a source may name, and the size at which a model gets them.

A data file comes from anywhere, and a path in it could name any picture of the disk. So the images of a file lie in its folder;
those of a pipe lie in the current folder. `--image-root` adds a folder, `--allow-outside` allows all.
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

    `roots` are the real paths of the folders it may lie in (None: any), `max_pixels` is its largest size for a model;
    `prepared` marks an image whose bytes are already those that a model is shown. `origin` names the source, if it may be an
    output of ours: then images may also lie where those of its own input did.
    """

    roots: tuple[str, ...] | None = None
    max_pixels: int | None = None
    prepared: bool = False
    origin: str | None = None

    def allows(self, path: str) -> bool:
        """Whether a file, symbolic links resolved, lies in one of the folders."""
        if self.roots is None:
            return True
        real = os.path.realpath(path)
        return _lies_in(real, self.roots) or (self.origin is not None and _lies_in(real, folders_of(self.origin)))

    def folders(self) -> tuple[str, ...]:
        """Return all folders that images may lie in."""
        if self.roots is None:
            return (os.sep,)
        return self.roots if self.origin is None else (*self.roots, *folders_of(self.origin))


def _lies_in(path: str, folders: Iterable[str]) -> bool:
    return any(os.path.commonpath((folder, path)) == folder for folder in folders)


ANYWHERE = Access()


@dataclass(frozen=True)
class Base:
    """Where the relative image paths of a source start (the first folder that has the file), and what its images may be."""

    folders: tuple[str, ...]
    access: Access = ANYWHERE

    def path(self, relative: str) -> str:
        """Return a path from the first folder that has such a file, from the first folder where none has."""
        if len(self.folders) == 1:
            return _joined(self.folders[0], relative)
        paths = [_joined(folder, relative) for folder in self.folders]
        return next((path for path in paths if os.path.exists(path)), paths[0])


def _joined(folder: str, relative: str) -> str:
    """Return the normal form of a path in a folder; most rows of a source name files of few folders."""
    inner, _, name = relative.rpartition("/")
    if name in ("", ".", ".."):
        return os.path.normpath(os.path.join(folder, relative))
    return f"{_normal(folder, inner).rstrip('/')}/{name}"


@lru_cache(maxsize=1024)
def _normal(folder: str, inner: str) -> str:
    return os.path.normpath(os.path.join(folder, inner))
