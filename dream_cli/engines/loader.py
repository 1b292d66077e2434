"""Which engine answers for a model: the only place that names the engines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineSpec:
    """What the user said of the model that answers. Without `model` and `base_url` it is nano, the embedded model."""

    model: str | None = None
    base_url: str | None = None
    model_tag: str | None = None
    concurrency: int = 8
    batch_size: int = 8
    device: str | None = None
    timeout: float = 120.0
    store: str | None = None
    prompts_sha256: str | None = None
