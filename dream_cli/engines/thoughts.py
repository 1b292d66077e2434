"""The thoughts of a reasoning model, separated from its answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from dream_cli.engines.protocol import Completion, EngineSpec, Sampling

ROOM = 2048  # tokens that a reply gets on top where it was cut inside its thoughts

# How models mark where their thoughts begin and end.
_MARKS = (
    (r"<(think|thinking|thought|thoughts|reasoning|reflection)>", r"</{0}>"),
    (r"<seed:think>", r"</seed:think>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|channel\|>analysis<\|message\|>", r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>"),
)
# A mark in the middle of a line is text about the mark, not the mark itself.
_OPEN = re.compile(r"^[ \t]*(?:" + "|".join(f"(?:{opening})" for opening, _ in _MARKS) + ")", re.IGNORECASE | re.MULTILINE)
# A chat template may write the opening mark itself, so that only the closing one is part of the reply.
_LONE_CLOSE = re.compile(r"</(?:think|thinking|seed:think)>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>")
_WRAPPED = re.compile(r"\s*<answer>\s*(.*?)\s*(?:</answer>\s*)?", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Thoughtful:
    """A reply in two parts; `unclosed` where it ends inside its thoughts, so that there is no answer."""

    text: str
    reasoning: str | None = None
    unclosed: bool = False


def split_thoughts(reply: str) -> Thoughtful:
    """Part a reply into its answer and its thoughts; a reply without marks is all answer and stays as it is."""
    text = reply
    thoughts: list[str] = []
    while opening := _OPEN.search(text):
        before, after = text[: opening.start()], text[opening.end() :]
        closing = re.search(_closing(opening), after, re.IGNORECASE)
        if closing is None:
            return Thoughtful(before.strip(), _joined([*thoughts, after]), unclosed=True)
        thoughts.append(after[: closing.start()])
        text = before + after[closing.end() :].lstrip()
    lone = list(_LONE_CLOSE.finditer(text))
    if lone:
        thoughts.append(text[: lone[-1].start()])
        text = text[lone[-1].end() :].lstrip()
    if not thoughts:
        return Thoughtful(reply)
    wrapped = _WRAPPED.fullmatch(text)
    return Thoughtful(wrapped[1] if wrapped else text, _joined(thoughts))


def with_thoughts_apart(completion: Completion) -> Completion:
    """Return the completion with the thoughts of its text in `reasoning`; one without an answer ends by "length"."""
    parts = split_thoughts(completion.text)
    if parts.reasoning is None:
        return completion
    reasoning = _joined([completion.reasoning or "", parts.reasoning])
    finish = "length" if parts.unclosed else completion.finish_reason
    return replace(completion, text="" if parts.unclosed else parts.text, reasoning=reasoning, finish_reason=finish)


def cut_in_thoughts(completion: Completion) -> bool:
    """Whether the tokens were spent on thoughts, before the first word of the answer."""
    return completion.finish_reason == "length" and completion.reasoning is not None and not completion.text.strip()


async def with_room(
    draw: Callable[[Sampling, Sequence[int]], Awaitable[list[Completion]]], sampling: Sampling, samples: Sequence[int]
) -> list[Completion]:
    """Draw completions; those that end inside their thoughts are drawn once more with more room."""
    drawn = await draw(sampling, samples)
    cut = [i for i, completion in enumerate(drawn) if cut_in_thoughts(completion)]
    if cut:
        roomier = replace(sampling, max_tokens=sampling.max_tokens + max(ROOM, sampling.max_tokens))
        for i, completion in zip(cut, await draw(roomier, [samples[i] for i in cut]), strict=True):
            drawn[i] = completion
    return drawn


def no_thoughts(spec: EngineSpec) -> dict[str, bool]:
    """Return the variables of a chat template that keep a model from thinking, where the spec leaves no room for it."""
    # Qwen, GLM and others read the first, Granite and DeepSeek the second; a template ignores variables that it does not use.
    return {"enable_thinking": False, "thinking": False} if spec.thinking == 0 else {}


def thinking_tag(spec: EngineSpec) -> str:
    """Return the part of a local model's fingerprint that depends on the thinking budget."""
    return "" if spec.thinking is None else f"-thinking-{spec.thinking}"


def _closing(opening: re.Match[str]) -> str:
    """Return the pattern of the mark that ends what this one begins."""
    for pattern, closing in _MARKS:
        if mark := re.fullmatch(pattern, opening[0].strip(), re.IGNORECASE):
            return closing.format(*map(re.escape, mark.groups()))
    raise AssertionError(f"no mark begins with {opening[0]!r}")


def _joined(thoughts: Sequence[str]) -> str:
    return "\n\n".join(thought.strip() for thought in thoughts if thought.strip())
