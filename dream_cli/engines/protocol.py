"""The two verbs of an engine: `generate` text, and `choose` among a few fixed answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from dream_cli.engines.checkpoint import Checkpoint
from dream_cli.engines.limits import Limits
from dream_cli.engines.parallel import all_of
from dream_cli.engines.requests_file import RequestsFile
from dream_cli.engines.usage import Usage
from dream_cli.errors import NoAnswer, UnreadableAnswer
from dream_cli.records.record import Image


@dataclass(frozen=True)
class ChatMessage:
    """One message for the model, with images that hold their bytes.

    `places` holds for each image the offset in `text` before which it stands; empty: all come before the text.
    """

    role: str
    text: str
    images: tuple[Image, ...] = ()
    places: tuple[int, ...] = ()

    @property
    def parts(self) -> Iterator[Image | str]:
        """The images and the pieces of the text in their order; the last piece of text is there even where it is empty."""
        end = 0
        for image, at in zip(self.images, self.places or (0,) * len(self.images), strict=True):
            if at > end:
                yield self.text[end:at]
                end = at
            yield image
        yield self.text[end:]


Chat = tuple[ChatMessage, ...]
FILTERED = "content_filter"


@dataclass(frozen=True)
class Sampling:
    """How to draw text. Temperature 0 is greedy.

    `schema` is a JSON schema that the answer must fit, and `choices` are the answers of which it must be one, where the engine can enforce it.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    schema: Mapping[str, Any] | None = field(default=None, hash=False)
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One reply of the model: `text` is its answer, `reasoning` the thoughts before it, where they are known.

    `finish_reason` is "stop", "length" (cut off), "refusal" (the server marks the text as one), "content_filter" (the server held
    the answer or a part of it back), "empty", or a word of the server; tokens are counted where the engine counts them.
    """

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning: str | None = None  # "" where a model has thought and shows nothing of it

    @property
    def is_answer(self) -> bool:
        """Whether there is an answer; what a filter left of one does not count."""
        return bool(self.text.strip()) and self.finish_reason != FILTERED


def answer_of(completion: Completion) -> str:
    """Return the text of a completion; raise NoAnswer or, where it is cut off, UnreadableAnswer if it is not an answer."""
    if completion.is_answer:
        return completion.text
    if completion.finish_reason == FILTERED:
        raise NoAnswer("filtered", "the server's content filter held the reply back")
    if completion.finish_reason == "length":
        if completion.reasoning is None:
            # A broken model writes tokens without a text.
            raise UnreadableAnswer("the reply holds no text up to its maximum number of tokens", raw=completion.text)
        advice = "it is cut off inside its thoughts; give it more room with --thinking-budget or --max-tokens"
        raise UnreadableAnswer(f"the reply holds no answer: {advice}", raw=completion.reasoning)
    raise NoAnswer("empty", "the reply is empty")


@dataclass(frozen=True)
class Choice:
    """The probability of each allowed answer, normalised over them, and the probability that they covered together.

    `probabilities` is None where the engine gives no token probabilities: then only `text`, what the model wrote, can be read.
    `divided` is the part of the probabilities that belongs to a beginning of several answers ("1" of 1 and 10) from which a server
    does not go on: it is divided equally among them.
    """

    probabilities: Mapping[str, float] | None
    covered: float
    text: str
    divided: float = 0.0


@dataclass(frozen=True)
class Purpose:
    """What calls are made for: the stage of the run, and the prompts of the record in work."""

    stage: str = ""
    prompts: tuple[str, ...] = ()


NO_PURPOSE = Purpose()  # of calls that are made outside of a run
# Set for each record by the run, and kept beside a call by the store. No reply depends on it, and so no key does.
PURPOSE: ContextVar[Purpose] = ContextVar("purpose", default=NO_PURPOSE)


@dataclass(frozen=True)
class EngineSpec:
    """Which model answers, and how. Without `model` and `base_url` it is the embedded model."""

    model: str | None = None
    base_url: str | None = None
    model_tag: str | None = None
    concurrency: int = 8
    batch_size: int = 8
    device: str | None = None
    adapter: str | None = None  # the folder of a LoRA adapter on top of a local model
    engine: str | None = None  # runs a local model; default: the one that fits
    engine_args: Mapping[str, Any] = field(default_factory=dict, hash=False)  # of vLLM, by the names of its own options
    timeout: float = 120.0
    store: str | None = None
    key_names: tuple[str, ...] = ("DREAM_API_KEY",)  # the variables that may hold the key of the server, the first one that is set counts
    body: Mapping[str, Any] = field(default_factory=dict, hash=False)  # merged into each request to a server
    headers: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)  # sent with each request to a server
    thinking: int | None = None  # tokens for thoughts: 0 for none at all, None where nothing is known of the model
    name: str | None = None  # written into the records instead of `model`
    limits: Limits | None = None  # of the requests to a server
    requests: RequestsFile | None = None  # takes the requests to a server, which are then not made

    @property
    def label(self) -> str:
        """The name of the model in the records: with an adapter both."""
        return "+".join(part for part in (self.name or self.model, self.adapter) if part)


class Engine(Protocol):
    """A model that answers. Both verbs raise EngineError where there is no answer."""

    kind: str  # transformers, vllm or openai
    model: str  # the name written into the records
    fingerprint: str  # changes whenever the same request may be answered differently
    concurrency: int  # how many requests are worth having in flight
    usage: Usage  # grows with every call
    checkpoint: Checkpoint | None = None  # the folders of a local model; a server has none

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Return one completion for each sample index; the same index, seed and chat give the same text."""
        ...

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Return how probable each of the answers is as the whole reply to the chat."""
        ...

    async def choose_many(self, requests: Sequence[tuple[Sequence[ChatMessage], Sequence[str]]]) -> list[Choice]:
        """Return one choice for each (chat, answers); an engine that can share what the chats have in common does so."""
        return await all_of(self.choose(chat, answers) for chat, answers in requests)

    def constrains(self) -> bool:
        """Whether the `choices` of a sampling are enforced, as far as is known."""
        return False

    def forget(self, chat: Sequence[ChatMessage], about: Sampling | Sequence[str]) -> None:
        """Drop what is kept of the reply to a choice, or to the first sample of a text, so that it is requested again."""
        return  # an engine keeps nothing; the store does

    async def close(self) -> None:
        """Release the model or the connections."""
        ...
