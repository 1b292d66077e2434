"""Everything that can go wrong, as one tree.

DreamError                 a message for the user: what, where and how to fix it; the command stops with exit code 2
├── UsageError             wrong arguments or configuration
├── RunFailure             the engine fails for the run as a whole; finished rows are kept
├── NoMatch                no record has the id that was given; exit code 1
└── RowError               one record could not be handled; it goes on as a row with an `error`
    ├── InvalidRecord      the record itself is malformed
    ├── ImageError         an image is missing or cannot be decoded
    ├── OutsideWorld       the record is outside of the small world that the model is confined to
    ├── EngineError        the model or the server gave no answer
    │   └── NoAnswer       a reply came, but it holds no answer: filtered or empty
    ├── Unanswered         the next call is written for a batch, and its result has not been imported yet
    ├── UnreadableAnswer   the model answered, but not in a form that can be read
    └── InternalError      an exception that nobody expected
"""

from __future__ import annotations

import traceback


def with_extra(name: str) -> str:
    """Return how to install an extra, in words that hold for pip, pipx and uv; dream is installed from its checkout, not from an index."""
    ways = (f"{way} '.[{name}]'" for way in ("pip install", "pipx install --force", "uv tool install --force"))
    return f"install the extra {name!r} in the checkout: {' or '.join(ways)}"


class DreamError(Exception):
    """A failure with a message meant for the person at the terminal."""


class UsageError(DreamError):
    """The command cannot run as it was called."""


class RunFailure(DreamError):
    """The run cannot go on: the server is gone, refuses every call or the key, or the quota is spent."""


class NoMatch(DreamError):
    """No record has the id that was given: the command ran, and its answer is none."""


class RowError(DreamError):
    """One record could not be handled; `kind` is written into its `error` field."""

    kind = "failed"

    def __init__(self, message: str, *, raw: str | None = None) -> None:
        super().__init__(message)
        self.raw = raw


class InvalidRecord(RowError):
    """A field is missing or has the wrong type."""

    kind = "invalid"


class ImageError(RowError):
    """An image is missing, empty, truncated, too large or not an image."""

    kind = "image"


class OutsideWorld(RowError):
    """The model is confined to a small world, and its answer to this record would mean nothing."""

    kind = "outside"


class EngineError(RowError):
    """The engine gave no answer: the server refused, was down or the input did not fit the model.

    `of_input`: as far as can be seen the input is at fault, so that another one may be answered.
    """

    kind = "engine"

    def __init__(self, message: str, *, of_input: bool = False) -> None:
        super().__init__(message)
        self.of_input = of_input


class NoAnswer(EngineError):
    """A reply without an answer; `kind` is `filtered` or `empty`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Unanswered(RowError):
    """The next call of the record is written for a batch, and its result has not been imported yet."""

    kind = "unanswered"


class UnreadableAnswer(RowError):
    """The model's answer has not the form that was asked for; `raw` holds what it said."""

    kind = "unparsed"


class InternalError(RowError):
    """An exception that is no DreamError, with its type and the place in this package where it was raised or passed through last."""

    kind = "internal"

    def __init__(self, error: Exception) -> None:
        place = ""
        for frame, line in traceback.walk_tb(error.__traceback__):
            module = str(frame.f_globals.get("__name__", ""))
            if module.split(".")[0] == __package__:
                place = f" at {module.replace('.', '/')}.py:{line}"
        super().__init__(f"{type(error).__name__}{place}: {error}"[:500])


def as_row_error(error: Exception) -> RowError:
    """Return the error of a row in which this was raised; raise it again where it stops the run."""
    if isinstance(error, RowError):
        return error
    if isinstance(error, DreamError | BrokenPipeError):
        raise error
    return InternalError(error)
