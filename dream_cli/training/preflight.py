"""Checks before the weights are loaded: all problems of rows, model and options are reported at once, with their positions."""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any

from dream_cli.engines.local_model import PRINTS_PARTS, prints_parts, special_tokens_of
from dream_cli.engines.registry import world_of
from dream_cli.errors import DreamError, InvalidRecord, RowError, UsageError
from dream_cli.records.images import open_rgb
from dream_cli.records.pair import Pair
from dream_cli.records.record import Record
from dream_cli.records.special_tokens import split, split_around
from dream_cli.training.models import (
    Start,
    has_fused_experts,
    lacks_router_loss,
    model_config,
    other_plans,
    target_modules,
    why_not_trained,
)
from dream_cli.training.rows import Row, plain_messages, trl_messages
from dream_cli.training.settings import Job

Take = Callable[[Record], tuple[list[Row], "Counter[str]"]]
_SHOWN = 20
# Rows that are checked before more processes are started, which takes seconds; and rows per task of such a process.
_ALONE, _BATCH = 64, 8


@dataclass
class Report:
    """The result of the checks: counts (`pictured`: rows with images), the longest row in tokens, the first problems, and notes."""

    rows: int = 0
    pictured: int = 0
    unreadable: int = 0
    too_long: int = 0
    longest: int = 0
    receipt: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    more_problems: int = 0
    notes: list[str] = field(default_factory=list)

    def add_problem(self, message: str) -> None:
        """Record a problem; after the first few, problems are only counted."""
        if len(self.problems) < _SHOWN:
            self.problems.append(message)
        else:
            self.more_problems += 1

    def raise_problems(self) -> None:
        """Raise UsageError with every problem, if there is one."""
        if self.problems:
            more = [f"... and {self.more_problems} more"] if self.more_problems else []
            count = len(self.problems) + self.more_problems
            raise UsageError("\n  ".join([f"{count} problem{'s' * (count > 1)} before training:", *self.problems, *more]))


class Preflight:
    """Checks rows as the trainer will read them: images decode, the chat template renders, nothing is truncated."""

    def __init__(self, start: Start, processor: Any, limit: int | None, workers: int = 1) -> None:
        self._start, self._processor, self._limit, self._name, self._workers = start, processor, limit, start.name, workers
        self._special = special_tokens_of(processor)

    def plain(self, row: Row) -> Row:
        """Return the row with special tokens in its texts split, as in the texts that the engine gives to the model."""
        prompt = []
        for message in row.prompt:
            text, offsets = split_around(message.content, [place.at for place in message.places], self._special)
            places = tuple(replace(place, at=at) for place, at in zip(message.places, offsets, strict=True))
            prompt.append(replace(message, content=text, places=places))
        return replace(row, prompt=tuple(prompt), answers={name: split(text, self._special) for name, text in row.answers.items()})

    def tokens(self, row: Row) -> int:
        """Return the length in tokens of a row with its longest response and its images; raise RowError where it cannot be trained on."""
        pictures = [open_rgb(image) for image in row.images]
        try:
            return self._count(row, pictures)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InvalidRecord(f"{self._name} cannot read it: {reason}") from error

    def lengths(self, rows: Iterable[Row | str]) -> Iterator[tuple[Row | str, int | str]]:
        """Yield each row with its length in tokens, or with the reason why it cannot be trained on; problems among the rows pass through.

        The order is kept. The first rows are read in this process; for more rows, `workers` processes read images.
        """
        rows = iter(rows)
        for row in islice(rows, _ALONE if self._workers > 1 else None):
            yield row, self.length(row)
        if not (next_row := list(islice(rows, 1))):
            return
        rest, waiting = chain(next_row, rows), deque[tuple[list[Row | str], Future[list[int | str]]]]()
        pool = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        try:
            while batch := list(islice(rest, _BATCH)):
                waiting.append((batch, pool.submit(_lengths, self._start, self._limit, batch)))
                if len(waiting) > 4 * self._workers:
                    yield from _finished(*waiting.popleft())
            for each in waiting:
                yield from _finished(*each)
        except BrokenExecutor as error:
            raise DreamError(
                "a process that checks rows ended: memory may be short, or a script of yours has no `if __name__ == '__main__':`; "
                "--workers 1 checks in one process"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    def length(self, row: Row | str) -> int | str:
        """Return the length of a row in tokens, or the reason why it cannot be trained on; a problem unchanged."""
        if isinstance(row, str):
            return row
        try:
            return self.tokens(row)
        except RowError as error:
            return f"{row.place}: {error}"

    def is_too_long(self, tokens: int) -> bool:
        """Whether a row has more tokens than allowed."""
        return self._limit is not None and tokens > self._limit

    def _count(self, row: Row, pictures: list[Any]) -> int:
        from trl.data_utils import apply_chat_template, prepare_multimodal_messages

        prompt = trl_messages(plain_messages(row.prompt))
        example = {"prompt": prepare_multimodal_messages(prompt, images=pictures)}
        example |= {name: prepare_multimodal_messages([{"role": "assistant", "content": text}]) for name, text in row.answers.items()}
        rendered = apply_chat_template(example, self._processor)
        shown = self._processor(
            images=[pictures] if pictures else None, text=[rendered["prompt"]], add_special_tokens=False, return_tensors="pt"
        )
        answers = [self._processor.tokenizer(rendered[name], add_special_tokens=False)["input_ids"] for name in row.answers]
        return int(shown["input_ids"].shape[1]) + max(map(len, answers))


def check_model(start: Start, processor: Any, job: Job, report: Report) -> None:
    """Record the problems of the model and of the adapter configuration."""
    if reason := why_not_trained(start):
        report.add_problem(f"{start.name} is of the family {start.config.get('model_type')}, which cannot be trained here: {reason}")
        return
    template = getattr(processor, "chat_template", None) or getattr(getattr(processor, "tokenizer", None), "chat_template", None)
    if not template:
        report.add_problem(f"{start.name} has no chat template, so no conversation can be shown to it; use its instruction-tuned version")
    elif prints_parts(processor):
        report.add_problem(f"{start.name} {PRINTS_PARTS}")
    if job.lora is None and job.hardware.dtype == "bfloat16" and job.schedule.optimiser != "adamw_8bit":
        report.add_problem(
            f"--dtype bfloat16 rounds most updates of --optim {job.schedule.optimiser} away (its steps are 1/256 of a weight); use "
            "--optim adamw_8bit, which rounds stochastically, --lora, or --dtype auto, which computes in bfloat16 on a GPU and keeps "
            "32-bit weights"
        )
    if lacks_router_loss(model_config(start)):
        report.notes.append(f"the load-balancing loss of the experts of {start.name} is left out: TRL cannot compute it for this family")
    if start.base_has_changed:
        report.add_problem(
            f"the base of {start.name} is no longer the model that the adapter was trained on ({start.checkpoint.folder}); restore it, or "
            "train the adapter anew"
        )
    if job.lora is not None and start.checkpoint.adapter is not None:
        for plan in other_plans(start, job.lora):
            report.add_problem(
                f"{start.name} is an adapter, and goes on as it is, not with {plan}; --merge in its own run lets a new one begin"
            )
    elif job.lora is not None:
        try:
            target_modules(start, job)
        except UsageError as error:
            report.add_problem(str(error))
        if has_fused_experts(start):
            report.notes.append(f"the experts of {start.name} are not adapted: they are one tensor, not linear layers")


def checked(records: Iterable[Record], take: Take, preflight: Preflight, job: Job, report: Report) -> Iterator[Row]:
    """Yield the rows to train on; the report counts dropped rows and records problems."""
    judged: set[tuple[str, str]] = set()
    taken = _taken(records, take, job, report=report, judged=judged)
    for row, length in preflight.lengths(row if isinstance(row, str) else preflight.plain(row) for row in taken):
        if isinstance(row, str) or isinstance(length, str):
            report.add_problem(str(length))
        elif not preflight.is_too_long(length):
            report.longest = max(report.longest, length)
            report.rows += 1
            report.pictured += bool(row.images)
            yield replace(row, length=length)
        elif job.on_too_long == "stop":
            report.add_problem(f"{row.place}: {length} tokens with its images, more than --max-length; raise it, or --on-too-long drop")
        else:
            report.too_long += 1
    for judge, policy in sorted(judged) if not job.allow_small_world_judge else ():
        if (world := world_of(judge)) and world != world_of(policy):
            report.add_problem(
                f"{judge} judged responses of {policy}, but {judge} knows only its own small world; judge them with a model of your choice "
                "(dream judge --model), or pass --allow-small-world-judge"
            )


def _taken(records: Iterable[Record], take: Take, job: Job, report: Report, judged: set[tuple[str, str]]) -> Iterator[Row | str]:
    """Yield the rows of records, or the reason why a record has none, in order; `judged` collects (judge, policy) pairs."""
    for record in records:
        report.unreadable += record.error is not None and not record.came_with_error
        judged |= set(_judged(record, job.model))
        try:
            rows, receipt = take(record)
        except RowError as error:
            yield f"{record.place}: {error}"
            continue
        report.receipt += receipt
        yield from rows


@functools.cache
def _preflight_of(start: Start, limit: int | None) -> Preflight:
    """Return the preflight of a worker process, which loads the processor once."""
    import torch

    from dream_cli.training.models import processor_of, quiet

    quiet()
    torch.set_num_threads(1)
    return Preflight(start, processor_of(start), limit)


def _lengths(start: Start, limit: int | None, rows: list[Row | str]) -> list[int | str]:
    preflight = _preflight_of(start, limit)
    return [preflight.length(row) for row in rows]


def _finished(rows: list[Row | str], lengths: Future[list[int | str]]) -> Iterator[tuple[Row | str, int | str]]:
    yield from zip(rows, lengths.result(), strict=True)


def _judged(record: Record, model: str) -> Iterator[tuple[str, str]]:
    """Yield (judge, policy) of each judgement; a response without a model name counts as one of `model`."""
    if record.error is not None:
        return
    judged = [(r.judgement.model, r.model) for t in record.turns() for r in t.responses if r.judgement is not None]
    if pair := Pair.if_readable(record):
        judged.append((pair.judge, pair.policy))
    for judge, policy in judged:
        if judge:
            yield str(judge), str(policy or model)
