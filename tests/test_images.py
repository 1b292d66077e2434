"""Pictures: what is accepted, what an engine gets, and what the message says where there is none."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from dream_cli.errors import ImageError
from dream_cli.records.image_bytes import data_uri, digest, read_bytes
from dream_cli.records.images import open_rgb, prepare
from dream_cli.records.record import Image


def encode(picture: Pillow.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


RED = Pillow.new("RGB", (4, 2), "red")
RED_PNG = encode(RED)


def pixel(data: bytes, at: tuple[int, int] = (0, 0)) -> Any:
    return open_rgb(Image(data=data)).getpixel(at)


def test_bytes_come_from_data_a_file_or_a_data_uri(tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    file.write_bytes(RED_PNG)
    uri = "data:image/png;base64," + base64.b64encode(RED_PNG).decode()
    assert read_bytes(Image(data=RED_PNG)) == RED_PNG
    assert read_bytes(Image(path=str(file))) == RED_PNG
    assert read_bytes(Image(path=uri)) == RED_PNG
    assert read_bytes(Image(path="elsewhere.png", data=RED_PNG)) == RED_PNG


def test_a_missing_file_is_named_with_the_mend() -> None:
    with pytest.raises(ImageError, match=r"^image /no/cat\.png does not exist; check the path"):
        read_bytes(Image(path="/no/cat.png"))


def test_a_directory_an_empty_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(ImageError, match="is a directory; name an image file"):
        read_bytes(Image(path=str(tmp_path)))
    with pytest.raises(ImageError, match=r"empty\.png is empty \(0 bytes\)"):
        read_bytes(Image(path=str(empty)))
    with pytest.raises(ImageError, match="not a regular file"):
        read_bytes(Image(path="/dev/zero"))


def test_no_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").write_bytes(RED_PNG)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ImageError, match=r"a\.png may not be read; give yourself permission"):
        read_bytes(Image(path=str(tmp_path / "a.png")))


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000])
def test_a_path_that_no_file_can_have_is_an_image_error(path: str) -> None:
    with pytest.raises(ImageError):
        read_bytes(Image(path=path))


def test_urls_are_not_fetched() -> None:
    with pytest.raises(ImageError, match="https://example.org/a.png is a URL, and URLs are not fetched"):
        read_bytes(Image(path="https://example.org/a.png"))


@pytest.mark.parametrize("uri", ["data:image/png,abc", "data:image/png;base64", "data:image/png;base64,.@", "data:;base64,"])
def test_a_bad_data_uri_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ImageError, match="^the data: URI is"):
        read_bytes(Image(path=uri))


def test_an_image_of_nothing_is_refused() -> None:
    with pytest.raises(ImageError, match="neither bytes nor a path"):
        read_bytes(Image())


def test_exif_orientation_is_applied() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    data = encode(RED, "JPEG", exif=exif)
    assert open_rgb(Image(data=data)).size == (2, 4)
    prepared = prepare(Image(data=data)).data
    assert prepared is not None
    assert prepared[:2] == b"\xff\xd8"
    assert Pillow.open(io.BytesIO(prepared)).size == (2, 4)


def test_transparency_lies_on_white() -> None:
    assert pixel(encode(Pillow.new("RGBA", (2, 2), (255, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(encode(Pillow.new("LA", (2, 2), (0, 0)))) == (255, 255, 255)
    assert pixel(encode(RED, transparency=(255, 0, 0))) == (255, 255, 255)
    palette = Pillow.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    assert pixel(encode(palette)) == (0, 0, 255)
    assert pixel(encode(palette, transparency=bytes([255, 0]))) == (255, 255, 255)


def test_cmyk_grey_and_bilevel_become_rgb() -> None:
    assert pixel(encode(Pillow.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")) == (255, 255, 255)
    assert pixel(encode(Pillow.new("L", (2, 2), 77))) == (77, 77, 77)
    assert pixel(encode(Pillow.new("1", (2, 2), 1))) == (255, 255, 255)


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (0x8000, 128), (0xFFFF, 255)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(kind: str, level: int, expected: int) -> None:
    deep = Pillow.frombytes("I;16", (2, 2), struct.pack("<4H", *[level] * 4))
    assert pixel(encode(deep, kind)) == (expected,) * 3


def test_of_an_animation_the_first_frame_counts() -> None:
    data = encode(RED, "GIF", save_all=True, append_images=[Pillow.new("RGB", (4, 2), "blue")])
    assert pixel(data) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_an_image_error(kind: str, tmp_path: Path) -> None:
    noise = Pillow.effect_noise((64, 64), 80)
    file = tmp_path / "cut"
    file.write_bytes(encode(noise, kind)[:-500])
    with pytest.raises(ImageError, match=f"^image {file} is "):
        open_rgb(Image(path=str(file)))


def test_what_is_no_image_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="^the image is a text, not an image; use PNG, JPEG, WebP or GIF"):
        open_rgb(Image(data=b"hello"))
    with pytest.raises(ImageError):
        open_rgb(Image(data=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"))


def test_broken_bytes_leave_nothing_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    # The count of samples a pixel (tag 277) becomes absurd.
    data = encode(RED, "TIFF").replace(struct.pack("<HHIH", 277, 3, 1, 3), struct.pack("<HHIH", 277, 3, 1, 43011))
    with pytest.raises(ImageError):
        open_rgb(Image(data=data))
    assert capfd.readouterr() == ("", "")


def test_a_huge_image_is_refused_before_it_is_decoded() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    for work in (open_rgb, prepare):
        with pytest.raises(ImageError, match="30000x30000 is more than 50 megapixels; scale it down"):
            work(Image(data=data))


def test_a_large_image_within_the_limit_gives_no_warning() -> None:
    data = encode(Pillow.new("1", (10000, 4999)))
    assert prepare(Image(data=data)).data is not None


@pytest.mark.parametrize("data", [RED_PNG, encode(RED, "JPEG"), encode(Pillow.new("L", (2, 2)))])
def test_plain_images_keep_their_bytes(data: bytes) -> None:
    assert prepare(Image(path="/a/b.png", data=data)) == Image(path="/a/b.png", data=data)


@pytest.mark.parametrize("data", [encode(Pillow.new("RGBA", (2, 2), "red")), encode(RED, "GIF"), encode(RED, "BMP")])
def test_other_images_become_png(data: bytes) -> None:
    prepared = prepare(Image(data=data)).data
    assert prepared is not None
    with Pillow.open(io.BytesIO(prepared)) as picture:
        assert (picture.format, picture.mode, picture.getpixel((0, 0))) == ("PNG", "RGB", (255, 0, 0))


def test_a_prepared_data_uri_has_no_path() -> None:
    assert prepare(Image(path=data_uri(Image(data=RED_PNG)))) == Image(data=RED_PNG)


def test_the_digest_is_of_the_bytes() -> None:
    assert digest(Image(data=RED_PNG)) == hashlib.sha256(RED_PNG).hexdigest()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_data_uri_names_the_true_type(kind: str) -> None:
    data = encode(RED, kind)
    assert data_uri(Image(path="wrong.txt", data=data)) == f"data:image/{kind.lower()};base64," + base64.b64encode(data).decode()
