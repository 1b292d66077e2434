"""Parsing of the replies of an OpenAI-compatible server; an unexpected shape raises EngineError."""

from __future__ import annotations

import re
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
    "length": ("length", "max_tokens", "max_output_tokens", "max_completion_tokens", "max_new_tokens", "max_length", "model_length")
    + ("length_capped", "token_limit", "error_limit", "model_context_window_exceeded", "context_length_exceeded", "incomplete", "truncated")
    + ("repetition_truncation",),
    FILTERED: (FILTERED, "safety", "image_safety", "prohibited_content", "blocklist", "spii", "recitation", "guardrail_intervened")
    + ("content_filtered", "content_policy", "policy_violation", "guardrail", "sensitive", "moderation", "moderated", "flagged", "blocked")
    + ("error_toxic",),
    DECLINED: (DECLINED, "refused"),
    INTERRUPTED: (INTERRUPTED, "abort", "aborted", "cancelled", "canceled", "user_cancel", "interrupted", "preempted", "timeout", "failed")
    + ("insufficient_system_resource", "network_error", "server_error", "model_error", "other_error", "overloaded"),
}
_IS_THOUGHT = re.compile("think|reason|thought")  # in the type of a part
# The fields that hold thoughts, of a message and of its parts.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thoughts", "thinking_blocks", "reasoning_details")
_OF_A_PART = ("thinking", "reasoning", "text", "summary", "content")
# The end of a turn, as some servers leave it in the text.
_ENDS = ("im_end", "eot_id", "eom_id", "endoftext", "end_of_text", "end", "return", "END_OF_TURN_TOKEN")
_END_OF_TURN = (*(f"<|{name}|>" for name in _ENDS), "<end_of_turn>", "<eos>", "<pad>", "</s>", "<｜end▁of▁sentence｜>")


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
    text = _without_end_of_turn(text)
    named = (_thoughts(message.get(name)) for name in _THOUGHTS)
    reasoning = next(filter(None, named), "".join(_texts(parts, "thoughts")) or None)
    completion = with_thoughts_apart(
        Completion(text=text, finish_reason=finish, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, reasoning=reasoning)
    )
    if completion.finish_reason == "length" and completion.reasoning is None and not completion.text.strip():
        # Some vendors hide the thoughts that used up the tokens.
        return replace(completion, reasoning="")
    if completion.is_answer or completion.finish_reason in ("length", FILTERED):
        return completion
    # A refusal without words is the vendor's, not the model's.
    is_withheld = completion.finish_reason == DECLINED or _is_filtered(choice)
    return replace(completion, text="", finish_reason=FILTERED if is_withheld else "empty")


def _is_filtered(choice: Json) -> bool:
    """Whether the results of Azure's content filter say that it withheld the text."""
    results = choice.get("content_filter_results")
    return isinstance(results, dict) and any(isinstance(result, dict) and result.get("filtered") is True for result in results.values())


def _without_end_of_turn(text: str) -> str:
    """Return the text without tokens that end a turn; empty if no character is visible."""
    # "</s>" may be an HTML tag.
    tokens = [token for token in _END_OF_TURN if token != "</s>" or "<s>" not in text]
    end = whole = len(text.rstrip())
    while token := next((token for token in tokens if text.endswith(token, 0, end)), None):
        end -= len(token)
        while end and text[end - 1].isspace():
            end -= 1
    text = text[:end] if end < whole else text
    return text if any(c.isprintable() and not c.isspace() for c in text) else ""


def finish_reason(choice: Json) -> str | None:
    """Return the finish reason in OpenAI's words, or the server's own if it means something else; None if it is not a text."""
    reason = choice.get("finish_reason")
    # Beside a finish reason, vLLM gives the text or token at which it stopped.
    reason = choice.get("stop_reason") if reason is None else reason
    if not isinstance(reason, str):
        return None
    # Gemini has "content_filter: SAFETY".
    word = reason.strip().casefold().replace("-", "_").partition(":")[0].removeprefix("finishreason.")
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
        if part.get("thought") is True or _IS_THOUGHT.search(str(part.get("type"))):
            piece: Any = _thoughts(part) if kind == "thoughts" else ""
        else:
            piece = part.get(kind)
            piece = piece.get("value") if isinstance(piece, Mapping) else piece
        if isinstance(piece, str):
            yield piece


def _thoughts(value: Any) -> str:
    """Return the thoughts in a field: a text, an object that holds them, or a list of these."""
    if isinstance(value, Mapping):
        return next(filter(None, (_thoughts(value.get(name)) for name in _OF_A_PART)), "")
    if isinstance(value, list):
        return "".join(map(_thoughts, value))
    return value if isinstance(value, str) else ""
