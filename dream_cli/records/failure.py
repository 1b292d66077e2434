"""The `error` of a record: the stage that failed, the reason, and how to fix it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Failure:
    """The failure of a record: the stage, the kind of failure, and a message with the reason and how to fix it."""

    stage: str
    kind: str
    message: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the failure as JSON."""
        return {"stage": self.stage, "kind": self.kind, "message": self.message} | dict(self.extra)


def read_failure(raw: Any) -> Failure:
    """Read an `error` field; any other value is kept as the message."""
    if not isinstance(raw, Mapping):
        return Failure("unknown", "unknown", str(raw))
    rest = {k: v for k, v in raw.items() if k not in ("stage", "kind", "message")}
    return Failure(str(raw.get("stage", "unknown")), str(raw.get("kind", "unknown")), str(raw.get("message", "")), rest)
