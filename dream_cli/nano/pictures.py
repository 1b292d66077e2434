"""The pictures of nano's world, and the character under each spot of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from dream_cli.errors import UsageError
from dream_cli.nano.lexicon import LIST, SIGNS

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

SIDE, PATCH = 128, 16
GRID = SIDE // PATCH
# A patch has SPOTS spots, in SPOT_ROWS rows of SPOT_COLUMNS; the vision tower learns the character at each.
SPOT_ROWS, SPOT_COLUMNS = 2, 4
SPOTS = SPOT_ROWS * SPOT_COLUMNS
# The labels of the spots: nothing (0), characters below 128, then one for each sign.
LABELS = 128 + len(SIGNS)
# Typefaces of matplotlib in which the world is never drawn: they measure reading beyond the world.
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold"),
    *("STIXGeneral", "STIXGeneralBol", "cmtt10"),
)
FACED_SHARE = 0.7
TINTS = {"red": (210, 30, 30), "blue": (30, 60, 210), "green": (20, 140, 50), "black": (20, 20, 20)}


@dataclass(frozen=True)
class Look:
    """The typesetting of words: size of the letters, left and upper margin, pitch of the lines, all in pixels.

    `advance` is the width of every letter in monospaced text, 0 for proportional text; `bold` thickens the strokes.
    `face` is a typeface by its file name in FACES; empty is the typeface of the world.
    """

    size: int = 14
    left: int = 2
    top: int = 0
    pitch: int = 16
    advance: float = 0
    bold: bool = False
    face: str = ""


LOOKS = (
    Look(),
    Look(left=6, top=1),
    Look(size=13, left=4),
    Look(size=15, left=1),
    Look(size=13, left=3, top=1, advance=7.5),
)


@dataclass(frozen=True)
class Picture:
    """The content of an image: words (`listed`: with an empty numbered list below), a sign, or nothing."""

    words: str = ""
    sign: str = ""
    listed: bool = False
    look: Look = LOOKS[0]

    @property
    def lines(self) -> tuple[str, ...]:
        """The words broken into lines."""
        return _lines(self.words, self.look) + (LIST if self.listed else ())


def any_look(rng: Random) -> Look:
    """Draw a typesetting from a wide range, to train the vision tower."""
    size = rng.randint(11, 17)
    face = rng.choice(FACES) if rng.random() < FACED_SHARE else ""
    advance = rng.choice([0, 0, rng.uniform(0.5, 0.62) * size])
    return Look(
        size=size,
        left=rng.randint(0, 10),
        top=rng.randint(0, 14),
        pitch=size + rng.randint(0, 5),
        advance=advance,
        bold=rng.random() < 0.3,
        face=face,
    )


def fits(picture: Picture) -> bool:
    """Whether all words are inside the picture."""
    lines, look = picture.lines, picture.look
    wide = max((_edges(line, look)[-1] for line in lines), default=0)
    return wide <= SIDE and look.top + look.pitch * (len(lines) - 1) + look.size <= SIDE


@lru_cache(maxsize=2048)
def draw(picture: Picture) -> Image:
    """Return the picture as an RGB image of SIDE by SIDE; the caller must not change it."""
    import PIL.Image
    from PIL.ImageDraw import Draw

    image = PIL.Image.new("RGB", (SIDE, SIDE), "white")
    pen = Draw(image)
    for row, line in enumerate(picture.lines):
        look, top = picture.look, picture.look.top + row * picture.look.pitch
        font, stroke = _font(look.size, look.face), 0.4 if look.bold else 0
        if not look.advance:
            pen.text((look.left, top), line, fill="black", font=font, stroke_width=stroke)
            continue
        for letter, left in zip(line, _edges(line, look), strict=False):
            # Each letter is centred in its cell, as on a typewriter.
            pen.text((left + (look.advance - font.getlength(letter)) / 2, top), letter, fill="black", font=font, stroke_width=stroke)
    if picture.sign:
        shape, colour, _ = SIGNS[picture.sign]
        _draw_shape(pen, shape, TINTS[colour], _box(picture.look))
    return image


def spot_labels(picture: Picture) -> list[int]:
    """Return the label of each spot, patch by patch and by rows within a patch: a character, a sign, or nothing (0)."""
    cells = _cells(picture)
    patches = [(top, left) for top in range(GRID) for left in range(GRID)]
    spots = [(row, column) for row in range(SPOT_ROWS) for column in range(SPOT_COLUMNS)]
    return [cells[top * SPOT_ROWS + row][left * SPOT_COLUMNS + column] for top, left in patches for row, column in spots]


def _cells(picture: Picture) -> list[list[int]]:
    """Return the labels by row and column of the whole picture."""
    wide, high = PATCH / SPOT_COLUMNS, PATCH / SPOT_ROWS
    rows, columns = GRID * SPOT_ROWS, GRID * SPOT_COLUMNS
    cells = [[0] * columns for _ in range(rows)]
    if picture.sign:
        left, top, right, bottom = _box(picture.look)
        label = 128 + list(SIGNS).index(picture.sign)
        for y in range(rows):
            for x in range(columns):
                inside = left <= (x + 0.5) * wide < right and top <= (y + 0.5) * high < bottom
                cells[y][x] = label if inside else 0
        return cells
    lines, look = picture.lines, picture.look
    edges = [_edges(line, look) for line in lines]
    for y in range(rows):
        line = int(((y + 0.5) * high - look.top) // look.pitch)
        if 0 <= line < len(lines):
            for letter, start, end in zip(lines[line], edges[line], edges[line][1:], strict=False):
                for x in range(max(0, round(start / wide)), min(columns, round(end / wide))):
                    cells[y][x] = ord(letter) % 128 if letter != " " else 0
    return cells


@lru_cache(maxsize=4096)
def _lines(words: str, look: Look) -> tuple[str, ...]:
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or _edges(longer, look)[-1] <= SIDE:
            lines[-1] = longer
        else:
            lines.append(word)
    return tuple(lines)


def _edges(line: str, look: Look) -> list[float]:
    """Return the left edge of each letter and the right edge of the last, in pixels."""
    if look.advance:
        return [look.left + look.advance * k for k in range(len(line) + 1)]
    font = _font(look.size, look.face)
    return [look.left + font.getlength(line[:k]) for k in range(len(line) + 1)]


@lru_cache(maxsize=128)
def _font(size: int, face: str) -> FreeTypeFont:
    from PIL.ImageFont import FreeTypeFont, load_default, truetype

    if face:
        import matplotlib

        return truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"), size)
    font = load_default(size=size)
    if not isinstance(font, FreeTypeFont):
        raise UsageError("nano draws its world with FreeType; this Pillow was built without it")
    return font


def _box(look: Look) -> tuple[int, int, int, int]:
    left, top = 4 * look.left, 12 + 8 * look.top
    return left, top, left + 6 * look.size, top + 6 * look.size


def _draw_shape(pen: ImageDraw, shape: str, tint: tuple[int, int, int], box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    across, down = (left + right) // 2, (top + bottom) // 2
    if shape == "circle":
        pen.ellipse(box, fill=tint)
    elif shape == "square":
        pen.rectangle(box, fill=tint)
    elif shape == "triangle":
        pen.polygon([(across, top), (right, bottom), (left, bottom)], fill=tint)
    elif shape == "diamond":
        pen.polygon([(across, top), (right, down), (across, bottom), (left, down)], fill=tint)
    else:
        pen.rectangle((left, down - 10, right, down + 10), fill=tint)
        pen.rectangle((across - 10, top, across + 10, bottom), fill=tint)
