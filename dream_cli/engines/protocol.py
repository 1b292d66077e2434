"""The two verbs of an engine: `generate` text, and `choose` among allowed answers."""

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
    """One message for the model; its images hold their bytes.

    `places` holds the offset of each image in `text`; if it is empty, all images come before the text.
    """

    role: str
    text: str
    images: tuple[Image, ...] = ()
    places: tuple[int, ...] = ()

    @property
    def parts(self) -> Iterator[Image | str]:
        """The images and the pieces of text in their order; the last piece is text, which may be empty."""
        end = 0
        for image, at in zip(self.images, self.places or (0,) * len(self.images), strict=True):
            if at > end:
                yield self.text[end:at]
                end = at
            yield image
        yield self.text[end:]


Chat = tuple[ChatMessage, ...]
FILTERED, DECLINED = "content_filter", "refusal"


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters. Temperature 0 is greedy.

    An engine that can enforces `schema`, a JSON schema of the answer, and `choices`, the allowed answers.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    schema: Mapping[str, Any] | None = field(default=None, hash=False)
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One reply of the model: `text` is the answer, `reasoning` the thoughts before it, if they are known.

    `finish_reason` is "stop", "length" (cut off), "refusal" (the server marks the text as a refusal), "content_filter" (the server
    withheld the answer or a part of it), "empty", or a value of the server; token counts are None if the engine does not count.
    """

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning: str | None = None  # "" if the model hides its thoughts

    @property
    def is_answer(self) -> bool:
        """Whether there is an answer; a partly filtered one does not count."""
        return bool(self.text.strip()) and self.finish_reason != FILTERED


def answer_of(completion: Completion) -> str:
    """Return the text of a completion; raise UnreadableAnswer if it is cut off without an answer, NoAnswer if it has none otherwise."""
    if completion.is_answer:
        return completion.text
    if completion.finish_reason == FILTERED:
        raise NoAnswer("filtered", "the server's content filter withheld the reply")
    if completion.finish_reason == "length":
        if completion.reasoning is None:
            # A broken model writes tokens without text.
            raise UnreadableAnswer("the reply holds no text up to its maximum number of tokens", raw=completion.text)
        advice = "it is cut off inside its thoughts; allow more tokens with --thinking-budget or --max-tokens"
        raise UnreadableAnswer(f"the reply holds no answer: {advice}", raw=completion.reasoning)
    raise NoAnswer("empty", "the reply is empty")


@dataclass(frozen=True)
class Choice:
    """The probability of each allowed answer, normalised over them, and their total probability before that, `covered`.

    `probabilities` is None if the engine gives no token probabilities: then only `text`, the reply, can be read.
    `divided` is the part of the probabilities that belongs to a common beginning of several answers ("1" of 1 and 10), divided equally
    among them because the server cannot continue a reply. `declined`: the server marks the text as a refusal, so it is no verdict.
    """

    probabilities: Mapping[str, float] | None
    covered: float
    text: str
    divided: float = 0.0
    declined: bool = False


@dataclass(frozen=True)
class Purpose:
    """The purpose of a call: the stage of the run, and the prompts of the current record."""

    stage: str = ""
    prompts: tuple[str, ...] = ()


NO_PURPOSE = Purpose()  # of calls outside a run
# Set by the run for each record, and stored beside each call. No reply depends on it, so it is not part of any key.
PURPOSE: ContextVar[Purpose] = ContextVar("purpose", default=NO_PURPOSE)


@dataclass(frozen=True)
class EngineSpec:
    """The specification of an engine. Without `model` and `base_url` it is the embedded model."""

    model: str | None = None
    base_url: str | None = None
    model_tag: str | None = None
    concurrency: int = 8
    batch_size: int = 8
    device: str | None = None
    adapter: str | None = None  # the folder of a LoRA adapter on top of a local model
    engine: str | None = None  # of a local model; None: chosen automatically
    engine_args: Mapping[str, Any] = field(default_factory=dict, hash=False)  # options of vLLM, by name
    timeout: float = 120.0
    store: str | None = None
    key_names: tuple[str, ...] = ("DREAM_API_KEY",)  # environment variables of the API key; the first one that is set is used
    body: Mapping[str, Any] = field(default_factory=dict, hash=False)  # merged into each request to a server
    headers: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)  # sent with each request to a server
    thinking: int | None = None  # thinking budget in tokens: 0 turns thinking off, None leaves it to the model
    name: str | None = None  # written into the records instead of `model`
    limits: Limits | None = None  # on the requests to a server
    requests: RequestsFile | None = None  # the file for requests to a server, which are then not sent

    @property
    def label(self) -> str:
        """The name of the model in the records, with the adapter if there is one."""
        return "+".join(part for part in (self.name or self.model, self.adapter) if part)


class Engine(Protocol):
    """A model that answers. Both verbs raise EngineError if there is no answer."""

    kind: str  # transformers, vllm or openai
    model: str  # the name written into the records
    fingerprint: str  # changes whenever the reply to the same request may change
    concurrency: int  # the useful number of requests in flight
    usage: Usage  # grows with every call
    checkpoint: Checkpoint | None = None  # the folders of a local model; None for a server

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Return one completion per sample index; the same index, seed and chat give the same text."""
        ...

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Return the probability of each answer as the whole reply to the chat."""
        ...

    async def choose_many(self, requests: Sequence[tuple[Sequence[ChatMessage], Sequence[str]]]) -> list[Choice]:
        """Return one choice per (chat, answers); an engine may share the common parts of the chats."""
        return await all_of(self.choose(chat, answers) for chat, answers in requests)

    def constrains(self) -> bool:
        """Whether the engine is known to enforce the `choices` of a sampling."""
        return False

    def forget(self, chat: Sequence[ChatMessage], about: Sampling | Sequence[str]) -> None:
        """Delete the stored reply to a choice, or to the first sample of a text, so that it is requested again."""
        return  # only the store keeps replies

    async def close(self) -> None:
        """Release the model or the connections."""
        ...
