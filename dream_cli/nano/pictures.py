"""Draw the pictures of the world, and say which character lies under each patch."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from dream_cli.errors import UsageError
from dream_cli.nano.world import Picture, signs

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

SIDE, PATCH = 96, 8
GRID = SIDE // PATCH
_SIZE, _LINE, _MARGIN = 16, 18, 2
_BOX = (20, 20, 76, 76)
_TINTS = {"red": (210, 30, 30), "blue": (30, 60, 210), "green": (20, 140, 50), "black": (20, 20, 20)}
# The labels of the patches: characters below 128, then one label for each sign.
LABELS = 128 + len(signs())


@lru_cache(maxsize=4096)
def draw(picture: Picture) -> Image:
    """Return the picture as an RGB image of SIDE by SIDE; the caller must not change it."""
    import PIL.Image
    from PIL.ImageDraw import Draw

    image = PIL.Image.new("RGB", (SIDE, SIDE), "white")
    pen = Draw(image)
    for row, line in enumerate(_lines(picture.words)):
        pen.text((_MARGIN, _MARGIN + row * _LINE), line, fill="black", font=_font())
    if picture.sign:
        shape, colour, _ = signs()[picture.sign]
        _draw_shape(pen, shape, _TINTS[colour])
    return image


@lru_cache(maxsize=4096)
def patch_labels(picture: Picture) -> tuple[int, ...]:
    """Return what lies at the middle of each patch, row by row: a character, a sign, or nothing (0)."""
    labels = [0] * (GRID * GRID)
    for row, line in enumerate(_lines(picture.words)):
        top = _MARGIN + row * _LINE
        edges = [_MARGIN + _font().getlength(line[:k]) for k in range(len(line) + 1)]
        for cell in range(GRID * GRID):
            x, y = cell % GRID * PATCH + PATCH / 2, cell // GRID * PATCH + PATCH / 2
            under = [c for c, left, right in zip(line, edges, edges[1:], strict=False) if left <= x < right]
            if top <= y < top + _LINE and under:
                labels[cell] = ord(under[0]) % 128
    if picture.sign:
        known = 128 + list(signs()).index(picture.sign)
        labels = [known if 3 <= cell % GRID <= 8 and 3 <= cell // GRID <= 8 else 0 for cell in range(GRID * GRID)]
    return tuple(labels)


def _lines(words: str) -> list[str]:
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font().getlength(longer) < SIDE - 2 * _MARGIN:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@lru_cache(maxsize=1)
def _font() -> FreeTypeFont:
    from PIL.ImageFont import FreeTypeFont, load_default

    font = load_default(size=_SIZE)
    if not isinstance(font, FreeTypeFont):
        raise UsageError("nano draws its world with FreeType; this Pillow was built without it")
    return font


def _draw_shape(pen: ImageDraw, shape: str, tint: tuple[int, int, int]) -> None:
    left, top, right, bottom = _BOX
    middle = (left + right) // 2
    if shape == "circle":
        pen.ellipse(_BOX, fill=tint)
    elif shape == "square":
        pen.rectangle(_BOX, fill=tint)
    elif shape == "triangle":
        pen.polygon([(middle, top), (right, bottom), (left, bottom)], fill=tint)
    elif shape == "diamond":
        pen.polygon([(middle, top), (right, middle), (middle, bottom), (left, middle)], fill=tint)
    else:
        pen.rectangle((left, middle - 8, right, middle + 8), fill=tint)
        pen.rectangle((middle - 8, top, middle + 8, bottom), fill=tint)
