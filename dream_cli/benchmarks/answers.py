"""Answers from other tools: result files of VLMEvalKit (xlsx, tsv, csv, json) and sample files of lmms-eval (jsonl), as responses to items.

An answer belongs to the item with the same prompt. If several items share a prompt, the label of VLMEvalKit's MSSBench (`comply` or
`refuse`) distinguishes them; without it the answer is ambiguous, and is left out and reported.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dream_cli.benchmarks.benchmark import Item
from dream_cli.engines.thoughts import response_with_thoughts_apart
from dream_cli.errors import NoAnswer, UsageError, with_extra
from dream_cli.records.record import Record, Response

Json = dict[str, Any]
SUFFIXES = (".xlsx", ".tsv", ".csv", ".json", ".jsonl")
# The beginning of the cell that VLMEvalKit writes instead of an answer.
_FAILED = "Failed to obtain answer"
# VLMEvalKit's label of the expected behaviour, and ours.
_EXPECTS = {"comply": "answer", "refuse": "refuse"}


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt; `expects` is the expected behaviour as in an item, if the file has it."""

    prompt: str
    response: Response
    expects: str | None = None


def read_answers(file: str, report: Callable[[str], None]) -> list[Answer]:
    """Return the answers in a file, with the file name as the model name; report the failed ones.

    Raises UsageError if it is not a file of answers or holds none.
    """
    if not os.path.isfile(file):
        raise UsageError(f"{file} does not exist; --answers takes a result file of VLMEvalKit or a sample file of lmms-eval")
    rows = list(_rows(Path(file)))
    model = Path(file).name.removesuffix(Path(file).suffix)
    if rows and {"question", "prediction"} <= rows[0].keys():
        answers = [_of_vlmevalkit(row, model) for row in rows]
    elif rows and rows[0].keys() & {"resps", "filtered_resps"}:
        answers = [answer for row in rows for answer in _of_lmms_eval(row, model)]
    else:
        columns = ", ".join(list(rows[0])[:8]) if rows else "no rows"
        raise UsageError(
            f"{file} is not a file of answers: it has {columns}; VLMEvalKit's have question and prediction, lmms-eval's resps or filtered_resps"
        )
    known = [answer for answer in answers if answer is not None]
    failed = len(answers) - len(known)
    if not known:
        raise UsageError(f"{file} holds no answer: all {failed} are failed or empty")
    if failed:
        report(f"{file}: {failed} of {len(answers)} answers are failed or empty, and are left out")
    return known


def _of_vlmevalkit(row: Json, model: str) -> Answer | None:
    """Return the answer of a row; None if the call failed or the cell is empty."""
    text = row.get("prediction")
    if text is None or str(text).startswith(_FAILED) or row.get("question") is None:
        return None
    expects = _EXPECTS.get(str(row.get("answer")).strip().lower())
    return _answer(str(row["question"]), str(text), model, expects=expects, thoughts=str(row.get("thinking") or ""))


def _of_lmms_eval(row: Json, model: str) -> Iterator[Answer | None]:
    """Yield the answers of a row: the filtered ones if they are text, else the raw ones."""
    prompt = _prompt_of(row)
    texts = [text for name in ("filtered_resps", "resps") if (text := _texts(row.get(name)))]
    if prompt is None or not texts:
        yield None
        return
    yield from (_answer(prompt, text, model) for text in texts[0])


def _prompt_of(row: Json) -> str | None:
    """Return the prompt of a sample: the input of its request, in older files the first argument, else the prompt of its document."""
    arguments, document = row.get("arguments"), row.get("doc")
    first = arguments[0] if isinstance(arguments, list) and arguments else None
    candidates = [row.get("input"), first[0] if isinstance(first, list) and first else first]
    if isinstance(document, Mapping):
        candidates += [document.get(name) for name in ("query", "question", "prompt", "instruction")]
    return next((text for text in candidates if isinstance(text, str) and text.strip()), None)


def _texts(value: Any) -> list[str]:
    """Return the texts in the nested lists of a field; none if the lists hold anything else, such as scores of options."""
    if isinstance(value, str):
        return [value]
    inner = [_texts(one) for one in value] if isinstance(value, list) else [[]]
    return [text for one in inner for text in one] if all(inner) else []


def _answer(prompt: str, text: str, model: str, *, expects: str | None = None, thoughts: str = "") -> Answer | None:
    """Return an answer with its thoughts separated; None if it has only thoughts. `thoughts` are those of a separate field."""
    response = response_with_thoughts_apart(Response(text, model, extra={"reasoning": thoughts} if thoughts else {}))
    return Answer(prompt, response, expects) if response.text.strip() else None


def _rows(path: Path) -> Iterator[Json]:
    suffix = path.suffix.lower()
    if suffix == ".xlsx":
        yield from _sheet(path)
        return
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: a file of answers is one of {', '.join(SUFFIXES)}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if suffix in (".tsv", ".csv"):
            csv.field_size_limit(2**31 - 1)  # VLMEvalKit may write an image into a cell
            lines = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",", strict=True)
            rows = [{name: cell for name, cell in row.items() if name is not None and cell not in (None, "")} for row in lines]
        else:
            rows = json.loads(text) if suffix == ".json" else [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as answers: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path} is not a list of rows")
    yield from rows


def _sheet(path: Path) -> Iterator[Json]:
    """Yield the rows of the first sheet of a workbook, whose first row names the columns."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise UsageError(
            f"{path}: openpyxl, which reads .xlsx, is not installed; {with_extra('eval')}, or export the file as .tsv"
        ) from None
    try:
        lines = load_workbook(path, read_only=True, data_only=True).worksheets[0].iter_rows(values_only=True)
        columns = next(lines, ())
        for cells in lines:
            yield {str(name): cell for name, cell in zip(columns, cells, strict=False) if name is not None and cell is not None}
    except Exception as error:  # noqa: BLE001 - a damaged workbook raises errors of zip, XML and openpyxl
        raise UsageError(f"{path} cannot be read as a workbook: {type(error).__name__}: {error}") from None


def with_answers(items: Sequence[Record], answers: Sequence[Answer], report: Callable[[str], None]) -> list[Record]:
    """Return the items with the answers to their prompts as responses; an item without an answer gets an error.

    Answers that match no item, or several, are left out and reported. Raises UsageError if none matches one item.
    """
    by_prompt: dict[str, list[Record]] = defaultdict(list)
    for item in items:
        if item.error is None:
            by_prompt[_key(item.turns()[-1].prompt)].append(item)
    responses: dict[int, list[Response]] = defaultdict(list)
    unknown = ambiguous = 0
    for answer in answers:
        fitting = by_prompt.get(_key(answer.prompt), [])
        if len(fitting) > 1 and answer.expects is not None:
            fitting = [item for item in fitting if Item.of(item).expects == answer.expects]
        unknown += not fitting
        ambiguous += len(fitting) > 1
        if len(fitting) == 1:
            responses[id(fitting[0])].append(answer.response)
    if not responses:
        why = "several items share their prompts" if ambiguous else "no prompt is that of an item"
        raise UsageError(f"none of the {len(answers)} answers matches one item: {why}")
    if unknown:
        report(f"{unknown} of {len(answers)} answers are to prompts that no item has, and are left out")
    if ambiguous:
        report(f"{ambiguous} of {len(answers)} answers are to prompts that several items share, so they are left out")
    missing = NoAnswer("empty", "the file of answers has none for this item")
    return [
        replace(item, responses=tuple(responses[id(item)]))
        if id(item) in responses
        else item
        if item.error
        else item.failed("eval", missing)
        for item in items
    ]


def _key(prompt: str) -> str:
    return " ".join(prompt.split())
