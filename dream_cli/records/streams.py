"""Sources of records: JSONL, gzipped JSONL, a JSON array or Parquet, read one record at a time, in order.

A line that cannot be read becomes a row with an `error`, so that rows in = rows out.
"""

from __future__ import annotations

import codecs
import gzip
import json
import os
import shlex
import stat
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from typing import IO, Any, cast

from dream_cli.errors import RowError, UsageError, as_row_error
from dream_cli.records.access import Base
from dream_cli.records.columns import DEFAULT_READING, PICTURES, Reading, UnreadColumns, absent_columns, each_image
from dream_cli.records.failure import Failure
from dream_cli.records.image_bytes import listed_bytes
from dream_cli.records.image_paths import locate
from dream_cli.records.image_rows import with_messages
from dream_cli.records.json_array import items
from dream_cli.records.layouts import check_layout
from dream_cli.records.literals import listed, looks_listed, unpacked
from dream_cli.records.near_names import did_you_mean
from dream_cli.records.origins import key_of
from dream_cli.records.plain_line import plain_record
from dream_cli.records.record import Json, Record, unreadable
from dream_cli.records.remote import exists, is_url, opened
from dream_cli.records.strict_json import loads

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")
TARS = (".tar", ".tar.gz", ".tgz")
# Files whose rows name their fields in other ways.
TABLES = (".csv", ".tsv", *TARS)
# The files of an image folder, whose columns name images.
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
MAX_LINE = 64 * 1024 * 1024
_SKIP = 1024 * 1024


def read_with(source: str | None, rows: RowReader) -> Iterator[Record]:
    """Return the records of a file or of stdin, created by `rows` and read lazily; raise UsageError for a file that cannot hold records."""
    if source is None or source == "-":
        return _read_lines(standard_input(), rows)
    return _read_file(source, rows) if is_pipe(source) else _open_file(source, rows)


def standard_input() -> IO[bytes]:
    """Return stdin; raise UsageError where the shell has closed it. If it is a terminal, report that it is read."""
    if sys.stdin is None:
        raise UsageError("stdin is closed; name a file, or read records from a pipe")
    if sys.stdin.isatty():
        sys.stderr.write("dream: reading records from the terminal; end with Ctrl-D, or name a file\n")
    return sys.stdin.buffer


def base_of(source: str | None, reading: Reading) -> Base:
    """Return the base of the relative image paths of a source: its own folder; for stdin and pipes the current one."""
    if source is None or source == "-":
        return reading.base("", key_of(0))
    return reading.base("" if is_pipe(source) or is_url(source) else os.path.dirname(source), key_of(source))


def _open_file(source: str, rows: RowReader) -> Iterator[Record]:
    check_source(source)
    suffix = suffix_of(source)
    if suffix == ".parquet":
        from dream_cli.records.parquet import open_rows

        return read_rows(open_rows(source), rows)
    if suffix == ".json":
        return _read_items(source, rows)
    return _read_file(source, rows)


def suffix_of(path: str) -> str:
    """Return the suffix that names the format of a file; raise UsageError for an unknown one."""
    if path.endswith("/"):
        raise UsageError(f"{path} is a folder; name a file in it, such as {path}records.jsonl")
    name = os.path.basename(path).lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    raise UsageError(f"{path}: the suffix gives the format, and must be one of {', '.join(SUFFIXES)}; use - for JSONL on stdin and stdout")


def is_pipe(path: str) -> bool:
    """Whether the path is a pipe or a device, such as the shell's <(command); it is read like stdin."""
    with suppress(OSError, ValueError):
        mode = os.stat(path).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
    return False


def records_of(folder: str) -> str:
    """Return a hint with the command that makes records from a folder, or from its pictures if it holds any."""
    pictures = any(name.lower().endswith(PICTURES) for name in os.listdir(folder))
    prompt = ' --prompt "..." -o in.jsonl' if pictures else ""
    return f"make records from {'its pictures' if pictures else 'it'}: dream convert {shlex.quote(folder)}{prompt}"


def check_source(source: str | None, tables: bool = True) -> None:
    """Raise UsageError where a file of records cannot be read, or does not have the format of its suffix; or is a table, without `tables`."""
    if source is None or source == "-" or is_pipe(source):
        return
    if is_url(source):
        suffix_of(source)
        if not exists(source):
            raise UsageError(f"{source} does not exist, or its server cannot be reached")
        return
    if os.path.isdir(source):
        near = did_you_mean(source + "/", SUFFIXES)
        raise UsageError(f"{source} is a directory; name a file in it{near or f', or {records_of(source)}'}")
    if not os.path.exists(source):
        raise UsageError(f"{source} does not exist{did_you_mean(source, SUFFIXES)}")
    is_table = source.lower().endswith(TABLES)
    if is_table and not tables:
        raise UsageError(f"{source} is not a file of records; make one from it: dream convert {source} -o FILE.jsonl")
    if source.lower().endswith(PICTURES):
        raise UsageError(f"{source} is a picture, not a file of records; {records_of(os.path.dirname(source) or '.')}")
    suffix = "" if is_table else suffix_of(source)
    if not os.access(source, os.R_OK):
        raise UsageError(f"{source} is not readable; change its permissions (chmod u+r)")
    if suffix in (".jsonl", ".jsonl.gz", ".json"):
        check_layout(source, suffix)


def _read_file(source: str, rows: RowReader) -> Iterator[Record]:
    # Opened at the first record: a source that is never read holds no file open.
    with opened(source) as file, gzip.open(file) if source.lower().endswith(".gz") else nullcontext(file) as lines:
        yield from _read_lines(cast("IO[bytes]", lines), rows)


def _read_lines(file: IO[bytes], rows: RowReader) -> Iterator[Record]:
    name, number = rows.name, 0
    try:
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                skip_rest(file, line)
            if line.strip():
                yield read_line(line, rows, number)
    except (OSError, EOFError, zlib.error) as error:
        yield unreadable(name, number + 1, f"{name}:{number + 1}: the file is truncated or damaged here ({error}); create it again")


def skip_rest(file: IO[bytes], line: bytes) -> None:
    """Skip the rest of a line that is too long without keeping it in memory."""
    while line and not line.endswith(b"\n"):
        line = file.readline(_SKIP)


def read_line(line: bytes, rows: RowReader, number: int) -> Record:
    """Return the record of line `number`; of a line of more than `MAX_LINE` bytes, the beginning is enough."""
    name = rows.name
    if len(line) > MAX_LINE:
        return unreadable(name, number, f"{name}:{number}: the line is longer than {MAX_LINE // 2**20} MB; keep images in files")
    # Without its line end: incomplete JSON is then reported as incomplete, and not as a control character in a string.
    text = line.rstrip(b"\r\n")
    record = rows.plain_record(text, number)
    if record is not None:
        return record
    try:
        raw, problem = loads(text.removeprefix(codecs.BOM_UTF8) if number == 1 else text)
    except UnicodeDecodeError as error:
        return unreadable(name, number, f"{name}:{number}: not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8")
    except ValueError as error:
        cut = "" if line.endswith(b"\n") else "; the last line looks cut off"
        hint = "; JSON over several lines is written one value per line by jq -c ." if line.strip() in (b"{", b"[") else ""
        return unreadable(name, number, f"{name}:{number}: not JSON: {error}{hint or cut}")
    return rows.record(raw, number, problem and f"not JSON: {problem}")


def _skip_mark(file: IO[bytes]) -> None:
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)


def _read_items(source: str, rows: RowReader) -> Iterator[Record]:
    with opened(source) as file:
        _skip_mark(file)
        for number, item in enumerate(items(file, MAX_LINE), 1):
            where = f"{source}:{number}: "
            if item is None:
                yield unreadable(source, number, f"{where}the item is longer than {MAX_LINE // 2**20} MB; keep images in files")
                continue
            try:
                raw, problem = loads(item)
            except UnicodeDecodeError as error:
                yield unreadable(source, number, f"{where}not UTF-8 (byte {error.start + 1} of the item); save the file as UTF-8")
            except ValueError as error:
                yield unreadable(source, number, f"{where}not JSON in item {number} of the array: {error}")
            else:
                yield rows.record(raw, number, problem and f"not JSON in item {number} of the array: {problem}")


def read_rows(raws: Iterator[Json | RowError], rows: RowReader) -> Iterator[Record]:
    """Return the records of rows that are JSON objects already; a row that could not be read becomes a record with its error."""
    number = 0
    try:
        for raw in raws:
            number += 1
            yield rows.row(raw, number)
    except (OSError, ValueError) as error:
        yield damaged(rows.name, number + 1, error)


def damaged(name: str, number: int, error: Exception) -> Record:
    """Return the record for the rows of a damaged file, from row `number` on."""
    return unreadable(name, number, f"{name}:{number}: the file is damaged from this row on ({error}); create it again")


class RowReader:
    """Makes records from the rows of one source.

    A column that looks like an image and is not read is reported to `unread`; a named column that the first row lacks, on stderr.

    `name` is the source's name for messages; relative image paths start at `base`.
    """

    def __init__(self, name: str, base: Base, reading: Reading = DEFAULT_READING) -> None:
        self.name, self.base, self.reading = name, base, reading
        self.unread: UnreadColumns | None = UnreadColumns(reading)
        self._has_row = False

    def record(self, raw: Any, number: int, problem: str | None = None) -> Record:
        """Return the record of row `number`; a malformed value, or `problem`, a message about its text, becomes its error."""
        place = f"{self.name}:{number}"
        if problem is not None:
            fields = raw if isinstance(raw, dict) else {}
            error = unreadable(self.name, number, f"{place}: {problem}").error
            return Record(error=error, extra=fields, order=tuple(fields), place=place, access=self.base.access)
        record = self.known(to_record(raw, self.name, number=number, base=self.base, reading=self.reading))
        if isinstance(raw, dict):
            self._report_absent(raw, place)
            # A dialect may read the images of a column that the record then lacks.
            self._report_unread(record, record.extra if record.images else raw)
        return record

    def _report_absent(self, row: Json, place: str) -> None:
        """Report named columns that the first row lacks, before a model is asked without its images."""
        if not self._has_row:
            self._has_row = True
            sys.stderr.write(absent_columns(self.reading, row, place))

    def row(self, raw: Json | RowError, number: int) -> Record:
        """Return the record of row `number`, which is a JSON object already or the error of a row that could not be read."""
        if isinstance(raw, RowError):
            return unreadable(self.name, number, f"{self.name}:{number}: {raw}")
        return self.record(raw, number)

    def plain_record(self, line: bytes, number: int) -> Record | None:
        """Return the record of `line`, row `number` without its line end; None where it is not an ordinary line."""
        if self.reading.image_column is not None or self.reading.prompt_column is not None:
            return None
        record = plain_record(line, f"{self.name}:{number}", self.base)
        if record is None or not record.extra:
            return record
        known = self.known(record)
        self._report_unread(known, record.extra)
        return known

    def known(self, record: Record) -> Record:
        """Return the record unchanged; a reader of other dialects returns the record of such a row."""
        return record

    def _report_unread(self, record: Record, row: Mapping[str, Any]) -> None:
        if self.unread is None:
            return
        if record.image_column != "image":
            self.unread.report(row, record.place, bool(record.images))
        report_unshown(self.unread, record, row)


def report_unshown(unread: UnreadColumns, record: Record, row: Mapping[str, Any]) -> None:
    """Report the columns of a row, and of its record, that no model is shown."""
    unread.report_unshown(row, record.place)
    # A dialect may have read such a column; a system message of the conversation says the same.
    if record.error is None and not any(message.role == "system" for message in record.messages):
        unread.report_beside(record.extra, record.place)
    if record.error is None and not record.images:
        texts = (record.prompt or "", *(message.content for message in record.messages if message.role == "user"))
        unread.report_named(texts, record.place)


def _with_images(row: Json, column: str) -> Json:
    """Return a row whose images are a list where they are one image or a list as text; one image as a list of numbers becomes bytes."""
    value = listed(row.get(column))
    if column != "images" and isinstance(value, list) and (data := listed_bytes(value)):
        value = {"bytes": data, "path": None}
    if column == "images" and isinstance(value, str | dict) and value and not looks_listed(value):
        value = [value]
    return row if value is row.get(column) else row | {column: value}


def to_record(raw: Any, name: str, number: int, base: Base, reading: Reading = DEFAULT_READING) -> Record:
    """Return the record of a JSON object, row `number` of a file; a malformed object becomes a record with an error.

    Relative image paths start at `base`.
    """
    place = f"{name}:{number}"
    if not isinstance(raw, dict):
        return unreadable(name, number, f"{place}: a record is a JSON object {{...}}; this is {json.dumps(raw)[:40]}")
    # A null error means no error; kept, it would hide the error of a later stage.
    fields = {k: v for k, v in raw.items() if k != "error" or v is not None}
    images, prompt = reading.image_name(fields), reading.prompt_name(fields)
    try:
        fields = with_messages(unpacked(fields), lambda image: locate(image, base))
        fields = _with_images(fields, images)
        if images != "images" or isinstance(fields.get(images), list):
            fields = each_image(fields, images, lambda image: locate(image, base))
        return Record.from_dict(fields, place, image_column=images, prompt_column=prompt, access=base.access)
    except Exception as error:  # noqa: BLE001 - no single row may end a run
        failure = as_row_error(error)
        return Record(
            error=Failure("read", failure.kind, str(failure)),
            extra=fields,
            order=tuple(fields),
            place=place,
            image_column=images,
            prompt_column=prompt,
            access=base.access,
        )
