"""WebDataset: tar files whose adjacent members with the same key (key.jpg, key.json, key.txt) form one sample.

Source: the format of the package webdataset, which requires that the members of a sample are adjacent. A tar file is read
sequentially, once for its keys and once for its samples, and never unpacked to disk.
"""

from __future__ import annotations

import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from typing import Any

from dream_cli.errors import UsageError
from dream_cli.records.record import Json, Record, unreadable
from dream_cli.records.streams import MAX_LINE, RowReader
from dream_cli.records.strict_json import loads

# The text member of a sample: its prompt, unless another member has one.
TEXT = "txt"
_TEXTS = (TEXT, "text", "caption", "cls", "id", "url")
_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ppm")
_APART = (
    "the members of the sample {key} are not adjacent in the tar file; pack its files in the order of their names "
    "(tar --sort=name -cf NEW.tar -C FOLDER .)"
)
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")


def read_tar(source: str, rows: RowReader, skipped: list[str]) -> Iterator[Record]:
    """Yield the records of a tar file; members other than pictures, JSON and text are added to `skipped`. Raises UsageError for other files.

    A sample whose members are not adjacent is one row with an error, at the place of its first member.
    """
    number = 0
    try:
        apart = _keys_apart(source)
        with tarfile.open(source, "r|*") as tar:
            for key, members in groupby(_members(tar, source, skipped), key=lambda member: member[0]):
                if apart.get(key):
                    continue
                number += 1
                row, problem = _row(tar, key, members)
                if key in apart:
                    apart[key] = True
                    row, problem = {"id": key}, _APART.format(key=key)
                if problem is None:
                    yield rows.record(row, number)
                else:
                    error = unreadable(rows.name, number, f"{rows.name}:{number}: {problem}").error
                    yield Record(error=error, extra=row, order=tuple(row), place=f"{rows.name}:{number}")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        if not number and not isinstance(error, OSError):
            raise UsageError(f"{source} is not a tar file ({error})") from None
        yield unreadable(
            rows.name, number + 1, f"{rows.name}:{number + 1}: the file is truncated or damaged here ({error}); create it again"
        )


def _keys_apart(source: str) -> dict[str, bool]:
    """Return the keys whose members are not adjacent, each with False; of a damaged file, those before the damage."""
    seen: set[str] = set()
    apart: dict[str, bool] = {}
    with suppress(tarfile.TarError, OSError, EOFError, zlib.error), tarfile.open(source, "r|*") as tar:
        for key, _ in groupby(_members(tar, source, []), key=lambda member: member[0]):
            if key in seen:
                apart[key] = False
            seen.add(key)
    return apart


def _members(tar: tarfile.TarFile, source: str, skipped: list[str]) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield (key, extension, member) of the files that are read."""
    for member in tar:
        named = _NAME.fullmatch(member.name)
        kind = named[2].lower().rpartition(".")[2] if named else ""
        if named and member.isfile() and kind in (*_IMAGES, *_TEXTS, "json"):
            yield named[1], named[2].lower(), member
        elif not member.isdir():
            skipped.append(f"{source}: {member.name} is not a picture, JSON or text")


def _row(tar: tarfile.TarFile, key: str, members: Iterator[tuple[str, str, tarfile.TarInfo]]) -> tuple[Json, str | None]:
    """Return a sample as a row, and a message about its first error, if any."""
    row: Json = {"id": key}
    images: list[Any] = []
    problem, held = None, 0
    names: set[str] = set()
    for _, extension, member in members:
        if member.name in names:
            problem = f"the sample {key} has two members {member.name}; pack each file once"
        names.add(member.name)
        held += member.size
        if held > MAX_LINE:
            problem = f"the sample {key} is larger than {MAX_LINE // 2**20} MB; scale its images down"
            continue
        file = tar.extractfile(member)
        data = b"" if file is None else file.read()
        kind = extension.rpartition(".")[2]
        if kind in _IMAGES:
            images.append({"bytes": data, "path": os.path.basename(member.name)})
            continue
        try:
            text = data.decode("utf-8-sig")
            value, fault = loads(text) if kind == "json" else (text.removesuffix("\n"), None)
        except ValueError as error:
            value, fault = None, str(error)
        if fault is not None:
            problem = f"{member.name} is not {'JSON' if kind == 'json' else 'UTF-8'}: {fault}"
        row |= value if isinstance(value, dict) else {extension: value}
    if images:
        row = {name: value for name, value in row.items() if name not in ("image", "images")}
        row |= {"image": images[0]} if len(images) == 1 else {"images": images}
    return row, problem
