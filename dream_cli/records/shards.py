"""Many files in one run: the files that command-line arguments match, one part of them, and the outputs in a folder."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

from dream_cli.errors import UsageError
from dream_cli.records import remote
from dream_cli.records.streams import METADATA, SUFFIXES, TABLES, TARS, check_source, records_of, suffix_of

# The call store of a shard is beside its output.
STORE = ".calls.sqlite"


@dataclass(frozen=True)
class Part:
    """One of `count` parts of the work, counted from 0: every `count`th file, or every `count`th record of a single file."""

    index: int
    count: int

    @classmethod
    def read(cls, text: str) -> Part:
        """Read `I/N`; raise UsageError for anything else."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None or int(match[1]) >= int(match[2]):
            raise UsageError(f"--shard {text} is not I/N with I from 0 to N - 1; the first of eight parts is 0/8")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_array(cls, environment: Mapping[str, str]) -> Part | None:
        """Return the part of this task of a Slurm array; None outside an array, or in an array of one task."""
        names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")
        if not all(environment.get(name, "").isdecimal() for name in names):
            return None
        task, first, count = (int(environment[name]) for name in names)
        step = environment.get("SLURM_ARRAY_TASK_STEP", "1")
        index = (task - first) // int(step if step.isdecimal() and step != "0" else 1)
        return cls(index, count) if count > 1 and index < count else None


class Shard(NamedTuple):
    """One input and its output."""

    source: str
    out: str
    part: Part | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the output exists: it is written atomically."""
        return remote.exists(self.out) if remote.is_url(self.out) else os.path.exists(self.out)

    @property
    def store(self) -> str | None:
        """The call store beside the output; None for an output at a URL."""
        return None if remote.is_url(self.out) else self.out + STORE


def is_folder(out: str | None) -> TypeGuard[str]:
    """Whether an output is a folder: it is one, or its name ends in /."""
    return out is not None and (out.endswith("/") or os.path.isdir(out))


def make_folder(out: str | None) -> None:
    """Create the folder of an output that is a local folder; raise UsageError where that is not possible."""
    if out is None or not is_folder(out) or remote.is_url(out):
        return
    try:
        os.makedirs(out, exist_ok=True)
    except OSError as error:
        raise UsageError(f"-o {out} cannot be used: {error.strerror}; name another folder") from error


def expanded(words: Sequence[str]) -> list[str]:
    """Return the files that arguments match: files, folders, globs and URLs; raise UsageError where there are none."""
    files = [file for word in words for file in _files(word)]
    if len(files) > 1 and "-" in files:
        raise UsageError("stdin (-) cannot be read beside other files; name files alone")
    for file in files:
        check_source(file)
    return files


def _files(word: str) -> list[str]:
    if remote.is_url(word):
        files = remote.listed(word, SUFFIXES)
    elif os.path.isdir(word):
        names = sorted(n for n in os.listdir(word) if (n.lower().endswith((*SUFFIXES, *TARS)) or n in METADATA) and not n.startswith("."))
        files = [os.path.join(word, name) for name in names]
    elif glob.has_magic(word) and not os.path.lexists(word):
        files = sorted(file for file in glob.glob(word) if file.lower().endswith((*SUFFIXES, *TABLES)))
    else:
        return [word]
    if not files:
        hint = f"; {records_of(word)}" if os.path.isdir(word) else ""
        raise UsageError(f"{word} holds no file of records ({', '.join((*SUFFIXES, *TARS))}){hint}")
    return files


def plan(files: Sequence[str], folder: str, part: Part | None = None) -> list[Shard]:
    """Return the shards of a part of the work, each with an output of the same name in the folder, which is created.

    Parts of a single file are named `NAME-00003-of-00008.jsonl`. Raises UsageError where two files have the same name, or where the
    folder holds a file that is not an output of these files.
    """
    if not files or "-" in files:
        raise UsageError(f"-o {folder} is a folder with one output per input file; stdin has no name, so name a file (-o FILE)")
    files = list(dict.fromkeys(files))
    if len(files) == 1 and part is not None:
        shards = [Shard(files[0], _join(folder, _part_name(files[0], n, part.count)), Part(n, part.count)) for n in range(part.count)]
    else:
        shards = [Shard(file, _join(folder, _out_name(file))) for file in files]
    first: dict[str, str] = {}
    for shard in shards:
        other = first.setdefault(shard.out, shard.source)
        if other != shard.source:
            raise UsageError(f"{other} and {shard.source} have the same name, and so would their outputs in {folder}; rename one of them")
        if os.path.realpath(shard.out) == os.path.realpath(shard.source):
            raise UsageError(f"{shard.source} would be its own output; name another folder with -o")
    if not remote.is_url(folder):
        _check_folder(folder, {os.path.basename(shard.out) for shard in shards})
    return shards if part is None else shards[part.index :: part.count]


def _check_folder(folder: str, names: set[str]) -> None:
    make_folder(folder + "/")
    try:
        present = sorted(os.listdir(folder))
    except OSError as error:
        raise UsageError(f"-o {folder} cannot be used: {error.strerror}; name another folder") from error
    for name in present:
        # Beside an output are its call store, with two files of SQLite, and the temporary file of a writer.
        known = name in names or name.partition(STORE)[0] in names or (name.startswith(".") and name.endswith(".tmp"))
        if not known:
            raise UsageError(f"-o {folder} holds {name}, which is not an output of these files; name an empty folder")


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if folder.strip("/") else f"/{name}"


def _out_name(file: str) -> str:
    """Return the name of the output of a file: its own, or that of a JSONL file for formats that are only read."""
    name = os.path.basename(file)
    suffix = next((suffix for suffix in sorted(TABLES, key=len, reverse=True) if name.lower().endswith(suffix)), "")
    return f"{name[: -len(suffix)]}.jsonl" if suffix else name


def _part_name(file: str, index: int, count: int) -> str:
    name = _out_name(file)
    suffix = suffix_of(name)
    return f"{name[: -len(suffix)]}-{index:05}-of-{count:05}{name[-len(suffix) :]}"
