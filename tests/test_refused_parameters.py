"""What is sent to a server, what is left out once it is refused, and that this is reported once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from dream_cli.engines import openai_attempt
from dream_cli.engines.openai_attempt import Refused
from dream_cli.engines.openai_request import blamed_parameters
from dream_cli.engines.protocol import ChatMessage, Choice, Engine, Sampling
from dream_cli.errors import EngineError, UsageError
from tests.conftest import Workdir
from tests.loopback import Fault, Json, Loopback, using

T = TypeVar("T")
CHAT = [ChatMessage("user", "What is unsafe here?")]
DRAWN = Sampling(temperature=0.7, top_p=0.9, max_tokens=64, seed=5)
ROW = {"id": "a", "prompt": "Name a colour."}
Refusal = Callable[[Json], Fault | None]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_attempt, "BACKOFF", 0.001)


def parameters(body: Json) -> Json:
    return {name: value for name, value in body.items() if name not in ("model", "messages")}


def refusing(name: str, message: str, status: int = 400) -> Refusal:
    return lambda body: Fault(status, message) if name in body else None


def sent(sampling: Sampling, samples: list[int], **server: Any) -> Json:
    with Loopback(**server) as running:
        using(running, lambda engine: engine.generate(CHAT, sampling, samples))
    return parameters(running.bodies[0])


def test_what_is_at_the_default_of_servers_is_not_sent() -> None:
    assert sent(Sampling(), [0]) == {"max_tokens": 512, "temperature": 0.0}
    assert sent(Sampling(temperature=1.0, max_tokens=9), [0]) == {"max_tokens": 9, "seed": 0}
    assert sent(DRAWN, [0, 1]) == {"max_tokens": 64, "temperature": 0.7, "top_p": 0.9, "seed": 5, "n": 2}


@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp"])
def test_a_server_with_defaults_of_its_own_is_sent_them(owner: str) -> None:
    assert sent(Sampling(temperature=1.0, max_tokens=9), [0], owned_by=owner) == {
        "max_tokens": 9,
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": 0,
    }


REFUSALS = [
    ("temperature", "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported.", 400),
    ("top_p", "litellm.UnsupportedParamsError: openai does not support parameters: ['top_p'], for model=gpt-5-mini.", 400),
    ("top_p", "`temperature` and `top_p` cannot both be specified for this model. Please use only one.", 400),
    ("seed", 'Invalid JSON payload received. Unknown name "seed": Cannot find field.', 400),
    ("seed", "Extra inputs are not permitted: seed", 422),
    ("n", "Only one completion choice is allowed (n=1)", 400),
    ("n", "'n' : number must be at most 1", 403),
    ("n", "<400> InternalError.Algo.InvalidParameter: Range of n should be [1, 1]", 400),
    ("n", "anthropic does not support parameters: ['n', 'seed'], for model=claude.", 400),
]


@pytest.mark.parametrize(("name", "message", "status"), REFUSALS)
def test_a_parameter_that_is_refused_by_name_is_dropped_for_the_run(
    name: str, message: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def twice(engine: Engine) -> list[int]:
        return [len(await engine.generate(CHAT, DRAWN, [0, 1])), len(await engine.generate(CHAT, DRAWN, [2, 3]))]

    with Loopback(refuse=refusing(name, message, status)) as server:
        assert using(server, twice) == [2, 2]
    assert [name in body for body in server.bodies].count(True) == 1
    assert name in server.bodies[0]
    err = capsys.readouterr().err
    assert err.count(f"the server refuses `{name}`, which is no longer sent") == 1
    assert server.url in err
    others = {"temperature", "top_p", "seed"} - {name} - ({"seed"} if "'seed'" in message else set())
    assert others <= set(server.bodies[-1])


def test_refused_samples_are_requested_one_by_one() -> None:
    with Loopback(refuse=refusing("n", "n > 1 is not supported")) as server:
        drawn = using(server, lambda engine: engine.generate(CHAT, DRAWN, [0, 1, 2]))
    assert len({completion.text for completion in drawn}) == 3
    assert sorted(body["seed"] for body in server.bodies[1:]) == [5, 6, 7]


def test_a_parameter_that_is_not_the_cause_is_not_forgotten() -> None:
    def refuse(body: Json) -> Fault | None:
        return Fault(400, "the prompt is too long, whatever the seed is") if "too long" in body["messages"][0]["content"] else None

    async def both(engine: Engine) -> None:
        with pytest.raises(EngineError, match="too long"):
            await engine.generate([ChatMessage("user", "too long")], DRAWN, [0])
        await engine.generate(CHAT, DRAWN, [0])

    with Loopback(refuse=refuse) as server:
        using(server, both)
    assert ["seed" in body for body in server.bodies] == [True, False, True]


def test_other_words_than_names_and_other_statuses_drop_nothing() -> None:
    body = {"seed": 1, "n": 2, "temperature": 0.5, "response_format": {}, "max_tokens": 5, "logprobs": True, "top_logprobs": 20}

    def blamed(status: int, message: str, **fields: Any) -> set[str]:
        return blamed_parameters(Refused(status, "", json.dumps({"error": {"message": message, **fields}})), body)

    assert blamed(400, "I don't like the grammar of this structured request, in any way") == set()
    assert blamed(404, "seed is not supported") == set()
    assert blamed(401, "seed is not supported") == set()
    assert blamed(400, "max_tokens is too large") == set()
    assert blamed(400, "unsupported", param="seed") == {"seed"}
    assert blamed(400, "invalid request", details=[{"field": "seed", "issue": "unknown"}]) == {"seed"}
    # A gateway repeats the error of the server behind it.
    assert blamed(400, "Provider returned error", metadata={"raw": '{"error": {"message": "seed is not supported"}}'}) == {"seed"}
    assert blamed(400, "Bad Request", innererror={"code": "x", "message": "seed is unsupported"}) == {"seed"}
    assert blamed(400, "Provider returned error", metadata={"raw": {"seed": 1}, "provider_name": "seed"}) == set()
    assert blamed(400, "use max_completion_tokens") == {"max_tokens"}
    assert blamed(400, "got 'array'", param="response_format") == {"response_format"}
    assert blamed(400, "logprobs is not supported") == {"logprobs"}
    assert blamed(400, "top_logprobs must be at most 5") == {"top_logprobs"}
    for words in ("top_logprobs should be in [0, 5]", "Value error, top_logprobs 20 > 10", "top_logprobs 20 is out of range"):
        assert blamed(400, words) == {"top_logprobs"}
    for words in ("This model does not support log probabilities", "Log probabilities are not available"):
        assert blamed(400, words) == {"logprobs"}
    for words in (
        "Multiple candidates is not enabled",
        "Only one candidate can be specified",
        "parameter n is not supported",
        "n is too large",
    ):
        assert blamed(400, words) == {"n"}
    for words in ("Structured outputs are not supported by this model", "JSON mode is not enabled", "unknown response_format"):
        assert blamed(400, words) == {"response_format"}
    thinking = Refused(400, "", '{"error": {"message": "Budget 0 is invalid. This model only works in thinking mode."}}')
    assert blamed_parameters(thinking, body | {"reasoning_effort": "none"}) == {"reasoning_effort"}
    details = json.dumps({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]})
    assert blamed_parameters(Refused(422, "", details), body) == {"seed"}


@pytest.mark.parametrize(
    ("most", "requests"), [(10, [20, 10]), (5, [20, 10, 5]), (3, [20, 10, 5, None])], ids=["ten", "five", "fewer than five"]
)
def test_log_probabilities_step_down(most: int, requests: list[int | None]) -> None:
    def refuse(body: Json) -> Fault | None:
        text = f"Requested sample logprobs of {body.get('top_logprobs')}, which is greater than max allowed: {most}"
        return Fault(400, text) if body.get("top_logprobs", 0) > most else None

    async def twice(engine: Engine) -> bool:
        await engine.choose(CHAT, ["Yes", "No"])
        return (await engine.choose(CHAT, ["Yes", "No"])).probabilities is not None

    with Loopback(refuse=refuse, reply=lambda body: "Yes") as server:
        assert using(server, twice) is (most >= 5)
    assert [body.get("top_logprobs") for body in server.bodies] == [*requests, requests[-1]]
    assert ("logprobs" in server.bodies[-1]) is (most >= 5)


def test_refused_log_probabilities_are_dropped_by_403_too(capsys: pytest.CaptureFixture[str]) -> None:
    refuse = refusing("logprobs", "You are not allowed to request logprobs from this model.", 403)
    with Loopback(refuse=refuse, reply=lambda body: "Yes") as server:
        assert using(server, lambda engine: engine.choose(CHAT, ["Yes", "No"])).text == "Yes"
    assert "the server refuses `logprobs`, which is no longer sent: verdicts are read from the text of the reply" in capsys.readouterr().err


def test_a_schema_loses_its_refused_keyword_first() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "minLength": 1}}}

    def refuse(body: Json) -> Fault | None:
        text = "Invalid schema for response_format 'answer': In context=('properties', 'a'), 'minLength' is not permitted."
        return Fault(400, text) if "minLength" in json.dumps(body) else None

    with Loopback(refuse=refuse) as server:
        using(server, lambda engine: engine.generate(CHAT, Sampling(schema=schema), [0]))
    assert server.bodies[1]["response_format"]["json_schema"]["schema"] == {"type": "object", "properties": {"a": {"type": "string"}}}


def test_the_schema_has_an_object_at_its_root_and_the_sources_of_the_record(work: Workdir) -> None:
    picture = work.picture("a.png")
    work.write("in.jsonl", [ROW, ROW | {"id": "b", "images": [picture]}])
    observed = [{"malicious_content": "x", "source": "text instruction", "risk_category": "Privacy"}]

    def answer(body: Json) -> str:
        return "Yes" if "Yes or No" in str(body["messages"]) else json.dumps({"observations": observed})

    with Loopback(reply=answer) as server:
        ran = work.dream("disentangle", "in.jsonl", "--mode", "joint", "--no-verify", "--concurrency", "1", "--base-url", server.url)
    schemas = [body["response_format"]["json_schema"]["schema"] for body in server.bodies if "response_format" in body]
    assert [(schema["type"], schema["required"]) for schema in schemas] == [("object", ["observations"])] * 2
    items = [schema["properties"]["observations"]["items"]["properties"] for schema in schemas]
    assert items[0]["source"]["enum"] == ["text instruction", "text content"]
    assert items[1]["source"]["enum"] == ["text instruction", "text content", "image content", "text in the image"]
    assert all(item["malicious_content"] == {"type": "string", "minLength": 1} for item in items)
    # The reader takes the object and, where the schema was refused, the bare list.
    assert [len(row["observations"]) for row in ran.rows] == [1, 1]
    refuse = refusing("response_format", "response_format json_schema is not supported")
    with Loopback(refuse=refuse, reply=lambda body: "Yes" if "Yes or No" in str(body["messages"]) else json.dumps(observed)) as server:
        ran = work.dream("disentangle", "in.jsonl", "--limit", "1", "--no-verify", "--base-url", server.url)
    assert [risk | {"confidence": 1.0} for risk in observed] == ran.rows[0]["observations"]
    assert "the server refuses a JSON schema, which is no longer sent" in ran.err


def test_the_body_of_the_user_wins_and_null_leaves_a_field_out(work: Workdir) -> None:
    work.write("in.jsonl", [ROW])
    body = '{"seed": null, "top_k": 5, "chat_template_kwargs": {"enable_thinking": true}, "max_completion_tokens": 99}'
    with Loopback() as server:
        run = ("sample", "in.jsonl", "--base-url", server.url)
        assert work.dream(*run, "--body", body).code == 0
        assert parameters(server.bodies[0]) == {"top_k": 5, "chat_template_kwargs": {"enable_thinking": True}, "max_completion_tokens": 99}
        # Another body is another request, and the store keeps them apart.
        work.dream(*run, "--body", body)
        work.dream(*run)
    assert server.calls == 2


def test_nested_fields_of_the_body_are_merged(work: Workdir) -> None:
    work.write("in.jsonl", [ROW | {"response": "Blue.", "observations": []}])
    body = '{"chat_template_kwargs": {"language": "en"}}'
    with Loopback(reply=lambda body: "Yes") as server:
        work.dream("judge", "in.jsonl", "--base-url", server.url, "--thinking-budget", "0", "--body", body)
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False, "language": "en"}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--body", "[1]", "--body is not a JSON object"),
        ("--body", "{", "--body is not JSON"),
        ("--body", '{"messages": []}', "--body cannot set messages"),
        ("--header", "sk-secret", "--header '...' is not a header"),
        ("--header", "a b: secret", "--header 'a b' is not a header"),
        ("--thinking-budget", "-1", "greater than or equal to 0"),
    ],
)
def test_a_body_or_header_that_cannot_be_sent_is_refused(work: Workdir, option: str, value: str, message: str) -> None:
    ran = work.dream("judge", option, value, "--base-url", "http://127.0.0.1:9/v1")
    assert ran.code == 2
    assert message in ran.err
    assert "secret" not in ran.err


@pytest.mark.parametrize("name", ["gemini-2.5-flash", "openai/gpt-4o", "llava"])
def test_the_list_of_a_server_does_not_decide_which_model_it_takes(work: Workdir, name: str) -> None:
    work.write("in.jsonl", [ROW])
    with Loopback(models=["models/gemini-2.5-flash", "openai/*", "llava:latest"]) as server:
        ran = work.dream("sample", "in.jsonl", "--model", name, "--base-url", server.url)
    # The loopback server answers 404 for what it does not have, which is the server's own word.
    assert ran.code == 1
    assert f"the server does not list the model '{name}' and may refuse it" in ran.err
    assert ran.rows[0]["error"]["message"].endswith(f"404: The model `{name}` does not exist.")
    assert server.bodies[0]["model"] == name


def test_a_server_without_a_list_needs_a_name() -> None:
    with (
        Loopback(list_status=404) as server,
        pytest.raises(UsageError, match=r"serves no list of models \(a base URL usually ends in /v1\)"),
    ):
        using(server, lambda engine: engine.generate(CHAT, DRAWN, [0]))
    with Loopback(models=[f"m{i}" for i in range(70)]) as server, pytest.raises(UsageError, match="m19 and 50 more; name one with --model"):
        using(server, lambda engine: engine.generate(CHAT, DRAWN, [0]))


def test_a_request_that_is_refused_after_the_parameter_was_dropped_is_sent_again() -> None:
    """Requests in flight together are all refused; the first one that is accepted without the parameter drops it for every other one."""
    accepted = asyncio.Event()
    sent: list[bool] = []

    async def send(method: str, path: str, body: Json) -> Json:
        sent.append("logprobs" in body)
        if "logprobs" in body:
            if "late" in str(body["messages"]):
                await accepted.wait()
            raise Refused(400, "", json.dumps({"error": {"message": "anthropic does not support parameters: ['logprobs']"}}))
        accepted.set()
        return {"choices": [{"message": {"content": "Yes"}, "finish_reason": "stop"}]}

    async def both(engine: Engine) -> list[Choice]:
        engine._wire.send = send  # type: ignore[attr-defined]
        late = [ChatMessage("user", "late")]
        return list(await asyncio.gather(engine.choose(late, ["Yes", "No"]), engine.choose(CHAT, ["Yes", "No"])))

    with Loopback() as server:
        assert [choice.text for choice in using(server, both)] == ["Yes", "Yes"]
    assert sent == [True, True, False, False]


def test_a_refused_field_that_the_user_sets_is_an_error_at_once() -> None:
    with Loopback(refuse=refusing("temperature", "temperature is not supported")) as server:
        with pytest.raises(EngineError, match="temperature is not supported"):
            using(server, lambda engine: engine.generate(CHAT, DRAWN, [0]), body={"temperature": 0.2})
        assert len(server.bodies) == 1
