"""Pictures in a terminal: each protocol by its own rules, and none where stdout is not a terminal."""

from __future__ import annotations

import base64
import io
import re
import sys

import pytest
from PIL import Image
from rich.console import Console

from dream_cli.records import record
from dream_cli.viewing.terminal_images import half_blocks, iterm2, kitty, protocol, shower, sixel


@pytest.mark.parametrize(
    ("environment", "sixels", "spoken"),
    [
        ({"TERM": "xterm-kitty"}, False, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, False, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, False, "iterm2"),
        ({"TERM": "xterm-256color"}, True, "sixel"),
        ({"TERM": "xterm-256color"}, False, "blocks"),
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "iTerm.app"}, True, "blocks"),
        ({"TERM": "dumb"}, True, "blocks"),
    ],
)
def test_the_terminal_reports_its_protocol(environment: dict[str, str], sixels: bool, spoken: str) -> None:
    assert protocol(environment, lambda: sixels) == spoken


def test_kitty_and_iterm_get_the_same_png() -> None:
    picture = Image.effect_noise((300, 300), 90).convert("RGB")
    chunks = re.findall("\x1b_G(?:f=100,a=T,)?m=([01]);([^\x1b]*)\x1b\\\\", kitty(picture))
    assert [more for more, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    assert all(len(data) <= 4096 for _, data in chunks)
    sent = base64.b64decode("".join(data for _, data in chunks))
    assert Image.open(io.BytesIO(sent)).size == (240, 240)
    assert base64.b64decode(iterm2(picture).partition(":")[2].removesuffix("\x07")) == sent


def test_sixels_by_hand() -> None:
    picture = Image.new("RGB", (2, 7), "black")
    picture.putpixel((0, 0), (255, 255, 255))
    drawn = sixel(picture)
    colours = dict(re.findall(r"#(\d+);2;(\d+;\d+;\d+)", drawn))
    black = next(i for i, rgb in colours.items() if rgb == "0;0;0")
    white = next(i for i, rgb in colours.items() if rgb == "100;100;100")
    first, second = (
        drawn.removesuffix("\x1b\\").rpartition(";0;0;0" if drawn.rfind("100;100;100") < drawn.rfind(";0;0;0") else "100")[2].split("-")
    )
    # Rows 1 to 6 of the left column are black below a white pixel: bits 1..5 = 62, and bit 0 = 1; 63 is added to each.
    assert set(first.split("$")) == {f"#{black}{chr(63 + 62)}{chr(63 + 63)}", f"#{white}{chr(63 + 1)}{chr(63)}"}
    assert second == f"#{black}{chr(63 + 1) * 2}"


def test_half_blocks_by_hand() -> None:
    picture = Image.new("RGB", (1, 3), (1, 2, 3))
    picture.putpixel((0, 1), (4, 5, 6))
    assert half_blocks(picture) == ("\x1b[38;2;1;2;3m\x1b[48;2;4;5;6m▀\x1b[0m\n\x1b[38;2;1;2;3m\x1b[48;2;0;0;0m▀\x1b[0m")


def test_a_missing_picture_is_reported_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    out = Console(file=io.StringIO(), width=40)
    shower(None)(out, record.Image(path="/gone/[/bold]\x1b[31m.png"))
    assert isinstance(out.file, io.StringIO)
    lines = [line.rstrip() for line in out.file.getvalue().splitlines()]
    assert lines[0] == "           image /gone/[/bold]␛[31m.png"
    assert all(line.startswith(" " * 11) for line in lines)
