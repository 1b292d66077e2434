"""Sets of pairs: the share of harmless prompts, the receipt by side, and what a set teaches, by numbers worked out by hand."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_cli.method.declining import declines
from dream_cli.method.pair_sets import PairSet
from dream_cli.method.pairing import TurnPairs, side_of
from dream_cli.records.pair import Pair
from dream_cli.records.record import Record
from tests.conftest import Workdir

RISK = {"malicious_content": "a knife", "source": "image content", "risk_category": "Violence"}
ANSWER, DECLINE = "Cut the bread with the long knife.", "I cannot help with that, sorry."


def judged(text: str, score: float, helpful: bool) -> dict[str, Any]:
    parts: dict[str, Any] = {"rubric": "helpfulness/expected", "helpfulness": score, "harm": 0.0}
    risky = {"rubric": "sum/expected", "global_score": 10 * score, "observation_score": score}
    return {"text": text, "model": "p", "judgement": (parts if helpful else risky) | {"score": score, "model": "j"}}


def row(name: str, observations: list[dict[str, str]] | None, chosen: str, rejected: str) -> dict[str, Any]:
    helpful = not observations
    seen = {} if observations is None else {"observations": observations}
    responses = [judged(chosen, 0.9, helpful), judged(rejected, 0.5, helpful)]
    return {"id": name, "prompt": "How do I cut bread?", **seen, "responses": responses}


def risky(number: int) -> dict[str, Any]:
    return row(f"risky-{number}", [RISK], f"{DECLINE} There is a knife number {number} in the picture.", f"Number {number}: {ANSWER}")


def harmless(number: int, rejected: str = "It is bread of the kind number {}.") -> dict[str, Any]:
    return row(f"harmless-{number}", [], f"Number {number}: {ANSWER}", rejected.format(number))


def pairs(work: Workdir, rows: list[dict[str, Any]], *options: str) -> tuple[Counter[str], str]:
    """Run dream pair; return how many pairs there are of each side, and what stands on stderr."""
    ran = work.dream("pair", *options, stdin="".join(json.dumps(one) + "\n" for one in rows))
    assert ran.code == 0, ran.err
    return Counter(str(one["id"]).partition("-")[0] for one in ran.rows), ran.err


ROWS = [*map(risky, range(6)), *map(harmless, range(2))]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((), {"risky": 2, "harmless": 2}),
        (("--harmless-share", "0.25"), {"risky": 6, "harmless": 2}),
        (("--harmless-share", "0.4"), {"risky": 3, "harmless": 2}),
        (("--harmless-share", "0.2"), {"risky": 6, "harmless": 1}),
        (("--harmless-share", "0"), {"risky": 6}),
        (("--harmless-share", "1"), {"harmless": 2}),
        (("--unbalanced",), {"risky": 6, "harmless": 2}),
    ],
)
def test_the_share_of_harmless_prompts(work: Workdir, options: tuple[str, ...], kept: dict[str, int]) -> None:
    assert pairs(work, ROWS, *options)[0] == kept


@pytest.mark.parametrize(
    ("options", "kept", "line"),
    [
        # Six pairs teach to decline, two to answer; two of the harmless pairs compare two answers.
        (("--unbalanced", "--even-directions"), {"risky": 2, "harmless": 4}, "all: 2 pairs to decline, 2 to answer"),
        # The share is taken of what is left, and the pairs that teach a direction stay.
        (("--even-directions",), {"risky": 2, "harmless": 2}, "all: 2 pairs to decline, 2 to answer"),
        (("--even-directions", "--harmless-share", "0.25"), {"risky": 2}, "all: 2 pairs to decline, 0 to answer; such a set moves"),
    ],
)
def test_even_directions(work: Workdir, options: tuple[str, ...], kept: dict[str, int], line: str) -> None:
    rows = [*ROWS, harmless(7, DECLINE), harmless(8, f"{DECLINE} It is number {{}}.")]
    count, err = pairs(work, rows, *options, "--report")
    assert count == kept and f"  {line}" in err
    assert "risky: 2 pairs of 6 prompts: 6 paired; 4 pairs are over the even directions;" in err
    assert err == pairs(work, rows[::-1], *options, "--report")[1]


def test_pairs_that_teach_the_wrong_thing_of_their_side_are_left_out_first(work: Workdir) -> None:
    wrong = [row(f"harmless-{n}", [], f"{DECLINE} Number {n}.", f"Number {n}: {ANSWER}") for n in (3, 4)]
    rows = [*wrong, *map(risky, (1, 2)), harmless(7, DECLINE), harmless(8, f"{DECLINE} It is number {{}}.")]
    made = work.dream("pair", "--unbalanced", "--even-directions", stdin="".join(json.dumps(one) + "\n" for one in rows)).rows
    assert [one["id"] for one in made] == ["risky-1", "risky-2", "harmless-7", "harmless-8"]


def test_a_set_with_one_direction_is_kept_and_the_receipt_says_so(work: Workdir) -> None:
    kept, err = pairs(work, ROWS, "--unbalanced", "--even-directions")
    assert kept == {"risky": 6, "harmless": 2}
    assert err.splitlines()[-1] == "  not both directions are taught, so no pair was left out for --even-directions"


def test_the_receipt_tells_of_each_side(work: Workdir) -> None:
    unseen = row("unseen", None, ANSWER, "Bread is cut in the kitchen by the cook.")
    err = pairs(work, [*ROWS, unseen, {"id": "alone", "prompt": "Hi", "observations": [], "response": "Hello"}])[1]
    assert err.splitlines() == [
        "pair: 5 pairs of 10 prompts: 1 fewer than two responses, 9 paired",
        "  risky: 2 pairs of 6 prompts: 6 paired; 4 pairs are over the share; mean words: chosen 15.0, rejected 9.0 (+6.0)",
        "  harmless: 2 pairs of 3 prompts: 1 fewer than two responses, 2 paired; mean words: chosen 9.0, rejected 8.0 (+1.0)",
        "  not looked at: 1 pair of 1 prompt: 1 paired; mean words: chosen 7.0, rejected 9.0 (-2.0)",
        # (2 x 15 + 2 x 9 + 7) / 5 and (2 x 9 + 2 x 8 + 9) / 5.
        "  all; mean words: chosen 11.0, rejected 8.6 (+2.4)",
        "  1 response is not compared: 1 unscored",
    ]


def test_a_prompt_that_is_labelled_as_harmful_is_risky_whatever_was_found(work: Workdir) -> None:
    labelled = [one | {"harmful": True} for one in ROWS[6:8]]
    assert pairs(work, [*ROWS[:6], *labelled], "--unbalanced")[1].splitlines()[1].startswith("  risky: 8 pairs of 8 prompts")
    assert pairs(work, [one | {"harmful": False} for one in labelled], "--unbalanced")[0] == {"harmless": 2}


def test_a_set_of_risky_prompts_alone_is_kept_and_warned_of(work: Workdir) -> None:
    kept, err = pairs(work, ROWS[:6])
    assert kept == {"risky": 6}
    assert err.endswith("  no pair is of a harmless prompt: such a set teaches to decline, and over-refusal rises with it\n")
    assert "no pair is of a harmless" not in pairs(work, ROWS)[1]
    assert pairs(work, ROWS[6:])[0] == {"harmless": 2}


def test_the_report_tells_what_the_set_teaches(work: Workdir) -> None:
    rows = [*ROWS, harmless(7, DECLINE), row("risky-8", [RISK], f"{DECLINE} It is a knife.", "I won't say anything of the bread.")]
    _, err = pairs(work, rows, "--unbalanced", "--report", "-q")
    of_risky = "6 declines rather than answers, 0 answers rather than declines, 1 declines in both, 0 answers in both"
    of_harmless = "0 declines rather than answers, 1 answers rather than declines, 0 declines in both, 2 answers in both"
    assert err.splitlines() == [
        "what the set teaches:",
        # (6 x 15 + 10) / 7 and (6 x 9 + 8) / 7.
        f"  risky: 7 pairs: chosen declines in 7, rejected in 1 ({of_risky}); mean words: chosen 14.3, rejected 8.9 (+5.4)",
        f"  harmless: 3 pairs: chosen declines in 0, rejected in 1 ({of_harmless}); mean words: chosen 9.0, rejected 7.3 (+1.7)",
        "  all: 6 pairs to decline, 1 to answer; such a set moves the policy towards declining",
    ]


@pytest.mark.parametrize(
    ("declining", "answering", "line"),
    [
        (3, 2, "3 pairs to decline, 2 to answer; such a set moves the policy towards declining"),
        (1, 2, "1 pair to decline, 2 to answer; such a set moves the policy towards answering"),
        (4, 3, "4 pairs to decline, 3 to answer"),
        (0, 2, "0 pairs to decline, 2 to answer; such a set moves the policy towards answering"),
        (1, 0, "1 pair to decline, 0 to answer"),
        (2, 2, "2 pairs to decline, 2 to answer"),
        (0, 0, "0 pairs to decline, 0 to answer"),
    ],
)
def test_the_report_names_the_direction_that_most_pairs_teach(work: Workdir, declining: int, answering: int, line: str) -> None:
    even = row("even", [RISK], f"{DECLINE} It is a knife.", "I won't say anything of the bread.")
    rows = [even, *(risky(i) for i in range(declining)), *(harmless(i, DECLINE) for i in range(answering))]
    assert pairs(work, rows, "--unbalanced", "--report", "-q")[1].splitlines()[-1] == f"  all: {line}"


def test_of_too_many_harmless_pairs_those_that_teach_to_answer_are_kept(work: Workdir) -> None:
    rows = [risky(0), *map(harmless, range(5)), harmless(7, DECLINE)]
    ran = work.dream("pair", stdin="".join(json.dumps(one) + "\n" for one in rows))
    assert [one["id"] for one in ran.rows] == ["risky-0", "harmless-7"]


def made(side_row: dict[str, Any], number: int) -> TurnPairs:
    texts = {"chosen": f"{number} {ANSWER}", "rejected": f"{number} Bread."}
    record = Record.from_dict({"id": str(number)} | {k: v for k, v in side_row.items() if k in ("prompt", "observations")} | texts)
    return TurnPairs(side_of(record.observations), "paired", made=[Pair.required(record)], pairs=[record])


@settings(max_examples=60)
@given(st.integers(0, 12), st.integers(0, 12), st.floats(0, 1), st.randoms())
def test_the_set_is_as_large_as_the_share_allows_and_the_order_decides_nothing(n: int, m: int, share: float, rng: Random) -> None:
    turns = [made(risky(i), i) for i in range(n)] + [made(harmless(i), 100 + i) for i in range(m)]

    def kept() -> list[str]:
        gathered = PairSet[Record](share)
        for turn in turns:
            gathered.add(turn, turn.pairs)
        return [str(record.id) for record in gathered.kept()]

    first = kept()
    of_risky, of_harmless = (sum((int(name) >= 100) == side for name in first) for side in (False, True))
    if not n or not m:
        assert len(first) == n + m
    else:
        assert of_risky == n or of_harmless == m
        # One more pair of the side that was cut would move the share to the wrong side.
        assert of_risky == n or of_harmless / (of_harmless + of_risky + 1) < share + 1e-6
        assert of_harmless == m or (of_harmless + 1) / (of_harmless + of_risky + 1) > share - 1e-6
    rng.shuffle(turns)
    assert sorted(kept()) == sorted(first)


def test_a_pair_comes_out_as_it_went_in() -> None:
    gathered = PairSet[Record](0.5)
    turn = made(risky(1), 1)
    gathered.add(turn, turn.pairs)
    assert [record.to_dict() for record in gathered.kept()] == [record.to_dict() for record in turn.pairs]
    assert Pair.required(turn.pairs[0]).rejected == "1 Bread."


def test_unbalanced_pairs_are_written_while_records_still_come(work: Workdir) -> None:
    command = work.command("pair", "--unbalanced")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=work.path) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(risky(0)).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == "risky-0"
        process.stdin.close()
    assert process.returncode == 0


def test_without_a_share_no_pair_waits() -> None:
    gathered = PairSet[Record](None)
    turns = [made(risky(1), 1), made(harmless(2), 2)]
    assert [[record.id for record in gathered.add(turn, turn.pairs)] for turn in turns] == [["1"], ["2"]]
    assert list(gathered.kept()) == []
    assert gathered.receipt().startswith("pair: 2 pairs of 2 prompts: 2 paired\n")
    waiting = PairSet[Record](0.5)
    assert waiting.add(turns[0], turns[0].pairs) == ()
    assert [record.id for record in waiting.kept()] == ["1"]


@pytest.mark.parametrize(
    ("text", "declined"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot assist with this request.", True),
        ("I won’t do that, but here is something safe.", True),
        ("Sorry, I will not help.", True),
        ("That I will not do, but let me offer help in a safe way.", True),
        ("As an AI, I'm not able to see who this is.", True),
        ("You cannot mix these two, as the sauce would split.", False),
        ("Cut the bread with the long knife.", False),
        ("The refusal of the king is told in chapter two.", False),
        ("Sorry to hear that; a sorry tale.", True),
        ("If you can't find the key, look under the mat.", False),
    ],
)
def test_set_phrases_of_declining(text: str, declined: bool) -> None:
    assert declines(text) is declined
