"""The usage of an engine: replies, tokens and retries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass
class Usage:
    """The usage of an engine so far: replies of the model (`calls`) or of the store (`reused`), and the model's tokens.

    `retries` counts repeated requests to a server by the kind of failure; `unkept` the calls that could not be stored; `batched` the calls
    that a batch answered, whose tokens are not counted. `constrained` counts the verdicts of a judge that was constrained to the allowed
    answers, and `covered` sums the probability that these answers had without the constraint.
    """

    calls: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # prompt tokens in the server's cache
    retries: Counter[str] = field(default_factory=Counter)
    unkept: int = 0
    constrained: int = 0
    covered: float = 0.0
    batched: int = 0

    def include(self, other: Usage) -> None:
        """Add the usage of another engine."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    @property
    def retry_counts(self) -> str:
        """The number of retries, with the kinds of failure."""
        return f"{self.retries.total()} ({', '.join(f'{n} {kind}' for kind, n in self.retries.most_common())})"
