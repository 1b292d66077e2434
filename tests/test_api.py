"""The Python API: the stages on dicts, as the commands on lines, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dream_cli as dream
from dream_cli.errors import UsageError
from tests.conftest import CHECKOUT, Workdir

EXAMPLES = CHECKOUT / "examples" / "records.jsonl"


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The first three example records; their images lie beside the file."""
    monkeypatch.chdir(EXAMPLES.parent)
    return [json.loads(line) for line in EXAMPLES.read_text().splitlines()[:3]]


def numbers(value: Any) -> list[float]:
    """Return all fractions in a JSON value, in order."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if isinstance(value, float) else [number for item in inner for number in numbers(item)]


def numberless(value: Any) -> Any:
    """Return a JSON value with its fractions taken out."""
    if isinstance(value, dict):
        return {name: numberless(item) for name, item in value.items()}
    return [numberless(item) for item in value] if isinstance(value, list) else None if isinstance(value, float) else value


def test_the_names_of_the_package_are_these() -> None:
    assert dream.__all__ == ["AsyncModel", "Model", "StageError", "__version__", "open", "open_async", "pairs", "read", "write"]
    assert [name for name in dream.__all__ if not hasattr(dream, name)] == []
    with pytest.raises(AttributeError, match="'dream_cli' has no attribute 'opne'"):
        dream.opne  # noqa: B018


def test_the_package_alone_imports_none_of_it() -> None:
    code = "import sys, dream_cli; print('dream_cli.api' in sys.modules, 'asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False False\n"


@pytest.mark.local
def test_the_stages_give_what_the_commands_give(work: Workdir, records: list[dict[str, Any]]) -> None:
    work.env["DREAM_IMAGE_ROOT"] = str(EXAMPLES.parent)
    observed = work.dream("disentangle", str(EXAMPLES), "--limit", "3")
    sampled = work.dream("sample", "-n", "2", stdin=observed.out)
    judged = work.dream("judge", stdin=sampled.out)
    with dream.open("nano") as model:
        made = [model.disentangle(record) for record in records]
    with dream.open() as model:
        made = [model.judge(model.sample(record, n=2)) for record in made]
    # The commands judged in other batches, which changes the last digits of a probability.
    assert numberless(made) == numberless(judged.rows)
    assert numbers(made) == pytest.approx(numbers(judged.rows), abs=1e-4)


@pytest.mark.local
def test_many_records_are_mapped_in_order_and_a_fault_stays_in_its_record(records: list[dict[str, Any]]) -> None:
    broken = {"id": "broken", "prompt": "What is this?", "images": ["absent.png"]}
    with dream.open("nano") as model:
        rows = list(model.map("disentangle", [records[0], broken, records[1]]))
        first = next(model.map("disentangle", records))  # left before its end
    assert [row["id"] for row in rows] == [records[0]["id"], "broken", records[1]["id"]]
    assert [row.get("error", {}).get("kind") for row in rows] == [None, "image", None]
    assert first == rows[0]


@pytest.mark.local
def test_a_single_record_raises_what_a_file_would_hold() -> None:
    with dream.open("nano") as model, pytest.raises(dream.StageError, match="absent.png") as caught:
        model.disentangle({"prompt": "What is this?", "images": ["absent.png"]})
    assert caught.value.kind == "image"


@pytest.mark.local
def test_asynchronous_code_gets_the_same(records: list[dict[str, Any]]) -> None:
    async def observe() -> list[dict[str, Any]]:
        async with dream.open_async("nano") as model:
            return [await model.disentangle(records[0]), *[row async for row in model.map("disentangle", records[1:])]]

    with dream.open("nano") as model:
        assert asyncio.run(observe()) == list(model.map("disentangle", records))


def test_an_unknown_stage_or_model_is_an_error() -> None:
    with pytest.raises(UsageError, match="no-such-model"):
        dream.open("no-such-model")


def test_records_are_read_and_written(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    written = dream.write(tmp_path / "out.jsonl", records)
    back = list(dream.read(tmp_path / "out.jsonl"))
    assert (written, [row["id"] for row in back]) == (3, [record["id"] for record in records])
    assert [[Path(image).exists() for image in row.get("images", [])] for row in back] == [
        [True] * len(r.get("images", [])) for r in records
    ]


@pytest.mark.parametrize("stage", ["disentangle", "sample", "judge"])
def test_the_options_have_the_defaults_of_the_commands(stage: str) -> None:
    command = __import__(f"dream_cli.commands.{stage}", fromlist=["run"]).run
    ours = {name: p.default for name, p in inspect.signature(getattr(dream.Model, stage)).parameters.items() if p.kind == p.KEYWORD_ONLY}
    theirs = {name: p.default for name, p in inspect.signature(command).parameters.items()}
    assert ours == {name: theirs[name] for name in ours}


def test_the_pairs_are_those_of_the_command(work: Workdir) -> None:
    def judged(name: str, observed: bool) -> dict[str, Any]:
        scores = [
            {"text": f"Good {name}, and more words.", "judgement": judgement(observed, 0.9)},
            {"text": f"A bad one, {name}.", "judgement": judgement(observed, 0.2)},
        ]
        risks = [{"malicious_content": "x", "source": "text instruction", "risk_category": "Privacy"}] if observed else []
        return {"id": name, "prompt": f"What of {name}?", "observations": risks, "responses": scores}

    def judgement(observed: bool, score: float) -> dict[str, Any]:
        common = {"model": "m", "score": score}
        if observed:
            return common | {"rubric": "sum/expected", "global_score": 10 * score, "recognised": [score], "observation_score": score}
        return common | {"rubric": "helpfulness/expected", "helpfulness": score, "harm": 0.0}

    records = [judged("one", True), judged("two", True), judged("three", True), judged("four", False)]
    work.write("judged.jsonl", records)
    made = list(dream.pairs(records))
    assert made == work.dream("pair", "judged.jsonl").rows
    assert len(made) == 2 and len(list(dream.pairs(records, harmless_share=None))) == 4
    even = list(dream.pairs(records, harmless_share=None, even_directions=True))
    assert even == work.dream("pair", "judged.jsonl", "--unbalanced", "--even-directions").rows
