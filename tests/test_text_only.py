"""Language models that take no images, in the transformers engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dream_cli.engines.protocol import ChatMessage, Choice, Completion, EngineSpec, Sampling
from dream_cli.engines.registry import open_engine
from dream_cli.errors import EngineError
from tests.conftest import Workdir
from tests.pictures import picture
from tests.zoo import template, text_config, tokenizer

pytestmark = pytest.mark.local

DRAWN = Sampling(temperature=1.0, max_tokens=6, seed=3)
CHATS = [[ChatMessage("user", text)] for text in ("Is it safe? Answer Yes or No.", "Is it safe? Answer with one word.", "Hi")]
FORMS = {"Yes": ("Yes", " Yes", "yes", " yes", "YES", " YES"), "No": ("No", " No", "no", " no", "NO", " NO")}
# A template of language models: the content of a message is a text.
TEXTS = template("").replace(
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}{% else %}{{ part['text'] }}{% endif %}{% endfor %}",
    "{{ m['content'] }}",
)


@pytest.fixture(scope="module", params=["Llama", "Qwen2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random language model with its tokenizer."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    words, out = tokenizer(), tmp_path_factory.mktemp("text") / "model"
    words.chat_template = TEXTS
    config = getattr(hf, f"{request.param}Config")(**text_config(words))
    getattr(hf, f"{request.param}ForCausalLM")(config).save_pretrained(out)
    words.save_pretrained(out)
    return out


def answered(folder: Path, batch_size: int) -> tuple[list[list[Completion]], list[Choice]]:
    """Return two samples and one choice for each chat; with a batch size of 1, one after the other."""

    async def whole() -> tuple[list[Any], list[Any]]:
        engine = await open_engine(EngineSpec(model=str(folder), engine="transformers", device="cpu", batch_size=batch_size))
        try:
            if batch_size == 1:
                texts = [await engine.generate(chat, DRAWN, [0, 1]) for chat in CHATS]
                return texts, [await engine.choose(chat, ["Yes", "No"]) for chat in CHATS]
            texts = await asyncio.gather(*(engine.generate(chat, DRAWN, [0, 1]) for chat in CHATS))
            return texts, await engine.choose_many([(chat, ["Yes", "No"]) for chat in CHATS])
        finally:
            await engine.close()

    return asyncio.run(whole())


def test_rows_are_answered_the_same_alone_and_on_a_shared_prefix(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts, choices = answered(folder, 8)
    texts_alone, choices_alone = answered(folder, 1)
    assert texts == texts_alone
    for one, other in zip(choices, choices_alone, strict=True):
        assert one.covered == pytest.approx(other.covered, abs=1e-5)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    assert "differently" not in capfd.readouterr().err


def test_a_choice_is_the_models_next_token(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    text = f"<|im_start|>user\n{CHATS[2][0].text}<|im_end|>\n<|im_start|>assistant\n"
    with torch.no_grad():
        after = model(torch.tensor([words.encode(text)])).logits[0, -1].softmax(-1)
    spelled = {answer: {words.encode(form)[0] for form in forms if len(words.encode(form)) == 1} for answer, forms in FORMS.items()}
    expected = {answer: float(sum(after[token] for token in tokens)) for answer, tokens in spelled.items()}
    choice = answered(folder, 1)[1][2]
    # Spellings of several tokens add a little.
    assert sum(expected.values()) * 0.9999 <= choice.covered <= sum(expected.values()) * 1.01
    assert choice.probabilities == pytest.approx({answer: p / sum(expected.values()) for answer, p in expected.items()}, abs=0.01)


def test_a_picture_is_an_error_of_its_row(folder: Path, work: Workdir) -> None:
    work.picture("a.png")
    work.write("in.jsonl", [{"id": "a", "prompt": "Hi", "images": ["a.png"]}, {"id": "b", "prompt": "Hi"}])
    ran = work.dream("sample", "in.jsonl", "--model", str(folder), "--max-tokens", "4")
    assert ran.code == 1
    assert ran.rows[0]["error"]["message"].endswith(
        f"{folder} is a text-only model and takes no images; name a vision-language model for this row"
    )
    assert "error" not in ran.rows[1] and len(ran.rows[1]["responses"]) == 1


def test_a_question_about_a_picture_is_refused(folder: Path) -> None:
    async def whole() -> None:
        engine = await open_engine(EngineSpec(model=str(folder), engine="transformers", device="cpu"))
        try:
            with pytest.raises(EngineError, match="takes no images"):
                await engine.choose([ChatMessage("user", "Safe?", (picture("red", (8, 8)),))], ["Yes", "No"])
        finally:
            await engine.close()

    asyncio.run(whole())
