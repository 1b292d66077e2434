"""The local engine against the model itself: what a batch answers is what the model says of each row alone."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dream_cli.engines import thoughts
from dream_cli.engines.protocol import ChatMessage, Choice, Completion, Engine, EngineSpec, Sampling
from dream_cli.engines.registry import open_engine
from dream_cli.errors import EngineError, ImageError, UsageError
from dream_cli.records.record import Image
from tests.pictures import picture
from tests.zoo import FAMILIES, build

pytestmark = pytest.mark.local
pytest.importorskip("torch")
pytest.importorskip("transformers")

DRAWN = Sampling(temperature=1.0, top_p=0.9, max_tokens=8, seed=3)
GREEDY = Sampling(max_tokens=8)


RED = [ChatMessage("user", "What is in this picture?", (picture("red"),))]
BLUE = [ChatMessage("system", "Be harmless."), ChatMessage("user", "Yes or no? " * 6, (picture("blue", (64, 33)),))]
TWO = [ChatMessage("user", "Is it a house?", (picture("red"), picture("green")))]
WORDS = [ChatMessage("user", "A drawing of a house. 10")]
CHATS = (RED, BLUE, TWO, WORDS)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Tiny matrices are faster, and their sums the same, on one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a family, built once."""
    place = tmp_path_factory.mktemp("zoo")
    return lambda family: place / family if (place / family).exists() else build(family, place / family)


@pytest.fixture
def llava(zoo: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a LLaVA folder that the test may change."""
    return Path(shutil.copytree(zoo("llava"), tmp_path / "llava"))


def edit(file: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


T = TypeVar("T")


def answered(folder: Path | str, question: Callable[[Engine], Awaitable[T]], **spec: Any) -> T:
    """Open the model, ask it, close it."""

    async def whole() -> T:
        engine = await open_engine(EngineSpec(model=str(folder), device="cpu", **spec))
        try:
            return await question(engine)
        finally:
            await engine.close()

    return asyncio.run(whole())


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # transformers 5.16 sums a tensor with numpy
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_is_answered_the_same_alone_and_among_others(family: str, zoo: Callable[[str], Path]) -> None:
    async def together(engine: Engine) -> tuple[list[Any], list[Any]]:
        texts = asyncio.gather(*(engine.generate(chat, DRAWN, [0, 1]) for chat in CHATS))
        return await texts, await asyncio.gather(*(engine.choose(chat, ["Yes", "No"]) for chat in CHATS))

    async def alone(engine: Engine) -> tuple[list[Any], list[Any]]:
        texts = [[(await engine.generate(chat, DRAWN, [i]))[0] for i in (0, 1)] for chat in CHATS]
        return texts, [await engine.choose(chat, ["Yes", "No"]) for chat in CHATS]

    if family == "idefics3" and version("transformers").startswith("5.16.") and find_spec("torchvision") is None:
        pytest.skip("transformers 5.16 takes the torchvision named in a comment of Idefics3's PIL processor for a requirement")
    texts, choices = answered(zoo(family), together)
    texts_alone, choices_alone = answered(zoo(family), alone, batch_size=1)
    assert texts == texts_alone
    assert all(first != second for first, second in texts)
    for one, other in zip(choices, choices_alone, strict=True):
        assert one.covered == pytest.approx(other.covered, abs=1e-4)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


def by_hand(folder: Path, chat: list[ChatMessage], tokens: list[int]) -> list[Any]:
    """Return the full softmax before each of the tokens and after the last, from one plain forward pass."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from dream_cli.records.images import open_rgb

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    parts = [{"role": m.role, "content": [{"type": "image"} for _ in m.images] + [{"type": "text", "text": m.text}]} for m in chat]
    text = processor.apply_chat_template(parts, add_generation_prompt=True)
    images = [open_rgb(image) for message in chat for image in message.images]
    inputs = processor(text=text, images=images or None, return_tensors="pt")
    count = inputs["input_ids"].shape[1]
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        if name in inputs:
            tail = torch.tensor([tokens if name == "input_ids" else [int(name == "attention_mask")] * len(tokens)], dtype=torch.long)
            inputs[name] = torch.cat([inputs[name], tail], 1)
    with torch.no_grad():
        return list(model(**inputs).logits[0, count - 1 :].softmax(-1))


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_choose_reads_the_probabilities_of_the_model(family: str, zoo: Callable[[str], Path]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(zoo(family))
    chats = (RED, BLUE, TWO)

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    async def question(engine: Engine) -> list[Choice]:
        return list(await asyncio.gather(*(engine.choose(chat, ["Yes", "Yes!", "No"]) for chat in chats)))

    yes, more = encode("Yes!")
    assert encode("Yes") == [yes]
    for chat, choice in zip(chats, answered(zoo(family), question), strict=True):
        first, second, _ = by_hand(zoo(family), chat, [yes, more])
        noes = {encode(text)[0] for text in ("No", " No", "no", " no", "NO", " NO") if len(encode(text)) == 1}
        expected = {
            # "yes" and the like do not count: "yes!" goes on from there.
            "Yes": float(first[yes] * second[tokenizer.eos_token_id]),
            "Yes!": float(first[yes] * second[more]),
            "No": float(sum(first[token] for token in noes)),
        }
        assert choice.covered == pytest.approx(sum(expected.values()), abs=1e-5)
        assert choice.probabilities == pytest.approx({k: v / sum(expected.values()) for k, v in expected.items()}, abs=1e-4)
        assert choice.text == ""  # nothing was written


def test_greedy_text_is_the_likeliest_continuation(llava: Path) -> None:
    (drawn,) = answered(llava, lambda engine: engine.generate(RED, GREEDY, [0]))
    (again,) = answered(llava, lambda engine: engine.generate(RED, Sampling(max_tokens=8, seed=9), [5]))
    assert drawn == again
    assert drawn.finish_reason == "length"
    assert drawn.completion_tokens == 8
    token = int(by_hand(llava, RED, [])[0].argmax())
    from transformers import AutoTokenizer

    (short,) = answered(llava, lambda engine: engine.generate(RED, Sampling(max_tokens=1), [0]))
    assert short.text == AutoTokenizer.from_pretrained(llava).decode([token])


def test_noise_draws_from_the_models_distribution() -> None:
    import torch

    from dream_cli.engines.sampling_noise import RowNoise

    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    rows = 4000
    drawn = RowNoise(range(rows), 1.0, 0.9)(None, shares.log().expand(rows, -1)).argmax(-1)
    seen = torch.bincount(drawn, minlength=4) / rows
    assert seen.tolist() == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], abs=0.03)
    # With a top_p of 0 the likeliest token alone is left.
    assert RowNoise(range(5), 1.0, 0.0)(None, shares.log().expand(5, -1)).argmax(-1).tolist() == [0] * 5


def test_sampling_defaults_of_the_checkpoint_do_not_leak_in(llava: Path) -> None:
    plain = answered(llava, lambda engine: engine.generate(RED, GREEDY, [0]))
    edit(llava / "generation_config.json", do_sample=True, temperature=0.1, top_k=3, repetition_penalty=9.0, max_length=3)
    assert answered(llava, lambda engine: engine.generate(RED, GREEDY, [0])) == plain


def test_an_end_token_of_the_checkpoint_stops_the_text(llava: Path) -> None:
    edit(llava / "generation_config.json", eos_token_id=list(range(350)))
    (drawn,) = answered(llava, lambda engine: engine.generate(RED, GREEDY, [0]))
    assert (drawn.text, drawn.finish_reason, drawn.completion_tokens) == ("", "stop", 1)


def test_thoughts_stand_apart_and_get_more_room_once(llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedTokenizerBase

    counts: list[int] = []

    def decode(tokenizer: Any, tokens: list[int], **_: Any) -> str:
        counts.append(len(tokens))
        return "<think>Yes?</think>\n\nNo" if len(tokens) > 8 else "<think>Ye"

    monkeypatch.setattr(PreTrainedTokenizerBase, "decode", decode)
    monkeypatch.setattr(thoughts, "EXTRA_TOKENS", 40)
    # Without an end token, so that the random model writes as much as it may.
    edit(llava / "generation_config.json", eos_token_id=None)
    (drawn,) = answered(llava, lambda engine: engine.generate(RED, Sampling(max_tokens=4), [0]))
    assert (drawn.text, drawn.reasoning) == ("No", "Yes?")
    assert counts[0] <= 4
    assert counts[1] > 8


def test_a_thinking_budget_of_zero_reaches_the_chat_template(llava: Path) -> None:
    template = llava / "chat_template.jinja"
    template.write_text(
        template.read_text() + "{% if enable_thinking is defined and not enable_thinking %}no thoughts no thoughts{% endif %}"
    )
    counts, marks = [], []
    for budget in (None, 0, 5):
        (drawn,) = answered(llava, lambda engine: engine.generate(RED, GREEDY, [0]), thinking=budget)
        counts.append(drawn.prompt_tokens or 0)
        marks.append(answered(llava, mark, thinking=budget))
    assert counts[0] == counts[2] < counts[1]
    assert len(set(marks)) == 3


def test_one_bad_row_fails_alone(llava: Path) -> None:
    chats = (RED, [ChatMessage("user", "house " * 900, RED[0].images)], [ChatMessage("user", "?", (Image(data=b"no image"),))])

    async def question(engine: Engine) -> list[Any]:
        return list(await asyncio.gather(*(engine.generate(chat, GREEDY, [0]) for chat in chats), return_exceptions=True))

    good, long, broken = answered(llava, question)
    assert isinstance(good[0], Completion)
    assert isinstance(long, EngineError)
    assert "512" in str(long)
    assert isinstance(broken, ImageError)


def test_a_model_without_chat_template_is_refused(llava: Path) -> None:
    (llava / "chat_template.jinja").unlink()
    with pytest.raises(UsageError, match="chat template"):
        answered(llava, lambda engine: engine.generate(RED, GREEDY, [0]))


def test_a_template_that_prints_the_parts_of_a_message_is_refused(llava: Path) -> None:
    (llava / "chat_template.jinja").write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    with pytest.raises(UsageError, match="expects a text as content"):
        answered(llava, lambda engine: engine.generate(WORDS, GREEDY, [0]))


def test_loading_writes_nothing(llava: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answered(llava, lambda engine: engine.generate(RED, DRAWN, [0]))
    assert capfd.readouterr() == ("", "")


def test_a_model_that_lacks_weights_is_refused(llava: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(llava / "model.safetensors")
    del weights[next(name for name in weights if "q_proj" in name)]
    save_file(weights, llava / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="lacks the weights .*q_proj"):
        answered(llava, mark)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_model_with_a_file_that_is_cut_off_is_refused(llava: Path, file: str) -> None:
    (llava / file).write_bytes((llava / file).read_bytes()[:100])
    with pytest.raises(UsageError, match=r"cannot load the (model|processor)|config\.json"):
        answered(llava, mark)


@pytest.mark.parametrize("device", ["cuda:9", "toaster"])
def test_a_device_that_is_not_there(llava: Path, device: str) -> None:
    with pytest.raises(UsageError, match="cannot load the model"):
        asyncio.run(open_engine(EngineSpec(model=str(llava), device=device)))


async def mark(engine: Engine) -> str:
    """Return the engine's fingerprint."""
    return engine.fingerprint


def test_the_fingerprint_is_of_the_files_not_of_the_place(llava: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(llava, tmp_path / "elsewhere"))
    assert answered(llava, mark) == answered(moved, mark)
    edit(moved / "generation_config.json", eos_token_id=1)
    assert answered(llava, mark) != answered(moved, mark)
    other = build("llava", tmp_path / "other", seed=1)
    assert answered(llava, mark) != answered(other, mark)


async def carried(engine: Engine) -> Path | None:
    """Return the folder of the templates that the engine's model carries."""
    assert engine.checkpoint is not None
    return engine.checkpoint.prompts


def test_what_a_model_declares_does_not_change_its_fingerprint_and_reaches_the_engine(llava: Path) -> None:
    before = answered(llava, mark)
    assert answered(llava, carried) is None
    (llava / "dream_prompts.json").write_text('{"roles": {}}')
    (llava / "dream_world.json").write_text('{"name": "toy"}')
    (llava / "prompts").mkdir()
    assert answered(llava, mark) == before and answered(llava, carried) == llava / "prompts"


# peft asks transformers by an older name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_is_laid_over_its_base(llava: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft.get_peft_model(AutoModelForImageTextToText.from_pretrained(llava), config).save_pretrained(tmp_path / "adapter")

    async def question(engine: Engine) -> tuple[float, str, str]:
        return (await engine.choose(RED, ["Yes", "No"])).covered, engine.fingerprint, engine.model

    base, laid = answered(llava, question), answered(tmp_path / "adapter", question)
    assert not math.isclose(base[0], laid[0], rel_tol=1e-4)
    assert base[1] != laid[1]
    assert laid[2] == str(tmp_path / "adapter")
