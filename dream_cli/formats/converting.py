"""The conversion between other dialects and records, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dream_cli.errors import InvalidRecord, as_row_error
from dream_cli.formats.dataset_info import Naming, naming_of
from dream_cli.formats.llava import explode, fix_flags
from dream_cli.formats.sources import Source, open_source
from dream_cli.formats.table import OURS, dialect, is_only_read, is_ours, recognise
from dream_cli.formats.targets import Target, open_target
from dream_cli.formats.webdataset import TEXT
from dream_cli.records.access import Base
from dream_cli.records.choices import ImageForm
from dream_cli.records.columns import UnreadColumns
from dream_cli.records.image_paths import is_inline, locate
from dream_cli.records.image_rows import to_row
from dream_cli.records.images import checked_bytes, extracted
from dream_cli.records.record import Image, Record
from dream_cli.records.visible import amount

# Maximum number of field names in a receipt; data can have any number of them.
_MOST = 30
_PROMPTS = {"prompt", "messages"}


@dataclass(frozen=True)
class Conversion:
    """The options of a conversion: the dialects read (`source` None: recognised row by row) and written, and the form of the images.

    `images` None selects the form that the target needs; `image_folder` is the folder of extracted images.
    """

    source: str | None = None
    target: str = OURS
    images: ImageForm | None = None
    image_folder: Path = Path("images")
    by_turn: bool = False
    fix_flags: bool = False


@dataclass
class Receipt:
    """The counts of a conversion: rows by dialect, fields left out, errors by kind, and the file of the rows with errors.

    `paths_left` counts the images that should have been embedded and cannot be: they stay paths.
    """

    read: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    first: str = ""
    skipped: int = 0
    first_skipped: str = ""
    paths_left: int = 0
    first_left: str = ""
    written: int = 0
    rejects: str | None = None

    def leave_out(self, names: tuple[str, ...]) -> None:
        """Count the fields of one row that the target cannot hold; names beyond the limit are counted together."""
        self.left_out.update(name if name in self.left_out or len(self.left_out) < _MOST else "other fields" for name in names)

    def fail(self, record: Record) -> None:
        """Count a row with an error."""
        if record.error is not None:
            self.errors[record.error.kind] += 1
            self.first = self.first or f"{record.place}: {record.error.message.removeprefix(f'{record.place}: ')}"

    def report(self, target: str) -> str:
        """Return the counts of rows read and written, of fields left out, and of errors by kind."""
        read = ", ".join(f"{n} {name}" for name, n in self.read.most_common()) or "none"
        lines = [f"rows read: {read}; written as {target}: {self.written}"]
        if self.left_out:
            lines.append(
                f"{target} has no field for " + ", ".join(f"{name} ({amount(n, 'row')})" for name, n in self.left_out.most_common())
            )
        if self.paths_left:
            lines.append(f"images that are not embedded and stay paths: {self.paths_left}; the first: {self.first_left}")
        if self.skipped:
            lines.append(f"files that are skipped: {self.skipped}; the first: {self.first_skipped}")
        if self.errors:
            kinds = ", ".join(f"{n} {kind}" for kind, n in self.errors.most_common())
            where = self.rejects or "their `error` field"
            lines.append(f"{amount(self.errors.total(), 'row', 'have')} an error ({kinds}), see {where}; the first: {self.first}")
        # Field names come from the data: a terminal would interpret control characters in them.
        shown = ("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line) for line in lines)
        return "".join(f"dream convert: {line}\n" for line in shown)


def convert(source: Source, out: str | None, how: Conversion) -> Receipt:
    """Convert a file or a folder and return the counts.

    In a file of records, a row with an error stays in the output. The readers of other dialects would fail on it: it goes to a second file.
    """
    receipt, naming, unread = Receipt(), naming_of(source.name), UnreadColumns(source.reading.prompt_column)
    base, prompt = source.base, source.prompt
    with open_target(out, how.target, how.images not in ("paths", "extract")) as target:
        opened = open_source(source)
        for row in opened.rows:
            name, record = read_row(row, how, base, naming=naming, prompt=prompt)
            if not record.images and not record.came_with_error:
                unread.report(record.extra, record.place)
            receipt.read[name] += 1
            for one in explode(record) if how.by_turn else (record,):
                done = _written(one, target, how, receipt)
                if done.error is not None:
                    target.reject(done)
                    # A row that already had an error on input is not an error of this conversion.
                    if not row.came_with_error:
                        receipt.fail(done)
        receipt.rejects = target.rejects
        receipt.skipped, receipt.first_skipped = len(opened.skipped), next(iter(opened.skipped), "")
        receipt.paths_left, receipt.first_left = target.rows.paths_left, target.rows.first_left
    return receipt


def _written(record: Record, target: Target, how: Conversion, receipt: Receipt) -> Record:
    """Write a record and return it, with its error where it cannot be written."""
    if record.error is not None:
        return record
    try:
        receipt.leave_out(target.write(_with_images(record, how)))
    except Exception as error:  # noqa: BLE001 - no single row may end a run
        return record.failed("convert", as_row_error(error))
    receipt.written += 1
    return record


def read_row(row: Record, how: Conversion, base: Base, naming: Naming | None = None, prompt: str | None = None) -> tuple[str, Record]:
    """Return the dialect of a row and its record; a row that cannot be read is returned with its error.

    Relative image paths start at `base`; `prompt` is the prompt of a row that has none.
    """
    if row.error is not None and (row.error.kind != "invalid" or row.came_with_error):
        return "error" if row.came_with_error else row.error.kind, row
    # For a record without messages, only the prompt and the unknown fields can show that it is a row of another dialect.
    candidate = row.extra if row.error is not None else to_row(row, None) if row.messages else {**row.extra, row.prompt_column: row.prompt}
    if row.error is None and (how.source == OURS or (how.source is None and naming is None and is_ours(candidate))):
        return OURS, row.renamed()
    raw = candidate if row.error is not None or row.messages else to_row(row, None)
    # The text member of a WebDataset sample is its prompt, unless a prompt is given.
    added = raw.get(TEXT) if prompt is None else prompt
    try:
        name = how.source or (naming.dialect if naming else _dialect_of(raw, added is not None))
        if name == OURS:
            complete = raw if added is None or raw.keys() & _PROMPTS else {"prompt": added, **raw}
            record = Record.from_dict(complete, image_column=row.image_column, prompt_column=row.prompt_column, access=base.access)
            return OURS, replace(record, place=row.place).renamed()
        # Dialects that are also written read rows that could belong to several dialects.
        if is_only_read(name) and (why := dialect(name).mismatch(raw)):
            raise InvalidRecord(f"not a row of {name}: {why}")
        known = dialect(name).read(raw if naming is None else naming.renamed(raw))
        if how.fix_flags:
            fix_flags(known)
        if known.get("images") is not None:
            known["images"] = [locate(image, base) for image in known["images"]]
        return name, replace(Record.from_dict(known, access=base.access), place=row.place)
    except Exception as error:  # noqa: BLE001 - no single row may end a run
        failure = as_row_error(error)
        return failure.kind, Record(extra=raw, order=tuple(raw), place=row.place).failed("convert", failure)


def _dialect_of(raw: Mapping[str, Any], has_prompt: bool) -> str:
    """Return the dialect of a row; an unrecognised row with a prompt counts as a malformed record."""
    try:
        return recognise(raw)
    except InvalidRecord:
        if has_prompt or raw.keys() & _PROMPTS:
            return OURS
        raise


def _with_images(record: Record, how: Conversion) -> Record:
    """Return the record with its images inline, in files or unchanged; raise ImageError where one cannot be read."""
    wanted = how.images or ("inline" if how.target != OURS and dialect(how.target).PATHS is None else None)
    if wanted == "inline":
        inline = (Image(path=None if is_inline(image.path) else image.path, data=checked_bytes(image)) for image in record.images)
        return replace(record, images=tuple(inline))
    if wanted == "extract":
        return replace(record, images=tuple(Image(extracted(image, how.image_folder)) for image in record.images))
    return record
