"""Parsing of the replies of an OpenAI-compatible server; an unexpected shape raises EngineError."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from dream_cli.engines.protocol import DECLINED, FILTERED, Completion
from dream_cli.engines.thoughts import with_thoughts_apart
from dream_cli.engines.usage import Usage
from dream_cli.errors import EngineError

Json = dict[str, Any]

MOST_TOKENS = 1 << 40  # a larger count is not credible
INTERRUPTED = "error"  # the finish reason of a reply that the server broke off
# OpenAI's finish reasons and INTERRUPTED, each with the words of other servers.
_FINISH_REASONS = {
    "stop": ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete"),
    "length": ("length", "max_tokens", "max_output_tokens", "max_length", "model_length", "token_limit", "model_context_window_exceeded"),
    FILTERED: (FILTERED, "safety", "image_safety", "prohibited_content", "blocklist", "spii", "recitation", "guardrail_intervened")
    + ("content_filtered", "sensitive", "moderation", "error_toxic"),
    DECLINED: (DECLINED, "refused"),
    INTERRUPTED: (INTERRUPTED, "abort", "aborted", "cancelled", "insufficient_system_resource", "network_error", "other_error"),
}
_THOUGHTS = ("thinking", "reasoning", "thought")  # the types of a part that holds thoughts


def read_choices(reply: Json) -> list[Json]:
    """Return the choices of a reply in the order of their index; entries that are not choices are left out."""
    choices = reply.get("choices")
    choices = [c for c in choices if isinstance(c, dict)] if isinstance(choices, list) else []
    return sorted(choices, key=lambda c: index if isinstance(index := c.get("index"), int) else 0)


def read_completions(reply: Json) -> list[Completion]:
    """Return every choice of the reply; completion tokens are set only for a single choice, because the server reports their sum."""
    choices, usage = read_choices(reply), reply.get("usage")
    read = token_count(usage, "prompt_tokens")
    written = token_count(usage, "completion_tokens") if len(choices) == 1 else None
    return [_completion(choice, read, written) for choice in choices]


def token_count(usage: Any, name: str) -> int | None:
    """Return a token count of the server; None if it reports none."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < MOST_TOKENS else None


def usage_of(reply: Json) -> Usage:
    """Return the token counts of a reply; 0 if the server reports none."""
    usage = reply.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    prompt = token_count(usage, "prompt_tokens") or 0
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=token_count(usage, "completion_tokens") or 0,
        cached_tokens=min(prompt, token_count(details, "cached_tokens") or 0),
    )


def _completion(choice: Json, prompt_tokens: int | None, completion_tokens: int | None) -> Completion:
    # The legacy completions API has `text` instead of a message.
    message = choice.get("message", {"content": choice["text"]} if "text" in choice else None)
    if not isinstance(message, dict):
        raise EngineError(
            f"the message of a choice is not an object: {str(message)[:80]!r}"
            if "message" in choice
            else "a choice of the reply has no message"
        )
    parts, finish = _parts(message.get("content")), finish_reason(choice)
    text, refusal = "".join(_texts(parts, "text")), message.get("refusal")
    refusal = refusal if isinstance(refusal, str) else "".join(_texts(parts, "refusal"))
    if not text.strip() and refusal.strip():
        text, finish = refusal, DECLINED
    named = (message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))
    reasoning = next((thoughts for thoughts in named if isinstance(thoughts, str) and thoughts), "".join(_texts(parts, "thoughts")) or None)
    completion = with_thoughts_apart(
        Completion(text=text, finish_reason=finish, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, reasoning=reasoning)
    )
    if completion.finish_reason == "length" and completion.reasoning is None and not completion.text.strip():
        # Some vendors hide the thoughts that used up the tokens.
        return replace(completion, reasoning="")
    if completion.is_answer or completion.finish_reason in ("length", FILTERED):
        return completion
    # A refusal without words is the vendor's, not the model's.
    return replace(completion, text="", finish_reason=FILTERED if completion.finish_reason == DECLINED else "empty")


def finish_reason(choice: Json) -> str | None:
    """Return the finish reason in OpenAI's words, or the server's own if it means something else; None if it is not a text."""
    reason = choice.get("finish_reason")
    if not isinstance(reason, str):
        return None
    # Gemini has "content_filter: SAFETY".
    word = reason.casefold().replace("-", "_").partition(":")[0]
    return next((name for name, words in _FINISH_REASONS.items() if word in words), reason)


def _parts(content: Any) -> list[Mapping[str, Any]]:
    """Return the content of a message as parts; most servers send a text, some send a list of parts."""
    if content is None or isinstance(content, str):
        return [{"text": content or ""}]
    if isinstance(content, list):
        return [{"text": part} if isinstance(part, str) else part for part in content if isinstance(part, str | Mapping)]
    raise EngineError(f"the content of the reply is not text: {str(content)[:80]!r}")


def _texts(parts: Sequence[Mapping[str, Any]], kind: Literal["text", "refusal", "thoughts"]) -> Iterator[str]:
    """Yield the texts of one kind; tool calls and other parts have none."""
    for part in parts:
        if part.get("type") in _THOUGHTS:
            thoughts = next((part[name] for name in ("thinking", "reasoning", "text") if name in part), None)
            # Mistral's thoughts are parts themselves.
            nested = thoughts if isinstance(thoughts, list) else [{"text": thoughts}]
            texts = [inner.get("text") for inner in nested if isinstance(inner, Mapping)] if kind == "thoughts" else []
        else:
            texts = [part.get(kind)]
        yield from (text for text in texts if isinstance(text, str))
