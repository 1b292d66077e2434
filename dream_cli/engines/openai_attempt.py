"""One attempt at a request to a server: its result, whether a retry may succeed, and the error if not."""

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
# Statuses that are likely caused by the input.
_OF_INPUT = (400, 403, 413, 415, 422, 451)
# llama.cpp rejects an image for a text-only model this way, with status 500.
_UNSUPPORTED = re.compile(r"\bnot supported\b|\bunsupported\b", re.IGNORECASE)


# Failures that are reported without a status.
_RATE = re.compile(r"rate_?\s?limit|too many requests", re.IGNORECASE)
_OVERLOAD = re.compile(r"overloaded|\bunavailable|\btimed? ?out\b|internal[_ ](?:server[_ ])?error|server_error|bad gateway", re.IGNORECASE)


class Refused(EngineError):
    """The server answered with a status that a retry would not change; `reply` is the body."""

    def __init__(self, status: int, message: str, reply: str = "") -> None:
        super().__init__(message, of_input=status in _OF_INPUT or (status >= 500 and bool(_UNSUPPORTED.search(error_message(reply)))))
        self.status = status
        self.reply = reply


@dataclass(frozen=True)
class Attempt:
    """The result of one attempt; status 0 is a failed connection, with the reason as `text`."""

    status: int
    text: str
    retry_after: str | None = None
    location: str = ""
    connected: bool = True
    timed_out: bool = False

    @property
    def kind(self) -> str:
        """The kind of failure, for messages."""
        if self.status:
            return str(self.status)
        return "no answer in time" if self.timed_out else "broken reply" if self.connected else "cannot be reached"

    @property
    def wait(self) -> float:
        """The wait in seconds that the server requests in its header, or in the words of a busy server; 0 if none."""
        if self.retry_after is None and self.status in (429, 503):
            return seconds_in_words(self.text)
        return seconds(self.retry_after) or 0.0


def embedded_failure(reply: Mapping[str, Any]) -> Attempt | None:
    """Return the failure that a reply of status 200 reports in its field `error`, or None."""
    error = reply.get("error")
    if not error:
        return None
    code = str(error.get("code")) if isinstance(error, dict) else ""
    words = json.dumps({"error": error})
    likely = 429 if _RATE.search(words) else 503 if _OVERLOAD.search(words) else 400
    return Attempt(int(code) if re.fullmatch("[45][0-9][0-9]", code) else likely, words)


# A used-up quota does not return within minutes, unless it is one per minute; Gemini names the time when it does.
_SPENT = re.compile(r"insufficient_quota|PerDay")
_QUOTA = re.compile(rf"{_SPENT.pattern}|exceeded your current quota")
_IN_WORDS = re.compile(
    r"\b(?:try again|retry) (?:in|after) (?=\d)(?:(?P<h>\d{1,4})h)?(?:(?P<m>\d{1,4})m(?!s))?(?:(?P<s>\d{1,6}(?:\.\d{1,9})?) ?s(?:ec|\b))?"
    r"|\"retryDelay\": ?\"(?P<delay>\d{1,6}(?:\.\d{1,9})?)s\"",
    re.IGNORECASE,
)
# A key that is refused with a status other than 401.
_KEY = re.compile(r"\bAPI[ _]?key\b|PERMISSION_DENIED|\bbilling\b|\baccount (is|was|has been)\b", re.IGNORECASE)


def is_passing(attempt: Attempt) -> bool:
    """Whether the failure is transient, so that a retry may succeed."""
    status = attempt.status
    if attempt.wait > UNREASONABLE_WAIT:
        return False
    if status == 429:
        return not (_SPENT if attempt.wait else _QUOTA).search(attempt.text)
    if status >= 500 and status != 501:
        return not _UNSUPPORTED.search(error_message(attempt.text))
    return status in (0, 408, 409)


def is_of_account(attempt: Attempt) -> bool:
    """Whether a refusal concerns the key, the quota or the rate of this user rather than the request."""
    if attempt.status in (401, 402) or attempt.wait > UNREASONABLE_WAIT:
        return True
    return bool(_QUOTA.search(attempt.text)) or (attempt.status in (400, 403) and bool(_KEY.search(error_message(attempt.text))))


def pause(attempt: int, wait: float) -> float:
    """Return the seconds to wait: the wait that the server requests, plus full jitter."""
    return wait + random.uniform(0, min(60.0, BACKOFF * 2 ** (attempt - 1)))


def seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or an HTTP date; None if it is neither."""
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


def seconds_in_words(text: str) -> float:
    """Return the seconds of the first wait in a message, such as "try again in 1m2.5s"; 0 if there is none."""
    wait = _IN_WORDS.search(text)
    hours, minutes, rest, delay = (float(part or 0) for part in wait.group("h", "m", "s", "delay")) if wait else (0.0,) * 4
    return 3600 * hours + 60 * minutes + rest + delay


def error_message(text: str, longest: int = 300) -> str:
    """Return the message in the body of an error, at most `longest` characters."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = text
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    behind = ""
    for name in ("error", "message", "detail"):
        behind = behind or _error_behind(content)
        if isinstance(content, dict) and content.get(name):
            content = content[name]
    content = content if isinstance(content, str) else json.dumps(content)
    if behind and behind != text:
        content = f"{content}: {error_message(behind, longest)}"
    return " ".join(content.split())[:longest] or "no message"


def _error_behind(error: Any) -> str:
    """Return the error of the server behind a gateway: OpenRouter repeats it in `metadata.raw`, Azure in `innererror`."""
    metadata = error.get("metadata") if isinstance(error, dict) else None
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    inner = error.get("innererror") if isinstance(error, dict) else None
    return raw if isinstance(raw, str) else json.dumps(inner) if isinstance(inner, dict) and "message" in inner else ""
