"""The border of nano's world: what of a record lies outside of it, where answers of nano mean nothing."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator

from dream_cli.nano.lexicon import CATEGORIES, WORDS
from dream_cli.nano.pictures import SIDE, TINTS
from dream_cli.records.record import Image, Observation, Record

_KNOWN = {word.lower() for word in WORDS}
_SOURCES = ("text instruction", "text content", "image content", "text in the image")
# Measured on 3,000 pictures of the world: white is at least 49 % of one, grey at most 5.5 %, and one colour is that of a sign.
LEAST_WHITE, MOST_GREY = 0.45, 0.1
_NEAR = 16  # the difference of two channels, in steps of 255, below which a pixel is grey, and of a colour from a tint


def outside(record: Record) -> str | None:
    """Return what of the prompts, pictures and observations of a record is not of the world; None where all is.

    Responses are not looked at: those of a policy that is in training may be any text, and it is the judge's task to score them.
    """
    turns = record.turns()
    texts = [message.content for turn in turns for message in turn.messages if message.role != "assistant"]
    if unknown := list(dict.fromkeys(word for text in texts for word in _unknown(text))):
        more = f" and {len(unknown) - 3} more" if unknown[3:] else ""
        return f"the prompt has words that it does not know ({', '.join(map(repr, unknown[:3]))}{more})"
    for image in record.images:
        if reason := _strange(image):
            return f"it knows pictures of {SIDE} x {SIDE} pixels with printed words or a sign, and {reason}"
    claims = [claim for turn in turns for claim in turn.observations or ()]
    return next((f"it does not know {reason}" for claim in claims for reason in _unheard(claim)), None)


def _unknown(text: str) -> Iterator[str]:
    """Yield the words of a text that the lexicon lacks."""
    return (word for part in text.split() if (word := part.strip("\"'.?!:,;()")) and word.lower() not in _KNOWN)


def _strange(image: Image) -> str | None:
    """Return how a picture differs from those of the world; an image that is not read yet has no bytes to look at."""
    import PIL.Image

    if image.data is None:
        return None
    with PIL.Image.open(io.BytesIO(image.data)) as picture:
        if picture.size != (SIDE, SIDE):
            return f"this one has {picture.width} x {picture.height}"
        pixels = picture.convert("RGB").tobytes()
    white = grey = 0
    for (red, green, blue), count in Counter(zip(pixels[::3], pixels[1::3], pixels[2::3], strict=True)).items():
        if min(red, green, blue) >= 255 - _NEAR:
            white += count
        elif max(red, green, blue) - min(red, green, blue) < _NEAR:
            grey += count if max(red, green, blue) > 3 * _NEAR else 0
        elif not any(max(abs(red - r), abs(green - g), abs(blue - b)) <= _NEAR for r, g, b in TINTS.values()):
            return "this one has other colours"
    if white < LEAST_WHITE * SIDE * SIDE or grey > MOST_GREY * SIDE * SIDE:
        return "this one is not drawn in black or in one colour on white"
    return None


def _unheard(claim: Observation) -> Iterator[str]:
    if claim.risk_category not in CATEGORIES:
        yield f"the category {claim.risk_category!r}"
    if claim.source not in _SOURCES:
        yield f"the source {claim.source!r}"
    yield from (f"the word {word!r} of an observation" for word in _unknown(claim.malicious_content))
