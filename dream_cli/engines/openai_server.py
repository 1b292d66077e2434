"""Any OpenAI-compatible server: `vllm serve`, a gateway, a vendor.

Servers differ in what they quietly leave out, so nothing is taken on trust: choices that did not come are asked for again,
a server without log-probabilities gives a Choice without probabilities, and a parameter that is refused by name is dropped.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import json
import os
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from dream_cli.engines.openai_answers import Positions, read_answers, read_positions
from dream_cli.engines.protocol import ChatMessage, Choice, Completion, Engine, EngineSpec, Sampling, Usage
from dream_cli.errors import EngineError, UsageError

if TYPE_CHECKING:
    import aiohttp


Json = dict[str, Any]

FAULTS = 5  # a 5xx or a broken connection, this often for one request, is no accident
PATIENCE = 10  # "come back later" is said by a server that works
BACKOFF = 0.5
LONGEST_WAIT = 120.0


class Refused(EngineError):
    """The server answered with a status that is not worth trying again."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_address(base_url: str) -> None:
    """Raise UsageError where a base URL is none."""
    if not re.match(r"https?://[^/\s]\S*$", base_url):
        raise UsageError(f"--base-url {base_url!r} is no address; it looks like http://localhost:8000/v1")


async def open_openai(spec: EngineSpec) -> Engine:
    """Return the engine for `spec.base_url`; raise UsageError where no server is there or it has not the model."""
    import aiohttp

    base_url = spec.base_url or ""
    check_address(base_url)
    key = os.environ.get("DREAM_API_KEY") or os.environ.get("OPENAI_API_KEY") or ""
    session = aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=spec.timeout),
        # The semaphore bounds the requests; a second bound would only hide waiting inside the time limit.
        connector=aiohttp.TCPConnector(limit=0),
        headers={"Authorization": f"Bearer {key.strip()}"} if key.strip() else None,
    )
    wire = _Wire(session, base_url.rstrip("/"), asyncio.Semaphore(spec.concurrency), key.strip())
    try:
        card = _pick(await wire.models(), spec.model, wire.place)
    except BaseException:
        await session.close()
        raise
    return OpenAIEngine(wire, card, spec)


def _pick(cards: list[Json], model: str | None, place: str) -> Json:
    """Return what the server says of the model that was asked for, or of the only one it has."""
    names = [card["id"] for card in cards]
    if model is None:
        if len(cards) == 1:
            return cards[0]
        raise UsageError(f"{place} serves {', '.join(names) or 'no list of models'}; name one with --model")
    if not cards or model in names:
        return next((card for card in cards if card["id"] == model), {"id": model})
    close = difflib.get_close_matches(model, names, 1)
    hint = f"; did you mean {close[0]}?" if close else "."
    raise UsageError(f"{place} has no model {model!r}{hint} It serves: {', '.join(names[:20])}")


@dataclass
class _Wire:
    """One server: requests with their retries."""

    session: aiohttp.ClientSession = field(repr=False)
    base: str = field(repr=False)
    slots: asyncio.Semaphore
    key: str = field(repr=False)
    gone: bool = False  # no request has reached the server since one gave up on it

    @property
    def place(self) -> str:
        """The address without a user and password that may stand in it."""
        return re.sub(r"//[^/@]*@", "//", self.base)

    async def models(self) -> list[Json]:
        """Return the server's list of models; a server that has none gives an empty one."""
        try:
            reply = await self.send("GET", "/models", faults=3)
        except Refused as error:
            if error.status == 401:
                raise UsageError(f"{error}. The key is read from DREAM_API_KEY, else from OPENAI_API_KEY") from None
            return []
        except EngineError as error:
            raise UsageError(str(error)) from None
        data = reply.get("data")
        return [m for m in data if isinstance(m, dict) and isinstance(m.get("id"), str)] if isinstance(data, list) else []

    async def send(self, method: str, path: str, body: Json | None = None, faults: int = FAULTS) -> Json:
        """Return the reply to one request; raise Refused or, after the retries, EngineError."""
        failures = {True: 0, False: 0}
        # The slot is kept while waiting: a server in trouble sees fewer of us.
        async with self.slots:
            while True:
                status, text, retry_after = await self._once(method, path, body)
                self.gone = self.gone and status == 0
                if 200 <= status < 300:
                    return self._read(text)
                if not _passing(status):
                    raise Refused(status, self.say(f"{status}: {self.quote(text)}"))
                busy = status in (408, 429)
                failures[busy] += 1
                # A server that is gone is not waited for by each of thousands of rows; one try finds out whether it is back.
                allowed = PATIENCE if busy else 1 if self.gone else faults
                if failures[busy] >= allowed:
                    self.gone = status == 0
                    raise self._given_up(status, text, failures[busy])
                await asyncio.sleep(_pause(sum(failures.values()), retry_after))

    async def _once(self, method: str, path: str, body: Json | None) -> tuple[int, str, str | None]:
        """Return status, text and Retry-After of one attempt; status 0 is a connection that failed."""
        import aiohttp

        try:
            async with self.session.request(method, self.base + path, json=body) as response:
                return response.status, await response.text(errors="replace"), response.headers.get("Retry-After")
        except TimeoutError:
            return 0, f"no answer within {self.session.timeout.total:g} s", None
        except (aiohttp.ClientError, OSError) as error:
            return 0, str(error) or type(error).__name__, None

    def _given_up(self, status: int, text: str, times: int) -> EngineError:
        said = f"{status}: {self.quote(text)}" if status else f"cannot be reached: {self.quote(text)}"
        message = self.say(f"{said} ({times} times)")
        return Refused(status, message) if status else EngineError(message)

    def _read(self, text: str) -> Json:
        try:
            reply = json.loads(text)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise Refused(200, self.say(f"the reply is not a JSON object (a base URL usually ends in /v1): {self.quote(text)}"))
        return reply

    def say(self, message: str) -> str:
        """Return the message with the server's name."""
        return f"{self.place}: {message}"

    def quote(self, text: str) -> str:
        """Return what the server's error says; a key that it repeats (as some do when they refuse it) goes no further."""
        # Before the message is trimmed, which could leave a part of the key.
        return _message(text.replace(self.key, "***") if self.key else text)


class OpenAIEngine(Engine):
    """A model behind an OpenAI-compatible server."""

    kind = "openai"

    def __init__(self, wire: _Wire, card: Json, spec: EngineSpec) -> None:
        self.model: str = card["id"]
        self.concurrency = spec.concurrency
        self.fingerprint = _fingerprint(wire.place, card, spec.model_tag)
        self.usage = Usage()
        self._wire = wire
        self._continues = card.get("owned_by") == "vllm"
        self._dropped: set[str] = set()

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Return one completion for each sample index; greedy text is the same for all of them and asked for once."""
        body = self._body(chat, sampling)
        # vLLM refuses n > 1 with greedy decoding.
        once = sampling.temperature == 0
        drawn = await asyncio.gather(*(self._draw(body, run) for run in _runs(samples[:1] if once else samples)))
        self.usage.calls += len(samples)
        return [completion for run in drawn for completion in run] * (len(samples) if once else 1)

    async def _draw(self, body: Json, run: Sequence[int]) -> list[Completion]:
        """Return the completions of consecutive samples; those that a server leaves out are asked for one by one."""
        # A server's i-th choice is, for vLLM, the one of seed + i: a sample has the same seed in whatever run it comes.
        several = {"n": len(run)} if len(run) > 1 else {}
        reply = await self._complete(body | several | {"seed": body["seed"] + run[0]})
        drawn = _completions(reply)[: len(run)]
        rest = await asyncio.gather(*(self._draw(body, [sample]) for sample in run[len(drawn) :]))
        return drawn + [completion for one in rest for completion in one]

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Return how probable each answer is as the whole reply; without log-probabilities only the text."""
        plain = self._body(chat, Sampling(max_tokens=4))
        body = plain | {"logprobs": True, "top_logprobs": 20}
        reply = await self._complete(body)
        self.usage.calls += 1
        said, positions = _completions(reply)[0], read_positions(_choices(reply)[0])
        if not positions:
            if said.finish_reason == "length":
                said = _completions(await self._complete(plain | {"max_tokens": 16}))[0]
            return Choice(None, 0.0, said.text)
        mass = await read_answers(answers, positions, lambda start: self._after(body, start))
        covered = sum(mass.values())
        return Choice({a: p / covered if covered else 0.0 for a, p in mass.items()}, min(1.0, covered), said.text)

    async def _after(self, body: Json, start: str) -> Positions:
        """Return the alternatives once the reply has begun with `start`, where the server can be made to go on from it."""
        if not self._continues:
            return []
        messages = [*body["messages"], {"role": "assistant", "content": start}]
        prefilled = {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}
        try:
            return read_positions(_choices(await self._complete(body | prefilled))[0])
        except Refused:
            # A chat template that cannot be continued: the answer stays uncovered, which the Choice says.
            return []

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.session.close()

    def _body(self, chat: Sequence[ChatMessage], sampling: Sampling) -> Json:
        body: Json = {
            "model": self.model,
            "messages": [_message_json(message) for message in chat],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
        }
        if sampling.schema is not None:
            schema = {"name": "answer", "strict": True, "schema": dict(sampling.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _pay(self, usage: Any) -> None:
        """Add up the tokens as the server counts them; one that does not say counts for none."""
        self.usage.prompt_tokens += _count(usage, "prompt_tokens")
        self.usage.completion_tokens += _count(usage, "completion_tokens")

    async def _complete(self, body: Json) -> Json:
        """Return the server's reply with at least one choice; what it refuses by name is left out, once and from then on."""
        dropped = set(self._dropped)
        while True:
            try:
                reply = await self._wire.send("POST", "/chat/completions", _without(body, dropped))
            except Refused as error:
                blamed = _blamed(error, body) - dropped
                if not blamed:
                    raise
                dropped |= blamed
            else:
                # Only what helped is remembered: a message may name a parameter for another reason.
                self._dropped |= dropped
                self._pay(reply.get("usage"))
                if not _choices(reply):
                    raise EngineError(self._wire.say(f"the reply has no choices: {self._wire.quote(json.dumps(reply))}"))
                return reply


def _count(usage: Any, name: str) -> int:
    said = usage.get(name) if isinstance(usage, dict) else None
    return said if isinstance(said, int) else 0


def _choices(reply: Json) -> list[Json]:
    choices = reply.get("choices")
    choices = [c for c in choices if isinstance(c, dict)] if isinstance(choices, list) else []
    return sorted(choices, key=lambda c: c.get("index") or 0)


def _completions(reply: Json) -> list[Completion]:
    """Return every choice of the reply; its tokens are counted only where the server's sum is of one choice."""
    choices, usage = _choices(reply), reply.get("usage") or {}
    written = usage.get("completion_tokens") if len(choices) == 1 else None
    return [Completion(_text(c), c.get("finish_reason"), usage.get("prompt_tokens"), written) for c in choices]


def _text(choice: Json) -> str:
    content = (choice.get("message") or {}).get("content")
    return content if isinstance(content, str) else ""


def _message_json(message: ChatMessage) -> Json:
    from dream_cli.records.images import data_uri

    if not message.images:
        return {"role": message.role, "content": message.text}
    parts: list[Json] = [{"type": "image_url", "image_url": {"url": data_uri(image)}} for image in message.images]
    return {"role": message.role, "content": [*parts, {"type": "text", "text": message.text}]}


def _blamed(error: Refused, body: Json) -> set[str]:
    """Return which of our parameters a refusal is about, each by the name under which it is remembered."""
    if error.status not in (400, 422):
        return set()
    said, blamed = str(error), set()
    if "max_completion_tokens" in said:
        blamed.add("max_tokens")
    if "response_format" in body and re.search(r"response_format|json_schema|schema|structured|grammar", said, re.IGNORECASE):
        blamed.add(_schema_name(body))
    if "logprobs" in body and "logprobs" in said:
        blamed.add("logprobs")
    return blamed


def _without(body: Json, dropped: set[str]) -> Json:
    left = dict(body)
    if "max_tokens" in dropped:
        left["max_completion_tokens"] = left.pop("max_tokens")
    if "response_format" in left and _schema_name(left) in dropped:
        del left["response_format"]
    if "logprobs" in dropped:
        left = {name: value for name, value in left.items() if name not in ("logprobs", "top_logprobs")}
    return left


def _schema_name(body: Json) -> str:
    """Name one schema: that one is refused (say, for an array at its root) says nothing of another."""
    return json.dumps(body["response_format"])


def _runs(samples: Sequence[int]) -> list[list[int]]:
    """Return the indexes in runs of consecutive ones, in the order in which they came."""
    runs: list[list[int]] = []
    for sample in samples:
        if runs and sample == runs[-1][-1] + 1:
            runs[-1].append(sample)
        else:
            runs.append([sample])
    return runs


def _fingerprint(place: str, card: Json, tag: str | None) -> str:
    # vLLM makes up a new permission id for every reply.
    said = {name: value for name, value in card.items() if name not in ("created", "permission")}
    return hashlib.sha256(json.dumps([place, said, tag], sort_keys=True).encode()).hexdigest()[:16]


def _passing(status: int) -> bool:
    return status in (0, 408, 429) or (status >= 500 and status != 501)


def _pause(attempt: int, retry_after: str | None) -> float:
    """Return the seconds to wait: full jitter, after the time the server asked for."""
    jitter = random.uniform(0, min(60.0, BACKOFF * 2 ** (attempt - 1)))
    return min(LONGEST_WAIT, (_seconds(retry_after) or 0.0) + jitter)


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After header: seconds or an HTTP date; None where it is neither."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _message(text: str) -> str:
    """Return what a server's error says, in at most 300 characters."""
    try:
        said = json.loads(text)
    except ValueError:
        said = text
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and said.get(name):
            said = said[name]
    said = said if isinstance(said, str) else json.dumps(said)
    return " ".join(said.split())[:300] or "no message"
