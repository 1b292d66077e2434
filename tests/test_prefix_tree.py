"""Sequences with the same beginning in one row: the trie, who sees whom, positions, and equality with the plain way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_of_a_prompt_share_what_was_read_of_it(family: str, zoo: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from dream_cli.engines import shared_samples
    from dream_cli.engines.transformers import RowNoise

    shared: list[list[int]] = []
    generate = shared_samples.generate

    def counted(model: Any, inputs: Any, rows: Any, **more: Any) -> Any:
        shared.append(list(rows))
        return generate(model, inputs, rows, **more)

    monkeypatch.setattr(shared_samples, "generate", counted)
    # A random model writes the same text for logits that are somewhat off: what is compared is the logits of every step.
    logits: dict[int, list[Any]] = {}
    noise = RowNoise.__call__

    def noted(self: RowNoise, input_ids: Any, scores: Any) -> Any:
        for seed, row in zip(self._seeds, scores, strict=True):
            logits.setdefault(seed, []).append(row.clone())
        return noise(self, input_ids, scores)

    monkeypatch.setattr(RowNoise, "__call__", noted)
    chats = [group[0][0] for group in ABOUT]

    async def whole(together: bool) -> list[list[Completion]]:
        engine = await open_engine(EngineSpec(model=str(zoo(family)), device="cpu", batch_size=8))
        try:
            if together:
                return list(await asyncio.gather(*(engine.generate(chat, DRAWN, [0, 1, 2]) for chat in chats)))
            return [[(await engine.generate(chat, DRAWN, [i]))[0] for i in range(3)] for chat in chats]
        finally:
            await engine.close()

    together = asyncio.run(whole(True))
    shared_logits, logits = logits, {}
    # Two prompts with pictures of unlike size in one batch, and one without.
    assert sorted(shared) == [[0, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert together == asyncio.run(whole(False))
    for seed, steps in logits.items():
        for one, other in zip(steps, shared_logits[seed], strict=False):
            assert torch.allclose(one.float(), other.float(), atol=1e-4)
    assert len({completion.text for completion in together[0]}) > 1


def test_a_family_without_a_known_mask_is_answered_the_plain_way(zoo: Callable[[str], Path]) -> None:
    assert len(opened(zoo("gemma3"), together=True)) == 12
