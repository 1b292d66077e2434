"""Pairs: which of the scored responses are set against each other, and what the receipt says of the others."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.errors import InvalidRecord
from dream_cli.method.pairing import OUTCOMES, PAIRED, PairRules, pairs_of
from dream_cli.records.choices import PairPolicy
from dream_cli.records.pair import Pair
from dream_cli.records.record import Judgement, Record, Response

GOOD = "Keep the knife in its block and ask a grown-up for help."
BAD = "Here is the way to sharpen it, good luck with that thing."
PLAIN = "I would rather talk about the soup, which smells nice today."


def response(text: str, score: float | None, **judgement: Any) -> dict[str, Any]:
    if score is None:
        return {"text": text, "judgement": {"unscored": "neither yes nor no"}}
    return {"text": text, "judgement": {"rubric": "global", "global_score": 10 * score, "score": score} | judgement}


def record(*responses: dict[str, Any], **fields: Any) -> Record:
    return Record.from_dict({"id": "soup", "prompt": "What do I do?", "responses": list(responses)} | fields)


def made_of(one: Record, rules: PairRules) -> tuple[list[Record], dict[str, int]]:
    """The pairs of all prompts of a record, and how often each outcome occurs."""
    turns = pairs_of(one, rules)
    return [pair for turn in turns for pair in turn.pairs], dict(Counter(turn.outcome for turn in turns))


def paired_texts(rules: PairRules, *responses: dict[str, Any]) -> tuple[list[tuple[str, str]], dict[str, int]]:
    pairs, receipt = made_of(record(*responses), rules)
    return [(p.chosen, p.rejected) for p in map(Pair.required, pairs)], receipt


def test_the_best_stands_against_the_worst() -> None:
    pairs, receipt = made_of(record(response(PLAIN, 0.6), response(GOOD, 0.9), response(BAD, 0.2)), PairRules())
    assert [p.to_dict() for p in pairs] == [
        {
            "id": "soup",
            "prompt": "What do I do?",
            "chosen": GOOD,
            "rejected": BAD,
            "margin": 0.9,
            "chosen_score": 0.9,
            "rejected_score": 0.0,
        }
    ]
    assert receipt == {"paired": 1}


def test_what_is_known_of_the_record_goes_along() -> None:
    seen = [{"malicious_content": "a knife", "source": "image content", "risk_category": "Violence"}]
    fields = {"images": ["soup.jpg"], "observations": seen, "mine": {"a": [1]}, "response": "an old answer", "margin": "old"}
    (pair,), _ = made_of(record(response(GOOD, 0.9), response(BAD, 0.2), **fields), PairRules())
    out = pair.to_dict()
    assert out["observations"] == seen and out["mine"] == {"a": [1]} and out["margin"] == 0.9
    assert [i.path for i in pair.images] == ["soup.jpg"]
    assert "responses" not in out and "response" not in out


def test_a_conversation_keeps_its_messages() -> None:
    message = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And?"}]
    talk = Record.from_dict({"id": "talk", "messages": message, "responses": [response(GOOD, 0.9), response(BAD, 0.2)]})
    pairs, receipt = made_of(talk, PairRules())
    assert [p.to_dict()["messages"] for p in pairs] == [message]
    assert receipt == {"fewer than two responses": 1, "paired": 1}


def test_further_pairs_have_ids_of_their_own() -> None:
    three = record(response(GOOD, 1.0), response(PLAIN, 0.8), response(BAD, 0.2))
    assert [p.id for p in made_of(three, PairRules("all"))[0]] == ["soup", "soup#2", "soup#3"]
    nameless = Record.from_dict({k: v for k, v in three.to_dict().items() if k != "id"})
    assert [p.id for p in made_of(nameless, PairRules("all"))[0]] == [None, None, None]


THREE = (response(PLAIN, 0.8), response(GOOD, 1.0), response(BAD, 0.2))


@pytest.mark.parametrize(
    ("rules", "pairs"),
    [
        (PairRules(), [(GOOD, BAD)]),
        (PairRules(per_prompt=2), [(GOOD, BAD), (GOOD, PLAIN)]),
        (PairRules("all"), [(GOOD, BAD), (GOOD, PLAIN), (PLAIN, BAD)]),
        (PairRules("all", per_prompt=2), [(GOOD, BAD), (GOOD, PLAIN)]),
        (PairRules("adjacent"), [(GOOD, PLAIN), (PLAIN, BAD)]),
        (PairRules("adjacent", per_prompt=1), [(GOOD, PLAIN)]),
        (PairRules("all", margin=0.5), [(GOOD, BAD), (PLAIN, BAD)]),
        (PairRules("all", min_chosen=9), [(GOOD, BAD), (GOOD, PLAIN)]),
    ],
)
def test_policies(rules: PairRules, pairs: list[tuple[str, str]]) -> None:
    assert paired_texts(rules, *THREE) == (pairs, {"paired": 1})


@pytest.mark.parametrize(
    ("reason", "responses"),
    [
        ("fewer than two responses", []),
        ("fewer than two responses", [response(GOOD, 0.9)]),
        ("unscored", [response(GOOD, 0.9), response(BAD, None)]),
        ("unscored", [{"text": GOOD}, {"text": BAD}]),
        ("tie", [response(GOOD, 0.9), response(BAD, 0.9)]),
        ("tie", [response(GOOD, 0.9), response(BAD, 0.9 - 1e-9)]),
        ("margin", [response(GOOD, 0.9), response(BAD, 0.81)]),
        ("floor", [response(GOOD, 0.69), response(BAD, 0.2)]),
        ("floor", [response(GOOD, 0.9, global_score=6.9), response(BAD, 0.2)]),
        ("near-duplicate", [response(GOOD, 0.9), response(GOOD, 0.2)]),
        ("near-duplicate", [response(GOOD, 0.9), response(f"  {GOOD}\n".replace(" ", "  "), 0.2)]),
        ("near-duplicate", [response(GOOD, 0.9), response(GOOD.upper(), 0.2)]),
        ("near-duplicate", [response("!!!", 0.9), response("???", 0.2)]),
        ("length ratio", [response(GOOD, 0.9), response("No way.", 0.2)]),
        ("empty", [response(GOOD, 0.9), response(" \n", 0.2)]),
        ("cut off", [response(GOOD, 0.9), response(BAD, 0.2) | {"finish_reason": "length"}]),
        ("filtered", [response(GOOD, 0.9) | {"finish_reason": "content_filter"}, response(BAD, 0.2)]),
        ("refused by the provider", [response(GOOD, 0.9), response("I'm sorry.", 0.2) | {"finish_reason": "refusal"}]),
        ("unscored", [response(GOOD, 0.9), response(BAD, None), response(PLAIN, 0.2) | {"finish_reason": "length"}]),
        ("other rubric", [response(GOOD, 0.9), response(BAD, 0.2, rubric="sum/expected")]),
        # The pair that came furthest tells the reason: here the tie of the two bad ones does not.
        ("floor", [response(GOOD, 0.6), response(BAD, 0.2), response(PLAIN, 0.2)]),
    ],
)
def test_each_rule_is_counted_under_its_name(reason: str, responses: list[dict[str, Any]]) -> None:
    assert paired_texts(PairRules(), *responses) == ([], {reason: 1})


@pytest.mark.parametrize(
    ("reason", "chosen", "rejected"),
    [
        ("unscored", Judgement(global_score=9, score=0.9), Judgement(global_score=2, score=math.nan)),
        ("floor", Judgement(global_score=math.nan, score=0.9), Judgement(global_score=2, score=0.2)),
    ],
)
def test_a_score_that_is_not_a_number_makes_no_pair(reason: str, chosen: Judgement, rejected: Judgement) -> None:
    judged = Record(prompt="What do I do?", responses=(Response(GOOD, judgement=chosen), Response(BAD, judgement=rejected)))
    assert made_of(judged, PairRules()) == ([], {reason: 1})


def test_a_record_with_an_error_gives_no_pair() -> None:
    failed = Record.from_dict({"prompt": "Hi", "responses": list(THREE), "error": {"stage": "judge", "kind": "engine"}})
    assert made_of(failed, PairRules()) == ([], {"error": 1})


@pytest.mark.parametrize(
    ("responses", "pair"),
    [
        # The worst says the same as the best: the next worst stands in.
        ([response(GOOD, 0.9), response(PLAIN, 0.5), response(GOOD + "!", 0.1)], (GOOD, PLAIN)),
        # The best is far longer than all others: the next best above the floor stands in.
        ([response(GOOD * 5, 1.0), response(GOOD, 0.8), response(BAD, 0.1)], (GOOD, BAD)),
        # Among responses that do harm, the lower score of the judge comes last.
        ([response(GOOD, 0.9), response(PLAIN, 0.1), response(BAD, 0.2)], (GOOD, PLAIN)),
        ([response(GOOD, 0.9), response(BAD, 0.1), response(PLAIN, 0.2)], (GOOD, BAD)),
    ],
)
def test_the_next_best_stands_in(responses: list[dict[str, Any]], pair: tuple[str, str]) -> None:
    assert paired_texts(PairRules(), *responses)[0] == [pair]


def test_the_margin_is_decimal() -> None:
    # In binary 0.8 - 0.7 is a little more than 0.1 and 0.9 - 0.8 a little less.
    for worse in (0.7, 0.8):
        assert paired_texts(PairRules(margin=0.1), response(GOOD, worse + 0.1), response(BAD, worse))[1] == {"paired": 1}


@pytest.mark.parametrize(("better", "margin"), [(0.7000004, 0.2), (0.700006, 0.200006)])
def test_the_margin_has_six_places(better: float, margin: float) -> None:
    (pair,), _ = made_of(record(response(GOOD, better), response(BAD, 0.5)), PairRules())
    assert Pair.required(pair).margin == margin


def test_limits_can_be_lifted() -> None:
    short = [response(GOOD, 0.9), response("No way.", 0.2)]
    assert paired_texts(PairRules(max_length_ratio=math.inf), *short)[1] == {"paired": 1}
    loud = [response(GOOD, 0.9), response(GOOD.upper(), 0.2)]
    assert paired_texts(PairRules(near_duplicate=1.0), *loud)[1] == {"paired": 1}


@pytest.mark.parametrize(
    ("judgement", "outcome"),
    [
        ({"rubric": "helpfulness", "global_score": None, "helpfulness": 0.9}, "paired"),
        ({"rubric": "helpfulness/expected", "global_score": 2.0, "helpfulness": 0.9, "harm": 0.19}, "paired"),
        ({"rubric": "helpfulness", "helpfulness": 0.9, "harm": 0.2}, "harm"),
        ({"rubric": "observation", "global_score": None, "harm": 0.4}, "paired"),
        ({"rubric": "observation", "global_score": None, "harm": 0.5}, "floor"),
        ({"rubric": "helpfulness", "global_score": None, "helpfulness": 0.7}, "paired"),
        ({"rubric": "helpfulness", "global_score": None, "helpfulness": 0.65}, "floor"),
        ({"global_score": 7.0}, "paired"),
        ({"rubric": "mine", "global_score": None}, "paired"),
    ],
)
def test_the_floor_knows_the_rubric(judgement: dict[str, Any], outcome: str) -> None:
    worse = response(BAD, 0.2, rubric=judgement.get("rubric", "global"), global_score=None)
    assert paired_texts(PairRules(), response(GOOD, 0.9, **judgement), worse)[1] == {outcome: 1}


def test_words_are_counted_without_spaces_too() -> None:
    # Nine characters against three sentences' worth: one word each, were words what spaces part.
    assert paired_texts(
        PairRules(),
        response("今日は良い天気です", 0.9),
        response("散歩に行くのはいい考えだと思うので、一緒に公園まで歩いて行きませんか", 0.2),
    )[1] == {"length ratio": 1}


def test_a_degenerate_answer_takes_no_time() -> None:
    assert paired_texts(PairRules(max_length_ratio=math.inf), response("a b " * 20_000, 0.9), response("b c " * 20_000, 0.2))[1] == {
        "paired": 1
    }


@pytest.mark.parametrize("scores", [{"score": float("nan")}, {"score": 0.9, "global_score": float("nan")}])
def test_a_score_that_is_not_a_number_never_reaches_pairing(scores: dict[str, float]) -> None:
    judgement = {"rubric": "global", "global_score": 9.0} | scores
    with pytest.raises(InvalidRecord, match=r"responses\[0\]\.(global_)?score is nan, not in 0\.\."):
        record({"text": GOOD, "judgement": judgement}, response(BAD, 0.2))


WORDS = st.lists(st.sampled_from(["soup", "knife", "Bread", " ", "\n", "no"]), max_size=6).map(" ".join)
SCORE = st.integers(0, 20).map(lambda n: n / 20)
RESPONSES = st.lists(st.builds(response, WORDS, st.none() | SCORE) | st.builds(lambda t: {"text": t}, WORDS), max_size=6)
RULES = st.builds(
    PairRules,
    st.sampled_from(get_args(PairPolicy)),
    margin=st.sampled_from([0.0, 0.05, 0.1, 0.5]),
    min_chosen=st.sampled_from([0.0, 5.0, 7.0]),
    max_length_ratio=st.sampled_from([math.inf, 1.0, 3.0]),
    per_prompt=st.sampled_from([None, 1, 2]),
    near_duplicate=st.sampled_from([0.5, 0.9, 1.0]),
)


@given(RESPONSES, RULES)
def test_every_pair_keeps_every_rule(responses: list[dict[str, Any]], rules: PairRules) -> None:
    pairs, receipt = made_of(record(*responses), rules)
    judged = {(r["text"], r["judgement"]["score"]) for r in responses if "score" in r.get("judgement", {})}
    # A global score under 5 is one of harm, which counts as 0.
    scores = {(text, score if score >= 0.5 else 0.0) for text, score in judged}
    for pair in map(Pair.of, pairs):
        assert pair is not None and pair.margin is not None and pair.chosen_score is not None
        assert pair.chosen.split() != pair.rejected.split() and pair.rejected.split()
        assert pair.margin >= rules.margin and pair.margin > 0
        assert pair.chosen_score * 10 >= rules.min_chosen
        assert {(pair.chosen, pair.chosen_score), (pair.rejected, pair.rejected_score)} <= scores
    assert sum(receipt.values()) == 1 and set(receipt) <= set(OUTCOMES)
    assert bool(pairs) == (receipt == {PAIRED: 1})
    assert rules.cap is None or len(pairs) <= rules.cap
    assert len({p.id for p in pairs}) == len(pairs)


@given(RESPONSES.flatmap(lambda drawn: st.tuples(st.just(drawn), st.permutations(drawn))), RULES)
def test_the_order_of_the_responses_decides_nothing(orders: tuple[list[dict[str, Any]], list[dict[str, Any]]], rules: PairRules) -> None:
    one, other = ([pair.to_dict() for pair in made_of(record(*responses), rules)[0]] for responses in orders)
    assert one == other


def risky(text: str, global_score: float, observation_score: float) -> dict[str, Any]:
    score = (global_score / 10 + observation_score) / 2
    return response(text, score, rubric="sum/expected", global_score=global_score, observation_score=observation_score)


AWARE, REFUSAL = "The picture shows a knife, which is about violence. I leave it out.", "I would rather not help with any of that, sorry."


def test_help_with_harm_is_the_worst_however_much_it_names() -> None:
    # The scores are .925, .25 and .70: by them the refusal would be the worst.
    three = [risky(AWARE, 8.5, 1.0), risky(REFUSAL, 5, 0.0), risky(BAD, 4, 1.0)]
    assert paired_texts(PairRules(), *three) == ([(AWARE, BAD)], {"paired": 1})
    assert paired_texts(PairRules(), *three[1:])[1] == {"floor": 1}


def test_only_scores_of_one_rubric_one_reading_and_one_judge_are_compared() -> None:
    mixed = [
        response(GOOD, 0.9, rubric="helpfulness/expected", helpfulness=0.9, harm=0.0),
        response(BAD, 0.45, rubric="sum/expected"),
        response(PLAIN, 0.8, rubric="sum/parsed"),
        response(AWARE, 0.7, rubric="sum/parsed", model="J2"),
    ]
    assert paired_texts(PairRules(), *mixed) == ([], {"other rubric": 1})
    # The larger group is paired, with its own best, which is not the best of all.
    mixed += [response(REFUSAL, 0.5, rubric="sum/parsed", model="J2")]
    (turn,) = pairs_of(record(*mixed), PairRules())
    (pair,) = map(Pair.required, turn.pairs)
    assert (pair.chosen, pair.rejected, pair.judge) == (AWARE, REFUSAL, "J2")


def test_a_response_that_is_not_whole_is_counted_and_never_learnt_from() -> None:
    cut = response(AWARE, 1.0) | {"finish_reason": "length"}
    four = record(cut, response(GOOD, 0.9), response(BAD, 0.2), response("", 0.1))
    (turn,) = pairs_of(four, PairRules())
    assert [(p.chosen, p.rejected) for p in map(Pair.required, turn.pairs)] == [(GOOD, BAD)]
    assert (turn.outcome, turn.left_out) == ("paired", Counter({"cut off": 1, "empty": 1}))
    (turn,) = pairs_of(four, PairRules(keep_cut_off=True))
    assert [(p.chosen, p.rejected) for p in map(Pair.required, turn.pairs)] == [(AWARE, BAD)]
    assert turn.left_out == Counter({"empty": 1})


@given(RESPONSES, RULES)
def test_a_pair_can_be_written_and_read(responses: list[dict[str, Any]], rules: PairRules) -> None:
    for pair in made_of(record(*responses), rules)[0]:
        assert Record.from_dict(json.loads(json.dumps(pair.to_dict()))).to_dict() == pair.to_dict()


@given(RESPONSES)
def test_best_worst_is_the_first_of_all(responses: list[dict[str, Any]]) -> None:
    one, every = (made_of(record(*responses), PairRules(policy))[0] for policy in ("best-worst", "all"))
    assert one == every[:1]
