"""Records as rows of an output: their images as paths relative to it, or embedded."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from dream_cli.errors import ImageError
from dream_cli.records.access import Access
from dream_cli.records.columns import each_image
from dream_cli.records.image_bytes import is_data_uri
from dream_cli.records.image_paths import as_given, is_inline, relative_to, to_raw
from dream_cli.records.images import check_inline, checked_bytes
from dream_cli.records.origins import note
from dream_cli.records.parts import each_part_image
from dream_cli.records.record import Image, Json, Record


def to_row(record: Record, folder: str | None) -> Json:
    """Return the record as JSON in its original order of fields, image paths relative to `folder` (None: absolute)."""
    if record.image_column == "images" and (record.images or ("images" in record.order and "images" not in record.extra)):
        row = record.to_dict([relative_to(to_raw(image), folder) for image in record.images])
    else:
        row = each_image(record.to_dict(), record.image_column, lambda image: relative_to(image, folder))
    return with_messages(row, lambda image: relative_to(image, folder)) if "messages" in row else row


def with_messages(row: Json, change: Callable[[Any], Any]) -> Json:
    """Return a row with `change` applied to each image in its messages."""
    messages = row.get("messages")
    return row if messages is None else row | {"messages": each_part_image(messages, change)}


class ImageRows:
    """Turns the records of one output into rows, and counts their images.

    `folder` is that of the output (None: a pipe, or a file that the shell opened). With `embed`, each image that decodes is embedded in
    the row; others stay as they are, counted in `left`, with the reason for the first.
    """

    def __init__(self, output: str | int, folder: str | None, embed: bool = False) -> None:
        self.output, self.folder, self.embed = output, folder, embed
        self.left = 0
        self.first_left = ""
        self._origins: set[str] = set()
        # The folders of images whose origins are in `_origins`. The previous command of a pipe records the origin before it writes the row.
        self._folders: set[tuple[str | None, str]] = set()

    def row(self, record: Record, absolute: bool = False) -> Json:
        """Return a record as a row, with paths relative to the folder of the output or absolute."""
        row = to_row(record, None if absolute else self.folder)
        if self.embed:
            row = each_image(row, record.image_column, lambda image: self._embedded(image, record.access))
        for image in record.images:
            if image.data is None and not is_data_uri(image):
                # Most rows name images in one folder: its origins are looked up once.
                folder = (record.access.origin, str(image.path).rpartition("/")[0])
                if folder not in self._folders:
                    self._add_origins(record.access)
                    self._folders.add(folder)
        if record.error is not None:
            self._add_origins(record.access)
        return row

    def note_origins(self) -> None:
        """Record where the images of the finished output come from."""
        if self._origins:
            note(self.output, self._origins)

    def _add_origins(self, access: Access) -> None:
        new = {*access.folders()} - self._origins
        if new:
            self._origins |= new
            # The next command of a pipe reads a row as soon as it is written.
            if self.folder is None:
                note(self.output, self._origins)

    def _embedded(self, image: Any, access: Access) -> Any:
        path, data = (image.get("path"), image.get("bytes")) if isinstance(image, dict) else (image, None)
        try:
            if isinstance(data, bytes):
                check_inline(Image(data=data))
                return image
            if not isinstance(path, str):
                return image
            at = path if is_inline(path) else os.path.normpath(os.path.join(self.folder or "", path))
            return {"bytes": checked_bytes(Image(at, access=access)), "path": None if is_inline(path) else path}
        except ImageError as error:
            self.left += 1
            self.first_left = self.first_left or str(error)
            return as_given(image) if isinstance(image, dict) else image
