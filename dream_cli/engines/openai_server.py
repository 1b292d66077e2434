"""The engine for any OpenAI-compatible server: `vllm serve`, a gateway, a vendor.

Servers silently ignore different parts of a request, so every reply is checked: missing choices are requested again,
a server without log-probabilities gives a Choice without probabilities, and a parameter that is refused by name is dropped.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dream_cli.engines.address import Address, read_address
from dream_cli.engines.batch import Batch
from dream_cli.engines.openai_answers import Positions, read_answers, read_positions
from dream_cli.engines.openai_attempt import Refused, error_message
from dream_cli.engines.openai_reply import INTERRUPTED, finish_reason, read_choices, read_completions
from dream_cli.engines.openai_request import LOGPROBS, Dropped, requests_for
from dream_cli.engines.openai_wire import Wire, open_wire
from dream_cli.engines.parallel import all_of
from dream_cli.engines.protocol import DECLINED, ChatMessage, Choice, Completion, Engine, EngineSpec, Sampling, answer_of
from dream_cli.engines.requests_file import PATH
from dream_cli.engines.thoughts import EXTRA_TOKENS, cut_in_thoughts, with_more_tokens
from dream_cli.errors import EngineError, NoAnswer, Unanswered, UsageError

Json = dict[str, Any]

VERDICT = 4  # tokens of a bare verdict
WORDY_VERDICT = 16  # tokens of a verdict in a short sentence
WITH_LOGPROBS: Json = {"logprobs": True, "top_logprobs": LOGPROBS}
NO_SERVER = "http://batch.invalid/v1"  # the address when requests are only written to a file; a reserved name that never resolves
# The errors for a prompt that a vendor's filter blocks, and for thoughts that use up all tokens.
_FILTERED = re.compile(
    r"content_?\s?filter|content management policy|ResponsibleAIPolicyViolation|content_?\s?policy_?\s?violation|safety (?:system|filter)"
    r"|violat\w+ (?:[\w']+ ){0,2}(?:usage|content|safety|acceptable use|responsible ai) (?:polic|guideline|practice)|data_?inspection_?failed|content exists risk"
    r"|considered high risk|inappropriate content|guardrail_?\s?intervened|blocked by (?:\w+ )*guardrail"
    r"|\b(?:input|prompt) (?:was|has been) flagged|\bflagged (?:for|by)\b|PROHIBITED_CONTENT|\bmoderation|\bunsafe content\b"
    r"|\bcontent safety\b|sensitive_? ?(?:content|information)|limited access to this content|blocked (?:due to|for) safety|敏感内容",
    re.IGNORECASE,
)
# The replies of Gemini and Azure to a blocked prompt have one of these and no choices.
_BLOCKED = re.compile(r"\bblock_?reason\b|\"filtered\": true", re.IGNORECASE)
_OUT_OF_TOKENS = re.compile(r"could not finish the message because max_tokens", re.IGNORECASE)


async def open_openai(spec: EngineSpec) -> Engine:
    """Return the engine for `spec.base_url`; raise UsageError if it is unreachable, or has several models and none is named."""
    if spec.requests is not None and spec.store is None:
        raise UsageError("--requests keeps what it writes, and the answers, in the call store; leave --no-store out")
    if spec.base_url is None and spec.model is None:
        raise UsageError("--requests writes the calls to a model; name it with --model, or a server that has only one with --base-url")
    wire = open_wire(spec, read_address(spec.base_url or NO_SERVER))
    try:
        card = _pick(await wire.models() if spec.base_url else [], spec.model, wire)
        batch = Batch(Path(spec.store), spec.requests) if spec.requests and spec.store else Batch.in_store(spec.store)
    except BaseException:
        await wire.session.close()
        raise
    return OpenAIEngine(wire, card, spec, batch)


def _pick(cards: list[Json], model: str | None, wire: Wire) -> Json:
    """Return the server's entry for the named model, or for its only model."""
    names = [card["id"] for card in cards]
    if model is None:
        if len(cards) == 1:
            return cards[0]
        served = f"serves {_listed(names)}" if names else "serves no list of models (a base URL usually ends in /v1)"
        raise UsageError(f"{wire.place} {served}; name one with --model")
    if cards and model not in names:
        # Gateways list patterns, prefixes or dated names but accept others: only the reply to a request decides.
        close = difflib.get_close_matches(model, names, 1)
        hint = f"; did you mean {close[0]}?" if close else "."
        wire.warn(f"the server does not list the model {model!r} and may refuse it{hint} It lists: {_listed(names)}")
    return next((card for card in cards if card["id"] == model), {"id": model})


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


class OpenAIEngine(Engine):
    """A model behind an OpenAI-compatible server."""

    kind = "openai"

    def __init__(self, wire: Wire, card: Json, spec: EngineSpec, batch: Batch | None = None) -> None:
        self.model: str = card["id"]
        self.concurrency = spec.concurrency
        self.fingerprint = _fingerprint(wire.address, card, spec)
        self.usage = wire.usage
        self._wire, self._batch = wire, batch
        self._requests = requests_for(spec, card, wire.address.host)
        self._continues = card.get("owned_by") == "vllm"
        self._dropped = Dropped(wire.warn)
        self._without_logprobs = False  # known and reported
        self._thinking = spec.thinking or 0  # tokens for thoughts, in addition to those of the answer

    def constrains(self) -> bool:
        """Whether the server is known to enforce choices and has not refused the field for it."""
        return any(name not in self._dropped.names for name in self._requests.constraint(("",)))

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Return one completion per sample index; greedy text is the same for all indexes and requested once."""

        async def draw(settings: Sampling, indexes: Sequence[int]) -> list[Completion]:
            body = self._requests.body(chat, settings)
            runs = await all_of(self._draw(body, settings.seed, run) for run in _runs(indexes))
            return [completion for run in runs for completion in run]

        # vLLM refuses n > 1 with greedy decoding.
        once = sampling.temperature == 0
        budgeted = replace(sampling, max_tokens=sampling.max_tokens + self._thinking)
        completions = await with_more_tokens(draw, budgeted, samples[:1] if once else samples)
        self.usage.calls += len(samples)
        return completions * (len(samples) if once else 1)

    async def _draw(self, body: Json, seed: int, run: Sequence[int]) -> list[Completion]:
        """Return the completions of consecutive samples; missing ones are requested one by one."""
        # vLLM's i-th choice has the seed `seed + i`, so a sample has the same seed in any run of samples.
        seeded = {"seed": seed + run[0]} if "seed" in body else {}
        several = {"n": len(run)} if len(run) > 1 else {}
        completions = read_completions(await self._complete(body | seeded | several))[: len(run)]
        rest = await all_of(self._draw(body, seed, [sample]) for sample in run[len(completions) :])
        return completions + [completion for one in rest for completion in one]

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Return the probability of each answer as the whole reply; without log-probabilities, or after thoughts, only the text.

        Raises UnreadableAnswer if the model's thoughts use up all tokens, or if its log-probabilities are not numbers.
        """
        plain = self._question(chat)
        body = plain | WITH_LOGPROBS
        reply = await self._complete(body)
        self.usage.calls += 1
        completion = read_completions(reply)[0]
        if cut_in_thoughts(completion):
            completion = await self._with_thinking(plain)
        elif completion.reasoning is None and completion.is_answer and completion.finish_reason != DECLINED:
            positions = read_positions(read_choices(reply)[0])
            if positions:
                mass = await read_answers(answers, positions, lambda start: self._after(body, start))
                whole = mass.covered or 1.0
                shares = {answer: probability / whole for answer, probability in mass.of.items()}
                return Choice(shares, min(1.0, mass.covered), completion.text, divided=mass.divided / whole)
            if not self._without_logprobs and "logprobs" in self._requests.merged(self._dropped.apply(body)):
                self._without_logprobs = True
                self._wire.warn("the server returns no log-probabilities; verdicts are read from the words of the reply")
            if completion.finish_reason == "length" and not self._thinking:
                completion = read_completions(await self._complete(plain | {"max_tokens": WORDY_VERDICT}))[0]
        return Choice(None, 0.0, answer_of(completion), declined=completion.finish_reason == DECLINED)

    def _question(self, chat: Sequence[ChatMessage]) -> Json:
        return self._requests.body(chat, Sampling(max_tokens=VERDICT if not self._thinking else WORDY_VERDICT + self._thinking))

    def forget(self, chat: Sequence[ChatMessage], about: Sampling | Sequence[str]) -> None:
        """Delete the batch result of a choice, or of the first sample of a text."""
        if self._batch is None:
            return
        if isinstance(about, Sampling):
            body = self._requests.body(chat, replace(about, max_tokens=about.max_tokens + self._thinking))
        else:
            body = self._question(chat) | WITH_LOGPROBS
        self._batch.forget(self._requests.merged(self._dropped.apply(body)))

    async def _with_thinking(self, plain: Json) -> Completion:
        """Return the reply to a question with a thinking budget; after a success, later questions have it from the start."""
        budget = max(EXTRA_TOKENS, 2 * self._thinking)
        completion = read_completions(await self._complete(plain | {"max_tokens": WORDY_VERDICT + budget}))[0]
        if completion.is_answer:
            self._thinking = self._thinking or budget
        return completion

    async def _after(self, body: Json, start: str) -> Positions:
        """Return the alternatives after a reply that begins with `start`; empty if the server cannot continue a reply."""
        if not self._continues:
            return []
        messages = [*body["messages"], {"role": "assistant", "content": start}]
        prefilled = {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}
        try:
            return read_positions(read_choices(await self._complete(body | prefilled))[0])
        except Refused:
            # The chat template cannot be continued: the probability of `start` is divided, which the Choice reports.
            return []

    async def close(self) -> None:
        """Close the connections and the batch."""
        if self._batch is not None:
            self._batch.close()
        await self._wire.session.close()

    async def _send(self, body: Json) -> Json:
        """Return the reply to a request, from the batch if it has one; raise Unanswered if the request is only written to the batch."""
        result = self._batch.result(body) if self._batch else None
        if result is not None:
            self.usage.batched += body.get("n", 1)
            return self._wire.reply_of(result)
        if self._batch and self._batch.file:
            raise Unanswered(f"the next call has no answer yet; it is in {self._batch.request(body)}")
        return await self._wire.send("POST", PATH, body)

    async def _complete(self, body: Json) -> Json:
        """Return the server's reply, with at least one choice; leave out parameters that it refuses by name, now and later."""
        dropped = self._dropped
        while True:
            sent = self._requests.merged(dropped.apply(body))
            try:
                reply = await self._send(sent)
            except Refused as error:
                if _OUT_OF_TOKENS.search(error.reply):
                    return {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
                # The message too: in JSON other letters than those of English may be escaped.
                if _FILTERED.search(f"{error.reply} {error_message(error.reply, 10_000)}"):
                    raise NoAnswer("filtered", str(error)) from None
                after = dropped.with_refusal(error, sent)
                # A field that the user sets stays in the request.
                if after is None or self._requests.merged(after.apply(body)) == sent:
                    raise
                dropped = after
            else:
                # Remembered only after a success: a message may name a parameter for another reason.
                self._dropped.remember(dropped)
                if not read_choices(reply):
                    whole = json.dumps(reply)
                    message = self._wire.name(f"the reply has no choices: {self._wire.quote(whole)}")
                    raise NoAnswer("filtered", message) if _BLOCKED.search(whole) else EngineError(message)
                for choice in read_choices(reply):
                    if choice.get("error") or finish_reason(choice) == INTERRUPTED:
                        reason = self._wire.quote(json.dumps({"error": choice.get("error")}))
                        raise EngineError(self._wire.name(f"an error in place of an answer: {reason}"))
                return reply


def _runs(samples: Sequence[int]) -> list[list[int]]:
    """Return the indexes as runs of consecutive ones, in the given order."""
    runs: list[list[int]] = []
    for sample in samples:
        if runs and sample == runs[-1][-1] + 1:
            runs[-1].append(sample)
        else:
            runs.append([sample])
    return runs


def _fingerprint(address: Address, card: Json, spec: EngineSpec) -> str:
    # vLLM creates a new permission id for every reply.
    known = {name: value for name, value in card.items() if name not in ("created", "permission")}
    parts: list[Any] = [address.place, known, spec.model_tag]
    if spec.body or spec.thinking is not None:
        parts += [dict(spec.body), spec.thinking]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
