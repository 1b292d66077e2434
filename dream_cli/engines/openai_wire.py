"""HTTP to one OpenAI-compatible server: bounded replies, retries, no redirects, a limit on outages, and messages without secrets."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from dream_cli.engines.address import Address, public_address
from dream_cli.engines.api_keys import api_key, authorization, key_advice
from dream_cli.engines.breaker import Outage
from dream_cli.engines.limits import Meter, MeteredRequest
from dream_cli.engines.masking import Mask
from dream_cli.engines.openai_attempt import (
    UNREASONABLE_WAIT,
    Attempt,
    Refused,
    embedded_failure,
    error_message,
    is_of_account,
    is_passing,
    pause,
)
from dream_cli.engines.openai_events import read_events
from dream_cli.engines.openai_reply import usage_of
from dream_cli.engines.protocol import EngineSpec
from dream_cli.engines.usage import Usage
from dream_cli.errors import EngineError, RunFailure, UsageError
from dream_cli.records.visible import visible_line

if TYPE_CHECKING:
    import aiohttp


Json = dict[str, Any]

FAULTS = 5  # attempts at a request that fails with a 5xx or a broken connection
TIMEOUTS = 2  # attempts at a request that times out
PATIENCE = 10  # attempts at a request that a working server defers
REPORT_EVERY = 60.0  # seconds between two reports of retries
LARGEST_REPLY = 16 << 20  # bytes
CA_BUNDLE = "REQUESTS_CA_BUNDLE"  # OpenSSL reads SSL_CERT_FILE by itself


@dataclass
class Wire:
    """One server: requests with retries; all requests end together if the server fails permanently."""

    session: aiohttp.ClientSession = field(repr=False)
    address: Address
    slots: asyncio.Semaphore
    mask: Mask = field(repr=False)
    outage: Outage
    meter: Meter | None = None
    key_names: tuple[str, ...] = ()
    proxy: str | None = field(default=None, repr=False)
    usage: Usage = field(default_factory=Usage)
    failure: str | None = None  # why no more requests are made
    _limits: set[asyncio.Timeout] = field(default_factory=set, repr=False)
    _watch: asyncio.TimerHandle | None = field(default=None, repr=False)
    _reported: float = 0.0

    @property
    def place(self) -> str:
        """The address without secrets."""
        return self.address.place

    async def models(self) -> list[Json]:
        """Return the server's list of models, empty if it has none."""
        try:
            reply = await self.send("GET", "/models", faults=3)
        except Refused as error:
            if error.status == 401:
                raise UsageError(f"{error}. {key_advice(self.key_names)}") from None
            if 300 <= error.status < 400:
                raise UsageError(str(error)) from None
            return []
        except EngineError as error:
            raise UsageError(str(error)) from None
        data = reply.get("data")
        return [m for m in data if isinstance(m, dict) and isinstance(m.get("id"), str)] if isinstance(data, list) else []

    async def send(self, method: str, path: str, body: Json | None = None, faults: int = FAULTS) -> Json:
        """Return the reply to one request; raise Refused or, after the retries, EngineError.

        Raises RunFailure, like every other request in flight, if the server fails permanently.
        """
        failures = {"busy": 0, "timeout": 0, "fault": 0}
        attempts = {"busy": PATIENCE, "timeout": TIMEOUTS, "fault": faults}
        began: float | None = None
        # Keep the slot while waiting, so that a failing server receives fewer requests.
        async with self._until_failure(), self.slots, self._metered(body) as metered:
            while True:
                if metered is not None:
                    await metered.begin()
                sent = time.monotonic()
                began = began or sent
                attempt = await self._once(method, path, body)
                if 200 <= attempt.status < 300:
                    reply = self._read(attempt.text)
                    # Routers report a failure of the server behind them with status 200.
                    attempt = embedded_failure(reply) or attempt
                    if 200 <= attempt.status < 300:
                        self.outage.success()
                        self._count(usage_of(reply), metered)
                        return reply
                if not is_passing(attempt):
                    raise self._refusal(attempt)
                kind = "busy" if attempt.status in (408, 409, 429) else "timeout" if attempt.timed_out else "fault"
                failures[kind] += 1
                self._note(attempt, sent)
                if failures[kind] >= attempts[kind]:
                    error = self._final_error(attempt, failures[kind])
                    # No request was answered since this one began: the server is gone.
                    if not attempt.connected and body is not None and self.outage.began is not None and self.outage.began <= began:
                        raise self._fail(str(error))
                    raise error
                self._report_retry(attempt)
                await asyncio.sleep(pause(sum(failures.values()), attempt.wait))

    def reply_of(self, result: Attempt) -> Json:
        """Return the reply to a request of a batch; raise Refused if it is an error."""
        if not 200 <= result.status < 300:
            raise self._refusal(result)
        return self._read(result.text)

    def _metered(self, body: Json | None) -> AbstractAsyncContextManager[MeteredRequest | None]:
        """Apply the limits of the run to a request during the body; the list of models costs nothing."""
        return nullcontext() if body is None or self.meter is None else self.meter.request(body)

    def _count(self, tokens: Usage, metered: MeteredRequest | None) -> None:
        self.usage.prompt_tokens += tokens.prompt_tokens
        self.usage.completion_tokens += tokens.completion_tokens
        self.usage.cached_tokens += tokens.cached_tokens
        if metered is not None:
            metered.end(tokens)

    @asynccontextmanager
    async def _until_failure(self) -> AsyncIterator[None]:
        """End the body, wherever it waits, with RunFailure if the server fails permanently."""
        if self.failure is not None:
            raise RunFailure(self.failure)
        try:
            async with asyncio.timeout(None) as limit:
                self._begin(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
                    if not self._limits:
                        self.outage.pause(time.monotonic())
        except TimeoutError:
            if self.failure is None:
                raise
            raise RunFailure(self.failure) from None

    def _begin(self, limit: asyncio.Timeout) -> None:
        if not self._limits:
            self.outage.resume(time.monotonic())
        self._limits.add(limit)
        if self._watch is None:
            self._end_long_outage()

    def _fail(self, reason: str) -> RunFailure:
        """Stop all present and future requests; return the error."""
        self.failure = self.failure or reason
        for limit in self._limits:
            limit.reschedule(0)
        return RunFailure(self.failure)

    def _note(self, attempt: Attempt, sent: float) -> None:
        """Count a failed attempt, and watch the duration of the outage."""
        self.outage.failure(sent, self.name(self._reason(attempt)), attempt.wait)
        if self._watch is None:
            self._end_long_outage()

    def _end_long_outage(self) -> None:
        """Stop all requests if the outage lasts too long, else check again when it would."""
        left = self.outage.left(time.monotonic())
        if left <= 0:
            self._fail(f"{self.outage.first}; no request was answered for {self.outage.patience:.0f} s")
        # A timer, because the run may be waiting for a single request in flight.
        self._watch = asyncio.get_running_loop().call_later(left, self._end_long_outage) if 0 < left < math.inf else None

    def _report_retry(self, attempt: Attempt) -> None:
        """Report the first retry of each kind of failure, and the number of retries once per minute."""
        new, now = attempt.kind not in self.usage.retries, time.monotonic()
        self.usage.retries[attempt.kind] += 1
        if new:
            self.warn(f"{self._reason(attempt)}; such requests are tried again")
        elif now - self._reported < REPORT_EVERY:
            return
        else:
            self.warn(f"requests tried again so far: {self.usage.retry_counts}")
        self._reported = now

    def _reason(self, attempt: Attempt) -> str:
        return self.quote(attempt.text) if attempt.timed_out else f"{attempt.kind}: {self.quote(attempt.text)}"

    def warn(self, message: str) -> None:
        """Write one line about the server to stderr."""
        sys.stderr.write(f"dream: {visible_line(self.name(message))}\n")

    async def _once(self, method: str, path: str, body: Json | None) -> Attempt:
        import aiohttp

        try:
            async with self.session.request(method, self.address.url(path), json=body, allow_redirects=False, proxy=self.proxy) as response:
                data = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    data += chunk
                    if len(data) > LARGEST_REPLY:
                        raise Refused(response.status, self.name(f"the reply is larger than {LARGEST_REPLY >> 20} MB"))
                # JSON is UTF-8 whatever the header declares; a byte order mark is not part of it.
                text = bytes(data).decode("utf-8-sig", errors="replace")
                headers = response.headers
                return Attempt(response.status, text, headers.get("Retry-After"), headers.get("Location", ""))
        except TimeoutError:
            return Attempt(0, f"no answer within {self.session.timeout.total:g} s", timed_out=True)
        except aiohttp.ClientConnectorCertificateError as error:
            # Not a transient failure.
            raise EngineError(self.name(f"{self.quote(str(error))}; name its CA with SSL_CERT_FILE or {CA_BUNDLE}")) from None
        except aiohttp.ServerDisconnectedError:
            # Its text may be an object, the head of the reply.
            return Attempt(0, "the server closed the connection")
        except aiohttp.ClientConnectorError as error:
            return Attempt(0, str(error), connected=False)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Attempt(0, str(error) or type(error).__name__)

    def _refusal(self, attempt: Attempt) -> Refused:
        """Return the error of a request without a retry; raise RunFailure after several consecutive refusals of the account."""
        status = attempt.status
        if 300 <= status < 400 and attempt.location:
            target = public_address(attempt.location)[:200]
            return Refused(status, self.name(f"{status}: the server redirects to {target}; name that server with --base-url"))
        hint = ""
        if attempt.wait > UNREASONABLE_WAIT:
            message = f"{status}: the server asks to wait for {attempt.wait:.0f} s: {self.quote(attempt.text)}"
        else:
            hint = " (a base URL usually ends in /v1)" if status == 404 and not self.place.endswith("/v1") else ""
            message = f"{status}: {self.quote(attempt.text).removeprefix(f'{status}: ')}{hint}"
        refusal = Refused(status, self.name(message), attempt.text)
        if not is_of_account(attempt):
            # The server and the key work.
            self.outage.success()
            return refusal
        if self.outage.refused():
            advice = f". {key_advice(self.key_names)}" if status == 401 else ""
            raise self._fail(f"{refusal} ({self.outage.refusals} replies in a row){advice}")
        return refusal

    def _final_error(self, attempt: Attempt, times: int) -> EngineError:
        message = self.name(f"{self._reason(attempt)} ({times} times)")
        return Refused(attempt.status, message, attempt.text) if attempt.status else EngineError(message)

    def _read(self, text: str) -> Json:
        try:
            reply = read_events(text) or json.loads(text)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            raise Refused(200, self.name(f"the reply is not a JSON object (a base URL usually ends in /v1): {self.quote(text)}"), text)
        return reply

    def name(self, message: str) -> str:
        """Return the message with the server's name."""
        return f"{self.place}: {message}"

    def quote(self, text: str) -> str:
        """Return the server's error message without the API key, which some servers repeat when they refuse it."""
        # Before the message is shortened, which could leave a part of the key.
        return error_message(self.mask(text))


def open_wire(spec: EngineSpec, address: Address) -> Wire:
    """Return the connection to the server of `spec`; raise UsageError for a key or a CA file that cannot be used."""
    import aiohttp

    key = api_key(spec.key_names, address)
    headers = authorization(address, key, spec.headers)
    session = aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=spec.timeout),
        # The semaphore limits the requests; a second limit would add waiting time to the timeout of a request.
        connector=aiohttp.TCPConnector(limit=0, ssl=_tls()),
        headers=headers,
    )
    proxy = _proxy(address)
    # A server may repeat the credentials of "Bearer ..." alone.
    credentials = [re.sub(r"^(?:bearer|basic|token|key) +", "", value, flags=re.IGNORECASE) for value in headers.values()]
    sent = (key, *address.secrets, *credentials, (urlsplit(proxy).password or "") if proxy else "")
    return Wire(
        session=session,
        address=address,
        slots=asyncio.Semaphore(spec.concurrency),
        mask=Mask(sent),
        outage=Outage(spec.timeout),
        meter=spec.limits.meter if spec.limits and spec.limits.names else None,
        key_names=spec.key_names,
        proxy=proxy,
    )


def _proxy(address: Address) -> str | None:
    """Return the proxy that the environment names for this server (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)."""
    # The client itself would also read passwords from ~/.netrc.
    scheme = urlsplit(address.place).scheme
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return None if proxy is None or proxy_bypass(address.host) else proxy


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if bundle := os.environ.get(CA_BUNDLE):
        try:
            context.load_verify_locations(**{"capath" if os.path.isdir(bundle) else "cafile": bundle})
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"{CA_BUNDLE}={bundle} cannot be read as certificates: {error}") from None
    return context
