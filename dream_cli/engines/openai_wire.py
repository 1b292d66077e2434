"""HTTP to one OpenAI-compatible server: bounded replies, retries, no redirects, and messages without secrets."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from dream_cli.engines.address import Address, public_address
from dream_cli.engines.api_keys import api_key, authorization, key_advice
from dream_cli.engines.protocol import EngineSpec
from dream_cli.errors import EngineError, UsageError

if TYPE_CHECKING:
    import aiohttp


Json = dict[str, Any]

FAULTS = 5  # tries of one request that meets a 5xx or a broken connection
PATIENCE = 10  # tries of one request that a working server puts off
BACKOFF = 0.5
LONGEST_WAIT = 120.0
UNREASONABLE_WAIT = 300.0  # seconds; a longer Retry-After ends the call
LARGEST_REPLY = 16 << 20  # bytes
CA_BUNDLE = "REQUESTS_CA_BUNDLE"  # OpenSSL reads SSL_CERT_FILE by itself


class Refused(EngineError):
    """The server answered with a status that is not worth trying again; `reply` is its body."""

    def __init__(self, status: int, message: str, reply: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reply = reply


@dataclass(frozen=True)
class _Attempt:
    """What one attempt gave; status 0 is a connection that failed, with the reason as text."""

    status: int
    text: str
    retry_after: str | None = None
    location: str = ""


@dataclass
class Wire:
    """One server: requests with their retries."""

    session: aiohttp.ClientSession = field(repr=False)
    address: Address
    slots: asyncio.Semaphore
    secrets: tuple[str, ...] = field(repr=False)
    key_names: tuple[str, ...] = ()
    proxy: str | None = field(default=None, repr=False)
    gone: bool = False  # no request has reached the server since one gave up on it

    @property
    def place(self) -> str:
        """The address, without what must not be printed."""
        return self.address.place

    async def models(self) -> list[Json]:
        """Return the server's list of models; a server that has none gives an empty one."""
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
        """Return the reply to one request; raise Refused or, after the retries, EngineError."""
        failures = {True: 0, False: 0}
        # The slot is kept while waiting: a server in trouble sees fewer of us.
        async with self.slots:
            while True:
                attempt = await self._once(method, path, body)
                self.gone = self.gone and attempt.status == 0
                if 200 <= attempt.status < 300:
                    reply = self._read(attempt.text)
                    # Routers report the failure of the server behind them in a reply of status 200.
                    attempt = _embedded_failure(reply) or attempt
                    if 200 <= attempt.status < 300:
                        return reply
                if not _is_passing(attempt):
                    raise self._refusal(attempt)
                busy = attempt.status in (408, 409, 429)
                failures[busy] += 1
                # A server that is gone is not waited for by each of thousands of rows; one try finds out whether it is back.
                allowed = PATIENCE if busy else 1 if self.gone else faults
                if failures[busy] >= allowed:
                    self.gone = attempt.status == 0
                    raise self._given_up(attempt, failures[busy])
                await asyncio.sleep(_pause(sum(failures.values()), attempt.retry_after))

    async def _once(self, method: str, path: str, body: Json | None) -> _Attempt:
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
                return _Attempt(response.status, text, headers.get("Retry-After"), headers.get("Location", ""))
        except TimeoutError:
            return _Attempt(0, f"no answer within {self.session.timeout.total:g} s")
        except aiohttp.ClientConnectorCertificateError as error:
            # Not a fault that passes.
            raise EngineError(self.name(f"{self.quote(str(error))}; name its CA with SSL_CERT_FILE or {CA_BUNDLE}")) from None
        except aiohttp.ClientPayloadError as error:
            return _Attempt(0, f"the reply is damaged: {error}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _Attempt(0, str(error) or type(error).__name__)

    def _refusal(self, attempt: _Attempt) -> Refused:
        """Return the error of a request that is not tried again."""
        status = attempt.status
        if 300 <= status < 400:
            target = public_address(attempt.location)[:200]
            return Refused(status, self.name(f"{status}: the server redirects to {target}; name that server with --base-url"))
        wait = _seconds(attempt.retry_after)
        if wait is not None and wait > UNREASONABLE_WAIT:
            return Refused(
                status, self.name(f"{status}: the server asks to wait for {wait:.0f} s: {self.quote(attempt.text)}"), attempt.text
            )
        hint = " (a base URL usually ends in /v1)" if status == 404 and not self.place.endswith("/v1") else ""
        return Refused(status, self.name(f"{status}: {self.quote(attempt.text)}{hint}"), attempt.text)

    def _given_up(self, attempt: _Attempt, times: int) -> EngineError:
        failure = f"{attempt.status}" if attempt.status else "cannot be reached"
        message = self.name(f"{failure}: {self.quote(attempt.text)} ({times} times)")
        return Refused(attempt.status, message, attempt.text) if attempt.status else EngineError(message)

    def _read(self, text: str) -> Json:
        try:
            reply = json.loads(text)
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
        # Before the message is trimmed, which could leave a part of the key.
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return error_message(text)


def open_wire(spec: EngineSpec, address: Address) -> Wire:
    """Return the connection to the server of `spec`; raise UsageError for a key or a CA file that cannot be used."""
    import aiohttp

    key = api_key(spec.key_names, address)
    headers = authorization(address, key, spec.headers)
    session = aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=spec.timeout),
        # The semaphore bounds the requests; a second bound would only hide waiting inside the time limit.
        connector=aiohttp.TCPConnector(limit=0, ssl=_tls()),
        headers=headers,
    )
    proxy = _proxy(address)
    spoken = (key, *address.secrets, *spec.headers.values(), (urlsplit(proxy).password or "") if proxy else "")
    # The longest first: one may be a part of another.
    secrets = tuple(sorted({secret for secret in spoken if len(secret) > 2}, key=len, reverse=True))
    return Wire(
        session=session, address=address, slots=asyncio.Semaphore(spec.concurrency), secrets=secrets, key_names=spec.key_names, proxy=proxy
    )


def _proxy(address: Address) -> str | None:
    """Return the proxy that the environment names for this server (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)."""
    # Read here and not by the client, which would also read passwords from ~/.netrc.
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


def _embedded_failure(reply: Mapping[str, Any]) -> _Attempt | None:
    """Return the failure reported by an `error` in a reply of status 200, or None."""
    error = reply.get("error")
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 400
    return _Attempt(status, json.dumps({"error": error}))


def _is_passing(attempt: _Attempt) -> bool:
    """Whether the same request may be answered a little later."""
    status = attempt.status
    if (_seconds(attempt.retry_after) or 0) > UNREASONABLE_WAIT:
        return False
    if status == 429:
        # A quota that is spent does not come back within minutes.
        return not re.search(r"insufficient_quota|exceeded your current quota", attempt.text)
    if status >= 500 and status != 501:
        # llama.cpp answers so to an image for a model that reads none.
        return not re.search(r"\bnot supported\b|\bunsupported\b", error_message(attempt.text), re.IGNORECASE)
    return status in (0, 408, 409)


def _pause(attempt: int, retry_after: str | None) -> float:
    """Return the seconds to wait: full jitter, after the server's Retry-After."""
    jitter = random.uniform(0, min(60.0, BACKOFF * 2 ** (attempt - 1)))
    return min(LONGEST_WAIT, (_seconds(retry_after) or 0.0) + jitter)


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After header: seconds or an HTTP date; None where it is neither."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def error_message(text: str, longest: int = 300) -> str:
    """Return the message in the body of an error, in at most `longest` characters."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = text
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    for name in ("error", "message", "detail"):
        if isinstance(content, dict) and content.get(name):
            content = content[name]
    content = content if isinstance(content, str) else json.dumps(content)
    return " ".join(content.split())[:longest] or "no message"
