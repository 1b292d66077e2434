"""The Python API of the stages; a record is a dict, as in a line of JSONL.

    import dream_cli as dream

    with dream.open("Qwen/Qwen2.5-VL-7B-Instruct") as model:
        record = model.disentangle({"prompt": "Can I go out in this?", "images": ["photo.jpg"]})
        record = model.judge(model.sample(record, n=4))
    dream.write("pairs.jsonl", dream.pairs([record]))

Image paths are relative to the current folder and may point anywhere; returned records have absolute paths.
"""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, TypeVar, Unpack, get_args

from dream_cli.engines.protocol import Engine, EngineSpec, Sampling
from dream_cli.engines.registry import open_engine
from dream_cli.errors import RowError
from dream_cli.formats.sources import read_records
from dream_cli.method.confining import Step
from dream_cli.method.disentangling import Disentangler
from dream_cli.method.judging import Judge
from dream_cli.method.model_prompts import with_model_prompts
from dream_cli.method.pair_sets import PairSet
from dream_cli.method.pairing import PairRules, pairs_of
from dream_cli.method.sampling import Sampler
from dream_cli.method.stages import Run, mapped
from dream_cli.method.tally import Tally
from dream_cli.prompts.rendering import Prompts
from dream_cli.records.access import Base
from dream_cli.records.choices import AnswerReading, Combination, Mode
from dream_cli.records.image_rows import to_row
from dream_cli.records.outputs import open_writer
from dream_cli.records.record import Json, Record
from dream_cli.records.streams import RowReader

Stage = Literal["disentangle", "sample", "judge"]
T = TypeVar("T")


class StageError(RowError):
    """A stage failed on a record; `kind` is the kind of the `error` that a command would write."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class AsyncModel:
    """An open model and its prompts, for asynchronous code."""

    engine: Engine
    prompts: Prompts

    async def close(self) -> None:
        """Release the model or the connections."""
        await self.engine.close()

    async def disentangle(self, record: Mapping[str, Any], **options: Any) -> Json:
        """Return the record with its `observations`; options and errors are those of `Model.disentangle`."""
        return await self._one("disentangle", record, options)

    async def sample(self, record: Mapping[str, Any], **options: Any) -> Json:
        """Return the record with new `responses`; options and errors are those of `Model.sample`."""
        return await self._one("sample", record, options)

    async def judge(self, record: Mapping[str, Any], **options: Any) -> Json:
        """Return the record with a `judgement` on each response; options and errors are those of `Model.judge`."""
        return await self._one("judge", record, options)

    async def map(self, stage: Stage, records: Iterable[Mapping[str, Any]], **options: Any) -> AsyncGenerator[Json, None]:
        """Yield the stage's records in input order, several in flight; a failed one has an `error`, one that had an error is passed on."""
        run = Run(stage, quiet=True)
        rows = mapped(run, _records(records), step=self._step(stage, options), engine=self.engine, tally=Tally())
        async with aclosing(rows) as done:
            async for record in done:
                yield to_row(record, None)

    async def _one(self, stage: Stage, record: Mapping[str, Any], options: Mapping[str, Any]) -> Json:
        async with aclosing(self.map(stage, [record], **options)) as done:
            row = await anext(done)
        if row.get("error") and not record.get("error"):
            raise StageError(row["error"]["kind"], row["error"]["message"])
        return row

    def _step(self, stage: Stage, options: Mapping[str, Any]) -> Step:
        if stage == "disentangle":
            return with_model_prompts(Disentangler(self.engine, self.prompts, **options), _warn)
        if stage == "judge":
            return with_model_prompts(Judge(self.engine, self.prompts, **_renamed(options, score="combination")), _warn)
        if stage == "sample":
            sampling = {"temperature": 1.0, "max_tokens": 256} | {k: v for k, v in options.items() if k in _SAMPLING}
            rest = {k: v for k, v in options.items() if k not in _SAMPLING}
            return with_model_prompts(Sampler(self.engine, self.prompts, Sampling(**sampling), **rest), _warn)
        raise ValueError(f"no stage {stage!r}; there are {', '.join(get_args(Stage))}")


_SAMPLING = ("temperature", "top_p", "max_tokens", "seed")


def _renamed(options: Mapping[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in options.items()}


def _warn(message: str) -> None:
    warnings.warn(message.removeprefix("warning: "), stacklevel=2)


class Model:
    """An open model for synchronous code and notebooks; close it, or use it in `with`."""

    def __init__(self, opening: Coroutine[Any, Any, AsyncModel]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dream", daemon=True)
        self._thread.start()
        try:
            self._model = self._wait(opening)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the model or the connections; a second call does nothing."""
        if not self._loop.is_closed():
            self._wait(self._model.close())
            self._end()

    def disentangle(
        self,
        record: Mapping[str, Any],
        *,
        mode: Mode = "split",
        verify: bool = True,
        redo: bool = False,
        max_tokens: int = 512,
        seed: int = 0,
    ) -> Json:
        """Return the record with its `observations`, as `dream disentangle` does; raise StageError if the stage fails."""
        options = {"mode": mode, "verify": verify, "redo": redo, "max_tokens": max_tokens, "seed": seed}
        return self._wait(self._model.disentangle(record, **options))

    def sample(
        self,
        record: Mapping[str, Any],
        *,
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 256,
        system: str | None = None,
        observe: bool = False,
        append: bool = False,
        seed: int = 0,
    ) -> Json:
        """Return the record with `n` new `responses`, as `dream sample` does; raise StageError if the stage fails."""
        sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "seed": seed}
        return self._wait(self._model.sample(record, n=n, system=system, observe=observe, append=append, **sampling))

    def judge(self, record: Mapping[str, Any], *, score: Combination = "sum", read: AnswerReading = "expected") -> Json:
        """Return the record with a `judgement` on each response, as `dream judge` does; raise StageError if the stage fails."""
        return self._wait(self._model.judge(record, score=score, read=read))

    def map(self, stage: Stage, records: Iterable[Mapping[str, Any]], **options: Any) -> Iterator[Json]:
        """Yield the stage's records in input order, several in flight; a failed one has an `error`, one that had an error is passed on."""
        done = self._model.map(stage, records, **options)
        try:
            while (row := self._wait(_next(done))) is not None:
                yield row
        finally:
            self._wait(done.aclose())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(rows: AsyncGenerator[Json, None]) -> Json | None:
    return await anext(rows, None)


class Opening(TypedDict, total=False):
    """Options for opening a model: the templates and the taxonomy of its prompts, and fields of `EngineSpec`.

    `store` is the file of finished calls; without it none are kept. The commands' default is `dream_cli.engines.store.default_store()`.
    """

    prompts: Path
    taxonomy: Path
    base_url: str
    engine: str
    store: str
    concurrency: int
    batch_size: int
    device: str
    timeout: float
    thinking: int


def open(model: str | None = None, **options: Unpack[Opening]) -> Model:
    """Open a model: a name or folder on this machine, or a model of the server at `base_url`; without either, the embedded model.

    Raises UsageError if the model does not exist.
    """
    return Model(_opened(model, options))


@asynccontextmanager
async def open_async(model: str | None = None, **options: Unpack[Opening]) -> AsyncGenerator[AsyncModel, None]:
    """Open a model for `async with`, with the arguments and errors of `open`, and close it at the end."""
    opened = await _opened(model, options)
    try:
        yield opened
    finally:
        await opened.close()


async def _opened(model: str | None, options: Opening) -> AsyncModel:
    templates = Prompts.load(options.get("prompts"), options.get("taxonomy"))
    fields: Any = {name: value for name, value in options.items() if name not in ("prompts", "taxonomy")}
    return AsyncModel(await open_engine(EngineSpec(model=model, **fields)), templates)


def read(path: str | Path) -> Iterator[Json]:
    """Yield the records of a file (JSONL, gzipped JSONL, a JSON array, Parquet); an unreadable one has an `error`."""
    return (to_row(record, None) for record in read_records(str(path)))


def write(path: str | Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records to a file, in the format of its suffix, and return their number; the write is atomic."""
    written = 0
    with open_writer(str(path)) as writer:
        for record in _records(records):
            writer.write(record)
            written += 1
    return written


def pairs(
    records: Iterable[Mapping[str, Any]], *, harmless_share: float | None = 0.5, even_directions: bool = False, **rules: Any
) -> Iterator[Json]:
    """Yield the preference pairs of judged records, as `dream pair` does.

    `harmless_share` is the share of pairs from harmless prompts, set after all records are read (None: keep all pairs); with
    `even_directions` as many pairs teach to decline as teach to answer; `rules` are fields of `PairRules`, such as `margin`.
    """
    pair_rules, pair_set = PairRules(**rules), PairSet[Record](harmless_share, even=even_directions)
    at_once = (pair for record in _records(records) for turn in pairs_of(record, pair_rules) for pair in pair_set.add(turn, turn.pairs))
    return (to_row(pair, None) for pair in chain(at_once, pair_set.kept()))


def _records(records: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    reader = RowReader("record", Base((os.getcwd(),)))
    return (reader.record(dict(record), number) for number, record in enumerate(records, 1))
