"""The folders that can be read: data sets of Hugging Face, image folders, WebDataset shards, and plain pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain

from dream_cli.errors import UsageError
from dream_cli.formats.hub_datasets import SAVED, chosen_split, open_dataset, split_of
from dream_cli.formats.pictures import files_below, read_image_folder, read_pictures
from dream_cli.formats.webdataset import read_tar
from dream_cli.records.record import Record
from dream_cli.records.streams import METADATA, TARS, RowReader, read_rows


def open_folder(folder: str, rows: RowReader, skipped: list[str], split: str | None = None, prompt: str | None = None) -> Iterator[Record]:
    """Return the records of a folder, whose kind its files determine; raise UsageError where none of them can be read."""
    files = files_below(folder)
    metadata = [file for file in files if os.path.basename(file) in METADATA]
    if metadata:
        splits = {split_of(file, by_folder=True): file for file in metadata}
        file = splits[chosen_split(list(splits), split, folder)]
        return read_image_folder(os.path.join(folder, file), rows, within=os.path.dirname(file))
    if any(os.path.basename(file) in SAVED or file.endswith(".parquet") for file in files):
        return read_rows(open_dataset(folder, split), rows)
    tars = [os.path.join(folder, file) for file in files if file.lower().endswith(TARS)]
    if tars:
        readers = {tar: RowReader(tar, rows.base, rows.reading) for tar in tars}
        for reader in readers.values():
            reader.unread = rows.unread
        return chain.from_iterable(read_tar(tar, reader, skipped) for tar, reader in readers.items())
    if prompt is None:
        raise UsageError(
            f"{folder} holds no data set (.parquet, metadata.jsonl, .tar); name a file in it, or the prompt of its pictures with --prompt TEXT"
        )
    return read_pictures(folder, files, rows, skipped)
