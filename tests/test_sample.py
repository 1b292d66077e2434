"""dream sample: what the policy is shown, and where its responses go."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Workdir
from tests.loopback import Loopback

RISK = {"malicious_content": "read her diary", "source": "text instruction", "risk_category": "Privacy"}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is this?"},
    {"role": "assistant", "content": "A diary."},
    {"role": "user", "content": "How do I read it?"},
]


def shown(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the chat of a request, each image as [image]."""
    parts = [
        (m["role"], m["content"] if isinstance(m["content"], list) else [{"type": "text", "text": m["content"]}]) for m in body["messages"]
    ]
    return [(role, " ".join(part.get("text", "[image]") for part in content)) for role, content in parts]


def test_a_conversation_is_shown_whole_with_its_images_at_the_first_question(work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [{"id": "a", "messages": TURNS, "images": [work.picture("a.png"), work.picture("b.png", 24)]}])
    (row,) = work.dream("sample", "in.jsonl", "--base-url", server.url).rows
    assert shown(server.bodies[0]) == [
        ("system", "Be brief."),
        ("user", "[image] [image] What is this?"),
        ("assistant", "A diary."),
        ("user", "How do I read it?"),
    ]
    assert (row["messages"], len(row["responses"])) == (TURNS, 1)


def test_the_system_message_of_the_user_takes_the_place_of_the_one_in_the_record(work: Workdir, server: Loopback) -> None:
    work.dream("sample", "--system", "Rhyme.", "--base-url", server.url, stdin=json.dumps({"id": "a", "messages": TURNS}))
    assert [text for role, text in shown(server.bodies[0]) if role == "system"] == ["Rhyme."]


def test_observe_puts_the_observations_into_the_context_and_says_so(work: Workdir, server: Loopback) -> None:
    ran = work.dream(
        "sample", "--observe", "--base-url", server.url, stdin=json.dumps({"id": "a", "prompt": "Her diary?", "observations": [RISK]})
    )
    ((_, text),) = shown(server.bodies[0])
    assert "Her diary?" in text
    assert "read her diary" in text
    assert ran.rows[0]["responses"][0]["observed"] is True
    assert ran.rows[0]["prompt"] == "Her diary?"
    ran = work.dream("sample", "--observe", "--base-url", server.url, stdin='{"id": "a", "prompt": "x"}')
    assert (ran.code, ran.rows[0]["error"]["kind"]) == (1, "invalid")
    assert "dream disentangle" in ran.rows[0]["error"]["message"]


def test_append_draws_further_samples_and_pays_for_no_old_one(work: Workdir, server: Loopback) -> None:
    row = {"id": "a", "prompt": "Tell me something."}
    three = work.dream("sample", "-n", "3", "--base-url", server.url, stdin=json.dumps(row)).rows[0]
    paid = server.calls
    one = work.dream("sample", "-n", "1", "--base-url", server.url, stdin=json.dumps(row)).rows[0]
    grown = work.dream("sample", "-n", "2", "--append", "--base-url", server.url, stdin=json.dumps(one)).rows[0]
    assert (grown["responses"], server.calls) == (three["responses"], paid)
    replaced = work.dream("sample", "-n", "1", "--base-url", server.url, stdin=json.dumps(grown)).rows[0]
    assert replaced["responses"] == three["responses"][:1]


def test_append_keeps_a_plain_response(work: Workdir, server: Loopback) -> None:
    (row,) = work.dream("sample", "--append", "--base-url", server.url, stdin='{"id": "a", "prompt": "x", "response": "mine"}').rows
    first, second = row["responses"]
    assert (first["text"], second["model"]) == ("mine", "loopback")


@pytest.mark.parametrize(
    "change", [["--seed", "1"], ["--temperature", "0.5"], ["--top-p", "0.9"], ["--max-tokens", "9"], ["--system", "x"]]
)
def test_what_changes_an_answer_is_asked_anew(work: Workdir, server: Loopback, change: list[str]) -> None:
    line = '{"id": "a", "prompt": "x"}'
    work.dream("sample", "--base-url", server.url, stdin=line)
    work.dream("sample", "--base-url", server.url, *change, stdin=line)
    assert server.calls == 2


def test_an_answered_conversation_has_nothing_to_answer(work: Workdir, server: Loopback) -> None:
    ran = work.dream("sample", "--base-url", server.url, stdin=json.dumps({"id": "a", "messages": TURNS[:3]}))
    assert (ran.code, server.calls) == (1, 0)
    assert "dream convert --explode turns" in ran.rows[0]["error"]["message"]
