"""The official files of a benchmark: a folder, a single file, a zip of images, or a data set of the hub (`hf://NAME`)."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from dream_cli.benchmarks.registry import every
from dream_cli.benchmarks.tables import OfficialFiles, Row, Table
from dream_cli.errors import UsageError, with_extra
from dream_cli.records.atomic import write_once
from dream_cli.records.cache import cache_folder
from dream_cli.records.image_bytes import digest
from dream_cli.records.record import Image

DEPTH = 3  # official archives have their tables at most three folders deep


def open_files(data: str, name: str) -> OfficialFiles:
    """Return the files under `data`: a folder (or its sub-folder of the benchmark's name), one file, or `hf://NAME`."""
    if data.startswith("hf://"):
        return Hub(data)
    path = Path(data)
    if not path.exists():
        raise UsageError(f"--data {data} does not exist; give the folder with the official files of {name}")
    root = path / name if path.is_dir() and (path / name).is_dir() else path
    return Folder(root, str(root))


@dataclass
class Folder:
    """Official files on disk."""

    root: Path
    place: str
    missing: dict[str, str] = field(default_factory=dict)
    namesakes: dict[Path, Path] = field(default_factory=dict)
    _opened: Path = Path()
    _bases: list[Path] = field(default_factory=list)

    @property
    def opened(self) -> Path:
        """The table that was read last."""
        return self._opened

    def has(self, table: Table) -> bool:
        """Whether the table is present."""
        path = self._find(table)
        return path is not None and _heads_as(path, table)

    def rows(self, table: Table) -> list[Row]:
        """Return the rows of a table; raise UsageError if it is missing, or belongs to another benchmark or version."""
        path = self._find(table)
        if path is None and table.on_hub_alone:
            raise UsageError(f"{table.title} is read from the hub: --data hf://NAME, or hf:///DIR for a folder with its Parquet files")
        if path is None:
            listed = []
            for other in self._tables[:5]:
                first = _first_row(other)
                owner = None if first is None else _looks_like(first, table)
                listed.append(f"{other.name} (a file of {owner})" if owner else other.name)
            present = ", ".join(listed) or "no .json, .jsonl or .csv file"
            has_parquet = any(path.suffix.lower() == ".parquet" for path in _walk(self.root))
            raise UsageError(
                f"{self.root}: no file of {table.title}; expected {' or '.join(table.names)} with {', '.join(table.fields)}; "
                f"there is {present}"
                + (f"; Parquet files as on the hub are read with --data hf://{self.root.resolve()}" if has_parquet else "")
            )
        rows = _of_part(read_table(path), table)
        _check_fields(path, rows, table)
        self._opened = path
        for other in self._tables:
            if self._is_namesake(other, path, table):
                self.namesakes[path] = other
        above = [path.parent, path.parent.parent] if self.root.is_file() else [p for p in path.parents if p.is_relative_to(self.root)]
        self._bases = [*dict.fromkeys([*above, *self._bases])]
        return rows

    def image(self, row: Row, *names: str) -> Image:
        """Return the image with the first of the names that is a file in the tables' folders or in a zip there."""
        for name in names:
            if path := next((base / name for base in self._bases if (base / name).is_file()), None):
                return Image(path=str(path.resolve()))
            # The whole path must match: sets have a 0.jpg in every folder.
            if packed := next((p for p in self._packed.get(Path(name).name, ()) if f"/{p[1]}".endswith(f"/{name}")), None):
                archive, member = packed
                with zipfile.ZipFile(archive) as opened:
                    return _kept(Image(data=opened.read(member)), Path(member).suffix)
        expected = (self._bases[0] if self._bases else self.root) / names[0]
        self.missing[str(expected.resolve())] = names[0]
        return Image(path=str(expected.resolve()))

    def _find(self, table: Table) -> Path | None:
        if self.root.is_file():
            return self.root if self.root.name in table.names or not table.by_name_only else None
        wanted = [name.lower() for name in table.names]
        present = [path for path in self._tables if table.may_be(path)]
        # A file of JSON lines matches the table only by the name of its JSON file.
        named_as = {path: path.name.lower().removesuffix("l") if path.suffix.lower() == ".jsonl" else path.name.lower() for path in present}
        named = sorted((path for path in present if named_as[path] in wanted), key=lambda path: wanted.index(named_as[path]))
        present = [path for path in present if path.suffix.lower() != ".jsonl"]
        # Names such as test.json are common: use the file with the right fields, else the first, so that the error can list missing ones.
        likely = named if table.by_name_only else [*named, *present]
        return next((path for path in likely if _heads_as(path, table)), next(iter(named), None))

    def _is_namesake(self, path: Path, opened: Path, table: Table) -> bool:
        """Whether another file could have been opened as well: the same name, a row of the table, other content."""
        same_name = path != opened and path.name.lower() == opened.name.lower()
        return same_name and table.may_be(path) and _heads_as(path, table) and path.read_bytes() != opened.read_bytes()

    @cached_property
    def _tables(self) -> list[Path]:
        return [path for path in _walk(self.root) if path.suffix.lower() in (".json", ".jsonl", ".csv")]

    @cached_property
    def _packed(self) -> dict[str, list[tuple[Path, str]]]:
        """The files inside the zips, by file name."""
        packed: dict[str, list[tuple[Path, str]]] = {}
        folder = self.root if self.root.is_dir() else self.root.parent
        for path in dict.fromkeys([*_walk(folder), *(p for base in self._bases[:2] for p in _walk(base))]):
            if path.suffix.lower() != ".zip":
                continue
            try:
                with zipfile.ZipFile(path) as archive:
                    names = archive.namelist()
            except (OSError, zipfile.BadZipFile) as error:
                raise UsageError(f"{path} cannot be read as a zip ({error}); download it again") from None
            for member in names:
                # macOS adds a hidden file for each member.
                if not member.endswith("/") and "__MACOSX" not in member:
                    packed.setdefault(Path(member).name, []).append((path, member))
        return packed


@dataclass
class Hub:
    """A data set of the hub, or one saved by `datasets`, read through that library; its images are unpacked into the cache."""

    place: str
    missing: dict[str, str] = field(default_factory=dict)
    namesakes: dict[Path, Path] = field(default_factory=dict)
    _loaded: dict[str, list[Row] | None] = field(default_factory=dict)

    @property
    def opened(self) -> Path:
        """The name of the data set."""
        return Path(self.place)

    def has(self, table: Table) -> bool:
        """Whether the data set has a config and split of the table."""
        return self._first(table) is not None

    def rows(self, table: Table) -> list[Row]:
        """Return the rows of the first of the table's configs and splits in the data set; raise UsageError if there is none."""
        rows = self._first(table)
        if rows is None and not table.hub:
            raise UsageError(f"{self.place}: {table.title} on the hub only names its images; download its files and give their folder")
        if rows is None:
            raise UsageError(f"{self.place}: no config and split of {table.title} there; looked for {', '.join(table.hub)}")
        _check_fields(self.place, rows, table)
        return rows

    def _first(self, table: Table) -> list[Row] | None:
        for name in table.hub:
            if name not in self._loaded:
                config, _, split = name.rpartition("/")
                self._loaded[name] = _hub_rows(self.place.removeprefix("hf://"), config or None, split)
            if (rows := self._loaded[name]) is not None:
                return rows
        return None

    def image(self, row: Row, *names: str) -> Image:
        """Return the image in the row."""
        raw = row.get("image")
        if isinstance(raw, Mapping) and isinstance(raw.get("bytes"), bytes):
            return _kept(Image(data=raw["bytes"]))
        if isinstance(raw, Mapping) and os.path.isfile(str(raw.get("path"))):
            return Image(path=os.path.abspath(raw["path"]))
        self.missing[names[0]] = names[0]
        return Image(path=names[0])


def _hub_rows(name: str, config: str | None, split: str) -> list[Row] | None:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import datasets
    except ImportError:
        raise UsageError(f"hf:// names need datasets, which is not installed; {with_extra('eval')}") from None
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(name, config, split=split)
    except (ValueError, KeyError):  # datasets raises these for a config or a split that does not exist
        return None
    except Exception as error:  # noqa: BLE001 - an unreachable hub may raise anything
        raise UsageError(f"hf://{name} cannot be read: {str(error).splitlines()[0]}") from None
    for column, feature in loaded.features.items():
        if isinstance(feature, datasets.Image):
            loaded = loaded.cast_column(column, datasets.Image(decode=False))
    return list(loaded)


def read_table(path: Path) -> list[Row]:
    """Read a table: a JSON list, a JSON object of rows or lists of rows (the key becomes `_key`), JSON lines, or CSV; with BOM or CRLF."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if path.suffix.lower() == ".csv":
            # DictReader fills the missing cells of a short row with None, and collects surplus cells under None.
            cut = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            return [{k: v for k, v in row.items() if k is not None and v is not None} for row in cut]
        is_lines = path.suffix.lower() == ".jsonl"
        raw = [json.loads(line) for line in text.split("\n") if line.strip()] if is_lines else json.loads(text)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as a table: {error}; download the file again") from None
    rows = raw
    if isinstance(raw, dict):
        keyed = [(key, row) for key, part in raw.items() for row in (part if isinstance(part, list) else [part])]
        rows = [row | {"_key": key} if isinstance(row, dict) else row for key, row in keyed]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path} is not a list of rows")
    return rows


def _of_part(rows: list[Row], table: Table) -> list[Row]:
    """Return the rows that belong to the table's part of the file."""
    return [row for row in rows if row.get("_key") == table.part] if table.part else rows


def _check_fields(place: Path | str, rows: Sequence[Row], table: Table) -> None:
    if not rows:
        raise UsageError(f"{place} has no rows")
    for number, row in enumerate(rows, 1):
        if not table.fits(row):
            lacking = [name for name in table.fields if name not in row]
            other = _looks_like(row, table)
            why = f"it is a file of {other}" if other else f"row {number} lacks {', '.join(lacking)}: an older version, or cut"
            raise UsageError(f"{place} is not a file of {table.title}: {why}")


def _looks_like(row: Row, table: Table) -> str | None:
    others = [t for benchmark in every() for t in benchmark.tables if t.title != table.title and not t.on_hub_alone]
    return next((t.title for t in others if t.fits(row)), None)


def _heads_as(path: Path, table: Table) -> bool:
    return any(table.fits(row) for row in _of_part(_first_rows(path), table))


def _first_row(path: Path) -> Row | None:
    """Return the first row of a table, None if the file is not a table."""
    return next(iter(_first_rows(path)), None)


def _first_rows(path: Path) -> list[Row]:
    """Return the first row of each part of a table, none if the file is not a table."""
    state = path.stat()
    return _read_first(path, state.st_mtime_ns, state.st_size)


@cache
def _read_first(path: Path, changed_at: int, size: int) -> list[Row]:
    # Time and size are part of the cache key, so that a changed file is read again.
    try:
        rows = read_table(path)
    except UsageError:
        return []
    firsts: dict[object, Row] = {}
    for row in rows:
        firsts.setdefault(row.get("_key"), row)
    return list(firsts.values())


def _walk(root: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(inner) if len(Path(folder).relative_to(root).parts) < DEPTH else []
        yield from (Path(folder) / name for name in sorted(names))


def _kept(image: Image, suffix: str = ".img") -> Image:
    """Return the image as a file in the cache, named by the hash of its bytes, so that records stay small and their paths stay valid."""
    path = cache_folder() / "images" / f"{digest(image)[:32]}{suffix}"
    write_once(path, image.data or b"")
    return Image(path=str(path.resolve()))
