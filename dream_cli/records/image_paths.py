"""The forms of an image in a row: a path, a `data:` URI, `{bytes, path}`, and the variants of other tools."""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from dream_cli.errors import ImageError
from dream_cli.records.access import Base
from dream_cli.records.image_bytes import bare_bytes, base64_bytes, begins_like_image, data_uri, listed_bytes
from dream_cli.records.images import checked_bytes
from dream_cli.records.literals import literal
from dream_cli.records.parts import part_image
from dream_cli.records.record import Image


def to_raw(image: Image) -> Any:
    """Return the image in the form of a row: its path, or `{bytes, path}`."""
    return image.path if image.data is None else {"bytes": image.data, "path": image.path}


def locate(raw: Any, base: Base) -> Any:
    """Return the image of a row with its path made absolute and its bytes decoded.

    Base64 without `data:`, lists of numbers and `bytes` as base64 are read as bytes; `file://` is read as a path, and an object of
    another form, such as `{"image_url": {"url": ...}}`, as an image part of a message.
    """
    if isinstance(raw, str):
        data = bare_bytes(raw)
        if data is not None:
            return {"bytes": data, "path": None}
        written = _written(raw)
        return _absolute(raw, base) if written is None else locate(written, base)
    if isinstance(raw, bytes | list):
        data = listed_bytes(raw) if isinstance(raw, list) else raw
        return {"bytes": data, "path": None} if data else raw
    if not isinstance(raw, dict):
        return raw
    data = raw.get("bytes")
    if isinstance(data, str):
        with suppress(ValueError):
            return raw | {"bytes": base64_bytes(data.partition(",")[2] if is_inline(data) else data)}
    if isinstance(data, list):
        return raw | {"bytes": listed_bytes(data) or data}
    if data is None and isinstance(raw.get("path"), str):
        return raw | {"path": _absolute(raw["path"], base)}
    source = part_image(raw) if data is None else None
    return raw if source is None else locate(source, base)


def _written(text: str) -> Any:
    """Return the image of a text that a table holds in place of it: an object, the bytes of Python, or a URI with another beginning."""
    if text[:1] in ("{", "b"):
        with suppress(ValueError):
            value = literal(text)
            return value.decode("latin-1") if isinstance(value, bytes) and not begins_like_image(value) else value
    if text[:6].lower() == "image/" and ";base64," in text[:40]:
        return f"data:{text}"
    return text.strip() if text[:1].isspace() and text.lstrip()[:5].lower() == "data:" else None


def _absolute(path: str, base: Base) -> str:
    if path[:7].lower() == "file://":
        url = urlsplit(path)
        path = unquote(url.path) if url.netloc in ("", "localhost") else path
    return path if os.path.isabs(path) or not _is_file(path) else base.path(path)


def relative_to(raw: Any, folder: str | None) -> Any:
    """Return the image of a row with its path relative to `folder` (None: absolute)."""
    if isinstance(raw, dict) and isinstance(raw.get("path"), str):
        # Beside bytes a relative path is only a name.
        is_name = raw.get("bytes") is not None and not os.path.isabs(raw["path"])
        return raw if is_name else raw | {"path": relative_to(raw["path"], folder)}
    if not isinstance(raw, str) or not _is_file(raw):
        return raw
    parent, _, name = raw.rpartition("/")
    if folder is None:
        return raw if _is_normal(parent) and name not in ("", ".", "..") else os.path.abspath(raw)
    if not _is_normal(parent) or name in ("", ".", "..") or f"{folder}/".startswith(f"{raw}/"):
        return os.path.relpath(raw, folder)
    beside = _relative(parent, folder)
    return name if beside == "." else f"{beside}/{name}"


@lru_cache(maxsize=1024)
def _is_normal(folder: str) -> bool:
    return os.path.isabs(folder) and os.path.normpath(folder) == folder


@lru_cache(maxsize=1024)
def _relative(folder: str, start: str) -> str:
    return os.path.relpath(folder, start)


def without_bytes(raw: Any) -> Any:
    """Return the image of a row with bytes turned into a `data:` URI; bytes that do not decode as an image stay `bytes`, in base64."""
    if not isinstance(raw, dict) or not isinstance(raw.get("bytes"), bytes):
        return raw
    try:
        return data_uri(Image(data=checked_bytes(Image(data=raw["bytes"]))))
    except ImageError:
        return as_given(raw)


def as_given(raw: Any) -> Any:
    """Return `{bytes, path}` as JSON has it, with the bytes in base64, which is read back as the same bytes."""
    return raw | {"bytes": base64.b64encode(raw["bytes"]).decode()} if isinstance(raw.get("bytes"), bytes) else raw


def is_inline(raw: Any) -> bool:
    """Whether the image of a row holds its bytes: a `data:` URI or `{bytes, path}`."""
    if isinstance(raw, dict):
        return raw.get("bytes") is not None or is_inline(raw.get("path"))
    return isinstance(raw, str) and raw[:5].lower() == "data:"


def _is_file(path: str) -> bool:
    return path != "" and path[:5].lower() != "data:" and "://" not in path
