"""The table of servers in docs/servers.md: the stages that call a server run against an imitation of each line, and drop what it says."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Workdir
from tests.loopback import Fault, Json, Loopback, answers_of

PAGE = (Path(__file__).parent.parent / "docs" / "servers.md").read_text("utf-8")
_ROW = re.compile(r"^\| ([^|]+) \| (real|proxy|imitation) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
TABLE = {server: set(re.findall(r"`(\w+)`", dropped)) for server, _, dropped, _ in _ROW.findall(PAGE)}
PROMPTS = ["Name a colour.", "How do I feed a cat?", "What is a strong password?"]


@dataclass(frozen=True)
class Rules:
    """The rules of a server: its refusals in order, the parameters that it ignores, the tokens that it thinks for, and its query."""

    refusals: Sequence[Callable[[Json], Fault | None]] = ()
    ignores: tuple[str, ...] = ()
    owned_by: str = "vendor"
    thinks: int = 0
    query: str = ""


def openai_refuses(name: str, accepts: object = None) -> Callable[[Json], Fault | None]:
    words = f"Unsupported parameter: '{name}' is not supported with this model."
    return lambda body: Fault(400, words) if body.get(name, accepts) != accepts else None


def litellm_refuses(vendor: str, *names: str) -> Callable[[Json], Fault | None]:
    def refuse(body: Json) -> Fault | None:
        present = [name for name in names if name in body]
        words = f"litellm.UnsupportedParamsError: {vendor} does not support parameters: {present}, for model=m. To drop these, set "
        return Fault(400, words + "`litellm.drop_params=True`") if present else None

    return refuse


def mistral(body: Json) -> Fault | None:
    unknown = [name for name in ("seed", "logprobs", "top_logprobs") if name in body]
    errors = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"} for name in unknown]
    return Fault(422, json.dumps({"detail": errors})) if unknown else None


def one_of_temperature_and_top_p(body: Json) -> Fault | None:
    both = "temperature" in body and "top_p" in body
    return Fault(400, "`temperature` and `top_p` cannot both be specified for this model. Please use only one.") if both else None


def gemini(body: Json) -> Fault | None:
    return Fault(400, 'Invalid JSON payload received. Unknown name "seed": Cannot find field.') if "seed" in body else None


def one_slot(body: Json) -> Fault | None:
    return Fault(400, "Only one completion choice is allowed (n=1)") if body.get("n", 1) > 1 else None


def object_at_the_root(body: Json) -> Fault | None:
    kind = body["response_format"]["json_schema"]["schema"].get("type") if "response_format" in body else "object"
    words = f"Invalid schema for response_format: schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    return None if kind == "object" else Fault(400, words)


REASONING = [openai_refuses("temperature", 1), openai_refuses("top_p"), openai_refuses("logprobs"), object_at_the_root]
NEW_NAME = Fault(400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
LITELLM_REASONING = litellm_refuses("openai", "logprobs", "top_logprobs"), *REASONING
CLAUDE = litellm_refuses("anthropic", "logprobs", "top_logprobs"), litellm_refuses("anthropic", "n", "seed"), one_of_temperature_and_top_p
SERVERS = {
    "vLLM 0.32, CPU, a tiny Qwen2.5-VL": Rules(owned_by="vllm"),
    "llama.cpp, SmolLM2-135M (text)": Rules([one_slot], owned_by="llamacpp"),
    "OpenAI, chat models": Rules([object_at_the_root]),
    "OpenAI, reasoning models": Rules([lambda body: NEW_NAME if "max_tokens" in body else None, *REASONING], thinks=200),
    "OpenAI gpt-5-mini and o4-mini through LiteLLM": Rules(LITELLM_REASONING),
    "Claude through LiteLLM": Rules(CLAUDE),
    "Claude on Bedrock through LiteLLM": Rules(CLAUDE),
    "Claude behind another gateway": Rules([one_of_temperature_and_top_p]),
    "Gemini through LiteLLM": Rules([litellm_refuses("gemini", "logprobs", "top_logprobs")]),
    "Gemini, OpenAI form": Rules([gemini]),
    "Mistral through LiteLLM": Rules([litellm_refuses("mistral", "logprobs", "top_logprobs"), litellm_refuses("mistral", "n")]),
    "Mistral": Rules([mistral]),
    "Ollama": Rules(ignores=("n", "logprobs")),
    "Azure OpenAI": Rules([object_at_the_root], query="?api-version=2024-10-21"),
}


def reply(body: Json) -> str:
    """Return what a sensible teacher, judge or policy answers."""
    question = str(body["messages"])
    if "response_format" in body:
        return json.dumps({"observations": []})
    if "Yes or No" in question or "A or B" in question:
        return answers_of(body)[1]
    return "8" if "0 to 10" in question else hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def test_every_line_of_the_table_is_run() -> None:
    assert list(TABLE) == list(SERVERS)


@pytest.mark.parametrize("name", SERVERS)
def test_the_stages_run_as_they_stand_and_drop_what_the_table_says(work: Workdir, name: str) -> None:
    rules = SERVERS[name]
    work.env |= {"DREAM_API_KEY": "key-of-this-test", "DREAM_MODEL": "m", "DREAM_JUDGE": "m", "DREAM_STORE": str(work.path / "s.sqlite")}
    work.write("in.jsonl", [{"id": str(i), "prompt": prompt} for i, prompt in enumerate(PROMPTS)])

    def refuse(body: Json) -> Fault | None:
        return next((fault for rule in rules.refusals if (fault := rule(body)) is not None), None)

    def thinking(body: Json) -> Json | None:
        if refuse(body) is not None or body.get("max_completion_tokens", rules.thinks) >= rules.thinks:
            return None
        return {"choices": [{"index": 0, "message": {"content": ""}, "finish_reason": "length"}] * body.get("n", 1)}

    reports, rows = "", (work.path / "in.jsonl").read_text()
    with Loopback(
        model="m",
        owned_by=rules.owned_by,
        ignore=rules.ignores,
        refuse=refuse,
        reply=reply,
        whole=thinking if rules.thinks else None,
    ) as server:
        work.env["DREAM_BASE_URL"] = server.url + rules.query
        for command in (["disentangle"], ["sample", "-n", "2"], ["judge"]):
            ran = work.dream(*command, stdin=rows)
            assert ran.code == 0, ran.err
            reports, rows = reports + ran.err, ran.out
    assert set(re.findall(r"the server refuses `(\w+)`", reports)) == TABLE[name]
    judged = [response["judgement"] for line in rows.splitlines() for response in json.loads(line)["responses"]]
    assert [judgement["score"] for judgement in judged] == [0.8] * 2 * len(PROMPTS)
    if rules.query:
        assert all(path.endswith(rules.query) for path in server.paths)
        assert {headers.get("api-key") for headers in server.headers} == {"key-of-this-test"}
