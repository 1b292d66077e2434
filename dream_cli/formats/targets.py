"""The targets of rows: a file of records or of another dialect (JSON, CSV, Parquet with typed columns), or a data set folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from dream_cli.errors import ImageError, InvalidRecord, UsageError
from dream_cli.formats.dataset_info import LISTED, enter
from dream_cli.formats.table import OURS, Written, dialect
from dream_cli.records.atomic import as_usage_error
from dream_cli.records.image_paths import is_inline, without_bytes
from dream_cli.records.image_rows import ImageRows
from dream_cli.records.outputs import Sink, Writer, image_rows, open_sink, open_writer, sink_of
from dream_cli.records.record import Json, Record
from dream_cli.records.shards import is_folder

if TYPE_CHECKING:
    from dream_cli.records.parquet import ParquetRows

# The columns that determine the kind of example of a row; readers accept one kind per file.
_KINDS = ("messages", "prompt", "completion", "chosen", "rejected", "rejected_response", "output", "preferred_output")


class Target(Protocol):
    """A writer of records that returns the fields that it leaves out."""

    @property
    def rows(self) -> ImageRows:
        """The converter from records to rows, which counts their images."""

    @property
    def rejects(self) -> str | None:
        """The file of the rows with errors, None without such rows."""

    def write(self, record: Record) -> tuple[str, ...]:
        """Write one record and return the fields that were left out; raise RowError where it cannot be written."""

    @property
    def write_columns(self) -> Callable[[Any], None] | None:
        """The function that writes a record batch of rows; None where rows are written one by one."""

    def reject(self, record: Record) -> None:
        """Write a record that has an error, to the output or to `rejects`."""


@contextmanager
def open_target(out: str | None, name: str, embed: bool = True) -> Iterator[Target]:
    """Open a file in the format of its suffix, a folder (its name ends in /) or stdout; files appear complete at the end or not at all."""
    if is_folder(out):
        from dream_cli.formats.hub_datasets import DATA, write_card

        file = os.path.join(out, DATA)
        with as_usage_error(out):
            os.makedirs(os.path.dirname(file), exist_ok=True)
        with _open_file(file, name, embed, out.rstrip("/")) as target:
            yield target
        write_card(out, name)
        return
    with _open_file(out, name, embed, out) as target:
        yield target


def embeds(out: str | None) -> bool:
    """Whether an output holds the bytes of the images."""
    return is_folder(out) or (out or "").lower().endswith(".parquet")


@contextmanager
def _open_file(out: str | None, name: str, embed: bool, label: str | None) -> Iterator[Target]:
    form = None if name == OURS else dialect(name)
    if name in LISTED and (out or "").lower().endswith(".gz"):
        raise UsageError(f"{out}: LLaMA-Factory does not read gzipped files; write .jsonl, .json or .parquet")
    typed = form is not None and bool(form.FEATURES) and out is not None and out.lower().endswith(".parquet")

    def make(out: str, file: IO[bytes], folder: str) -> Sink:
        if out.lower().endswith(".csv"):
            from dream_cli.formats.csv import CsvRows

            return CsvRows(file)
        if not out.lower().endswith(".parquet"):
            return sink_of(out, file, folder)
        if form is None or not form.FEATURES:
            from dream_cli.records.parquet import ParquetRows

            return ParquetRows(file)
        from dream_cli.formats.hf_features import TypedRows

        return TypedRows(file, form.FEATURES)

    with image_rows(out, embed and embeds(out)) as rows, open_sink(out, make) as sink, ExitStack() as stack:
        if form is None:
            target: _Ours | _Theirs = _Ours(sink, out, rows)
        else:
            target = _Theirs(sink=sink, out=out, rows=rows, form=form, typed=typed, label=label, stack=stack)
        yield target
    if isinstance(target, _Theirs) and target.columns and target.rows.folder is not None and name in LISTED:
        enter(str(out), name, target.columns)


class _Ours:
    """Records unchanged, also those with an error."""

    rejects = None

    def __init__(self, sink: Sink, out: str | None, rows: ImageRows) -> None:
        self.sink, self.rows, self.guard = sink, rows, as_usage_error(out or "stdout")
        self.write_columns = self._write_columns if embeds(out) else None

    def write(self, record: Record) -> tuple[str, ...]:
        with self.guard:
            self.sink.write(self.rows.row(record))
        return ()

    def _write_columns(self, batch: Any) -> None:
        with self.guard:
            cast("ParquetRows", self.sink).write_columns(batch)

    def reject(self, record: Record) -> None:
        self.write(record)


class _Theirs:
    """Rows of another dialect, all of one kind. A row with an error is written to `OUT.errors.jsonl`, on stdout in sequence."""

    write_columns = None

    def __init__(
        self, sink: Sink, out: str | None, rows: ImageRows, form: Written, typed: bool, label: str | None, stack: ExitStack
    ) -> None:
        self.sink, self.name, self.rows = sink, out or "stdout", rows
        self.form, self.typed, self.stack = form, typed, stack
        self.beside = None if rows.folder is None else f"{label}.errors.jsonl"
        self.kind: tuple[str, ...] | None = None
        self.columns: set[str] = set()
        self.writer: Writer | None = None

    @property
    def rejects(self) -> str | None:
        return self.beside if self.writer is not None else None

    def write(self, record: Record) -> tuple[str, ...]:
        row, left_out = self.form.write(self._json(record))
        kind = tuple(name for name in _KINDS if name in row)
        if self.kind not in (None, kind):
            raise InvalidRecord(f"a row of {_named(kind)} in a file of {_named(self.kind or ())}; its reader accepts one kind per file")
        with as_usage_error(self.name):
            self.sink.write(row)
        self.kind, self.columns = kind, self.columns | row.keys()
        return left_out

    def reject(self, record: Record) -> None:
        if self.beside is None:
            self.sink.write(self.rows.row(record))
            return
        if self.writer is None:
            self.writer = self.stack.enter_context(open_writer(self.beside))
        self.writer.write(record)

    def _json(self, record: Record) -> Json:
        row = self.rows.row(record, absolute=self.form.PATHS != "relative" and not self.typed)
        if self.typed or not isinstance(row.get("images"), list):
            return row
        images = [without_bytes(image) for image in row["images"]]
        if not self.form.INLINE and any(map(is_inline, images)):
            raise ImageError("its reader accepts only image files; write them to files (--images extract) or write Parquet")
        return row | {"images": images}


def _named(kind: tuple[str, ...]) -> str:
    return ", ".join(kind) or "answers"
