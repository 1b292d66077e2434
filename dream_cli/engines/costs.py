"""The cost of a run: calls, tokens and money."""

from __future__ import annotations

from dataclasses import dataclass

from dream_cli.engines.protocol import Usage
from dream_cli.records.visible import amount

MILLION = 1_000_000


@dataclass(frozen=True)
class Prices:
    """Price per million input and output tokens, in any currency."""

    prompt: float
    completion: float

    def cost(self, usage: Usage) -> float:
        """Return what the tokens cost, in the currency of the prices."""
        return (self.prompt * usage.prompt_tokens + self.completion * usage.completion_tokens) / MILLION


def cost_report(usage: Usage, prices: Prices | None) -> str:
    """Return the cost of a run in words: calls, tokens, and money where there are prices."""
    report = f"{amount(usage.calls, 'call')} made, {usage.reused} answered from the store"
    if usage.calls and not usage.prompt_tokens:
        return f"{report}; the server does not report token counts"
    report += f"; {usage.prompt_tokens} prompt and {usage.completion_tokens} completion tokens"
    return report + (f"; cost {prices.cost(usage):.4g}" if prices else "")
