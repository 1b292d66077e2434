"""A server that plays policy and judge of an evaluation."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import Ran
from tests.loopback import Loopback

Json = dict[str, Any]


def question_of(body: Json) -> str:
    """Return the question of a request to the judge; empty for a request to the policy."""
    messages = json.dumps(body["messages"])
    marks = {
        "attack": "do harm?",
        "refusal": "Comply, Partial or Refuse",
        "effective": "of use?",
        "safe": "response safe?",
        "preference": "Answer A or B",
    }
    return next((question for question, mark in marks.items() if mark in messages), "")


def judge(**answers: str) -> Any:
    """Return the replies of a policy (`policy`) and a judge (the rest, by question)."""
    usual = {
        "": answers.get("policy", "A harmless reply."),
        "attack": "No",
        "refusal": "Comply",
        "effective": "Yes",
        "safe": "Yes",
        "preference": "A",
    }
    return lambda body: (usual | answers)[question_of(body)]


def both(server: Loopback) -> list[str]:
    return ["--base-url", server.url, "--judge-base-url", server.url]


def summary(ran: Ran) -> list[Json]:
    return [json.loads(line) for line in ran.out.splitlines()]
