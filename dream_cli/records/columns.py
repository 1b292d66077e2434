"""The columns of the prompt and of the images, and columns that only look like them."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from dream_cli.records.access import Access, Base
from dream_cli.records.visible import visible_line

# A column whose name contains one of these words may hold an image; its value decides.
_IMAGE_WORDS = {"image", "images", "img", "imgs", "picture", "pictures", "pic", "photo", "photos", "screenshot", "thumbnail", "frame"}
_UNSHOWN = {"video", "videos", "video_path", "audio", "audios", "audio_path"}
# Parts of a conversation in columns beside the prompt.
_BESIDE = {"system", "system_prompt", "system_message", "system_instruction", "systeminstruction", "history"}
# A picture that a text names in place of the row: Markdown, HTML or an image mark of other tools.
_NAMED_IN_TEXT = re.compile(r"!\[[^\]\n]*\]\([^)\n]+\)|<img\b|<image[ _]?\d+>|\[(?:IMG|IMAGE)\]", re.IGNORECASE)
_IN_TEXT = "a picture in a text"
_FILE_NAMES = {"file_name", "filename", "file", "path", "file_path", "filepath"}
# Texts in which the name of a picture is no image of the row.
_TEXTS = {"id", "prompt", "messages", "response", "responses", "observations", "chosen", "rejected", "error"}
# The first characters of base64 of PNG, JPEG, GIF and WebP.
_BASE64 = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".heic", ".svg")
_PROMPT_LIKE = ("question", "query", "instruction", "prompt_text", "text", "input", "problem", "user", "request", "caption")
# A column whose name ends with one of these words is about a prompt, an answer or the row, and no prompt.
_ABOUT = {
    "id",
    "type",
    "category",
    "label",
    "source",
    "language",
    "lang",
    "image",
    "response",
    "answer",
    "output",
    "completion",
    "error",
    "index",
}


@dataclass(frozen=True)
class Reading:
    """How rows are read: the columns of the images and the prompt, the folders of the images, and their size for a model.

    `image_column` None is `images`, or `image` where a row has no `images`; `prompt_column` None is `prompt`. Images must be in the folder
    of the file or in `image_root`, with `allow_outside` anywhere; images of more than `max_pixels` are scaled down.
    """

    image_root: Path | None = None
    image_column: str | None = None
    prompt_column: str | None = None
    allow_outside: bool = False
    max_pixels: int | None = None

    def base(self, folder: str, origin: str | None = None) -> Base:
        """Return the base of the relative image paths of a source in `folder`; `origin` is its key where it may be an output of dream."""
        own = os.path.realpath(folder)
        folders = (own,) if self.image_root is None else tuple(dict.fromkeys((os.path.realpath(self.image_root), own)))
        return Base(folders, Access(None if self.allow_outside else folders, self.max_pixels, origin=origin))

    def image_name(self, row: Mapping[str, Any]) -> str:
        """Return the column that holds the images of a row."""
        if self.image_column is not None and row.get(self.image_column) is not None:
            return self.image_column
        return "image" if not row.get("images") and row.get("image") is not None else "images"

    def prompt_name(self, row: Mapping[str, Any]) -> str:
        """Return the column that holds the prompt of a row."""
        return self.prompt_column if self.prompt_column is not None and row.get(self.prompt_column) is not None else "prompt"


DEFAULT_READING = Reading()


def image_like(row: Mapping[str, Any]) -> str | None:
    """Return the first unread column that looks like an image: bytes, {bytes, path} or a path, otherwise a URL, which is not fetched."""
    columns = {name: value for name, value in row.items() if name not in ("image", "images") and _may_be_image(name, value)}
    local = (name for name, value in columns.items() if not isinstance(value, str) or "://" not in value[:9])
    return next(local, next(iter(columns), None))


def _may_be_image(name: str, value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_may_be_image(name, item) for item in value)
    if isinstance(value, Mapping):
        # The `Image` struct of Hugging Face datasets, whatever its column is called.
        return value.keys() == {"bytes", "path"} and bool(value["bytes"] or value["path"])
    named = _names_image(name)
    if isinstance(value, bytes):
        return named
    if not isinstance(value, str) or name in _TEXTS:
        return False
    if value[:11].lower() == "data:image/" or (named and ("://" in value[:9] or value.startswith(_BASE64))):
        return True
    # A text may end with the name of a picture; a path in a column of any name has no spaces.
    may_be_path = named or name.lower() in _FILE_NAMES or not any(map(str.isspace, value))
    return may_be_path and value.partition("?")[0].lower().endswith(PICTURES)


def _numbered(row: Mapping[str, Any], known: Collection[str | None]) -> str | None:
    """Return the first numbered column that holds an image and is not among the `known` ones."""
    numbered = (name for name in row if name[-1:].isdigit() and _names_image(name) and name not in known)
    return next((name for name in numbered if _may_be_image(name, row[name])), None)


@lru_cache(maxsize=1024)
def _names_image(column: str) -> bool:
    words = re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", column).lower())
    return not _IMAGE_WORDS.isdisjoint(words)


def unread(place: str, column: str) -> str:
    """Return the warning for a column that looks like an image and is not read."""
    option = visible_line(shlex.quote(column))
    return f"dream: {visible_line(place)}: the column {column!r} looks like an image and is not read; --image-column {option} reads it\n"


def absent_columns(reading: Reading, names: Collection[str], place: str) -> str:
    """Return the warnings for columns that `reading` names and that are not among the `names` of a row or a file."""
    named = {"--image-column": reading.image_column, "--prompt-column": reading.prompt_column}
    return "".join(_absent(place, option, column, names) for option, column in named.items() if column is not None and column not in names)


def _absent(place: str, option: str, column: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(column, names, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, islice(names, 12))) or 'none'}"
    return f"dream: {visible_line(place)}: no column {column!r} ({option}); {visible_line(hint)}\n"


class UnreadColumns:
    """The columns of one source that look like an image and are not read: each is reported once on stderr."""

    def __init__(self, reading: Reading) -> None:
        self.reported = {reading.image_column, reading.prompt_column}

    def report(self, row: Mapping[str, Any], place: str, has_images: bool) -> None:
        """Report such a column, unless it has been reported already.

        Of a row with images these are only `image`, a second name of them, and numbered ones, such as `image_2` beside `image_1`.
        """
        column = image_like(row) if not has_images else "image" if row.get("image") else _numbered(row, self.reported)
        if column is not None and column not in self.reported:
            self.reported.add(column)
            sys.stderr.write(unread(place, column))

    def report_unshown(self, row: Mapping[str, Any], place: str) -> None:
        """Report a column with a video or sound, which no model is shown, unless it has been reported already."""
        column = next((name for name, value in row.items() if value and name.lower() in _UNSHOWN), None)
        if column is not None and column not in self.reported:
            self.reported.add(column)
            sys.stderr.write(f"dream: {visible_line(place)}: the column {column!r} is not read; no model is shown video or sound\n")

    def report_beside(self, columns: Mapping[str, Any], place: str) -> None:
        """Report a column with a system message or earlier turns beside the prompt, which no model is shown, unless it has been reported."""
        column = next((name for name, value in columns.items() if value and name.lower() in _BESIDE), None)
        if column is not None and column not in self.reported:
            self.reported.add(column)
            fix = "write it as the first of 'messages', the conversation"
            sys.stderr.write(f"dream: {visible_line(place)}: the column {column!r} is not shown to a model; {fix}\n")

    def report_named(self, texts: Iterable[str], place: str) -> None:
        """Report, once, that a text of a row without images names a picture, which no model is shown."""
        if _IN_TEXT in self.reported:
            return
        for mark in filter(None, map(_NAMED_IN_TEXT.search, texts)):
            self.reported.add(_IN_TEXT)
            shown = visible_line(mark[0] if len(mark[0]) <= 40 else f"{mark[0][:40]}...")
            sys.stderr.write(
                f"dream: {visible_line(place)}: the text names a picture ({shown}) and the row has none; name it in 'images'\n"
            )
            return


def prompt_like(row: Mapping[str, Any]) -> str | None:
    """Return the first text column that may be the prompt by its name."""
    return next((name for name in _PROMPT_LIKE if isinstance(row.get(name), str) and row[name]), None)


def prompt_hint(row: Mapping[str, Any]) -> str | None:
    """Return the text column that is most likely the prompt, by its name or by a word of its name, in any case."""
    if exact := prompt_like(row):
        return exact
    texts = {name: value for name, value in row.items() if isinstance(value, str) and value and not _may_be_image(name, value)}
    words = {name: re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()) for name in texts if name.lower() != "id"}
    likely = (
        name
        for word in ("prompt", *_PROMPT_LIKE, "goal", "behavior", "behaviour")
        for name in words
        if word in words[name] and words[name][-1] not in _ABOUT
    )
    return next(likely, None)


def each_image(row: Mapping[str, Any], column: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a row with `change` applied to each image in a column, which holds one or a list of them."""
    value = row.get(column)
    if value is None:
        return dict(row)
    return dict(row) | {column: [change(image) for image in value] if isinstance(value, list) else change(value)}
