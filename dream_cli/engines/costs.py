"""What tokens cost."""

from __future__ import annotations

from dataclasses import dataclass

from dream_cli.engines.protocol import Usage

MILLION = 1_000_000


@dataclass(frozen=True)
class Prices:
    """Prices of a million tokens, in any currency: those that the model reads, and those that it writes."""

    prompt: float
    completion: float

    def cost(self, usage: Usage) -> float:
        """Return what the tokens cost, in the currency of the prices."""
        return (self.prompt * usage.prompt_tokens + self.completion * usage.completion_tokens) / MILLION


def told(usage: Usage, prices: Prices | None) -> str:
    """Say what a run cost: calls, tokens, and money where there are prices."""
    said = f"{usage.calls} calls made, {usage.reused} answered from the store"
    if usage.calls and not usage.prompt_tokens:
        return f"{said}; the server does not say how many tokens these were"
    said += f"; {usage.prompt_tokens} prompt and {usage.completion_tokens} completion tokens"
    return said + (f"; cost {prices.cost(usage):.4g}" if prices else "")
