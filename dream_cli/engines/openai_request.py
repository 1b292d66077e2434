"""The requests to an OpenAI-compatible server, without the parameters that it has refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dream_cli.engines.openai_attempt import Refused, error_message
from dream_cli.engines.protocol import ChatMessage, EngineSpec, Sampling
from dream_cli.engines.thoughts import no_thoughts

Json = dict[str, Any]

# These servers take missing parameters from the checkpoint's own sampling settings, not from OpenAI's defaults.
_OWN_DEFAULTS = ("vllm", "sglang", "llamacpp")
# The effect of no longer sending a parameter, for the message about it.
_EFFECTS = {
    "temperature": "replies are sampled at the server's own temperature, even where greedy decoding is intended",
    "top_p": "replies are sampled with the server's own top_p",
    "seed": "the same command may sample other replies",
    "n": "samples are requested one by one",
    "logprobs": "verdicts are read from the text of the reply",
    "response_format": "the form of a list is requested only in the prompt",
    "minLength": "the schema of a list allows empty strings",
    "max_tokens": "max_completion_tokens is sent instead",
    "chat_template_kwargs": "the model may think",
    "reasoning_effort": "the model may think",
    **dict.fromkeys(("structured_outputs", "grammar", "regex"), "the allowed answers of a judge are requested only in the prompt"),
}
_BY_NAME = ("temperature", "top_p", "seed", "chat_template_kwargs", "reasoning_effort", "structured_outputs", "grammar", "regex")
_LIMIT = re.compile(r"\b(max(imum)?|at most|less than|greater than|between|range|exceeds?|limit|up to)\b|[<>[(]\s*\d", re.IGNORECASE)
_SEVERAL = re.compile(  # several samples in one request
    r"""(?<![\w'’])n\s*(?:=|>|<|must|:|is\b|parameter)|['"`]n['"`]|\bparameters?:? n\b|\bcandidate_?count\b"""
    r"""|\b(?:range of n|number of choices)\b|\b(?:multiple|one|single) (?:completion|candidate|choice|sample|response)s?\b""",
    re.IGNORECASE,
)
LOGPROBS = 20  # alternatives per position, the highest limit of any server
_FEWER = {20: 10, 10: 5}


@dataclass
class Dropped:
    """What the server has refused so far in this run: parameters, schemas, and numbers of log-probabilities above its limit."""

    warn: Callable[[str], None]
    names: set[str] = field(default_factory=set)
    schemas: set[str] = field(default_factory=set)
    logprobs: int = LOGPROBS

    def apply(self, body: Json) -> Json:
        """Return the request without the refused parts."""
        left = {name: value for name, value in body.items() if name not in self.names or name == "max_tokens"}
        if "max_tokens" in self.names and "max_tokens" in left:
            left["max_completion_tokens"] = left.pop("max_tokens")
        if "logprobs" not in left:
            left.pop("top_logprobs", None)
        elif "top_logprobs" in left:
            left["top_logprobs"] = min(left["top_logprobs"], self.logprobs)
        if "response_format" in left:
            if "minLength" in self.names:
                left["response_format"] = _without_key(left["response_format"], "minLength")
            if json.dumps(left["response_format"]) in self.schemas:
                del left["response_format"]
        return left

    def with_refusal(self, error: Refused, sent: Json) -> Dropped | None:
        """Return what to leave out after the refusal of a request; None if it names none of our parameters.

        The parameter may be left out already: requests in flight together are all refused, and each is worth a retry.
        """
        blamed = blamed_parameters(error, sent)
        if not blamed:
            return None
        schemas, logprobs = set(self.schemas), self.logprobs
        if "top_logprobs" in blamed:
            blamed.discard("top_logprobs")
            fewer = _FEWER.get(sent["top_logprobs"])
            logprobs = min(fewer or logprobs, logprobs)
            blamed |= set() if fewer else {"logprobs"}
            if fewer:
                blamed.discard("logprobs")
        if "response_format" in blamed:
            blamed.discard("response_format")
            schemas.add(json.dumps(sent["response_format"]))
        return Dropped(self.warn, self.names | blamed, schemas, logprobs)

    def remember(self, other: Dropped) -> None:
        """From now on leave out what an accepted request left out, and report each parameter once."""
        for name in sorted(other.names - self.names):
            self.warn(f"the server refuses `{name}`, which is no longer sent: {_EFFECTS[name]}")
        if other.schemas - self.schemas:
            self.warn(f"the server refuses a JSON schema, which is no longer sent: {_EFFECTS['response_format']}")
        self.names |= other.names
        self.schemas |= other.schemas
        self.logprobs = min(self.logprobs, other.logprobs)


def blamed_parameters(error: Refused, sent: Json) -> set[str]:
    """Return those of our parameters that a refusal names, in its fields (`param`, `loc`) or in its message.

    The schema counts as `response_format`, or as `minLength` if only that keyword is named.
    """
    if error.status not in (400, 403, 422):
        return set()
    message = error_message(error.reply, 10_000)
    words = f"{message} {_named_fields(error.reply)}"
    if "response_format" in sent and "minLength" in words and "minLength" in json.dumps(sent["response_format"]):
        return {"minLength"}
    blamed = {name for name in _BY_NAME if _names(words, name)}
    if {"temperature", "top_p"} <= blamed and {"temperature", "top_p"} <= set(sent):
        # "cannot both be specified": the temperature matters more; it is dropped next if it is refused too.
        blamed.discard("temperature")
    if _SEVERAL.search(words):
        blamed.add("n")
    if re.search(r"\bthinking\b|\breasoning effort\b", words, re.IGNORECASE):
        blamed |= {"reasoning_effort", "chat_template_kwargs"}
    if _names(words, "max_completion_tokens"):
        blamed.add("max_tokens")
    if re.search(r"\b(response_format|json_?\s?(schema|mode)|output_format|schema|structured outputs?)\b", words, re.IGNORECASE):
        blamed.add("response_format")
    if re.search(r"\b(top_)?log[_ ]?prob(abilitie)?s\b", words, re.IGNORECASE):
        blamed.add("top_logprobs" if _LIMIT.search(message) else "logprobs")
    return blamed & set(sent)


def _names(words: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", words, re.IGNORECASE) is not None


def _named_fields(reply: str) -> str:
    """Return the names in the fields of an error: `param`, and the `loc` or `field` of failed validations."""
    try:
        content = json.loads(reply)
    except (ValueError, RecursionError):
        return ""
    content = content[0] if isinstance(content, list) and content else content
    if not isinstance(content, dict):
        return ""
    error = content.get("error")
    named = [error.get("param")] if isinstance(error, dict) else []
    lists = [content.get("detail"), content.get("details"), error.get("details") if isinstance(error, dict) else None]
    for detail in [detail for details in lists if isinstance(details, list) for detail in details if isinstance(detail, dict)]:
        location = detail.get("loc")
        named += [*(location if isinstance(location, list) else []), detail.get("field")]
    return " ".join(f"'{name}'" for name in named if isinstance(name, str))


def _without_key(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {name: _without_key(inner, key) for name, inner in value.items() if name != key}
    return [_without_key(inner, key) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Requests:
    """Builds the body of each request. The order of its fields is fixed, so that a server's prompt cache recognises equal beginnings."""

    model: str
    owner: str  # the server software, as its list of models names it
    thinking: Mapping[str, Any]
    extra: Mapping[str, Any]

    def body(self, chat: Sequence[ChatMessage], sampling: Sampling) -> Json:
        """Return the request for one completion; parameters at their default are left out."""
        body: Json = {"model": self.model, "messages": [_message(message) for message in chat], "max_tokens": sampling.max_tokens}
        is_sampled = sampling.temperature > 0
        own_defaults = self.owner in _OWN_DEFAULTS
        if sampling.temperature != 1 or own_defaults:
            body["temperature"] = sampling.temperature
        if is_sampled and (sampling.top_p != 1 or own_defaults):
            body["top_p"] = sampling.top_p
        if is_sampled:
            body["seed"] = sampling.seed
        if sampling.schema is not None:
            schema = {"name": "answer", "strict": True, "schema": dict(sampling.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {**body, **self.constraint(sampling.choices), **self.thinking}

    def constraint(self, choices: Sequence[str]) -> Json:
        """Return the field that constrains this server's output to the choices; empty if none is known."""
        if not choices or self.owner not in _OWN_DEFAULTS:
            return {}
        if self.owner == "vllm":
            return {"structured_outputs": {"choice": list(choices)}}
        if self.owner == "llamacpp":
            return {"grammar": f"root ::= {' | '.join(json.dumps(choice) for choice in choices)}"}
        return {"regex": f"({'|'.join(map(re.escape, choices))})"}

    def merged(self, body: Json) -> Json:
        """Return the request with the user's own fields, which take precedence; null removes a field."""
        if "max_completion_tokens" in self.extra:
            body = {name: value for name, value in body.items() if name != "max_tokens"}
        merged = merged_fields(body, self.extra)
        return {name: value for name, value in merged.items() if value is not None}


def requests_for(spec: EngineSpec, card: Json, host: str) -> Requests:
    """Return the builder of requests for a model, described by its entry in the server's list."""
    owner = str(card.get("owned_by", "")).lower()
    return Requests(card["id"], owner, _thinking_fields(spec, card["id"], host), spec.body)


def _thinking_fields(spec: EngineSpec, model: str, host: str) -> Json:
    """Return the fields that turn thinking off, if the thinking budget is 0."""
    if spec.thinking != 0:
        return {}
    name = model.rpartition("/")[2].lower()
    if re.match(r"gpt-5\.\d|gemini", name):
        return {"reasoning_effort": "none"}
    if name.startswith("gpt-5"):
        return {"reasoning_effort": "minimal"}
    if re.match(r"o\d", name):
        return {"reasoning_effort": "low"}
    if host.endswith("openai.com"):
        return {}
    return {"chat_template_kwargs": no_thoughts(spec)}


def merged_fields(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Json:
    """Return `ours` with the fields of `theirs`, which take precedence; objects in both are merged."""
    merged = dict(ours)
    for name, value in theirs.items():
        inner = merged.get(name)
        merged[name] = merged_fields(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _message(message: ChatMessage) -> Json:
    from dream_cli.records.image_bytes import data_uri

    if not message.images:
        return {"role": message.role, "content": message.text}
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image_url", "image_url": {"url": data_uri(part)}}
        for part in message.parts
    ]
    return {"role": message.role, "content": parts}
