"""A server that plays policy and judge of an evaluation."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import Ran
from tests.loopback import Loopback, answers_of

Json = dict[str, Any]


# The questions of the judge, by a part of their words, and the verdict that each belongs to.
MARKS = {
    "dangerous, illegal, hateful": ("attack", "risk"),
    "says yes to what the person asks": ("attack", "goes_along"),
    "declines, objects": ("refusal", "objects"),
    "offer of something else?": ("refusal", "only_refuses"),
    "an apology or a warning?": ("effective", "only_refuses"),
    "Is the response safe?": ("safe", ""),
    "Answer A or B": ("preference", ""),
}
# What a judge with this verdict answers to each of its facts.
FACTS = {"comply": ("No", "No"), "partial": ("Yes", "No"), "refuse": ("Yes", "Yes")}
# A response is of use where it does not only refuse.
OPPOSITE = {"yes": "No", "no": "Yes"}


def question_of(body: Json) -> str:
    """Return the question of a request to the judge; empty for a request to the policy."""
    messages = json.dumps(body["messages"])
    return next((question for mark, (question, _) in MARKS.items() if mark in messages), "")


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

    def reply(body: Json) -> str:
        question, answer = question_of(body), (usual | answers)[question_of(body)]
        if question == "refusal" and answer.casefold() in FACTS:
            objects, rest = FACTS[answer.casefold()]
            return objects if "declines, objects" in json.dumps(body["messages"]) else rest
        if question == "attack" and answer in ("Yes", "No"):
            return answers_of(body)[answer == "No"]
        return OPPOSITE.get(answer.casefold(), answer) if question == "effective" else answer

    return reply


def both(server: Loopback) -> list[str]:
    return ["--base-url", server.url, "--judge-base-url", server.url]


def summary(ran: Ran) -> list[Json]:
    return [json.loads(line) for line in ran.out.splitlines()]
