"""Everything that can go wrong, as one tree.

DreamError                 a message for the user: what, where and the mend; the command stops with exit code 2
├── UsageError             wrong arguments or configuration
└── RowError               one record could not be handled; it goes on as a row with an `error`
    ├── InvalidRecord      the record itself is malformed
    ├── ImageError         an image is missing or cannot be decoded
    ├── OutsideWorld       the record is outside of the small world that the model is confined to
    ├── EngineError        the model or the server gave no answer
    │   └── NoAnswer       a reply came, but it holds no answer: filtered or empty
    └── UnreadableAnswer   the model answered, but not in a form that can be read
"""

from __future__ import annotations


class DreamError(Exception):
    """A failure with a message meant for the person at the terminal."""


class UsageError(DreamError):
    """The command cannot run as it was called."""


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
    """The engine gave no answer: the server refused, was down or the input did not fit the model."""

    kind = "engine"


class NoAnswer(EngineError):
    """A reply without an answer; `kind` is `filtered` or `empty`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class UnreadableAnswer(RowError):
    """The model's answer has not the form that was asked for; `raw` holds what it said."""

    kind = "unparsed"
