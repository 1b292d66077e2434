"""The use of an engine: replies, tokens and retries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass
class Usage:
    """The use of an engine so far: replies that the model made (`calls`) or that came from the store (`reused`), and the model's tokens.

    `retries` counts the requests to a server that were tried again, by the kind of failure; `unkept` the calls that the store did not keep;
    `batched` those of the calls that a batch has answered, whose tokens are not counted.
    `constrained` counts the verdicts of a judge that was kept to the allowed answers, and `covered` adds up the probability that those had
    without the constraint.
    """

    calls: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt tokens, those that the server had in its cache
    retries: Counter[str] = field(default_factory=Counter)
    unkept: int = 0
    constrained: int = 0
    covered: float = 0.0
    batched: int = 0

    def include(self, other: Usage) -> None:
        """Add the use of another engine."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    @property
    def retry_counts(self) -> str:
        """The number of requests that were tried again, and the kinds of failure."""
        return f"{self.retries.total()} ({', '.join(f'{n} {kind}' for kind, n in self.retries.most_common())})"
