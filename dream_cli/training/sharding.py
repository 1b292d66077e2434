"""Weights laid over several cards by accelerate's FSDP or DeepSpeed, for models that do not fit one card."""

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


def asked() -> str:
    """Return `FSDP` or `DeepSpeed` where the launcher asks for it, else ""."""
    return next((name for name in (FSDP, DEEPSPEED) if _is_on(f"ACCELERATE_USE_{name.upper()}")), "")


def check(job: Job) -> None:
    """Raise UsageError with everything that cannot be had with the weights spread out; nothing is loaded."""
    problems = list(_objections(job)) if asked() else []
    if problems:
        raise UsageError(f"{asked()} was asked for: " + "; ".join(problems))


def why_not_rows(job: Job, rows: int, pictured: int) -> str:
    """Return why rows of which `pictured` have images cannot be trained on, "" where they can.

    DeepSpeed adds up gradients in the order in which they come, and that is another one in a process whose rows have no images.
    """
    if asked() != DEEPSPEED or pictured in (0, rows) or not (job.lora is None or job.learns_vision):
        return ""
    return (
        f"{rows - pictured} of {rows} rows have no image, which DeepSpeed cannot mix with others while the vision tower or what follows it "
        "learns; use FSDP, or --lora"
    )


def why_not_shared(args: Any) -> str:
    """Return why dpo cannot take the shared prefix where a trainer's `args` spread the weights, "" where it can."""
    return "the trainer's own arguments spread the weights; accelerate's configuration can" if args.fsdp or args.deepspeed else ""


def prepare(model: Any) -> None:
    """Make a model ready for FSDP: say which layers are gathered one at a time, and gather the head before TRL reads it.

    The layers are those of the language model, where the user named none. A model's own list (`_no_split_modules`) names layers that it
    has not, and is refused; and those of a tower would be gathered by the processes that have images alone, while the others wait.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    if asked() == FSDP:
        inner = bare(model)
        layers = {type(module).__name__ for module in inner.get_decoder().modules() if isinstance(module, GradientCheckpointingLayer)}
        os.environ.setdefault(_LAYERS, ",".join(sorted(layers)))
        inner.base_model.register_forward_hook(lambda *_: _gather_head(inner))
        inner.get_decoder().register_forward_pre_hook(_ask_for_gradients, with_kwargs=True)


def touch_vision(model: Any) -> Any:
    """Return nought, as a sum over the weights of the tower that learn: a process whose rows have no images has gradients for them too.

    FSDP adds up the gradients that are there; where the processes differ in that, it would add unlike things.
    """
    weights = [weight for _, weight in vision_weights(bare(model)) if weight.requires_grad] if asked() == FSDP else []
    return sum(0 * weight.sum() for weight in weights)


def release(model: Any) -> None:
    """Let go of the weights that FSDP has gathered and not yet given up; what is switched on and off for them is then said to the shards."""
    for module in _spread(model):
        module.reshard()


def renew(model: Any) -> None:
    """Let FSDP look again at which weights learn, and in which type: it does so in the first forward pass, which may have been another's."""
    for module in _spread(model):
        module.unshard()
        module.reshard()


def bare(model: Any) -> Any:
    """Return the model without an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def gather_when_saving(trainer: Any) -> None:
    """Let the trainer save whole weights: with FSDP's shards it would write no model, and say nothing."""
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")


def _spread(model: Any) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "reshard")]


def _gather_head(model: Any) -> None:
    # TRL 1.16 multiplies with the head's weight itself, and gathers it in a way that leaves its gradient without the other processes' part.
    head = model.get_output_embeddings()
    if hasattr(head, "unshard"):
        head.unshard()


def _ask_for_gradients(module: Any, inputs: Any, named: dict[str, Any]) -> None:
    # FSDP adds up a layer's gradients when those of its input are there, else after all others: text alone has some too, as images that learn have.
    if named.get("inputs_embeds") is not None:
        named["inputs_embeds"].requires_grad_(True)


def _objections(job: Job) -> Iterator[str]:
    from accelerate.utils import DeepSpeedPlugin, DistributedType

    if process_state().distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU):
        yield "accelerate spreads weights over accelerators only, over several processes, and would leave it away without a word here"
    if asked() == DEEPSPEED and find_spec("deepspeed") is None:
        yield "it is not installed: pip install deepspeed"
    elif asked() == DEEPSPEED and DeepSpeedPlugin().zero_stage == 3:
        yield "at stage 3 the processes wait for ever for one whose rows have no images; take stage 2, or FSDP, which spreads as much"
    if asked() == FSDP and os.environ.get("FSDP_VERSION", "1") == "1":
        yield "version 1 is not supported here; write fsdp_version: 2 into the configuration"
    if job.lora is not None and job.lora.quantize:
        yield "--qlora keeps its base whole on each card; use --lora"


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true")
