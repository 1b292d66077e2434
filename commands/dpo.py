"""Train a model on preference pairs.    dream dpo pairs.jsonl --model ckpt/0 -o ckpt/1 --lora"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from dream_cli.cli.training_options import TrainingOptions
from dream_cli.errors import UsageError
from dream_cli.records.choices import LossKind

Loss = Annotated[
    LossKind,
    typer.Option(help="Preference loss: sigmoid is DPO, sigmoid_norm is length-normalised DPO."),
]
Beta = Annotated[float, typer.Option(help="DPO beta: strength of the KL penalty to the reference.")]
Smoothing = Annotated[float, typer.Option("--label-smoothing", help="With --loss robust: assumed fraction of pairs with flipped labels.")]
SftWeight = Annotated[
    float,
    typer.Option(
        "--sft-weight", help="Weight of the SFT loss (negative log-likelihood of the chosen responses) added to the preference loss."
    ),
]
BcoWeight = Annotated[float, typer.Option("--bco-weight", help="Weight of the BCO loss added to the preference loss, as in MPO.")]
Plain = Annotated[bool, typer.Option("--plain", help="Use TRL's own forward passes instead of the shared prefix.")]
Cache = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep reference log-probabilities and image features in this folder, and reuse them in later runs."),
]
CacheSize = Annotated[float, typer.Option("--cache-size", metavar="GIB", min=0.0, help="Maximum size of the kept image features.")]


def _gpu(value: bool) -> bool:
    if value and importlib.util.find_spec("torch") is not None:
        import torch

        if not torch.cuda.is_available():
            raise UsageError("--flex-attention needs a GPU: torch makes no gradients of it on a CPU")
    return value


Flex = Annotated[bool, typer.Option("--flex-attention", callback=_gpu, help="Use FlexAttention, which skips masked blocks (needs a GPU).")]


def run(
    loss: Loss = "sigmoid",
    beta: Beta = 0.1,
    label_smoothing: Smoothing = 0.0,
    sft_weight: SftWeight = 0.0,
    bco_weight: BcoWeight = 0.0,
    plain: Plain = False,
    flex_attention: Flex = False,
    cache: Cache = None,
    cache_size: CacheSize = 8.0,
    *,
    training: TrainingOptions,
) -> None:
    """Train a model on preference pairs (DPO and related losses).

    The reference is the model at the start of the run. Prints one record at the end; the same command resumes a run that was stopped.

    Example: dream dpo pairs.jsonl --model ckpt/0 -o ckpt/1 --lora | jq -r .model
    """
    from dream_cli.training.dpo import Dpo
    from dream_cli.training.preference.losses import PreferenceLoss

    preference = PreferenceLoss(kind=loss, beta=beta, label_smoothing=label_smoothing, sft_weight=sft_weight, bco_weight=bco_weight)
    method = Dpo(preference, plain=plain, cache=cache, cache_gib=cache_size, blocks=flex_attention)
    training.perform(training.job(rate=1e-6, adapter_rate=1e-5), method)
