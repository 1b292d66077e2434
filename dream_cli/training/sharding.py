"""Sharded training with accelerate's FSDP or DeepSpeed, for models that do not fit one GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from dream_cli.errors import UsageError
from dream_cli.training.launching import process_state
from dream_cli.training.preference.image_features import vision_weights
from dream_cli.training.settings import Job

FSDP, DEEPSPEED = "FSDP", "DeepSpeed"
_LAYERS = "FSDP_TRANSFORMER_CLS_TO_WRAP"


def strategy() -> str:
    """Return `FSDP` or `DeepSpeed` where the launcher's environment selects it, else ""."""
    return next((name for name in (FSDP, DEEPSPEED) if _is_on(f"ACCELERATE_USE_{name.upper()}")), "")


def check(job: Job) -> None:
    """Raise UsageError with every option that cannot be combined with sharding; nothing is loaded."""
    problems = list(_objections(job)) if strategy() else []
    if problems:
        raise UsageError(f"{strategy()} cannot be used here: " + "; ".join(problems))


def why_not_rows(job: Job, rows: int, pictured: int) -> str:
    """Return why rows of which `pictured` have images cannot be trained on, "" if they can.

    DeepSpeed reduces gradients in the order in which they become ready, and this order differs in a process whose rows have no images.
    """
    if strategy() != DEEPSPEED or pictured in (0, rows) or not (job.lora is None or job.learns_vision):
        return ""
    return (
        f"{rows - pictured} of {rows} rows have no image, which DeepSpeed cannot mix with others while the vision tower or the projector "
        "is trained; use FSDP, or --lora"
    )


def why_not_shared(args: Any) -> str:
    """Return why dpo cannot use the shared prefix if a trainer's `args` shard the weights, "" if it can."""
    return "the trainer's own arguments shard the weights; use accelerate's configuration instead" if args.fsdp or args.deepspeed else ""


def prepare(model: Any) -> None:
    """Prepare a model for FSDP: name the layers to wrap, and gather the head before TRL reads its weight.

    The layers are those of the language model, unless the user names others. A model's own list (`_no_split_modules`) may name layers
    that it does not have, which accelerate rejects. Layers of a vision tower would be gathered only by processes whose rows have
    images, and the others would wait for ever.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    if strategy() == FSDP:
        inner = bare(model)
        layers = {type(module).__name__ for module in inner.get_decoder().modules() if isinstance(module, GradientCheckpointingLayer)}
        os.environ.setdefault(_LAYERS, ",".join(sorted(layers)))
        inner.base_model.register_forward_hook(lambda *_: _gather_head(inner))
        inner.get_decoder().register_forward_pre_hook(_require_input_gradients, with_kwargs=True)


def touch_vision(model: Any) -> Any:
    """Return 0 times the sum of the trainable vision weights, so that every process has gradients for them.

    FSDP reduces the gradients that exist: if the processes differed, it would add gradients of different weights.
    """
    weights = [weight for _, weight in vision_weights(bare(model)) if weight.requires_grad] if strategy() == FSDP else []
    return sum(0 * weight.sum() for weight in weights)


def release(model: Any) -> None:
    """Reshard all FSDP modules, so that later changes of requires_grad apply to the shards."""
    for module in _fsdp_modules(model):
        module.reshard()


def renew(model: Any) -> None:
    """Reset FSDP's lazy initialisation, so that it reads requires_grad and dtype again: its first forward pass may have been the reference's."""
    for module in _fsdp_modules(model):
        module.unshard()
        module.reshard()


def bare(model: Any) -> Any:
    """Return the model without an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def gather_when_saving(trainer: Any) -> None:
    """Make the trainer save whole weights: with FSDP's shards it would silently write no model."""
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")


def _fsdp_modules(model: Any) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "reshard")]


def _gather_head(model: Any) -> None:
    # TRL 1.16 multiplies by the head's weight itself, and its gathering loses the other processes' part of the gradient.
    head = model.get_output_embeddings()
    if hasattr(head, "unshard"):
        head.unshard()


def _require_input_gradients(module: Any, inputs: Any, named: dict[str, Any]) -> None:
    # FSDP reduces a layer's gradients when its input has a gradient, otherwise after all others: rows without images then behave
    # like rows with images.
    if named.get("inputs_embeds") is not None:
        named["inputs_embeds"].requires_grad_(True)


def _objections(job: Job) -> Iterator[str]:
    from accelerate.utils import DeepSpeedPlugin, DistributedType

    if process_state().distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU):
        yield "accelerate shards over several processes with accelerators only, and would silently ignore it here"
    if strategy() == DEEPSPEED and find_spec("deepspeed") is None:
        yield "it is not installed: pip install deepspeed"
    elif strategy() == DEEPSPEED and DeepSpeedPlugin().zero_stage == 3:
        yield "at stage 3 the processes wait for ever for one whose rows have no images; use stage 2, or FSDP, which shards as much"
    if strategy() == FSDP and os.environ.get("FSDP_VERSION", "1") == "1":
        yield "FSDP version 1 is not supported; set fsdp_version: 2 in accelerate's configuration"
    if job.lora is not None and job.lora.quantize:
        yield "--qlora keeps the whole base on each GPU; use --lora"


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true")
