"""The prompts of one model: its own templates instead of ours, and a warning if it was trained with other prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, replace
from typing import Any, ClassVar, Protocol, TypeVar

from dream_cli.engines.checkpoint import Checkpoint
from dream_cli.engines.protocol import Engine
from dream_cli.prompts.rendering import Prompts


class PromptedStep(Protocol):
    """A dataclass that sends prompts from templates to an engine; `roles` are the roles of its templates."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def engine(self) -> Engine: ...

    @property
    def prompts(self) -> Prompts: ...

    @property
    def roles(self) -> Sequence[str]: ...


Prompted = TypeVar("Prompted", bound=PromptedStep)


def with_model_prompts(step: Prompted, warn: Callable[[str], None]) -> Prompted:
    """Return the step with its model's own templates; templates of the user are kept.

    `warn` is called once if the prompt of a role then differs from the one in the model's training.
    """
    checkpoint = step.engine.checkpoint
    if checkpoint is None:
        return step
    prompts = step.prompts if checkpoint.prompts is None else step.prompts.with_carried(checkpoint.prompts)
    if unknown := untrained_roles(prompts, checkpoint, step.roles):
        fix = "leave out --prompts and --taxonomy to use its own" if checkpoint.prompts else "give those prompts with --prompts DIR"
        warn(f"warning: {step.engine.model} was trained with other prompts for {', '.join(unknown)}; {fix}")
    return replace(step, prompts=prompts)


def untrained_roles(prompts: Prompts, checkpoint: Checkpoint, roles: Sequence[str]) -> list[str]:
    """Return those of `roles` whose prompts differ from the model's training prompts; roles that it does not declare are skipped."""
    trained = checkpoint.trained_prompts
    hashes = dict(trained.roles)
    if checkpoint.prompts is not None:
        hashes = {**Prompts.carried(checkpoint.prompts).hashes, **hashes}
    elif trained.all_roles not in (None, prompts.sha256):
        return list(roles)
    return [role for role in roles if role in hashes and hashes[role] != prompts.hashes[role]]
