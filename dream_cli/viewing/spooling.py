"""The file that DuckDB reads: a temporary copy for pipes and truncated JSON arrays."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from dream_cli.errors import UsageError
from dream_cli.formats.sources import read_records
from dream_cli.records.outputs import open_writer
from dream_cli.records.streams import check_source, is_pipe, standard_input, suffix_of


@contextmanager
def file_of(source: str | None) -> Iterator[str]:
    """Yield the path of a file that holds the source."""
    if source is None or source == "-":
        with _spooled(standard_input()) as path:
            yield path
    elif is_pipe(source):
        with open(source, "rb") as pipe, _spooled(pipe) as path:
            yield path
    else:
        check_source(source, tables=False)
        with _plainly_named(os.path.abspath(source)) as path:
            yield path


@contextmanager
def _plainly_named(path: str) -> Iterator[str]:
    """Yield a path of the file in UTF-8 and without glob characters, which DuckDB would expand."""
    if not set("*?[") & set(path) and path.encode("utf-8", "replace") == os.fsencode(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="dream-") as folder:
        link = os.path.join(folder, "records" + suffix_of(path))
        os.symlink(path, link)
        yield link


@contextmanager
def _spooled(stream: IO[bytes]) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="dream-") as folder:
        path = os.path.join(folder, "stdin.jsonl")
        try:
            with open(path, "wb") as file:
                shutil.copyfileobj(stream, file)
        except OSError as error:
            raise UsageError(f"the input cannot be kept in {folder}: {error.strerror}; name a folder with more space in TMPDIR") from None
        yield path


@contextmanager
def spooled_records(source: str) -> Iterator[str]:
    """Yield a JSONL file with the records of a source as the stages read them; unreadable parts are rows with an error."""
    with tempfile.TemporaryDirectory(prefix="dream-") as folder:
        path = os.path.join(folder, "records.jsonl")
        with open_writer(path) as writer:
            for record in read_records(source):
                writer.write(record)
        yield path
