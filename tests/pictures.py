"""Small pictures for tests."""

from __future__ import annotations

import io

from dream_cli.records.record import Image


def picture(color: str, size: tuple[int, int] = (48, 40)) -> Image:
    """Return an image of one colour, as PNG bytes."""
    from PIL import Image as Pil

    stream = io.BytesIO()
    Pil.new("RGB", size, color).save(stream, "PNG")
    return Image(data=stream.getvalue())
