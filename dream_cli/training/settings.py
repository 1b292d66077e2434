"""The settings of a training run, written into its `run.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dream_cli.records.choices import Decay, Dtype, OnTooLong, Optimiser, Tracker
from dream_cli.records.columns import DEFAULT_READING, Reading


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter (arXiv 2106.09685): its rank, its scale `alpha`, and the modules it adapts.

    `targets` are names of linear layers separated by commas, or one regular expression; None for all layers of the language model.
    `dora` separates the magnitude (arXiv 2402.09353), `quantize` loads the base in 4 bits (arXiv 2305.14314). Rank and scale None keep
    those of the adapter to continue from, and are 16 and 32 for a new one.
    """

    rank: int | None = None
    alpha: float | None = None
    targets: str | None = None
    dora: bool = False
    quantize: bool = False
    merge: bool = False


@dataclass(frozen=True)
class Schedule:
    """Length, learning rate, optimiser and order of training.

    `batch_size` is per device, `accumulate` the micro-batches per update, `warmup` a share of the steps, `weight_decay` that of AdamW
    (arXiv 1711.05101); `group_by_length` puts rows of similar length into a batch. `adamw_8bit` is torchao's, which rounds bfloat16 weights stochastically; `paged_adamw_8bit` is that of
    bitsandbytes, whose states are paged out of a full GPU.
    """

    epochs: float = 1.0
    max_steps: int | None = None
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-5
    decay: Decay = "cosine"
    warmup: float = 0.03
    optimiser: Optimiser = "adamw"
    weight_decay: float = 0.0
    group_by_length: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Hardware:
    """Precision, memory, `workers` (processes that read images), checkpoints and reporting; None lets the device determine a value.

    `keep` is the number of last checkpoints that are kept as models when the run ends. These settings do not change the result.
    """

    dtype: Dtype = "auto"
    gradient_checkpointing: bool | None = None
    save_every: int = 100
    keep: int = 0
    eval_every: int | None = None
    workers: int | None = None
    report_to: Tracker | None = None


@dataclass(frozen=True)
class Job:
    """One run: its records, its model, its output folder and its settings.

    `max_length` is in tokens, including image tokens, None for the model's own limit; `vision` also trains the vision tower,
    None: only without an adapter.
    """

    source: str | None
    model: str
    out: Path
    lora: Lora | None = None
    schedule: Schedule = field(default_factory=Schedule)
    hardware: Hardware = field(default_factory=Hardware)
    vision: bool | None = None
    max_length: int | None = None
    on_too_long: OnTooLong = "drop"
    held_out: str | None = None
    reading: Reading = DEFAULT_READING
    limit: int | None = None
    allow_small_world_judge: bool = False
    overwrite: bool = False
    quiet: bool = False

    @property
    def learns_vision(self) -> bool:
        """Whether the vision tower is trained."""
        return self.lora is None if self.vision is None else self.vision
