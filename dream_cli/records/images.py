"""Decoding of images for the engines: checked, upright, plain RGB.

Pillow is imported on use, so that stages without images start fast.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dream_cli.errors import ImageError
from dream_cli.records.access import Access
from dream_cli.records.image_bytes import begins_like_image, check_file, image_name, is_data_uri, kind_of, mime, read_bytes
from dream_cli.records.record import Image

if TYPE_CHECKING:
    from PIL import Image as Pillow

MAX_PIXELS = 50_000_000
# Maximum size of a decoded image for a model in this process, unless the user sets one: few processors keep more, and each makes
# several copies.
MAX_PROCESSED = 16_000_000
# Maximum bytes of an image for a model; servers accept no more.
MAX_SHOWN = 20 * 1024 * 1024
# Images above one of these limits are decoded one at a time.
LARGE_PIXELS, LARGE_BYTES = 8_000_000, 4 * 1024 * 1024
_decoding_large = threading.Lock()

# Maximum bytes of unpacked texts and colour profiles in a PNG. Pillow's own limit rejects valid images; servers that use Pillow keep it.
MAX_CHUNK, PILLOW_CHUNK = 16 * 1024 * 1024, 1024 * 1024

# Only decoders that run inside this process (Pillow's EPS decoder starts Ghostscript) and decode nothing before the size is checked
# (ICO does: its image may be larger than its header states).
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "TGA", "AVIF")
# Lossy sources are written as JPEG: a PNG of them would be several times as large.
_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")


def open_rgb(image: Image, max_pixels: int | None = None) -> Pillow.Image:
    """Return the decoded first frame, upright, in RGB on white, of at most `max_pixels`; raise ImageError.

    `max_pixels` None is the limit of its access, or `MAX_PROCESSED` where it has none.
    """
    limit = max_pixels or image.access.max_pixels or MAX_PROCESSED
    with _decoded(image, read_bytes(image), limit) as picture:
        return _plain_rgb(image, picture, limit)


def size(image: Image) -> tuple[int, int]:
    """Return width and height in pixels, read from the header of the file; raise ImageError where it is missing or not an image."""
    is_file = image.data is None and image.path is not None and not is_data_uri(image) and "://" not in image.path
    if is_file:
        check_file(image)
    with _opened(image, str(image.path) if is_file else io.BytesIO(read_bytes(image))) as picture:
        return picture.size


def exceeds_default(image: Image) -> bool:
    """Whether a model in this process sees more than `MAX_PROCESSED` pixels of a prepared image, because the user allows more."""
    return (image.access.max_pixels or 0) > MAX_PROCESSED and math.prod(size(image)) > MAX_PROCESSED


def is_large(image: Image) -> bool:
    """Whether an image needs so much memory that it is processed alone; raise ImageError where it cannot be opened."""
    is_file = image.data is None and os.path.isfile(str(image.path))
    length = os.path.getsize(str(image.path)) if is_file else len(read_bytes(image))
    return length > LARGE_BYTES or math.prod(size(image)) > LARGE_PIXELS


def prepare(image: Image) -> Image:
    """Return the image with bytes that all engines decode in the same way, unchanged if they are plain RGB already; raise ImageError."""
    if image.access.prepared:
        return image
    raw, limit = read_bytes(image), image.access.max_pixels
    with _decoded(image, raw, limit) as picture:
        # The size in the header: the picture itself may already be decoded at a lower resolution.
        fits = limit is None or math.prod(size(Image(data=raw))) <= limit
        data = raw if fits and _is_plain(picture, raw) else _encoded(image, picture, raw)
    if len(data) > MAX_SHOWN:
        length, most = len(data) / 2**20, MAX_SHOWN // 2**20
        raise ImageError(
            f"{image_name(image)} is too large for a model: {length:.0f} MB, the limit is {most} MB; scale it with --max-pixels N"
        )
    return Image(None if is_data_uri(image) else image.path, data, Access(prepared=True, max_pixels=limit))


def checked_bytes(image: Image) -> bytes:
    """Return the encoded bytes of an image that decodes; raise ImageError for anything else."""
    raw = read_bytes(image)
    # An eighth of the resolution is enough to check that a JPEG is complete.
    with _decoded(image, raw, 1):
        return raw


def check_inline(image: Image) -> None:
    """Raise ImageError for the bytes of a row that are not an image; bytes that begin like one are not decoded."""
    if not begins_like_image(read_bytes(image)):
        checked_bytes(image)


def extracted(image: Image, folder: Path) -> str:
    """Write an image into a file named by its hash, and return its path; raise ImageError where it does not decode."""
    data = checked_bytes(image)
    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.{_suffix(data)}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.replace(path)
    return str(path.absolute())


def _suffix(data: bytes) -> str:
    kind = mime(data).partition("/")[2]
    return "img" if kind == "octet-stream" else kind.replace("jpeg", "jpg")


@contextmanager
def _decoded(image: Image, data: bytes, max_pixels: int | None) -> Iterator[Pillow.Image]:
    """Yield the image fully decoded; any error in the body becomes an ImageError that names the image.

    A JPEG of more than `max_pixels` is decoded at the lowest resolution that has at least `max_pixels`.
    """
    with _opened(image, io.BytesIO(data)) as picture:
        # For some JPEGs the decoder holds the whole image in memory even at a lower resolution.
        if max_pixels is not None and math.prod(picture.size) <= 2 * MAX_PIXELS:
            picture.draft(None, _within(picture.size, max_pixels))
        width, height = max(picture.size, _tile(picture), key=math.prod)
        # The JPEG 2000 decoder needs two to three times the memory of the others.
        most = MAX_PIXELS // 2 if picture.format == "JPEG2000" else MAX_PIXELS
        if width * height > most:
            limit = f"{most // 1_000_000} megapixels"
            raise ImageError(f"{image_name(image)} is too large: {width}x{height} is more than {limit}; scale it down")
        with _decoding_large if width * height > LARGE_PIXELS else nullcontext():
            picture.load()
            yield picture


def _tile(picture: Pillow.Image) -> tuple[int, int]:
    """Return the size in pixels of the tiles of a TIFF, which are unpacked whole and may exceed the image; 0 x 0 for other images."""
    from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

    return (picture.tag_v2.get(TILEWIDTH, 0), picture.tag_v2.get(TILELENGTH, 0)) if isinstance(picture, TiffImageFile) else (0, 0)


@contextmanager
def _opened(image: Image, source: str | io.BytesIO) -> Iterator[Pillow.Image]:
    """Yield the image with only its header read; any error in the body becomes an ImageError that names the image."""
    from PIL import Image as Pillow
    from PIL import PngImagePlugin, UnidentifiedImageError

    # The limits of this module, checked before anything is decoded, replace Pillow's.
    Pillow.MAX_IMAGE_PIXELS = None
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_CHUNK
    Pillow.init()
    # The ImageError already reports what the decoders log about broken bytes.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Pillow.open(source, formats=[f for f in FORMATS if f in Pillow.OPEN]) as picture:
                yield picture
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError(f"{image_name(image)} is {kind_of(read_bytes(image))}") from None
        except Exception as error:  # noqa: BLE001 - decoders raise almost any exception on broken bytes
            if "MAX_TEXT_CHUNK" in str(error) or "MAX_TEXT_MEMORY" in str(error):
                what = f"holds a text or a colour profile of more than {MAX_CHUNK // 2**20} MB; remove it"
            else:
                what = f"is damaged or cut off ({error}); write the image again"
            raise ImageError(f"{image_name(image)} {what}") from None


def _within(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Return width and height of the same ratio with at most `max_pixels`, each at least 1."""
    width, height = size
    if width * height <= max_pixels:
        return size
    scale = math.sqrt(max_pixels / (width * height))
    width, height = max(1, int(width * scale)), max(1, int(height * scale))
    return min(width, max_pixels), min(height, max(1, max_pixels // width))


def _plain_rgb(image: Image, picture: Pillow.Image, max_pixels: int | None) -> Pillow.Image:
    from PIL import ImageOps

    # An image with broken EXIF is still a usable image.
    with suppress(Exception):
        ImageOps.exif_transpose(picture, in_place=True)
    plain = _flatten(image, picture)
    if max_pixels is not None and plain.width * plain.height > max_pixels:
        plain.thumbnail(_within(plain.size, max_pixels))
    elif plain is picture:
        # The picture is closed after this.
        plain = picture.copy()
    # Without this, colour profiles and texts would be written too.
    plain.info = {}
    return plain


def _flatten(image: Image, picture: Pillow.Image) -> Pillow.Image:
    from PIL import Image as Pillow

    if picture.mode == "F" or picture.mode == "I" or picture.mode.startswith("I;16"):
        return _eight_bits(image, picture).convert("RGB")
    if picture.has_transparency_data:
        layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        white = Pillow.new("RGB", layer.size, "white")
        white.paste(layer, mask=layer)
        return white
    return picture.convert("RGB") if picture.mode != "RGB" else picture


def _eight_bits(image: Image, picture: Pillow.Image) -> Pillow.Image:
    """Return samples of more than 8 bits in 8 bits, scaled from the smallest common range that holds the brightest sample.

    The ranges are 8, 12 and 16 bits, and for floats also 0 to 1: cameras and scanners write 12-bit samples into 16-bit files.
    """
    deep = picture.convert("I") if picture.mode != "F" else picture
    low, high = cast("tuple[float, float]", deep.getextrema())
    ranges = (*((1.0,) if deep.mode == "F" else ()), 255, 4095, 65535)
    top = next((top for top in ranges if low >= 0 and high <= top), None)
    if top is None:
        raise ImageError(f"{image_name(image)} has samples from {low:g} to {high:g}, outside the common ranges; scale them to 0..255")
    # 16-bit samples keep their upper byte. A conversion from floats truncates, so half a level is added.
    scale, rest = (255 / top, 0.5) if deep.mode == "F" else (256 / (top + 1), 0)
    return deep.point(lambda level: level * scale + rest).convert("L")


def _is_plain(picture: Pillow.Image, raw: bytes) -> bool:
    from PIL.PngImagePlugin import PngImageFile

    if picture.mode not in ("RGB", "L") or picture.has_transparency_data or _is_rotated(picture):
        return False
    if isinstance(picture, PngImageFile):
        if raw[24] != 8 or picture.is_animated:
            return False
        return all(len(text) <= PILLOW_CHUNK for text in (*picture.text.values(), picture.info.get("icc_profile") or b""))
    # MPO is a JPEG with further pictures after the first.
    return picture.format in ("JPEG", "MPO")


def _is_rotated(picture: Pillow.Image) -> bool:
    from PIL import ExifTags

    try:
        return bool(picture.getexif().get(ExifTags.Base.Orientation, 1) != 1)
    except Exception:  # noqa: BLE001 - with broken EXIF, the picture is written again without it
        return True


def _encoded(image: Image, picture: Pillow.Image, raw: bytes) -> bytes:
    """Return the picture as plain RGB in a PNG, or in a JPEG if its source is lossy: a PNG of it would be several times as large."""
    from PIL.JpegImagePlugin import JpegImageFile, get_sampling

    buffer = io.BytesIO()
    lossy = picture.format in _LOSSY or raw[8:16] == b"WEBPVP8 "
    plain = _plain_rgb(image, picture, image.access.max_pixels)
    if not lossy:
        # Speed over size: these bytes go to an engine, not to an archive.
        plain.save(buffer, "PNG", compress_level=1)
    elif isinstance(picture, JpegImageFile) and picture.layers != 4:
        # With its own quantisation tables the JPEG keeps its quality and its size.
        plain.save(buffer, "JPEG", qtables=picture.quantization, subsampling=get_sampling(picture))
    else:
        plain.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
