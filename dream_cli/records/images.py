"""Pictures as the engines need them: read from wherever they are, checked, and turned upright into plain RGB.

Pillow is imported on use, so that stages without pictures start fast.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream_cli.errors import ImageError
from dream_cli.records.atomic import write_once
from dream_cli.records.record import Image

if TYPE_CHECKING:
    from PIL import Image as Pillow

MAX_PIXELS = 200_000_000

# Only decoders that run inside this process: Pillow's EPS, for one, starts Ghostscript on the file.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "ICO", "TGA", "AVIF")

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x00\x00\x00\x0cjP  ", "image/jp2"),
)


def read_bytes(image: Image) -> bytes:
    """Return the encoded bytes of an image; raise ImageError where there are none to be had."""
    data = image.data if image.data is not None else _fetch(image)
    if not data:
        raise ImageError(f"{_name(image)} is empty (0 bytes); write the image anew")
    return data


def open_rgb(image: Image) -> Pillow.Image:
    """Return the decoded first frame, upright, in RGB and on white; raise ImageError where it cannot be decoded."""
    with _decoded(image, read_bytes(image)) as picture:
        return _flatten(_upright(picture))


def size(image: Image) -> tuple[int, int]:
    """Return width and height in pixels as its head tells; raise ImageError where it is missing or no image."""
    at = image.path if image.data is None and image.path is not None and os.path.isfile(image.path) else None
    with _opened(image, at or io.BytesIO(read_bytes(image))) as picture:
        return picture.size


def prepare(image: Image) -> Image:
    """Return the image with bytes that any engine decodes alike, as they came where they are plain; raise ImageError."""
    raw = read_bytes(image)
    with _decoded(image, raw) as picture:
        data = raw if _is_plain(picture, raw) else _png(_flatten(_upright(picture)))
    return Image(path=None if is_data_uri(image) else image.path, data=data)


def digest(image: Image) -> str:
    """Return the SHA-256 of the image's bytes in hexadecimal; raise ImageError where they cannot be read."""
    return hashlib.sha256(read_bytes(image)).hexdigest()


def data_uri(image: Image) -> str:
    """Return the image as a `data:` URI with the type that its first bytes tell; raise ImageError where it cannot be read."""
    data = read_bytes(image)
    return f"data:{_mime(data)};base64,{base64.b64encode(data).decode()}"


def to_raw(image: Image) -> Any:
    """Return the image as a record names it: its path, or `{bytes, path}`."""
    return image.path if image.data is None else {"bytes": image.data, "path": image.path}


def locate(raw: Any, folder: str) -> Any:
    """Return an image as a record names it, its path made absolute from `folder` and its base64 bytes decoded."""
    if isinstance(raw, str):
        return os.path.normpath(os.path.join(folder, raw)) if _is_file(raw) and not os.path.isabs(raw) else raw
    if not isinstance(raw, dict):
        return raw
    if isinstance(raw.get("bytes"), str):
        with suppress(ValueError):
            return raw | {"bytes": base64.b64decode(raw["bytes"], validate=True)}
    if raw.get("bytes") is None and isinstance(raw.get("path"), str):
        return raw | {"path": locate(raw["path"], folder)}
    return raw


def seen_from(raw: Any, folder: str | None) -> Any:
    """Return an image as a record names it, its path relative to `folder` (None: absolute)."""
    if isinstance(raw, dict) and isinstance(raw.get("path"), str):
        # Beside bytes a relative path is only a name.
        is_name = raw.get("bytes") is not None and not os.path.isabs(raw["path"])
        return raw if is_name else raw | {"path": seen_from(raw["path"], folder)}
    if not isinstance(raw, str) or not _is_file(raw):
        return raw
    return os.path.abspath(raw) if folder is None else os.path.relpath(raw, folder)


def without_bytes(raw: Any) -> Any:
    """Return an image as a record names it, bytes turned into a `data:` URI."""
    if isinstance(raw, dict) and isinstance(raw.get("bytes"), bytes):
        with suppress(ImageError):
            return data_uri(Image(data=raw["bytes"]))
    return raw


def is_inline(raw: Any) -> bool:
    """Whether an image as a record names it holds its bytes: a `data:` URI or `{bytes, path}`."""
    if isinstance(raw, dict):
        return raw.get("bytes") is not None or is_inline(raw.get("path"))
    return isinstance(raw, str) and raw[:5].lower() == "data:"


def extracted(image: Image, folder: Path) -> str:
    """Write an image's bytes into a file named by their hash, and return its path; raise ImageError where it has none to be read."""
    data = read_bytes(image)
    kind = _mime(data).partition("/")[2]
    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.{'bin' if kind == 'octet-stream' else kind.replace('jpeg', 'jpg')}"
    write_once(path, data)
    return str(path.absolute())


def _is_file(path: str) -> bool:
    return path != "" and path[:5].lower() != "data:" and "://" not in path


def _mime(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    return next((mime for magic, mime in _MAGIC if data.startswith(magic)), "application/octet-stream")


def is_data_uri(image: Image) -> bool:
    """Whether the path of an image is a `data:` URI."""
    return is_inline(image.path)


def _name(image: Image) -> str:
    if is_data_uri(image):
        return "the data: URI"
    return f"image {image.path}" if image.path else "the image"


def _fetch(image: Image) -> bytes:
    path = image.path
    if not path:
        raise ImageError("the image has neither bytes nor a path; give one of them")
    if is_data_uri(image):
        return _decode_uri(path)
    if path.lower().startswith(("http://", "https://")):
        raise ImageError(f"image {path} is a URL, and URLs are not fetched; download the file and name its path")
    return _read_file(path)


def _decode_uri(uri: str) -> bytes:
    header, comma, payload = uri.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise ImageError("the data: URI is not in base64; write it as data:image/png;base64,...")
    try:
        return base64.b64decode("".join(payload.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"the data: URI is not valid base64 ({error}); encode the image anew") from None


def _read_file(path: str) -> bytes:
    try:
        # A pipe or a device would block, or never end.
        if os.path.exists(path) and not os.path.isfile(path):
            kind = "a directory" if os.path.isdir(path) else "not a regular file"
            raise ImageError(f"image {path} is {kind}; name an image file")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"image {path} does not exist; check the path (relative paths start at the file that names them)") from None
    except PermissionError:
        raise ImageError(f"image {path} may not be read; give yourself permission (chmod u+r)") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"image {path} cannot be read ({getattr(error, 'strerror', None) or error}); check the path") from None


@contextmanager
def _decoded(image: Image, data: bytes) -> Iterator[Pillow.Image]:
    """Yield the image fully decoded; whatever goes wrong in the body is an ImageError that names the image."""
    with _opened(image, io.BytesIO(data)) as picture:
        _check_size(image, picture)
        picture.load()
        yield picture


@contextmanager
def _opened(image: Image, source: str | io.BytesIO) -> Iterator[Pillow.Image]:
    """Yield the image, of which no more than the head is read; whatever goes wrong in the body is an ImageError that names the image."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    # Our own limit, checked before anything is decoded, stands in for Pillow's, which warns at less.
    Pillow.MAX_IMAGE_PIXELS = None
    Pillow.init()
    # What its decoders log of broken bytes is said once, and better, by the ImageError.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Pillow.open(source, formats=[f for f in FORMATS if f in Pillow.OPEN]) as picture:
                yield picture
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError(f"{_name(image)} is not an image that can be read; use PNG, JPEG, WebP or GIF") from None
        except Exception as error:  # noqa: BLE001 - decoders meet broken bytes with almost any exception
            raise ImageError(f"{_name(image)} is damaged or cut off ({error}); write the image anew") from None


def _check_size(image: Image, picture: Pillow.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise ImageError(f"{_name(image)} is too large: {width}x{height} is more than {limit} megapixels; scale it down")


def _upright(picture: Pillow.Image) -> Pillow.Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 - broken EXIF is no reason to refuse a whole picture
        return picture


def _flatten(picture: Pillow.Image) -> Pillow.Image:
    from PIL import Image as Pillow

    if picture.mode == "I" or picture.mode.startswith("I;16"):
        # 16 bits a pixel: a plain convert would clip all but the darkest 256 levels to white.
        return picture.convert("I").point(lambda level: level * (1 / 256)).convert("L").convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Pillow.alpha_composite(Pillow.new("RGBA", layer.size, "white"), layer).convert("RGB")
    # A copy even where it is RGB already: the picture is closed after this.
    return picture.convert("RGB") if picture.mode != "RGB" else picture.copy()


def _is_plain(picture: Pillow.Image, raw: bytes) -> bool:
    if picture.mode not in ("RGB", "L") or picture.has_transparency_data or _is_rotated(picture):
        return False
    if picture.format == "PNG":
        return raw[24] == 8 and not getattr(picture, "is_animated", False)
    # MPO is a JPEG with further pictures after the first.
    return picture.format in ("JPEG", "MPO")


def _is_rotated(picture: Pillow.Image) -> bool:
    from PIL import ExifTags

    try:
        return bool(picture.getexif().get(ExifTags.Base.Orientation, 1) != 1)
    except Exception:  # noqa: BLE001 - with broken EXIF, the picture is written anew without it
        return True


def _png(picture: Pillow.Image) -> bytes:
    buffer = io.BytesIO()
    # Speed over size: these bytes go to an engine, not to an archive.
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
