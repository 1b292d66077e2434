"""A row of any dialect as a record: for `dream convert`, and for commands that read records directly from such rows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from dream_cli.errors import InvalidRecord, as_row_error
from dream_cli.formats.dataset_info import Naming
from dream_cli.formats.llava import fix_flags
from dream_cli.formats.table import OURS, dialect, is_only_read, is_ours, known_dialect, recognise
from dream_cli.formats.trl import is_completion
from dream_cli.formats.webdataset import TEXT
from dream_cli.records.access import Base
from dream_cli.records.columns import DEFAULT_READING, Reading
from dream_cli.records.image_paths import locate
from dream_cli.records.image_rows import to_row
from dream_cli.records.record import Record, Response
from dream_cli.records.streams import RowReader
from dream_cli.records.visible import visible_line

_PROMPTS = {"prompt", "messages"}
# Dialects whose rows have a `prompt`, but images or responses in other columns.
_WITH_PROMPT = ("vlfeedback", "beavertails-v")


class AnyRows(RowReader):
    """Makes records from the rows of one source in any dialect; each dialect other than `dream` is reported once on stderr."""

    def __init__(self, name: str, base: Base, reading: Reading = DEFAULT_READING) -> None:
        super().__init__(name, base, reading)
        self._reported: set[str] = set()

    def known(self, record: Record) -> Record:
        """Return the record that `dream convert` makes from a row of another dialect; any other record unchanged."""
        if record.came_with_error:
            return record
        completion = record.extra.get("completion")
        if record.error is None and record.responses is None and record.prompt is not None and isinstance(completion, str):
            self._report("completion", f"{record.place}: the column 'completion' is read as the response")
            return replace(record, responses=(Response(completion),))
        if record.error is None and not _answers_elsewhere(record):
            return record
        name, read = read_row(record, self.base)
        if read.error is not None:
            # For a row of no known dialect, the error as a record is reported.
            return read if _is_foreign(record.extra) else record
        if name != OURS:
            self._report(name, f"{record.place}: a row of {name} is read as `dream convert` reads it")
        return read

    def _report(self, name: str, message: str) -> None:
        if name not in self._reported:
            self._reported.add(name)
            sys.stderr.write(f"dream: {visible_line(message)}\n")


def _answers_elsewhere(record: Record) -> bool:
    """Whether a record without responses has a column that holds them in another dialect."""
    if not record.extra or record.prompt is None or record.responses is not None:
        return False
    row = {**record.extra, record.prompt_column: record.prompt}
    return is_completion(row.get("completion")) or not all(dialect(name).mismatch(row) for name in _WITH_PROMPT)


def _is_foreign(row: Mapping[str, Any]) -> bool:
    return known_dialect(row) not in (None, OURS)


def read_row(
    row: Record, base: Base, *, source: str | None = None, naming: Naming | None = None, prompt: str | None = None, fixed: bool = False
) -> tuple[str, Record]:
    """Return the dialect of a row and its record; a row that cannot be read is returned with its error.

    Relative image paths start at `base`. `source` is the dialect (None: recognised), `prompt` the prompt of a row without one; with
    `fixed`, swapped flags of a LLaVA row are corrected.
    """
    if row.error is not None and (row.error.kind != "invalid" or row.came_with_error):
        return "error" if row.came_with_error else row.error.kind, row
    if row.error is None and not (row.extra or row.messages) and row.prompt_column == "prompt" and source is None and naming is None:
        # A prompt with nothing else belongs to no other dialect; most rows are such records.
        return OURS, row.renamed()
    # For a record without messages, only the prompt and the unknown fields can show that it is a row of another dialect.
    candidate = row.extra if row.error is not None else to_row(row, None) if row.messages else {**row.extra, row.prompt_column: row.prompt}
    if row.error is None and (source == OURS or (source is None and naming is None and is_ours(candidate))):
        return OURS, row.renamed()
    raw = candidate if row.error is not None or row.messages else to_row(row, None)
    # The text member of a WebDataset sample is its prompt, unless a prompt is given.
    added = raw.get(TEXT) if prompt is None else prompt
    try:
        name = source or (naming.dialect if naming else _dialect_of(raw, added is not None))
        if name == OURS:
            complete = raw if added is None or raw.keys() & _PROMPTS else {"prompt": added, **raw}
            record = Record.from_dict(complete, image_column=row.image_column, prompt_column=row.prompt_column, access=base.access)
            return OURS, replace(record, place=row.place).renamed()
        # Dialects that are also written read rows that could belong to several dialects.
        if is_only_read(name) and (why := dialect(name).mismatch(raw)):
            raise InvalidRecord(f"not a row of {name}: {why}")
        known = dialect(name).read(raw if naming is None else naming.renamed(raw))
        if fixed:
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
