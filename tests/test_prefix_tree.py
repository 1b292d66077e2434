"""Sequences with the same beginning in one row: the trie, who sees whom, positions, and equality with the plain way."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.engines.prefix_tree import FAMILIES, PackedTree, depths, pack, positions, sees
from dream_cli.engines.protocol import ChatMessage, Choice, Completion, Engine, EngineSpec, Sampling
from dream_cli.engines.registry import open_engine
from tests.pictures import picture
from tests.zoo import build

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.local

# 7 8 are shared by all, 9 by the first two; the third is the beginning of the others.
SEQUENCES = [(7, 8, 9, 1), (7, 8, 9, 2, 3), (7, 8), (7, 5)]
TREE = PackedTree(tokens=(7, 8, 9, 1, 2, 3, 5), parents=(-1, 0, 1, 2, 2, 4, 0), ends=(3, 5, 1, 6))
SEEN = ["x......", "xx.....", "xxx....", "xxxx...", "xxx.x..", "xxx.xx.", "x.....x"]
DRAWN = Sampling(temperature=1.0, top_p=0.9, max_tokens=8, seed=3)
SCORES = [str(n) for n in range(11)]


def test_a_shared_beginning_is_stored_once() -> None:
    assert pack(SEQUENCES) == TREE
    assert depths(TREE) == (0, 1, 2, 3, 3, 4, 1)


def test_a_token_sees_its_ancestors_and_itself() -> None:
    assert ["".join("x" if seen else "." for seen in row) for row in sees(TREE).tolist()] == SEEN


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=6))
def test_every_sequence_can_be_read_off_the_tree(sequences: list[tuple[int, ...]]) -> None:
    tree = pack(sequences)
    visible = sees(tree)
    for sequence, end in zip(sequences, tree.ends, strict=True):
        columns = [column for column in range(len(tree)) if visible[end, column]]
        assert tuple(tree.tokens[column] for column in columns) == sequence
        assert [depths(tree)[column] for column in columns] == list(range(len(sequence)))


def test_positions_count_on_from_the_largest_of_the_head() -> None:
    # A head of two tokens with three axes, as the Qwen families have them: behind it every axis goes on from 6.
    head = torch.tensor([[[0, 4]], [[0, 5]], [[0, 3]]])
    assert positions(TREE, head)[:, 0].tolist() == [[0, 4, 6, 7, 7, 8, 4], [0, 5, 6, 7, 7, 8, 5], [0, 3, 6, 7, 7, 8, 3]]
    assert positions(TREE, torch.empty(1, 0, dtype=torch.long)).tolist() == [[0, 1, 2, 3, 3, 4, 1]]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a family, built once."""
    place = tmp_path_factory.mktemp("zoo")
    return lambda family: place / family if (place / family).exists() else build(family, place / family)


def questions(*images: Any) -> list[tuple[list[ChatMessage], list[str]]]:
    """Return questions of unlike length about the same pictures: two responses, a scale and yes or no about each."""
    texts = [f"What is in it?\nResponse: {response}\n" for response in ("A house.", "No harmless drawing of a house 10.")]
    return [
        ([ChatMessage("user", text + ask, images)], answers)
        for text in texts
        for ask, answers in (("From 0 to 10?", SCORES), ("Is it harmless? Yes or No.", ["Yes", "No"]))
    ]


ABOUT = [questions(picture("red")), questions(picture("blue", (64, 33)), picture("green")), questions()]


async def answers(engine: Engine, together: bool) -> list[Choice]:
    every = list(chain.from_iterable(ABOUT))
    if together:
        return list(await asyncio.gather(*(engine.choose(chat, allowed) for chat, allowed in every)))
    return [await engine.choose(chat, allowed) for chat, allowed in every]


def opened(folder: Path, together: bool) -> list[Choice]:
    async def whole() -> list[Choice]:
        engine = await open_engine(EngineSpec(model=str(folder), device="cpu"))
        try:
            return await answers(engine, together)
        finally:
            await engine.close()

    return asyncio.run(whole())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_pass_gives_what_each_question_gets_alone(
    family: str, zoo: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dream_cli.engines.shared_choices import SharedChoices

    passes: list[int] = []
    plain = SharedChoices._choices

    def counted(self: SharedChoices, group: Any, each: Any) -> list[Choice]:
        passes.append(len(each))
        return plain(self, group, each)

    monkeypatch.setattr(SharedChoices, "_choices", counted)
    shared = opened(zoo(family), together=True)
    assert passes == [4, 4, 4]
    alone = opened(zoo(family), together=False)
    assert passes == [4, 4, 4]
    for one, other in zip(shared, alone, strict=True):
        assert one.covered == pytest.approx(other.covered, abs=1e-4)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


def noted_logits(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[Any]]:
    """Return the logits of every step by the seed of the sample: a random model writes the same text for logits that are somewhat off."""
    from dream_cli.engines import sampling_noise

    logits: dict[int, list[Any]] = {}
    noisy = sampling_noise.noisy

    def noted(scores: Any, generators: Sequence[Any], temperature: float, top_p: float) -> Any:
        for source, row in zip(generators, scores, strict=True):
            logits.setdefault(source.initial_seed(), []).append(row.clone())
        return noisy(scores, generators, temperature, top_p)

    monkeypatch.setattr(sampling_noise, "noisy", noted)
    return logits


def drawn(folder: Path, chats: Sequence[list[ChatMessage]], samples: int, batch_size: int, together: bool) -> list[list[Completion]]:
    async def whole() -> list[list[Completion]]:
        engine = await open_engine(EngineSpec(model=str(folder), device="cpu", batch_size=batch_size))
        try:
            if together:
                return list(await asyncio.gather(*(engine.generate(chat, DRAWN, range(samples)) for chat in chats)))
            return [[(await engine.generate(chat, DRAWN, [i]))[0] for i in range(samples)] for chat in chats]
        finally:
            await engine.close()

    return asyncio.run(whole())


def assert_same_logits(logits: dict[int, list[Any]], others: dict[int, list[Any]]) -> None:
    import torch

    assert logits.keys() == others.keys()
    for seed, steps in logits.items():
        assert len(steps) == len(others[seed])
        for one, other in zip(steps, others[seed], strict=True):
            assert torch.allclose(one.float(), other.float(), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_of_a_prompt_share_what_was_read_of_it(family: str, zoo: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from dream_cli.engines.running_batch import RunningBatch, Sample

    shared: list[list[int]] = []
    join = RunningBatch.join

    def counted(self: RunningBatch, inputs: Any, rows: Sequence[Sequence[Sample]]) -> None:
        shared.append([len(row) for row in rows])
        join(self, inputs, rows)

    monkeypatch.setattr(RunningBatch, "join", counted)
    chats = [group[0][0] for group in ABOUT]
    logits = noted_logits(monkeypatch)
    together = drawn(zoo(family), chats, samples=3, batch_size=8, together=True)
    # Two prompts with pictures of unlike size in one batch, and one without.
    assert sorted(shared) == [[3], [3, 3]]
    shared_logits = dict(logits)
    logits.clear()
    assert together == drawn(zoo(family), chats, samples=3, batch_size=8, together=False)
    assert_same_logits(logits, shared_logits)
    assert len({completion.text for completion in together[0]}) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_takes_the_place_of_one_that_has_ended(
    family: str, zoo: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dream_cli.engines.running_batch import RunningBatch

    sizes: list[int] = []
    step = RunningBatch.step

    def counted(self: RunningBatch) -> Any:
        sizes.append(len(self))
        return step(self)

    monkeypatch.setattr(RunningBatch, "step", counted)
    # Of the words of a random model, which are about equally likely, a quarter end a response.
    folder = shutil.copytree(zoo(family), tmp_path / family)
    words = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(0, words, 4))}))
    red, blue = picture("red"), picture("blue", (64, 33))
    chats = [[ChatMessage("user", "house " * n + "What is in it?", (red, blue)[: 1 + n % 2])] for n in (1, 9, 2, 5, 14, 3, 7)]
    logits = noted_logits(monkeypatch)
    together = drawn(folder, chats, samples=2, batch_size=4, together=True)
    running, joined_logits = list(sizes), dict(logits)
    logits.clear()
    assert together == drawn(folder, chats, samples=2, batch_size=4, together=False)
    assert_same_logits(logits, joined_logits)
    lengths = [completion.completion_tokens or 0 for completions in together for completion in completions]
    assert len(set(lengths)) > 2
    assert sum(running) == sum(lengths)
    # Four at a time until none waits: fewer steps than batches of four that wait for their longest response.
    assert max(running) == 4
    assert len(running) < sum(max(lengths[start : start + 4]) for start in range(0, len(lengths), 4))


def test_a_family_without_a_known_mask_is_answered_the_plain_way(zoo: Callable[[str], Path]) -> None:
    assert len(opened(zoo("gemma3"), together=True)) == 12
