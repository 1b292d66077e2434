"""A record in the form of a gallery, with the values of its filters."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dream_cli.errors import ImageError
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.images import open_rgb
from dream_cli.records.pair import Pair
from dream_cli.records.record import Image, Json, Record, Response
from dream_cli.records.strict_json import dumps
from dream_cli.records.visible import visible, visible_line
from dream_cli.viewing.record_printing import image_name, ranked, verdict

SIDE = 360
_OUTCOMES = {
    ("safe", True): "safe",
    ("safe", False): "unsafe",
    ("effective", True): "effective",
    ("effective", False): "not effective",
    ("attack", True): "does harm",
    ("attack", False): "no harm",
    ("refusal", "comply"): "complies",
    ("refusal", "partial"): "partly refuses",
    ("refusal", "refuse"): "refuses",
    ("preference", 1.0): "wins",
    ("preference", 0.5): "ties",
    ("preference", 0.0): "loses",
}
_SHOWN_ELSEWHERE = ("error", "response", "benchmark", "images", "id", "prompt")
_GOOD = frozenset({"safe", "effective", "no harm", "wins", "right choice"})
_BAD = frozenset({"unsafe", "not effective", "does harm", "loses", "wrong choice", "error"})


@dataclass(frozen=True)
class ShownImage:
    """A thumbnail as a `data:` URI, or the error."""

    name: str
    uri: str
    width: int = 0
    height: int = 0
    problem: str = ""


@dataclass(frozen=True)
class ShownResponse:
    """A response in a gallery: its text, the phrases of its judgement, and its outcomes."""

    text: str
    phrases: tuple[str, ...]
    outcomes: tuple[str, ...]


@dataclass(frozen=True)
class ShownRecord:
    """A record in a gallery; `categories`, `sources`, `outcomes` and `scores` are for the filters."""

    number: int
    id: str
    prompt: str
    images: tuple[ShownImage, ...]
    risks: tuple[tuple[str, str, str], ...]
    looked: bool
    answers: tuple[ShownResponse, ...]
    fields: tuple[tuple[str, str], ...]
    error: str
    categories: tuple[str, ...]
    sources: tuple[str, ...]
    outcomes: tuple[str, ...]
    benchmark: str
    scores: tuple[float, ...]


def shown_record(number: int, record: Record, taxonomy: Taxonomy) -> ShownRecord:
    """Return a record in the form of a gallery; reads its pictures."""
    turns = record.turns() if record.error is None else ()
    raw = record.extra.get("benchmark")
    benchmark = dict(raw) if isinstance(raw, Mapping) else {}
    observations = [taxonomy.canonical(o) for turn in turns for o in turn.observations or ()]
    answers = tuple(_answer(response, benchmark) for turn in turns for response in ranked(turn.responses))
    topic = str(benchmark.get("topic") or "")
    return ShownRecord(
        number=number,
        id=visible_line(str(record.id or record.extra.get("id") or number)),
        prompt=visible("\n\n".join(turn.transcript for turn in turns[-1:]) or str(record.extra.get("prompt", ""))),
        images=tuple(thumbnail(image) for image in record.images),
        risks=tuple((visible_line(o.risk_category), visible_line(o.source), visible_line(o.malicious_content)) for o in observations),
        looked=any(turn.observations is not None for turn in turns),
        answers=answers,
        fields=tuple(
            (visible_line(name), visible(value if isinstance(value, str) else dumps(value).decode()))
            for name, value in record.extra.items()
            if name not in _SHOWN_ELSEWHERE
        ),
        error=visible_line(f"{record.error.stage}: {record.error.kind}: {record.error.message}") if record.error else "",
        categories=_unique([*(o.risk_category for o in observations), topic]),
        sources=_unique(o.source for o in observations),
        outcomes=_outcomes(record, answers),
        benchmark=visible_line("/".join(str(part) for part in (benchmark.get("name"), benchmark.get("subset")) if part)),
        scores=tuple(r.judgement.score for turn in turns for r in turn.responses if r.judgement and r.judgement.score is not None),
    )


def _unique(names: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(visible_line(name) for name in names if name))


def _outcomes(record: Record, answers: tuple[ShownResponse, ...]) -> tuple[str, ...]:
    if record.error is not None:
        return ("error",)
    outcomes = _unique(outcome for answer in answers for outcome in answer.outcomes)
    pair = ("pair",) if Pair.if_readable(record) else ()
    return (*outcomes, *pair) or ("no response",)


def _answer(response: Response, benchmark: Json) -> ShownResponse:
    outcomes = tuple(_verdicts(response, benchmark))
    if not outcomes:
        judged = response.judgement
        outcomes = ("not judged" if judged is None else "unscored" if judged.unscored is not None or judged.score is None else "scored",)
    return ShownResponse(visible(response.text), tuple(verdict(response)), outcomes)


def _verdicts(response: Response, benchmark: Json) -> Iterator[str]:
    """Yield the outcomes of the verdicts of an evaluation, of the strict rule if there are any; a verdict without a value is unscored."""
    for question, given in (response.verdicts_under("strict") or response.verdicts_under("official")).items():
        if given.value is None:
            yield "unscored"
        elif question == "choice":
            yield "right choice" if given.value == benchmark.get("correct") else "wrong choice"
        else:
            yield _OUTCOMES.get((question, given.value), visible_line(f"{question}: {given.value}"))


def tone(outcome: str) -> str:
    """Return the colour class of an outcome: `good`, `bad` or nothing."""
    return "good" if outcome in _GOOD else "bad" if outcome in _BAD else ""


def thumbnail(image: Image) -> ShownImage:
    """Return a thumbnail of at most `SIDE` pixels per side."""
    name = image_name(image)
    try:
        picture = open_rgb(image, 4 * SIDE * SIDE)
    except ImageError as error:
        return ShownImage(name, "", problem=visible_line(str(error)))
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=78, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return ShownImage(name, uri, *picture.size)
