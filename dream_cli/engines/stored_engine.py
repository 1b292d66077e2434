"""An engine with a store: it answers from the call store, and calls another engine for the rest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any
from weakref import WeakValueDictionary

from dream_cli.engines.protocol import PURPOSE, ChatMessage, Choice, Completion, Engine, Sampling
from dream_cli.engines.store import VERSION, VERSION_OF_BEGINNINGS, CallStore, call_key
from dream_cli.errors import EngineError
from dream_cli.records.images import exceeds_default
from dream_cli.records.record import Image

Json = dict[str, Any]

FIRST_LOOK, LAST_LOOK = 0.05, 1.0  # seconds between two checks for the reply to a call of another process


class StoredEngine(Engine):
    """An engine that answers from the store, and calls another engine for the rest."""

    def __init__(self, inner: Engine, store: CallStore) -> None:
        self.kind, self.model, self.fingerprint = inner.kind, inner.model, inner.fingerprint
        self.concurrency, self.usage, self.checkpoint = inner.concurrency, inner.usage, inner.checkpoint
        self._inner, self._store = inner, store
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Held until a reply is on disk, so that a killed process loses only the calls in flight.
        self._slots = asyncio.Semaphore(inner.concurrency)

    def constrains(self) -> bool:
        """Whether the engine is known to enforce choices; for a server this can change during the run."""
        return self._inner.constrains()

    async def generate(self, chat: Sequence[ChatMessage], sampling: Sampling, samples: Sequence[int]) -> list[Completion]:
        """Return one completion per sample index; only missing ones are generated."""
        about = self._request("generate", chat) | {"sampling": _sampling_json(sampling)}
        requests = {sample: about | {"sample": sample} for sample in samples}

        async def call(missing: list[int]) -> list[Json]:
            return [asdict(completion) for completion in await self._inner.generate(chat, sampling, missing)]

        replies = await self._replies(requests, call)
        return [Completion(**replies[sample]) for sample in samples]

    async def choose(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Choice:
        """Return the probability of each answer, from the store if possible."""
        request = self._choice_request(chat, answers)

        async def call(_: list[int]) -> list[Json]:
            choice = await self._inner.choose(chat, answers)
            probabilities = None if choice.probabilities is None else dict(choice.probabilities)
            divided = {"divided": choice.divided} if choice.divided else {}
            declined = {"declined": True} if choice.declined else {}
            return [{"probabilities": probabilities, "covered": choice.covered, "text": choice.text, **divided, **declined}]

        return Choice(**(await self._replies({0: request}, call))[0])

    def forget(self, chat: Sequence[ChatMessage], about: Sampling | Sequence[str]) -> None:
        """Delete the stored reply to a choice, or to the first sample of a text, so that it is requested again."""
        if isinstance(about, Sampling):
            request = self._request("generate", chat) | {"sampling": _sampling_json(about), "sample": 0}
        else:
            request = self._choice_request(chat, about)
        self._store.drop(call_key(request))
        self._inner.forget(chat, about)

    async def close(self) -> None:
        """Close the engine and the store."""
        await self._inner.close()
        self._store.close()

    def _request(self, verb: str, chat: Sequence[ChatMessage]) -> Json:
        messages = [
            {"role": m.role, "text": m.text, "images": [_image_sha256(image) for image in m.images]}
            # Without offsets the key stays the same as in older versions.
            | ({"places": m.places} if any(m.places) else {})
            # The same bytes, which a model in this process otherwise sees at a smaller size.
            | ({"large_images": True} if any(map(exceeds_default, m.images)) else {})
            for m in chat
        ]
        return {"version": VERSION, "verb": verb, "engine": self.fingerprint, "messages": messages}

    def _choice_request(self, chat: Sequence[ChatMessage], answers: Sequence[str]) -> Json:
        begins = any(one != other and other.startswith(one) for one in answers for other in answers)
        version = {"version": VERSION_OF_BEGINNINGS} if begins else {}
        return self._request("choose", chat) | version | {"answers": list(answers)}

    async def _replies(self, requests: Mapping[int, Json], call: Callable[[list[int]], Awaitable[list[Json]]]) -> dict[int, Json]:
        """Return the reply to each request; new replies are on disk before this returns."""
        keys = {name: call_key(request) for name, request in requests.items()}
        async with AsyncExitStack() as held:
            # Identical requests wait for the first one and then read its reply. If the first fails or is cancelled, the next one makes
            # the call, which a shared future could not do. The sorted order prevents deadlocks.
            for key in sorted(keys.values()):
                await held.enter_async_context(self._lock(key))
            replies = self._kept(keys)
            pause = FIRST_LOOK
            while missing := [name for name in keys if name not in replies]:
                async with self._slots, self._claimed([keys[name] for name in missing]) as claimed:
                    # Another process may have stored a reply, and released its claim, while this task waited for a slot.
                    replies |= self._kept({name: keys[name] for name in missing if keys[name] in claimed})
                    ours = [name for name in missing if keys[name] in claimed and name not in replies]
                    if ours:
                        fresh = dict(zip(ours, await call(ours), strict=True))
                        kept = [(keys[n], requests[n], fresh[n]) for n in ours if _is_answer(fresh[n])]
                        by_others = self._store.put(requests[ours[0]]["verb"], self.model, calls=kept, purpose=PURPOSE.get())
                        self.usage.unkept = self._store.unkept
                        replies |= {name: by_others.get(keys[name], reply) for name, reply in fresh.items()}
                elsewhere = {name: keys[name] for name in missing if name not in replies}
                if elsewhere and not ours:
                    await asyncio.sleep(pause)
                    pause = min(LAST_LOOK, 2 * pause)
                replies |= self._kept(elsewhere)
        return replies

    def _kept(self, keys: Mapping[int, str]) -> dict[int, Json]:
        """Return the stored replies that are answers; delete the others and damaged ones, so that they are requested again."""
        replies = {}
        for name, key in keys.items():
            reply = self._store.get(key)
            if reply is not None and _is_answer(reply):
                replies[name] = reply
            elif reply is not None:
                self._store.drop(key)
        self.usage.reused += len(replies)
        return replies

    @asynccontextmanager
    async def _claimed(self, keys: Sequence[str]) -> AsyncIterator[set[str]]:
        """Claim the keys during the body; yield those that no other process holds."""
        claimed = self._store.claim(keys)
        try:
            yield claimed
        finally:
            self._store.release(claimed)

    def _lock(self, key: str) -> asyncio.Lock:
        """Return the lock of a key, which exists as long as a task holds or awaits it."""
        return self._locks.setdefault(key, asyncio.Lock())


def _is_answer(reply: Json) -> bool:
    """Whether a reply can be read and is worth keeping; filtered and empty replies are requested again."""
    try:
        if "probabilities" not in reply:
            completion = Completion(**reply)
            return isinstance(completion.text, str) and completion.is_answer
        choice = Choice(**reply)
        if choice.probabilities is not None:
            return all(isinstance(share, int | float) for share in [choice.covered, choice.divided, *choice.probabilities.values()])
        return Completion(choice.text).is_answer
    except (TypeError, AttributeError):
        return False


def _sampling_json(sampling: Sampling) -> Json:
    return {
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "schema": None if sampling.schema is None else dict(sampling.schema),
    } | ({"choices": list(sampling.choices)} if sampling.choices else {})


def _image_sha256(image: Image) -> str:
    if image.data is None:
        raise EngineError(f"the image {image.path} was not read before it was sent")
    return hashlib.sha256(image.data).hexdigest()
