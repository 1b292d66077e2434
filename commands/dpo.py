"""Train a model on preference pairs.    dream dpo pairs.jsonl --model ckpt/0 -o ckpt/1 --lora"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from dream_cli.choices import LossKind
from dream_cli.cli.training_options import TrainingOptions
from dream_cli.errors import UsageError

Loss = Annotated[
    LossKind,
    typer.Option(help="The preference loss; sigmoid is DPO, sigmoid_norm per token."),
]
Beta = Annotated[float, typer.Option(help="How strongly the policy is held to its reference.")]
Smoothing = Annotated[float, typer.Option("--label-smoothing", help="With robust: the share of pairs that may be the wrong way round.")]
SftWeight = Annotated[float, typer.Option("--sft-weight", help="Weight of the likelihood of the chosen responses beside the loss.")]
Plain = Annotated[bool, typer.Option("--plain", help="Send each pair through TRL's own forward passes.")]
Cache = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Keep the reference's log-probabilities and image features here, for other runs too.")
]


def _gpu(value: bool) -> bool:
    if value and importlib.util.find_spec("torch") is not None:
        import torch

        if not torch.cuda.is_available():
            raise UsageError("--flex-attention needs a GPU: torch makes no gradients of it on a CPU")
    return value


Flex = Annotated[
    bool, typer.Option("--flex-attention", callback=_gpu, help="Attend to a pair by blocks that are skipped where hidden (GPU).")
]


def run(
    loss: Loss = "sigmoid",
    beta: Beta = 0.1,
    label_smoothing: Smoothing = 0.0,
    sft_weight: SftWeight = 0.0,
    plain: Plain = False,
    flex_attention: Flex = False,
    cache: Cache = None,
    *,
    training: TrainingOptions,
) -> None:
    """Train a model to prefer the chosen responses of pairs over the rejected ones.

    The reference is the model as the run starts. Prints one record at the end; the same command again goes on where it was stopped.

    Example: dream dpo pairs.jsonl --model ckpt/0 -o ckpt/1 --lora | jq -r .model
    """
    from dream_cli.training.dpo import Dpo
    from dream_cli.training.preference.losses import PreferenceLoss

    preference = PreferenceLoss(kind=loss, beta=beta, label_smoothing=label_smoothing, sft_weight=sft_weight)
    method = Dpo(preference, plain=plain, cache=cache, blocks=flex_attention)
    training.perform(training.job(rate=1e-6, adapter_rate=1e-5), method)
