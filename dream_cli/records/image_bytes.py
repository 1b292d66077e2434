"""The encoded bytes of an image, read within a limit, and messages for other files that are named as images."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from dream_cli.errors import ImageError
from dream_cli.records.record import Image

MAX_BYTES = 64 * 1024 * 1024
# Maximum characters of a path in a message.
_SHOWN = 200

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x00\x00\x00\x0cjP  ", "image/jp2"),
)

_TEXTS = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the image itself; fetch the file with git lfs pull"),
    (rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg", "an SVG drawing; convert it to PNG"),
    (
        rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body)",
        "an HTML page, as a failed download leaves it; download it again",
    ),
    (rb"<\?xml", "an XML document, as a failed download leaves it; download it again"),
    (rb"[\[{].*[\]}]\s*$", "JSON, as a failed download leaves it; download it again"),
)
_OTHERS = (
    (0, b"%PDF", "a PDF; convert its page to PNG"),
    (0, b"%!PS", "PostScript; convert it to PNG"),
    (0, b"\x00\x00\x01\x00", "an icon (ICO); convert it to PNG"),
    (0, b"8BPS", "a Photoshop file; export it as PNG"),
    (0, b"PK\x03\x04", "a ZIP archive; unpack it"),
    (0, b"\x1f\x8b", "a gzip file; unpack it"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL; convert it to PNG or JPEG"),
    (0, b"\xff\x0a", "JPEG XL; convert it to PNG or JPEG"),
    (4, b"ftyphei", "HEIC; convert it to JPEG or PNG"),
    (4, b"ftyphev", "HEIC; convert it to JPEG or PNG"),
    (4, b"ftypmif1", "HEIC; convert it to JPEG or PNG"),
    (4, b"ftypmsf1", "HEIC; convert it to JPEG or PNG"),
    (4, b"ftyp", "a video; extract a frame as PNG"),
    (8, b"AVI ", "a video; extract a frame as PNG"),
    (0, b"\x1a\x45\xdf\xa3", "a video; extract a frame as PNG"),
    (0, b"\x93NUMPY", "a NumPy array; save it as PNG"),
    (0, b"\x80\x04\x95", "a Python pickle; save the image as PNG"),
    (128, b"DICM", "DICOM; convert it to PNG"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR; convert it to PNG"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it"),
    (0, b"Rar!", "a RAR archive; unpack it"),
    (257, b"ustar", "a tar archive; unpack it"),
)


def read_bytes(image: Image) -> bytes:
    """Return the encoded bytes of an image; raise ImageError where they are missing, too many or unreadable."""
    data = image.data if image.data is not None else _fetch(image)
    if not data:
        raise ImageError(f"{image_name(image)} is empty (0 bytes); write the image again")
    check_length(image, len(data))
    return data


def check_length(image: Image, length: int) -> None:
    """Raise ImageError for more bytes than an image may have."""
    if length > MAX_BYTES:
        size, limit = length / 2**20, MAX_BYTES // 2**20
        raise ImageError(f"{image_name(image)} is too large: {size:.0f} MB, the limit is {limit} MB; scale it down")


def digest(image: Image) -> str:
    """Return the SHA-256 of the image's bytes in hexadecimal; raise ImageError where they cannot be read."""
    return hashlib.sha256(read_bytes(image)).hexdigest()


def data_uri(image: Image) -> str:
    """Return the image as a `data:` URI, its media type from its first bytes; raise ImageError where it cannot be read."""
    data = read_bytes(image)
    return f"data:{mime(data)};base64,{base64.b64encode(data).decode()}"


def mime(data: bytes) -> str:
    """Return the media type of encoded bytes; `application/octet-stream` where it is not known."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    return next((mime for magic, mime in _MAGIC if data.startswith(magic)), "application/octet-stream")


def begins_like_image(data: bytes) -> bool:
    """Whether bytes begin like an image of a common format other than BMP, whose mark is two letters."""
    return mime(data) not in ("application/octet-stream", "image/bmp")


def kind_of(data: bytes) -> str:
    """Return what bytes are that no decoder accepts, and how to fix it."""
    if kind := next((kind for at, magic, kind in _OTHERS if data[at:].startswith(magic)), None):
        return kind
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if kind := next((kind for pattern, kind in _TEXTS if re.match(pattern, head, re.IGNORECASE | re.DOTALL)), None):
        return kind
    if begins_like_image(data):
        return f"cut off or damaged after its first bytes ({mime(data)}); write the image again"
    if head and all(byte >= 32 or byte in b"\t\r\n\f\x1b" for byte in head):
        return "a text, not an image; use PNG, JPEG, WebP or GIF"
    return "not an image that can be read; use PNG, JPEG, WebP or GIF"


def base64_bytes(text: str) -> bytes:
    """Return the bytes of base64 in any variant: URL-safe, without padding, percent-encoded, in lines; raise ValueError."""
    plain = b"".join((unquote_to_bytes(text) if "%" in text else text.encode()).translate(_PLAIN).split()).rstrip(b"=")
    return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)


_PLAIN = bytes.maketrans(b"-_", b"+/")
_BARE = re.compile(r"[A-Za-z0-9+/_\-\s]+=*\s*", re.ASCII)
# The smallest image in base64 is longer than this; few paths without a suffix are.
_LEAST_BARE = 40


def bare_bytes(text: str) -> bytes | None:
    """Return the bytes of a text that is the base64 of an image without `data:`; None for any other text, such as a path."""
    if len(text) < _LEAST_BARE or not begins_like_image(_head(text)) or not _BARE.fullmatch(text):
        return None
    try:
        return base64_bytes(text)
    except ValueError:
        return None


def _head(text: str) -> bytes:
    try:
        return base64_bytes(text[:24])
    except ValueError:
        return b""


def listed_bytes(values: Sequence[Any]) -> bytes | None:
    """Return the bytes of a list of numbers from 0 to 255; None for any other list."""
    try:
        return bytes(values) if values and all(type(value) is int for value in values) else None
    except ValueError:
        return None


def is_data_uri(image: Image) -> bool:
    """Whether the path of an image is a `data:` URI."""
    return image.path is not None and image.path[:5].lower() == "data:"


def image_name(image: Image) -> str:
    """Return the name of an image for messages."""
    if is_data_uri(image):
        return "the data: URI"
    if not image.path:
        return "the image"
    return f"image {image.path if len(image.path) <= _SHOWN else image.path[:_SHOWN] + '...'}"


def _fetch(image: Image) -> bytes:
    path = image.path
    if not path:
        raise ImageError("the image has neither bytes nor a path; give one of them")
    if is_data_uri(image):
        return _decode_uri(path)
    if "://" in path:
        raise ImageError(f"{image_name(image)} is a URL, and URLs are not fetched; download the file and name its path")
    check_file(image)
    try:
        return Path(path).read_bytes()
    except PermissionError:
        raise ImageError(f"{image_name(image)} is not readable; change its permissions (chmod u+r)") from None
    except OSError as error:
        raise ImageError(f"{image_name(image)} cannot be read ({error.strerror or error}); check the path") from None


def check_file(image: Image) -> None:
    """Raise ImageError unless the path is a regular file in an allowed folder and within the size limit."""
    path, name = str(image.path), image_name(image)
    try:
        if not os.path.lexists(path):
            raise ImageError(f"{name} does not exist; {_why_missing(path)}")
        if not image.access.allows(path):
            folders = " and ".join(image.access.roots or ())
            raise ImageError(
                f"{name} lies outside {folders}; name the folder of the images with --image-root DIR, or allow all with --allow-outside"
            )
        # Reading a pipe or a device could block or never end.
        if os.path.exists(path) and not os.path.isfile(path):
            raise ImageError(f"{name} is {'a directory' if os.path.isdir(path) else 'not a regular file'}; name an image file")
        check_length(image, os.path.getsize(path))
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read ({getattr(error, 'strerror', None) or error}); check the path") from None


def _why_missing(path: str) -> str:
    if "\\" in path:
        return "write its folders with / in place of \\"
    if path != path.strip():
        return "remove the space at its beginning or end"
    if "%" in path and os.path.exists(unquote(path)):
        return f"write its characters as they are: {os.path.basename(unquote(path))}"
    if "/~" in path:
        return "~ is not read as the home folder; write the whole path"
    return "check the path (relative paths start at the file that names them)"


def _decode_uri(uri: str) -> bytes:
    header, comma, payload = uri.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise ImageError("the data: URI is not in base64; write it as data:image/png;base64,...")
    try:
        return base64_bytes(payload)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"the data: URI is not valid base64 ({error}); encode the image again") from None
