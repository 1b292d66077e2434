"""Parsing of the replies of an OpenAI-compatible server; an unexpected shape raises EngineError."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dream_cli.engines.protocol import Completion
from dream_cli.engines.thoughts import with_thoughts_apart
from dream_cli.engines.usage import Usage
from dream_cli.errors import EngineError

Json = dict[str, Any]

MOST_TOKENS = 1 << 40  # a larger count is not credible


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
    finish = choice.get("finish_reason")
    # The legacy completions API has `text` instead of a message.
    message = choice.get("message", {"content": choice["text"]} if "text" in choice else None)
    if not isinstance(message, dict):
        raise EngineError(
            f"the message of a choice is not an object: {str(message)[:80]!r}"
            if "message" in choice
            else "a choice of the reply has no message"
        )
    text, refusal = _content(message.get("content")), message.get("refusal")
    finish = finish if isinstance(finish, str) else None
    if not text.strip() and isinstance(refusal, str) and refusal.strip():
        text, finish = refusal, "refusal"
    reasoning = next((r for name in ("reasoning_content", "reasoning") if isinstance(r := message.get(name), str) and r), None)
    completion = with_thoughts_apart(
        Completion(text=text, finish_reason=finish, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, reasoning=reasoning)
    )
    if completion.finish_reason == "length" and completion.reasoning is None and not completion.text.strip():
        # Some vendors hide the thoughts that used up the tokens.
        return replace(completion, reasoning="")
    if completion.is_answer or completion.finish_reason not in (None, "stop"):
        return completion
    return Completion(
        text="", finish_reason="empty", prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, reasoning=completion.reasoning
    )


def _content(content: Any) -> str:
    """Return the text of a message; some servers send it in parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None for part in content]
        # Parts without text hold thoughts or tool calls, which are not part of the answer.
        return "".join(part for part in parts if isinstance(part, str))
    raise EngineError(f"the content of the reply is not text: {str(content)[:80]!r}")
