"""The options of prices and of limits on requests to servers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from dream_cli.cli.arguments import OptionGroup
from dream_cli.errors import UsageError

if TYPE_CHECKING:
    from dream_cli.engines.limits import Limits


def _amount(param: typer.CallbackParam, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise UsageError(f"{param.opts[-1]} {value} is not an amount of money")
    return value


def _max_cost(ctx: typer.Context, param: typer.CallbackParam, most: float | None) -> float | None:
    # The prices are eager, so that they are read before this option.
    prices = {name: ctx.params.get(name) for name in ("price_in", "price_out", "price_cached")}
    if (prices["price_in"] is None) != (prices["price_out"] is None):
        raise UsageError("a cost needs both prices, --price-in and --price-out (0 for what is free)")
    for name, value in {"--price-cached": prices["price_cached"], "--max-cost": most}.items():
        if value is not None and prices["price_in"] is None:
            raise UsageError(f"{name} needs the prices --price-in and --price-out")
    if prices["price_in"] is not None and not any(prices.values()):
        raise UsageError("with prices of 0 nothing has a cost; leave --price-in and --price-out out")
    if most is not None and most <= 0:
        raise UsageError(f"--max-cost {most:g} allows no call; name an amount above 0")
    return _amount(param, most)


def _requests(path: str | None) -> str | None:
    if path is not None:
        from dream_cli.records.atomic import check_place

        if not path.endswith(".jsonl"):
            raise UsageError(f"--requests {path}: a batch is JSONL; name a file that ends in .jsonl")
        check_place(path)
    return path


PriceIn = Annotated[
    float | None,
    typer.Option(envvar="DREAM_PRICE_IN", min=0.0, is_eager=True, callback=_amount, help="Price per million input tokens."),
]
PriceOut = Annotated[
    float | None,
    typer.Option(envvar="DREAM_PRICE_OUT", min=0.0, is_eager=True, callback=_amount, help="Price per million output tokens."),
]
PriceCached = Annotated[
    float | None,
    typer.Option(
        envvar="DREAM_PRICE_CACHED",
        min=0.0,
        is_eager=True,
        callback=_amount,
        help="Price per million input tokens that the server had cached (default: that of the others).",
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        envvar="DREAM_MAX_COST", callback=_max_cost, help="Stop the run before it costs more than this, in the currency of the prices."
    ),
]
RequestsPerMinute = Annotated[int | None, typer.Option("--rpm", envvar="DREAM_RPM", min=1, help="Maximum requests per minute to a server.")]
TokensPerMinute = Annotated[
    int | None, typer.Option("--tpm", envvar="DREAM_TPM", min=1, help="Maximum tokens per minute, those of prompts and of replies.")
]


RequestsOut = Annotated[
    str | None,
    typer.Option(
        "--requests",
        metavar="OUT.jsonl",
        is_eager=True,
        callback=_requests,
        help="Write the calls as lines of a batch instead of making them; dream store import takes the results.",
    ),
]


class CostOptions(OptionGroup):
    """Prices, and the limits of a run on cost and requests."""

    price_in: PriceIn = None
    price_out: PriceOut = None
    price_cached: PriceCached = None
    max_cost: MaxCost = None
    rpm: RequestsPerMinute = None
    tpm: TokensPerMinute = None

    @property
    def limits(self) -> Limits:
        """The prices and the limits of the run."""
        from dream_cli.engines.costs import Prices
        from dream_cli.engines.limits import Limits

        priced = self.price_in is not None and self.price_out is not None
        prices = Prices(self.price_in or 0.0, self.price_out or 0.0, self.price_cached) if priced else None
        return Limits(max_cost=self.max_cost, rpm=self.rpm, tpm=self.tpm, prices=prices)
