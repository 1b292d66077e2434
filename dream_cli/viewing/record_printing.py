"""One record as text: the prompt, its risks, its responses from the best to the worst, and the risks that each recognises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dream_cli.records.image_bytes import is_data_uri
from dream_cli.records.record import Image, Observation, Record, Response
from dream_cli.records.strict_json import dumps
from dream_cli.records.visible import amount, visible, visible_line
from dream_cli.viewing.terminal_images import LABEL

if TYPE_CHECKING:
    from rich.console import Console

    from dream_cli.viewing.terminal_images import Show
    from dream_cli.viewing.tracing import LinkedRow, TracedCall

# From this probability, a response counts as recognising an observation.
RECOGNISED = 0.5


class Line(NamedTuple):
    """One line of a printed record: a label, text, and the picture to draw."""

    label: str
    text: str
    image: Image | None = None


def print_record(out: Console, n: int, record: Record, show: Show) -> None:
    """Print a record; `show` draws a picture if the terminal supports it."""
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    name = record.id or record.extra.get("id") or ""
    out.print(Rule(Text(visible_line(f"{n}  {name}")), align="left", style="dim"))
    shown = list(lines(record))
    width = max(LABEL, min(max((len(line.label) for line in shown), default=0), 2 * LABEL))
    for line in shown:
        row = Table.grid(padding=(0, 1))
        row.add_column(width=width, style="dim", overflow="fold")
        row.add_column(overflow="fold")
        row.add_row(Text(line.label), Text(line.text))
        out.print(row)
        if line.image is not None:
            show(out, line.image)


def print_trace(rows: Sequence[LinkedRow], calls: Sequence[TracedCall], store: str, images: bool | None) -> None:
    """Print linked rows, file by file, and the calls that made them."""
    from rich.padding import Padding
    from rich.rule import Rule
    from rich.text import Text

    from dream_cli.viewing.printing import NARROWEST_RECORD, console
    from dream_cli.viewing.terminal_images import shower

    out, show = console(NARROWEST_RECORD), shower(images)
    for row in rows:
        out.print(Text(visible_line(f"{row.file}, same {row.link}"), style="bold"))
        print_record(out, row.n, row.record, show)
        out.print()
    out.print(Rule(Text(visible_line(f"{amount(len(calls), 'call')} in {store}")), align="left", style="dim"))
    for call in calls:
        made_by = " ".join(filter(None, (call.stage, call.verb)))
        out.print(Text(visible_line(f"{call.made_at} {made_by}, {call.model}, {call.key[:12]}")))
        out.print(Padding(Text(visible_line(call.reply)[:200], style="dim"), (0, 0, 0, 4)))


def lines(record: Record) -> Iterator[Line]:
    """Yield the whole content of a record, with control characters made visible."""
    if record.error is not None:
        yield Line("error", visible(f"{record.error.stage}: {record.error.kind}: {record.error.message}"))
    yield from (Line("image", image_name(image), image) for image in record.images)
    # A row that could not be read as a record has no turns: all its fields are in `extra`.
    for turn in record.turns() if record.prompt is not None or record.messages else ():
        yield from (Line(message.role, visible(message.content)) for message in turn.history if message.role == "system")
        yield Line("prompt", visible(turn.transcript))
        if turn.observations is not None:
            yield from (Line(f"risk {i}", observed(o)) for i, o in enumerate(turn.observations, 1))
            if not turn.observations:
                yield Line("risks", "none found")
        for response in ranked(turn.responses):
            yield Line("response", " · ".join(verdict(response)) or "not judged")
            yield Line("", visible(response.text))
    shown = {"error"} | ({"response"} if record.responses else set())
    for name, value in record.extra.items():
        if name not in shown:
            yield Line(visible_line(name), visible(value if isinstance(value, str) else dumps(value).decode()))


def image_name(image: Image) -> str:
    """Return the name of an image: its path, or `in the record` for an embedded one."""
    if image.path is None or is_data_uri(image):
        return "in the record"
    return visible_line(image.path)


def observed(observation: Observation) -> str:
    """Return an observation as one line."""
    confidence = "" if observation.confidence is None else f" ({observation.confidence:.2f})"
    text = f"{observation.risk_category}, {observation.source}: {observation.malicious_content}"
    return visible_line(text) + confidence


def ranked(responses: Sequence[Response]) -> list[Response]:
    """Return responses from the best to the worst, those without a score last; ties keep their order."""
    return sorted(responses, key=lambda r: -r.judgement.score if r.judgement and r.judgement.score is not None else 2.0)


def verdict(response: Response) -> Iterator[str]:
    """Yield the judgement of a response and its model as short phrases."""
    if (judged := response.judgement) is not None:
        if judged.unscored is not None:
            yield visible_line(f"unscored: {judged.unscored}")
        if judged.score is not None:
            yield f"score {judged.score:.2f}"
        if judged.global_score is not None:
            yield f"global {judged.global_score:.1f}"
        if judged.helpfulness is not None:
            yield f"helpfulness {judged.helpfulness:.2f}"
        if judged.harm is not None:
            yield f"harm {judged.harm:.2f}"
        if judged.recognised is not None:
            recognised = [str(i) for i, p in enumerate(judged.recognised, 1) if p is not None and p >= RECOGNISED]
            yield f"recognises {', '.join(recognised) or 'none'} of {len(judged.recognised)}"
    if response.model is not None:
        yield f"by {visible_line(response.model)}"
    if response.finish_reason == "length":
        yield "cut off"
