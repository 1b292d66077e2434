"""Pictures: what is accepted, what an engine gets, and what the message says where there is none."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from PIL import ImageChops, ImageStat

from dream_cli.errors import ImageError
from dream_cli.records.access import Access, Base
from dream_cli.records.image_bytes import data_uri, digest, read_bytes
from dream_cli.records.image_paths import locate
from dream_cli.records.images import checked_bytes, exceeds_default, open_rgb, prepare
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
    with pytest.raises(ImageError, match=r"a\.png is not readable; change its permissions"):
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


BARE = base64.b64encode(encode(Pillow.effect_noise((24, 24), 90), "JPEG")).decode()


@pytest.mark.parametrize(
    "raw",
    [
        base64.b64encode(RED_PNG).decode(),
        base64.b64encode(RED_PNG).decode().rstrip("="),
        base64.urlsafe_b64encode(RED_PNG).decode(),
        base64.encodebytes(RED_PNG).decode(),
        {"bytes": base64.b64encode(RED_PNG).decode(), "path": None},
        {"bytes": base64.urlsafe_b64encode(RED_PNG).decode().rstrip("="), "path": None},
        {"bytes": list(RED_PNG), "path": None},
        list(RED_PNG),
        RED_PNG,
    ],
)
def test_every_spelling_of_bytes_is_read(raw: Any) -> None:
    assert locate(raw, Base(("/",))) == {"bytes": RED_PNG, "path": None}


def test_the_base64_of_a_jpeg_is_no_path_and_a_path_is_no_base64() -> None:
    assert BARE.startswith("/9j/")
    assert locate(BARE, Base(("/data",)))["bytes"] == base64.b64decode(BARE)
    for path in ("/9j/a.jpg", "iVBORw0KGgo.png", "a" * 60, "folder/with/many/parts/and/no/suffix/at/all/anywhere"):
        assert locate(path, Base(("/data",))) in (path, f"/data/{path}")


@pytest.mark.parametrize(
    "change",
    [lambda t: t.replace("+", "%2B").replace("=", "%3D"), lambda t: t.rstrip("="), lambda t: t.replace("+", "-").replace("/", "_")],
)
def test_a_data_uri_may_be_percent_encoded_url_safe_or_unpadded(change: Any) -> None:
    data = encode(Pillow.effect_noise((9, 9), 90))
    text = base64.b64encode(data).decode()
    assert "+" in text and "/" in text
    assert read_bytes(Image(path="data:image/png;base64," + change(text))) == data


def test_a_file_url_is_a_path() -> None:
    assert locate("file:///a%20b/c.png", Base(("/data",))) == "/a b/c.png"
    assert locate("file://localhost/c.png", Base(("/data",))) == "/c.png"
    assert locate("file://host/c.png", Base(("/data",))) == "file://host/c.png"


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (0.25, 64), (1.0, 255)])
def test_floats_from_0_to_1_are_scaled(level: float, expected: int) -> None:
    picture = Pillow.new("F", (2, 2), 1.0)
    picture.putpixel((0, 0), level)
    assert pixel(encode(picture, "TIFF")) == (expected,) * 3


@pytest.mark.parametrize(("brightest", "level", "expected"), [(255.0, 100.0, 100), (65535.0, 32768.0, 128)])
def test_floats_of_wider_ranges_are_scaled_from_them(brightest: float, level: float, expected: int) -> None:
    picture = Pillow.new("F", (2, 2), brightest)
    picture.putpixel((0, 0), level)
    assert pixel(encode(picture, "TIFF")) == (expected,) * 3


@pytest.mark.parametrize(("brightest", "level", "expected"), [(4095, 4095, 255), (4095, 2048, 128), (4096, 2048, 8), (255, 77, 77)])
def test_twelve_bits_in_a_file_of_sixteen_are_scaled_from_twelve(brightest: int, level: int, expected: int) -> None:
    deep = Pillow.frombytes("I;16", (2, 1), struct.pack("<2H", level, brightest))
    assert pixel(encode(deep)) == (expected,) * 3


def test_samples_of_no_usual_range_are_refused() -> None:
    for samples in ((-1.0, 1.0), (0.0, 1e9)):
        picture = Pillow.new("F", (2, 1), samples[0])
        picture.putpixel((1, 0), samples[1])
        with pytest.raises(ImageError, match="^the image has samples from .* scale them to 0..255"):
            open_rgb(Image(data=encode(picture, "TIFF")))


def test_a_rotated_photo_stays_as_large_as_it_was() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    photo = Pillow.effect_noise((600, 400), 60).convert("RGB").resize((1200, 800))
    data = encode(photo, "JPEG", quality=90, exif=exif)
    prepared = prepare(Image(data=data)).data or b""
    assert 0.8 < len(prepared) / len(data) < 1.2 < len(encode(photo)) / len(data)
    upright = Pillow.open(io.BytesIO(prepared))
    assert (upright.format, upright.size) == ("JPEG", (800, 1200))
    difference = ImageChops.difference(upright.convert("L"), photo.convert("L").transpose(Pillow.Transpose.ROTATE_270))
    assert ImageStat.Stat(difference).mean[0] < 3


@pytest.mark.parametrize(("kind", "lossy"), [("PNG", False), ("JPEG", True), ("BMP", False)])
def test_max_pixels_scales_down_and_keeps_the_ratio(kind: str, lossy: bool) -> None:
    shown = Access(max_pixels=5000)
    data = encode(Pillow.new("RGB", (400, 200), "red"), kind)
    prepared = prepare(Image(data=data, access=shown)).data or b""
    with Pillow.open(io.BytesIO(prepared)) as picture:
        assert (picture.format, picture.size) == ("JPEG" if lossy else "PNG", (100, 50))
    assert open_rgb(Image(data=data, access=shown)).size == (100, 50)
    small = encode(Pillow.new("RGB", (100, 50)))
    assert prepare(Image(data=small, access=shown)).data == small
    assert open_rgb(Image(data=encode(Pillow.new("RGB", (1, 20000)))), 7).size == (1, 7)


def test_models_in_this_process_see_at_most_16_megapixels_or_the_limit_of_the_user() -> None:
    # 5000 x 4000 pixels: the ratio is kept, and 4471 x 3577 is the largest such size below 16 megapixels
    large = encode(Pillow.new("L", (5000, 4000)))
    for limit, seen in ((None, (4471, 3577)), (18_000_000, (4742, 3794)), (20_000_000, (5000, 4000))):
        image = Image(data=large, access=Access(max_pixels=limit))
        assert open_rgb(image).size == open_rgb(prepare(image)).size == seen
        assert exceeds_default(prepare(image)) == (limit is not None)
    assert not exceeds_default(prepare(Image(data=RED_PNG, access=Access(max_pixels=20_000_000))))
    assert open_rgb(Image(data=encode(Pillow.new("L", (4000, 4000))))).size == (4000, 4000)
    assert prepare(Image(data=large)).data == large  # a server gets the file itself


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "is a Git LFS pointer, not the image itself; fetch the file with git lfs pull",
        ),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "is an HTML page, as a failed download leaves it"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "is an XML document, as a failed download leaves it"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG drawing; convert it to PNG"),
        (b'{"error": "not found"}', "is JSON, as a failed download leaves it"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "is HEIC; convert it to JPEG or PNG"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isom", "is a video"),
        (b"%PDF-1.7\n", "is a PDF"),
        (RED_PNG[:20], "is damaged or cut off (Truncated File Read); write the image again"),
        (b"\xff\xd8\xff", "is cut off or damaged after its first bytes (image/jpeg)"),
        (b"\x00\x00\x01\x00\x01\x00\x10\x10", "is an icon (ICO); convert it to PNG"),
        (b"\x00\x01\x02\x03", "is not an image that can be read"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, kind: str) -> None:
    for work in (open_rgb, prepare, checked_bytes):
        with pytest.raises(ImageError, match=f"^the image {re.escape(kind)}"):
            work(Image(data=data))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_text(length: int) -> bytes:
    return RED_PNG[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * length)) + RED_PNG[33:]


def test_a_long_text_in_a_png_is_left_out_and_a_bomb_is_refused() -> None:
    assert prepare(Image(data=with_text(1000))).data == with_text(1000)
    prepared = prepare(Image(data=with_text(2_000_000))).data or b""
    assert b"zTXt" not in prepared and Pillow.open(io.BytesIO(prepared)).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(ImageError, match="holds a text or a colour profile of more than 16 MB; remove it"):
        prepare(Image(data=with_text(20_000_000)))


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(6 << 30)
    with pytest.raises(ImageError, match="too large: 6144 MB, the limit is 64 MB"):
        prepare(Image(path=str(tmp_path / "a.png")))


def test_a_tiff_may_not_hide_a_larger_tile() -> None:
    data = encode(RED, "TIFF")
    # Rows per strip (tag 278) and plane (284) become the width and the height of a tile.
    for old, new in ((278, 322), (284, 323)):
        at = next(i for kind in (3, 4) if (i := data.find(struct.pack("<HHI", old, kind, 1))) > 0)
        data = data[:at] + struct.pack("<HHII", new, 4, 1, 30000) + data[at + 12 :]
    with pytest.raises(ImageError, match="30000x30000 is more than 50 megapixels"):
        prepare(Image(data=data))


def test_a_long_path_is_not_repeated_whole() -> None:
    with pytest.raises(ImageError) as raised:
        read_bytes(Image(path="/" + "x" * 100_000))
    assert len(str(raised.value)) < 400
