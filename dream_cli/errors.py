"""Everything that can go wrong, as one tree.

DreamError                 a message for the user: what, where and how to fix it; the command stops with exit code 2
├── UsageError             wrong arguments or configuration
├── RunFailure             the engine fails for the whole run; finished rows are kept
├── NoMatch                no record has the id that was given; exit code 1
└── RowError               one record could not be processed; it is passed on as a row with an `error`
    ├── InvalidRecord      the record itself is malformed
    ├── ImageError         an image is missing or cannot be decoded
    ├── OutsideWorld       the record is outside the small world that the model is limited to
    ├── EngineError        the model or the server gave no answer
    │   └── NoAnswer       the reply holds no answer: filtered or empty
    ├── Unanswered         the next call was written to a batch file, and its result is not imported yet
    ├── UnreadableAnswer   the model answered, but not in a form that can be read
    └── InternalError      an unexpected exception
"""

from __future__ import annotations

import traceback


def with_extra(name: str) -> str:
    """Return how to install an extra with pip, pipx or uv; dream is installed from its checkout, not from an index."""
    commands = (f"{command} '.[{name}]'" for command in ("pip install", "pipx install --force", "uv tool install --force"))
    return f"install the extra {name!r} in the checkout: {' or '.join(commands)}"


class DreamError(Exception):
    """A failure with a message meant for the person at the terminal."""


class UsageError(DreamError):
    """The arguments or the configuration are wrong."""


class RunFailure(DreamError):
    """The run cannot continue: the server is unreachable, it refuses every call or the key, or the quota is used up."""


class NoMatch(DreamError):
    """No record has the given id: the command ran, and its result is empty."""


class RowError(DreamError):
    """One record could not be processed; `kind` is written into its `error` field."""

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
    """The model is limited to a small world, and its answer to this record would be meaningless."""

    kind = "outside"


class EngineError(RowError):
    """The engine gave no answer: the server refused or was down, or the input did not fit the model.

    `of_input`: the input is the likely cause, so another input may be answered.
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
    """The next call of the record was written to a batch file, and its result is not imported yet."""

    kind = "unanswered"


class UnreadableAnswer(RowError):
    """The model's answer does not have the requested form; `raw` holds the answer."""

    kind = "unparsed"


class InternalError(RowError):
    """An exception that is not a DreamError, with its type and the last line of this package in its traceback."""

    kind = "internal"

    def __init__(self, error: Exception) -> None:
        position = ""
        for frame, line in traceback.walk_tb(error.__traceback__):
            module = str(frame.f_globals.get("__name__", ""))
            if module.split(".")[0] == __package__:
                position = f" at {module.replace('.', '/')}.py:{line}"
        super().__init__(f"{type(error).__name__}{position}: {error}"[:500])


def as_row_error(error: Exception) -> RowError:
    """Return an exception as the error of its row; raise it again if it stops the run."""
    if isinstance(error, RowError):
        return error
    if isinstance(error, DreamError | BrokenPipeError):
        raise error
    return InternalError(error)
