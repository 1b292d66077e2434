"""The model that a run starts from: its folders, its processor, its weights, and the adapter to train."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream_cli.engines.checkpoint import Checkpoint, find_checkpoint, fingerprint, read_run
from dream_cli.engines.local_model import first_line, load_processor, load_weights, quiet_libraries, with_adapter
from dream_cli.engines.patches import private_part
from dream_cli.engines.registry import EMBEDDED
from dream_cli.errors import UsageError
from dream_cli.records.atomic import replacing_path
from dream_cli.training.launching import first_does
from dream_cli.training.settings import Job, Lora

UNSUPPORTED = {
    # TRL tokenises the answers without the images.
    "paligemma": "its processor cannot read an answer without its image",
    "mllama": "TRL's batches end its cross-attention mask at the prompt, so that the answer has none",
}
ON_CPU_UNSUPPORTED = {"llama4": "its processor makes bfloat16 pixels, which 32-bit weights do not take without a GPU's autocast"}
RANK, ALPHA = 16, 32.0


@dataclass(frozen=True)
class Start:
    """The model that a run starts from, as the user named it."""

    name: str
    checkpoint: Checkpoint
    fingerprint: str

    @property
    def base(self) -> str:
        """The base to write into an adapter: a hub id unchanged, a folder as an absolute path."""
        return self.hub_name or str(self.checkpoint.folder.resolve())

    @property
    def base_has_changed(self) -> bool:
        """Whether an adapter's base has other files than when the adapter was trained; False if its run did not record them."""
        known = (read_run(self.checkpoint.adapter) or {}).get("base") if self.checkpoint.adapter is not None else None
        return isinstance(known, dict) and known.get("fingerprint") not in (None, fingerprint(Checkpoint(self.checkpoint.folder)))

    @property
    def hub_name(self) -> str:
        """The id of the model on a hub, "" for one in a folder and for an adapter."""
        is_hub = not Path(self.name).expanduser().exists() and "/" in self.name and self.checkpoint.adapter is None
        return self.name if is_hub else ""

    @property
    def config(self) -> dict[str, Any]:
        """The model's configuration."""
        read: dict[str, Any] = json.loads((self.checkpoint.folder / "config.json").read_text())
        return read


@dataclass(frozen=True)
class Policy:
    """The model for the trainer, which may already have an adapter, and the configuration of a new adapter.

    The reference is the initial policy: the base under a new adapter, a frozen copy of an old adapter, or the weights of its folder.
    """

    model: Any
    adapter: Any = None


def find_start(name: str) -> Start:
    """Return the model of a path, hub id or embedded name; raise UsageError where there is none."""
    checkpoint = find_checkpoint(str(EMBEDDED.get(name, name)))
    return Start(name, checkpoint, fingerprint(checkpoint))


def quiet() -> None:
    """Turn off the messages of the libraries and their telemetry."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet_libraries()


def processor_of(start: Start) -> Any:
    """Return the processor of a model; raise UsageError where it cannot be loaded."""
    return load_processor(start.checkpoint, start.name)


def load_policy(start: Start, job: Job) -> Policy:
    """Return the policy of a job with its weights loaded; raise UsageError where they cannot be loaded."""
    folder, adapter = start.checkpoint.folder, start.checkpoint.adapter
    if adapter is None:
        return Policy(_frozen(_loaded(folder, _dtype(job), job.lora), job), _plan(start, job))
    if job.lora is not None:
        # The same adapter is trained in all rounds; the trainer freezes a copy of it as the reference.
        return Policy(with_adapter(_loaded(folder, _dtype(job), job.lora), start.checkpoint, trainable=True))
    # Merged into a folder of its own, because a trainer loads the reference from the policy's path.
    merged = job.out / "checkpoints" / "start"
    first_does(lambda: None if merged.exists() else merge(start, adapter, merged))
    return Policy(_frozen(_loaded(merged, _dtype(job), None), job))


def merge(start: Start, adapter: Path, out: Path) -> None:
    """Merge the adapter into the base of `start` and write a plain checkpoint to `out`, atomically."""
    import torch

    model = _loaded(start.checkpoint.folder, torch.float32, None)
    with replacing_path(out) as unfinished:
        with_adapter(model, Checkpoint(start.checkpoint.folder, adapter)).merge_and_unload().save_pretrained(unfinished)


def target_modules(start: Start, job: Job) -> str:
    """Return the regular expression of the modules to adapt; raise UsageError where there are none.

    No weights are loaded: the model is built on the meta device.
    """
    import torch

    model = _empty_model(start)
    wanted = job.lora.targets if job.lora is not None else None
    head = model.get_output_embeddings()  # Llama 4 has it inside the decoder; TRL adapts no head
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head}
    towers = [model.get_decoder(), *([model.get_encoder("image")] if job.learns_vision else [])]
    prefixes = [name for name, module in model.named_modules() if any(module is tower for tower in towers)]
    inside = sorted(name for name in linear if any(name.startswith(f"{prefix}.") for prefix in prefixes))
    leaves = sorted({_leaf(name) for name in inside})
    if wanted is not None and not re.fullmatch(r"[\w,]+", wanted):
        pattern = wanted
    else:
        named = wanted.split(",") if wanted else leaves
        pattern = rf"(?:{'|'.join(map(re.escape, prefixes))})\.(?:.*\.)?(?:{'|'.join(map(re.escape, named))})"
        if unknown := sorted(set(named) - set(leaves)):
            raise UsageError(f"--targets: {', '.join(unknown)} is not a linear layer of {start.name}; there are {', '.join(leaves)}")
    if not any(re.fullmatch(pattern, name) for name in linear):
        raise UsageError(f"--targets: no linear layer of {start.name} matches {pattern!r}; there are {', '.join(leaves)}")
    return pattern


def has_fused_experts(start: Start) -> bool:
    """Return whether the experts of the language model are one tensor, (experts, out, in), which adapters of linear layers do not cover."""
    return any(weight.ndim == 3 for name, weight in _empty_model(start).get_decoder().named_parameters() if ".experts." in name)


def lacks_router_loss(config: Any) -> bool:
    """Return whether TRL cannot compute the load-balancing loss of a mixture of experts: it reads `num_experts`, which is not in all configurations."""
    text = config.get_text_config()
    return hasattr(text, "output_router_logits") and not hasattr(text, "num_experts")


def other_plans(start: Start, lora: Lora) -> list[str]:
    """Return the options that differ from those of the adapter to continue from."""
    known = json.loads((start.checkpoint.folders[-1] / "adapter_config.json").read_text())
    wanted = {
        "--rank": (lora.rank, known["r"]),
        "--alpha": (lora.alpha, known["lora_alpha"]),
        "--dora": (lora.dora or None, known.get("use_dora")),
    }
    other = [f"{flag} {value} ({own} is its own)" for flag, (value, own) in wanted.items() if value not in (None, own)]
    return other + ([f"--targets {lora.targets}"] if lora.targets else [])


def context_length(start: Start) -> int | None:
    """Return the context length of the model in tokens, None if its configuration has none."""
    return getattr(model_config(start).get_text_config(), "max_position_embeddings", None)


def model_config(start: Start) -> Any:
    """Return the configuration of the model as a class of transformers; raise UsageError where transformers has none for it."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(start.checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # files that are damaged, of another version, or with code of their own
        hint = "; dream runs no code of a checkpoint, so use a copy in the format of transformers" if "auto_map" in start.config else ""
        raise UsageError(f"cannot read the configuration of {start.name}: {first_line(error)}{hint}") from error


def why_not_trained(start: Start) -> str:
    """Return why the family of a model cannot be trained here, "" if it can."""
    import torch
    from transformers import AutoModelForImageTextToText

    family = str(start.config.get("model_type"))
    unsupported = UNSUPPORTED | ({} if torch.accelerator.is_available() else ON_CPU_UNSUPPORTED)
    if family in unsupported:
        return unsupported[family]
    config = model_config(start)
    if type(config) not in private_part(AutoModelForImageTextToText, "_model_mapping", "transformers"):
        return "transformers does not load it as a model of images and text"
    return "its encoder reads the prompt apart from the answer" if config.is_encoder_decoder else ""


def _empty_model(start: Start) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(model_config(start))


def _loaded(folder: Path, dtype: Any, lora: Lora | None) -> Any:
    more = {"quantization_config": _four_bits()} if lora is not None and lora.quantize else {}
    return load_weights(folder, str(folder), dtype, **more)


def _dtype(job: Job) -> Any:
    """Return the dtype of the weights: 32 bits for trained weights, 16 for a frozen base on a GPU."""
    import torch

    if job.hardware.dtype != "auto":
        return getattr(torch, job.hardware.dtype)
    return torch.bfloat16 if job.lora is not None and has_bfloat16() else torch.float32


def has_bfloat16() -> bool:
    """Whether the device computes in bfloat16."""
    import torch

    return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())


def _four_bits() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )


def _plan(start: Start, job: Job) -> Any:
    if job.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=job.lora.rank or RANK,
        lora_alpha=ALPHA if job.lora.alpha is None else job.lora.alpha,
        use_dora=job.lora.dora,
        target_modules=target_modules(start, job),
        task_type="CAUSAL_LM",
    )


def _leaf(name: str) -> str:
    """Return the last part of a module's name; if that is only a number, as in lists of blocks, with the part before it."""
    last = name.rpartition(".")[2]
    return ".".join(name.split(".")[-2:]) if last.isdigit() else last


def _frozen(model: Any, job: Job) -> Any:
    """Return the model with its vision tower frozen unless it is trained."""
    if job.lora is None and not job.learns_vision:
        model.get_encoder("image").requires_grad_(False)
    return model
