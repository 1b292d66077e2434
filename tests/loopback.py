"""A real OpenAI-compatible server on 127.0.0.1 for tests and benchmarks; its text is a hash of the request.

with Loopback(faults=[429]) as server: ... server.url
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import re
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from aiohttp import web

from dream_cli.engines.openai_server import open_openai
from dream_cli.engines.protocol import Engine, EngineSpec

T = TypeVar("T")
Json = dict[str, Any]
Positions = Sequence[Sequence[tuple[str, float]]]  # for each position (token, probability); the first is the one written


def fact(body: Json, yes: float, rest: float = 0.0) -> Positions:
    """Return the tokens of a judge: a fact's probability in the form that its question has; `rest` is that of another word."""
    true, false = answers_of(body)
    return [[*([("Perhaps", rest)] if rest else []), (true, (1 - rest) * yes), (false, (1 - rest) * (1 - yes))]]


def answers_of(body: Json) -> tuple[str, str]:
    """Return the two answers to the question about a fact: first the one that makes it true."""
    return ("A", "B") if "Answer A or B." in json.dumps(body["messages"]) else ("Yes", "No")


@dataclass(frozen=True)
class Fault:
    """One answer that is an error; status 0 drops the connection."""

    status: int
    message: str = "the test asked for this"
    headers: Mapping[str, str] = field(default_factory=dict)


class Loopback:
    """An OpenAI-compatible server in a thread.

    `faults` answer the first requests; `refuse(body)` may return a Fault for any of them; `ignore` names parameters
    (n, logprobs, response_format) that are left out of account with a 200; `reply(body)` gives the text and `tokens(body)`
    the tokens with their probabilities. `whole(body)` may give the whole reply: an object, or the bytes of a body of status 200.
    Any path that ends in /models or /chat/completions is served. `calls`, `peak` (most requests at once), `bodies`, `headers`
    and `paths` (with their queries, of both kinds of request) record what came.
    """

    def __init__(
        self,
        *,
        model: str = "loopback",
        models: Sequence[str] | None = None,
        owned_by: str = "loopback",
        card: Mapping[str, Any] | None = None,
        list_status: int = 200,
        faults: Sequence[int | Fault] = (),
        refuse: Callable[[Json], Fault | None] | None = None,
        ignore: Sequence[str] = (),
        latency: float = 0.0,
        reply: Callable[[Json], str] | None = None,
        tokens: Callable[[Json], Positions] | None = None,
        end_token: str | None = None,
        whole: Callable[[Json], Json | bytes | None] | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.names = list(models) if models is not None else [model]
        self.card = {"object": "model", "owned_by": owned_by, **(card or {})}
        self.list_status, self.latency, self.port, self.end_token = list_status, latency, port, end_token
        self.faults = [Fault(f) if isinstance(f, int) else f for f in faults]
        self.refuse, self.ignore, self.reply, self.tokens = refuse, set(ignore), reply, tokens
        self.whole, self.tls = whole, tls
        self.calls = self.active = self.peak = 0
        self.bodies: list[Json] = []
        self.headers: list[Mapping[str, str]] = []
        self.paths: list[str] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        assert self._ready.wait(10), "the loopback server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(10)

    def stop(self) -> None:
        """Close the port, from any thread; once more is no error."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live())
        finally:
            self._loop.close()

    async def _live(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=1 << 28)
        app.router.add_get("/{base:.*}/models", self._list)
        app.router.add_post("/{base:.*}/chat/completions", self._chat)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self.tls).start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()
        # Requests that nobody waits for any more.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _list(self, request: web.Request) -> web.Response:
        self.paths.append(request.path_qs)
        if self.list_status != 200:
            return _error(Fault(self.list_status))
        # As vLLM does: a new time and a new permission id in every reply.
        volatile = {"created": self._loop.time(), "permission": [{"id": f"modelperm-{self._loop.time()}"}]}
        return web.json_response({"object": "list", "data": [{"id": name} | self.card | volatile for name in self.names]})

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.calls, self.active = self.calls + 1, self.active + 1
        self.peak = max(self.peak, self.active)
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.paths.append(request.path_qs)
        try:
            await asyncio.sleep(self.latency)
            fault = self.faults.pop(0) if self.faults else self._contract(body)
            if fault is None and self.whole is not None and (whole := self.whole(body)) is not None:
                data = whole if isinstance(whole, bytes) else json.dumps(whole).encode()
                return web.Response(body=data, content_type="application/json")
            if fault is None:
                return web.json_response(self._completion(body))
            if fault.status == 0 and request.transport is not None:
                request.transport.close()
            return _error(fault)
        finally:
            self.active -= 1

    def _contract(self, body: Json) -> Fault | None:
        """Refuse what vLLM refuses."""
        if self.refuse is not None and (fault := self.refuse(body)) is not None:
            return fault
        if body["model"] not in self.names:
            return Fault(404, f"The model `{body['model']}` does not exist.")
        if body.get("n", 1) > 1 and body.get("temperature") == 0 and "n" not in self.ignore:
            return Fault(400, "n must be 1 when using greedy sampling")
        if body.get("top_logprobs", 0) > 20:
            return Fault(400, "Requested sample logprobs of 21, which is greater than max allowed: 20")
        return None

    def _completion(self, body: Json) -> Json:
        body = {name: value for name, value in body.items() if name not in self.ignore}
        n = body.pop("n", 1)
        choices = [self._choice(body | {"seed": body.get("seed", 0) + i}) | {"index": i} for i in range(n)]
        written = sum(choice.pop("length") for choice in choices)
        read = len(json.dumps(body["messages"])) // 4
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return {"object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage}

    def _choice(self, body: Json) -> Json:
        limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or 512)
        positions = self.tokens(body) if self.tokens is not None else _tokens(self._text(body))
        kept = positions[:limit]
        text = "".join(position[0][0] for position in kept)
        finish = "length" if len(positions) > limit else "stop"
        choice: Json = {"message": {"role": "assistant", "content": text}, "finish_reason": finish, "length": len(kept)}
        if body.get("logprobs"):
            # vLLM lists the end of the text as a token, others leave it out.
            end = [[(self.end_token, 1.0)]] if self.end_token is not None and finish == "stop" else []
            content = [_position(position, body.get("top_logprobs", 0)) for position in [*kept, *end]]
            choice["logprobs"] = {"content": content}
        return choice

    def _text(self, body: Json) -> str:
        if self.reply is not None:
            return self.reply(body)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        form = body.get("response_format") or {}
        if form.get("type") == "json_schema":
            return json.dumps(example(form["json_schema"]["schema"], digest))
        return " ".join(digest[i : i + 4] for i in range(0, 24, 4))


def example(schema: Mapping[str, Any], digest: str) -> Any:
    """Return a small value that fits a JSON schema of the plain kind."""
    if "enum" in schema:
        return schema["enum"][int(digest, 16) % len(schema["enum"])]
    inner = hashlib.sha256(digest.encode()).hexdigest()
    kind = schema.get("type")
    if kind == "object":
        return {name: example(part, inner[i % 32 :]) for i, (name, part) in enumerate(schema.get("properties", {}).items())}
    if kind == "array":
        return [example(schema.get("items", {}), inner[i % 32 :]) for i in range(schema.get("minItems", 1))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"boolean": True, "null": None}.get(str(kind), digest[:8])


def _tokens(text: str) -> Positions:
    return [[(token, 0.9), ("~", 0.1)] for token in re.findall(r"\s*\S+\s*$|\s*\S+", text)]


def _position(position: Sequence[tuple[str, float]], top: int) -> Json:
    entries = [{"token": t, "logprob": math.log(p) if p else -9999.0, "bytes": list(t.encode())} for t, p in position]
    return entries[0] | {"top_logprobs": sorted(entries, key=lambda entry: -float(str(entry["logprob"])))[:top]}


def _error(fault: Fault) -> web.Response:
    error = {"error": {"message": fault.message, "type": "error", "code": fault.status}}
    return web.json_response(error, status=fault.status or 500, headers=fault.headers)


def using(server: Loopback, work: Callable[[Engine], Awaitable[T]], **spec: Any) -> T:
    """Open the engine of this server, give it to `work`, close it, and return the result."""

    async def run() -> T:
        engine = await open_openai(EngineSpec(base_url=server.url, **spec))
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(run())


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--owned-by", default="loopback")
    given = parser.parse_args()
    with Loopback(port=given.port, latency=given.latency, owned_by=given.owned_by) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
