"""One attempt at a server: what came back, whether another may succeed, and the error where it may not."""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from dream_cli.errors import EngineError

BACKOFF = 0.5  # seconds
UNREASONABLE_WAIT = 300.0  # seconds; a longer Retry-After ends the call
# The statuses of which the input is the likely cause.
_OF_INPUT = (400, 403, 413, 415, 422, 451)
# llama.cpp answers so, with status 500, to an image for a model that reads none.
_UNSUPPORTED = re.compile(r"\bnot supported\b|\bunsupported\b", re.IGNORECASE)


class Refused(EngineError):
    """The server answered with a status that is not worth trying again; `reply` is its body."""

    def __init__(self, status: int, message: str, reply: str = "") -> None:
        super().__init__(message, of_input=status in _OF_INPUT or (status >= 500 and bool(_UNSUPPORTED.search(error_message(reply)))))
        self.status = status
        self.reply = reply


@dataclass(frozen=True)
class Attempt:
    """What one attempt gave; status 0 is a connection that failed, with the reason as text."""

    status: int
    text: str
    retry_after: str | None = None
    location: str = ""
    connected: bool = True
    timed_out: bool = False

    @property
    def kind(self) -> str:
        """The kind of failure in a few words."""
        if self.status:
            return str(self.status)
        return "no answer in time" if self.timed_out else "broken reply" if self.connected else "cannot be reached"

    @property
    def wait(self) -> float:
        """The seconds that the server asks to wait, 0 where it names none."""
        return seconds(self.retry_after) or 0.0


def embedded_failure(reply: Mapping[str, Any]) -> Attempt | None:
    """Return the failure reported by an `error` in a reply of status 200, or None."""
    error = reply.get("error")
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 400
    return Attempt(status, json.dumps({"error": error}))


# A quota that is spent does not come back within minutes.
_QUOTA = re.compile(r"insufficient_quota|exceeded your current quota")
# A key that is refused by another status than 401.
_KEY = re.compile(r"\bAPI[ _]?key\b|PERMISSION_DENIED|\bbilling\b|\baccount (is|was|has been)\b", re.IGNORECASE)


def is_passing(attempt: Attempt) -> bool:
    """Whether the same request may be answered a little later."""
    status = attempt.status
    if attempt.wait > UNREASONABLE_WAIT:
        return False
    if status == 429:
        return not _QUOTA.search(attempt.text)
    if status >= 500 and status != 501:
        return not _UNSUPPORTED.search(error_message(attempt.text))
    return status in (0, 408, 409)


def is_of_account(attempt: Attempt) -> bool:
    """Whether a refusal is about the key, the quota or the rate of this user, and not about the request."""
    if attempt.status in (401, 402) or attempt.wait > UNREASONABLE_WAIT:
        return True
    return bool(_QUOTA.search(attempt.text)) or (attempt.status in (400, 403) and bool(_KEY.search(error_message(attempt.text))))


def pause(attempt: int, wait: float) -> float:
    """Return the seconds to wait: full jitter, after what the server asks for."""
    return wait + random.uniform(0, min(60.0, BACKOFF * 2 ** (attempt - 1)))


def seconds(retry_after: str | None) -> float | None:
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
