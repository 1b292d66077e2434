"""Train a model on preference pairs.    dream dpo pairs.jsonl --model ckpt/0 -o ckpt/1 --lora"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, get_args

import typer

from dream_cli.cli.training_options import TrainingOptions
from dream_cli.errors import UsageError
from dream_cli.records.choices import LossTerm


def _terms(text: str) -> str:
    from dream_cli.training.preference.losses import PreferenceLoss, read_terms

    PreferenceLoss(read_terms(text))
    return text


Loss = Annotated[
    str,
    typer.Option(
        metavar="NAME[=WEIGHT],...",
        callback=_terms,
        autocompletion=lambda: list(get_args(LossTerm)),
        help=f"Preference loss, or a weighted sum: {', '.join(get_args(LossTerm))}. sigmoid is DPO; sigmoid=0.8,bco_pair=0.2,sft=1 is MPO.",
    ),
]
Beta = Annotated[float, typer.Option(help="DPO beta: strength of the KL penalty to the reference.")]
Smoothing = Annotated[float, typer.Option("--label-smoothing", help="With --loss robust: assumed fraction of pairs with flipped labels.")]
SftWeight = Annotated[
    float, typer.Option("--sft-weight", min=0.0, help="Weight of the SFT loss of the chosen responses; the same as sft=WEIGHT in --loss.")
]
LdAlpha = Annotated[
    float | None,
    typer.Option(
        "--ld-alpha", min=0.0, max=1.0, help="Weight of the tokens beyond the shorter response of a pair (LD-DPO, against length bias)."
    ),
]
Plain = Annotated[bool, typer.Option("--plain", help="Use TRL's own forward passes instead of the shared prefix.")]
Cache = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep reference log-probabilities and image features in this folder, and reuse them in later runs."),
]
CacheSize = Annotated[float, typer.Option("--cache-size", metavar="GIB", min=0.0, help="Maximum size of the cached image features.")]


def _gpu(value: bool) -> bool:
    if value and importlib.util.find_spec("torch") is not None:
        import torch

        if not torch.cuda.is_available():
            raise UsageError("--flex-attention needs a GPU: torch cannot compute its gradients on a CPU")
    return value


Flex = Annotated[bool, typer.Option("--flex-attention", callback=_gpu, help="Use FlexAttention, which skips masked blocks (needs a GPU).")]


def run(
    loss: Loss = "sigmoid",
    beta: Beta = 0.1,
    label_smoothing: Smoothing = 0.0,
    sft_weight: SftWeight = 0.0,
    ld_alpha: LdAlpha = None,
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
    from dream_cli.training.preference.losses import PreferenceLoss, read_terms

    terms = read_terms(loss)
    if sft_weight and "sft" in terms:
        raise UsageError("--sft-weight and sft in --loss are the same; give one of the two")
    terms |= {"sft": sft_weight} if sft_weight else {}
    preference = PreferenceLoss(terms, beta=beta, label_smoothing=label_smoothing, ld_alpha=ld_alpha)
    method = Dpo(preference, plain=plain, cache=cache, cache_gib=cache_size, blocks=flex_attention)
    training.perform(training.job(rate=1e-6, adapter_rate=1e-5), method)
