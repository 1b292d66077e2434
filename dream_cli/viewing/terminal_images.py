"""Pictures in a terminal: by its graphics protocol, otherwise as half blocks; without a terminal none."""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from dream_cli.errors import ImageError
from dream_cli.records.images import open_rgb
from dream_cli.records.record import Image
from dream_cli.records.visible import visible_line

if TYPE_CHECKING:
    from PIL import Image as Pillow
    from rich.console import Console

    Show = Callable[[Console, Image], None]

# The width of the labels of a printed record.
LABEL = 10
# The size of the preview in cells; a cell is assumed to be twice as high as wide.
COLUMNS, ROWS = 40, 12
CELL = (10, 20)
_KITTY_CHUNK = 4096


def shower(wanted: bool | None) -> Show:
    """Return the function that draws a picture on this terminal; `wanted` None draws if stdout is a terminal, False never."""
    if wanted is False or not sys.stdout.isatty():
        return lambda out, image: None
    from rich.padding import Padding
    from rich.text import Text

    draw = {"kitty": kitty, "iterm2": iterm2, "sixel": sixel}.get(protocol(os.environ, _answers_sixel), half_blocks)

    def show(out: Console, image: Image) -> None:
        try:
            picture = open_rgb(image, 4 * COLUMNS * CELL[0] * ROWS * CELL[1])
        except ImageError as error:
            out.print(Padding(Text(visible_line(str(error)), style="dim"), (0, 0, 0, LABEL + 1)))
            return
        out.file.write(draw(picture) + "\n")
        out.file.flush()

    return show


def protocol(environment: os._Environ[str] | dict[str, str], answers_sixel: Callable[[], bool]) -> str:
    """Return `kitty`, `iterm2`, `sixel` or `blocks`, from the environment variables of the terminal."""
    program, term = environment.get("TERM_PROGRAM", ""), environment.get("TERM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return "blocks"
    if "KITTY_WINDOW_ID" in environment or "kitty" in term or program in ("ghostty", "WezTerm"):
        return "kitty"
    if program == "iTerm.app" or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return "sixel" if term not in ("", "dumb", "linux") and answers_sixel() else "blocks"


def _answers_sixel() -> bool:
    """Whether the terminal lists attribute 4, sixel, in its reply to a device attributes request (DA1)."""
    import re
    import select
    import termios
    import tty

    try:
        with open("/dev/tty", "rb+", buffering=0) as terminal:
            before = termios.tcgetattr(terminal)
            try:
                tty.setcbreak(terminal.fileno())
                terminal.write(b"\x1b[c")
                answer = b""
                while select.select([terminal], [], [], 0.2)[0] and not answer.endswith(b"c"):
                    answer += terminal.read(1)
            finally:
                termios.tcsetattr(terminal, termios.TCSANOW, before)
    except (OSError, termios.error):
        return False
    attributes = re.search(rb"\x1b\[\?([\d;]*)c", answer)
    return attributes is not None and b"4" in attributes[1].split(b";")


def _scaled(picture: Pillow.Image, width: int, height: int) -> Pillow.Image:
    small = picture.copy()
    small.thumbnail((width, height))
    return small


def _png(picture: Pillow.Image) -> str:
    buffer = io.BytesIO()
    _scaled(picture, COLUMNS * CELL[0], ROWS * CELL[1]).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def kitty(picture: Pillow.Image) -> str:
    """Return a picture in kitty's graphics protocol: PNG in base64, in chunks."""
    data = _png(picture)
    chunks = [data[i : i + _KITTY_CHUNK] for i in range(0, len(data), _KITTY_CHUNK)]
    return "".join(f"\x1b_G{'f=100,a=T,' if i == 0 else ''}m={int(i < len(chunks) - 1)};{chunk}\x1b\\" for i, chunk in enumerate(chunks))


def iterm2(picture: Pillow.Image) -> str:
    """Return a picture in iTerm2's inline images protocol."""
    return f"\x1b]1337;File=inline=1;preserveAspectRatio=1:{_png(picture)}\x07"


def sixel(picture: Pillow.Image) -> str:
    """Return a picture in sixels: bands of six rows, for each colour a mask of them."""
    small = _scaled(picture, COLUMNS * CELL[0], ROWS * CELL[1]).quantize(256)
    palette, width, height = small.getpalette() or [], *small.size
    colours = "".join(
        f"#{i};2;{palette[3 * i] * 100 // 255};{palette[3 * i + 1] * 100 // 255};{palette[3 * i + 2] * 100 // 255}"
        for i in range(len(palette) // 3)
    )
    pixels = small.tobytes()
    bands = ("$".join(_band(pixels, width, top, min(6, height - top))) for top in range(0, height, 6))
    return f'\x1bPq"1;1;{width};{height}{colours}{"-".join(bands)}\x1b\\'


def _band(pixels: bytes, width: int, top: int, rows: int) -> Iterator[str]:
    lines = [pixels[(top + y) * width : (top + y + 1) * width] for y in range(rows)]
    for colour in sorted({*b"".join(lines)}):
        # Whole lines at once: each byte becomes its bit, and a sum of bits never carries into the next byte.
        masks = (bytes(1 << y if value == colour else 0 for value in range(256)) for y in range(rows))
        bits = sum(int.from_bytes(line.translate(mask)) for line, mask in zip(lines, masks, strict=True))
        yield f"#{colour}" + bits.to_bytes(width).translate(_SIXELS).decode()


_SIXELS = bytes(63 + min(mask, 63) for mask in range(256))


def half_blocks(picture: Pillow.Image) -> str:
    """Return a picture as lines of upper half blocks: the upper pixel is the foreground colour, the lower one the background."""
    small = _scaled(picture, COLUMNS, 2 * ROWS)
    lines = [small.crop((0, y, small.width, y + 1)).tobytes() for y in range(small.height)]
    lines += [bytes(3 * small.width)] * (small.height % 2)
    drawn = []
    for upper, lower in zip(lines[::2], lines[1::2], strict=True):
        cells = []
        for x in range(0, 3 * small.width, 3):
            front, behind = (";".join(map(str, pixels[x : x + 3])) for pixels in (upper, lower))
            cells.append(f"\x1b[38;2;{front}m\x1b[48;2;{behind}m▀")
        drawn.append("".join(cells) + "\x1b[0m")
    return "\n".join(drawn)
