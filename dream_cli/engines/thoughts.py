"""The thoughts of a reasoning model, separated from its answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from dream_cli.engines.protocol import Completion, EngineSpec, Sampling
from dream_cli.records.record import Response

EXTRA_TOKENS = 2048  # added for the retry of a reply that was cut off inside its thoughts

# The opening and closing marks of thoughts, by model family.
_MARKS = (
    (r"<(think|thinking|thought|thoughts|reasoning|reflection|longcat_think)>", r"</{0}>"),
    (r"<seed:think>", r"</seed:think>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),
    (r"<\|channel>thought", r"<channel\|>"),
    (r"<unused94>thought", r"<unused95>"),
)
# A mark in the middle of a line is quoted text, not a mark.
_OPEN = re.compile(r"^[ \t]*(?:" + "|".join(f"(?:{opening})" for opening, _ in _MARKS) + ")", re.IGNORECASE | re.MULTILINE)
_CLOSE = (
    r"</(?:think|thinking|thoughts?|reasoning|reflection|longcat_think|seed:think)>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|END_THINKING\|>|<\|inner_suffix\|>|<channel\|>|<unused95>"
)
# A chat template may write the opening mark itself; the reply then has only the closing one. Between backticks it is quoted.
_LONE_CLOSE = re.compile(rf"(?!(?<=`)(?:{_CLOSE})`)(?:{_CLOSE})")
_WRAPPED = re.compile(
    r"\s*(?:<(?:answer|response)>|<\|begin_of_solution\|>|<\|START_RESPONSE\|>)\s*(.*?)"
    r"\s*(?:(?:</(?:answer|response)>|<\|end_of_solution\|>|<\|END_RESPONSE\|>)\s*)?",
    re.DOTALL | re.IGNORECASE,
)
# The messages of gpt-oss: the channel "final" is the answer, the others are thoughts.
_HARMONY = re.compile(
    r"(?:<\|start\|>assistant[^<]*)?<\|channel\|>(\w+)[^<]*<\|message\|>(.*?)(?:<\|(?:end|return|call)\|>|(?=<\|start\|>|<\|channel\|>)|\Z)",
    re.DOTALL,
)
# The same without its special tokens, as a tokenizer leaves it that skips them: "analysisWe need to ...assistantfinalNo."
_BARE_HARMONY = re.compile(r"(?:analysis|commentary)(?=[A-Z])(.*?)(?:assistantfinal(.*))?", re.DOTALL)
# The plain words of Granite are no marks unless both are there.
_GRANITE = re.compile(r"Here is my thought process:(.*?)^Here is my response:(.*)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Thoughtful:
    """A reply in two parts; `unclosed` if it ends inside its thoughts and has no answer."""

    text: str
    reasoning: str | None = None
    unclosed: bool = False


def split_thoughts(reply: str) -> Thoughtful:
    """Split a reply into its answer and its thoughts; a reply without marks is returned unchanged as the answer."""
    text, thoughts = _channels(reply)
    if text is None:
        return Thoughtful("", _joined(thoughts), unclosed=True)
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
        return Thoughtful(text, None if text == reply else "")
    wrapped = _WRAPPED.fullmatch(text)
    return Thoughtful(wrapped[1] if wrapped else text, _joined(thoughts))


def with_thoughts_apart(completion: Completion) -> Completion:
    """Return the completion with the thoughts moved from its text to `reasoning`; without an answer, its finish reason is "length"."""
    parts = split_thoughts(completion.text)
    if parts.reasoning is None:
        return completion
    reasoning = _joined([completion.reasoning or "", parts.reasoning])
    finish = "length" if parts.unclosed else completion.finish_reason
    return replace(completion, text="" if parts.unclosed else parts.text, reasoning=reasoning, finish_reason=finish)


def response_with_thoughts_apart(response: Response) -> Response:
    """Return a response that was made elsewhere with the thoughts of its text in `reasoning`; one without an answer ends by "length"."""
    given = response.extra.get("reasoning")
    parts = with_thoughts_apart(Completion(response.text, response.finish_reason, reasoning=given if isinstance(given, str) else None))
    if parts.text == response.text:
        return response
    extra = {**response.extra, "reasoning": parts.reasoning}
    return replace(response, text=parts.text, finish_reason=parts.finish_reason, extra=extra)


def cut_in_thoughts(completion: Completion) -> bool:
    """Whether the thoughts used up the tokens before the answer began."""
    return completion.finish_reason == "length" and completion.reasoning is not None and not completion.text.strip()


async def with_more_tokens(
    draw: Callable[[Sampling, Sequence[int]], Awaitable[list[Completion]]], sampling: Sampling, samples: Sequence[int]
) -> list[Completion]:
    """Return completions; those that end inside their thoughts are generated once more with more tokens."""
    completions = await draw(sampling, samples)
    cut = [i for i, completion in enumerate(completions) if cut_in_thoughts(completion)]
    if cut:
        longer = replace(sampling, max_tokens=sampling.max_tokens + max(EXTRA_TOKENS, sampling.max_tokens))
        for i, completion in zip(cut, await draw(longer, [samples[i] for i in cut]), strict=True):
            completions[i] = completion
    return completions


def no_thoughts(spec: EngineSpec) -> dict[str, bool]:
    """Return the variables of a chat template that turn thinking off, if the thinking budget is 0."""
    # Qwen, GLM and others use the first, Granite and DeepSeek the second; a template ignores unknown variables.
    return {"enable_thinking": False, "thinking": False} if spec.thinking == 0 else {}


def thinking_tag(spec: EngineSpec) -> str:
    """Return the part of a local model's fingerprint that depends on the thinking budget."""
    return "" if spec.thinking is None else f"-thinking-{spec.thinking}"


def _channels(reply: str) -> tuple[str | None, list[str]]:
    """Return the answer of a reply in the format of gpt-oss or Granite, None if it has none, and its thoughts; other replies unchanged."""
    plain = reply.strip()
    if granite := _GRANITE.fullmatch(plain):
        return granite[2].lstrip(), [granite[1]]
    if bare := _BARE_HARMONY.fullmatch(plain):
        return bare[2], re.split("assistant(?:analysis|commentary)(?=[A-Z])", bare[1])
    if not _HARMONY.match(plain):
        return reply, []
    messages = _HARMONY.findall(plain)
    final = [text.strip() for channel, text in messages if channel == "final"]
    return "\n\n".join(final) if final else None, [text for channel, text in messages if channel != "final"]


def _closing(opening: re.Match[str]) -> str:
    """Return the pattern of the closing mark that belongs to an opening one."""
    for pattern, closing in _MARKS:
        if mark := re.fullmatch(pattern, opening[0].strip(), re.IGNORECASE):
            return closing.format(*map(re.escape, mark.groups()))
    raise AssertionError(f"no mark begins with {opening[0]!r}")


def _joined(thoughts: Sequence[str]) -> str:
    return "\n\n".join(thought.strip() for thought in thoughts if thought.strip())
