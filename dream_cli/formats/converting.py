"""The conversion between other dialects and records, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dream_cli.errors import as_row_error
from dream_cli.formats.column_copy import has_unchanged_rows, open_columns
from dream_cli.formats.dataset_info import naming_of
from dream_cli.formats.llava import explode
from dream_cli.formats.rows import read_row
from dream_cli.formats.sources import Opened, Source, open_source
from dream_cli.formats.table import OURS, dialect
from dream_cli.formats.targets import Target, open_target
from dream_cli.records.choices import ImageForm
from dream_cli.records.columns import UnreadColumns
from dream_cli.records.image_paths import is_inline
from dream_cli.records.images import check_inline, checked_bytes, extracted
from dream_cli.records.record import Image, Record
from dream_cli.records.streams import report_unshown
from dream_cli.records.visible import amount

# Maximum number of field names in a receipt; data can have any number of them.
_MOST = 30


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

    `images_left` counts the images that should have been embedded and cannot be: they stay as given.
    """

    read: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    first: str = ""
    skipped: int = 0
    first_skipped: str = ""
    images_left: int = 0
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
        if self.images_left:
            lines.append(f"images that are not embedded and stay as given: {self.images_left}; the first: {self.first_left}")
        if self.skipped:
            lines.append(f"files that are skipped: {self.skipped}; the first: {self.first_skipped}")
        if self.errors:
            kinds = ", ".join(f"{n} {kind}" for kind, n in self.errors.most_common())
            where = self.rejects or f"{'its' if self.errors.total() == 1 else 'their'} `error` field"
            lines.append(f"{amount(self.errors.total(), 'row', 'have')} an error ({kinds}), see {where}; the first: {self.first}")
        # Field names come from the data: a terminal would interpret control characters in them.
        shown = ("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line) for line in lines)
        return "".join(f"dream convert: {line}\n" for line in shown)


def convert(source: Source, out: str | None, how: Conversion) -> Receipt:
    """Convert a file or a folder and return the counts.

    In a file of records, a row with an error stays in the output. The readers of other dialects would fail on it: it goes to a second file.
    """
    receipt, naming, unread = Receipt(), naming_of(source.name), UnreadColumns(source.reading)
    base, prompt = source.base, source.prompt
    with open_target(out, how.target, how.images not in ("paths", "extract")) as target:
        write_columns = _columns(source, target, how)
        opened = Opened(open_columns(source)) if write_columns else open_source(source)
        for row in opened.rows:
            if write_columns and not isinstance(row, Record):
                write_columns(row)
                receipt.read[OURS] += row.num_rows
                receipt.written += row.num_rows
                continue
            name, record = read_row(row, base, source=how.source, naming=naming, prompt=prompt, fixed=how.fix_flags)
            if not record.came_with_error:
                unread.report(record.extra, record.place, bool(record.images))
                report_unshown(unread, record, record.extra)
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
        receipt.images_left, receipt.first_left = target.rows.left, target.rows.first_left
    return receipt


def _columns(source: Source, target: Target, how: Conversion) -> Callable[[Any], None] | None:
    """Return the function that writes rows in record batches, if rows of the source are the same in the target."""
    same = how.source in (None, OURS) and how.target == OURS and how.images is None and not how.by_turn
    return target.write_columns if same and target.write_columns and has_unchanged_rows(source) else None


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


def _with_images(record: Record, how: Conversion) -> Record:
    """Return the record with its images inline, in files or unchanged; raise ImageError where one cannot be read."""
    wanted = how.images or ("inline" if how.target != OURS and dialect(how.target).PATHS is None else None)
    if wanted == "inline":
        inline = (Image(path=None if is_inline(image.path) else image.path, data=checked_bytes(image)) for image in record.images)
        return replace(record, images=tuple(inline))
    if wanted == "extract":
        return replace(record, images=tuple(Image(extracted(image, how.image_folder)) for image in record.images))
    for image in record.images:
        if image.data is not None or is_inline(image.path):
            check_inline(image)
    return record
