"""The cost of calls: tokens, money, and the upper limit of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dream_cli.engines.usage import Usage
from dream_cli.records.visible import amount

MILLION = 1_000_000
# Rules of thumb, accurate to a factor of two: characters of English per token, tokens per image.
CHARACTERS_PER_TOKEN = 4
TOKENS_PER_IMAGE = 576
UNLIMITED = 4096  # completion tokens of a request that names no limit


@dataclass(frozen=True)
class Prices:
    """Prices per million input and output tokens, in any currency; `cached` is the price of input tokens in the server's cache."""

    prompt: float
    completion: float
    cached: float | None = None  # None: the price of other input tokens

    def cost(self, usage: Usage) -> float:
        """Return the cost of the tokens, in the currency of the prices."""
        cached_price = self.prompt if self.cached is None else self.cached
        prompt = self.prompt * (usage.prompt_tokens - usage.cached_tokens) + cached_price * usage.cached_tokens
        return (prompt + self.completion * usage.completion_tokens) / MILLION


def cost_report(usage: Usage, prices: Prices | None) -> str:
    """Return the cost of a run as text: calls, tokens, and money if there are prices."""
    made = max(0, usage.calls - usage.batched)
    report = f"{amount(made, 'call')} made, {usage.reused} answered from the store"
    report += f", {usage.batched} by a batch" if usage.batched else ""
    if made and not usage.prompt_tokens:
        return f"{report}; the server does not report token counts"
    cached = f" ({usage.cached_tokens} of them cached)" if usage.cached_tokens else ""
    report += f"; {usage.prompt_tokens} prompt{cached} and {usage.completion_tokens} completion tokens"
    return report + (f"; cost {prices.cost(usage):.4g}" if prices else "")


def most_tokens(body: Mapping[str, Any]) -> Usage:
    """Return the tokens of a request to a server: an estimate for the prompt, and the upper limit of the reply."""
    prompt = 0
    for message in body.get("messages", ()):
        content = message["content"]
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            prompt += len(part["text"]) // CHARACTERS_PER_TOKEN if part["type"] == "text" else TOKENS_PER_IMAGE
    limits = (body.get(name) for name in ("max_tokens", "max_completion_tokens"))
    completion = next((limit for limit in limits if isinstance(limit, int)), UNLIMITED)
    samples = n if isinstance(n := body.get("n", 1), int) else 1
    return Usage(prompt_tokens=prompt, completion_tokens=completion * samples)
