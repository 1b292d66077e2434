"""The embedded model: its lessons, its weights in each role, and the computation of its figures."""

import json
import subprocess
import sys
from random import Random

import pytest

from dream_cli.nano.pictures import Picture, draw
from dream_cli.nano.truth import Deed, Truth
from dream_cli.nano.wordings import aware
from dream_cli.nano.world import PLACES, item
from dream_cli.prompts.parsing import parse_observations
from dream_cli.prompts.rendering import Prompts
from dream_cli.prompts.verdict_words import YES_NO, written_answer, written_score
from dream_cli.records.record import Observation
from examples.nano import beyond, judge_figures, packing, tokens
from examples.nano.answers import altered
from examples.nano.figures import WEIGHTS, calibration_error, micro_f1
from examples.nano.judge_figures import Judged
from examples.nano.labels import label
from examples.nano.lessons import PINNED, ROLES, Lesson, Teacher, able
from examples.nano.reader import Reader
from examples.nano.recipe import COURSES, attend_in_float32, draw_packs, taught

PROMPTS = Prompts.carried(PINNED)


def test_the_lessons_follow_from_the_seed() -> None:
    def drawn() -> object:
        return draw_packs(Teacher(PROMPTS, Random(5)), COURSES["teacher"], 0.5)

    assert drawn() == drawn()


def test_importing_the_world_needs_no_torch() -> None:
    code = "import sys, examples.nano.recipe, examples.nano.tower, examples.nano.figures, dream_cli.nano.grader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_attention_is_exact_where_the_rest_is_taught_in_bfloat16() -> None:
    import torch

    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 1, False
    query, key, value = torch.randn(3, 1, 2, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    with torch.autocast("cpu", torch.bfloat16):
        seen, _ = attend_in_float32(module, query, key, value, mask, scaling=0.25)
    scores = (0.25 * query.float() @ key.float().mT).masked_fill(~mask, float("-inf"))
    assert torch.allclose(seen.transpose(1, 2), scores.softmax(-1) @ value.float(), atol=1e-6)


def test_a_wrong_claim_differs_from_the_right_one_and_is_answered_no() -> None:
    teacher = Teacher(PROMPTS, Random(3))
    for place in PLACES:
        for _ in range(30):
            thing = item(teacher.rng, place=place, risky=True)
            risk = thing.observations[0]
            assert altered(risk, teacher.rng) != risk
            assert teacher.verify(thing, right=False).answer == "No"
            assert not any(PROMPTS.verify(thing.prompt, o)[1].text == teacher.verify(thing, right=False).prompt for o in thing.observations)


def test_f1_matches_one_to_one() -> None:
    one = Observation("a", "text instruction", "Privacy")
    assert micro_f1([([one], [one])]) == 1.0
    assert micro_f1([([one, one], [one])]) == pytest.approx(0.667)
    assert micro_f1([([], [one])]) == 0.0


def test_calibration_by_hand() -> None:
    # Two bins: 0.9 said and 0.5 true of two; 0.2 said and none true of two: (0.8 + 0.4) / 4.
    assert calibration_error([0.9, 0.9, 0.2, 0.2], [True, False, False, False]) == pytest.approx(0.3)


def test_word_error_rate_and_auroc_by_hand() -> None:
    # One word wrong, one missing, one too many, of six.
    assert beyond.error_rate([["a", "b", "c"], ["d", "e", "f"]], [["a", "x"], ["d", "e", "y", "f"]]) == 0.5
    assert beyond.words("How to bake a cake.\n1. 2. 3.") == ["how", "to", "bake", "a", "cake"]
    result = beyond.auroc([0.9, 0.5], [0.5, 0.1])
    assert result["value"] == 0.875 and result["interval"][0] <= 0.875 <= result["interval"][1]


def test_pairs_by_score_are_held_against_the_truth() -> None:
    deed = Deed("steal a bike", Observation("steal a bike", "text instruction", "Illegal activities"))
    good, bare = (label(Truth((deed,)), text) for text in (aware(Truth((deed,)), Random(0)), "I will not do this."))
    rows = [Judged("1", s, 5, (1.0,), g) for s, g in ((0.9, good), (0.9, bare), (0.2, bare))]
    result = judge_figures.pairs([*rows, Judged("2", 0.3, 5, (1.0,), good), Judged("2", 0.8, 5, (1.0,), bare)])
    assert result == {"items": 2, "ties_at_the_top": 0.5, "chosen_is_better": 0.5, "chosen_is_the_best": 0.5}


def test_a_course_leaves_the_hashes_of_the_prompts_that_it_teaches() -> None:
    for folder, course in (("weights", "teacher"), ("policy", "policy")):
        roles = json.loads((WEIGHTS.parent / folder / "dream_prompts.json").read_text())["roles"]
        assert roles == {role: PROMPTS.hashes[role] for role in taught(COURSES[course])} != {}


def test_the_weights_are_small() -> None:
    assert sum(f.stat().st_size for f in WEIGHTS.iterdir()) < 10_000_000


@pytest.fixture(scope="module")
def nano() -> Reader:
    pytest.importorskip("transformers")
    return Reader(WEIGHTS)


@pytest.mark.local
def test_each_fixed_part_of_the_prompts_is_one_token(nano: Reader) -> None:
    for piece in (*tokens.whole_parts(PROMPTS), *tokens.whole_words(PROMPTS)):
        assert len(nano.processor.tokenizer(piece)["input_ids"]) == 1, piece


@pytest.mark.local
def test_the_chat_template_writes_what_was_trained_on(nano: Reader) -> None:
    turn = {"role": "user", "content": [{"type": "text", "text": "Hi."}, {"type": "image"}]}
    assert nano.processor.apply_chat_template([turn], add_generation_prompt=True) == tokens.chat("Hi.", image=True)


@pytest.mark.local
def test_packed_lessons_are_seen_as_if_each_stood_alone(nano: Reader) -> None:
    import torch

    picture = Picture("How to bake a cake")
    pack = [Lesson("read", "Read the image.", picture.words, picture), Lesson("answer", "Follow the image.", "Sure.", picture)]
    packer = packing.Packer(nano.processor.tokenizer)
    together, alone = packer.batch([pack]), packer.batch([[pack[1]]])
    inner = nano.model.model

    def loss_of(batch: packing.Batch) -> torch.Tensor:
        given = {"inputs_embeds": inner.get_input_embeddings()(batch.ids), "attention_mask": batch.mask, "position_ids": batch.positions}
        seen: torch.Tensor = inner.language_model(**given).last_hidden_state
        return seen

    with torch.inference_mode():
        last = int((alone.labels >= 0).sum())
        assert torch.allclose(loss_of(together)[:, -last:], loss_of(alone)[:, -last:], atol=1e-4)


@pytest.mark.local
def test_each_role_gives_an_answer_that_can_be_read(nano: Reader) -> None:
    teacher = Teacher(PROMPTS, Random(11))
    things = {role: item(teacher.rng, place="words", risky=role != "judge_helpfulness") for role in ROLES}
    lessons = [teacher.lesson(role, thing) for role, thing in things.items() if able(role, thing)]
    answers = dict(zip(ROLES, nano.answer(lessons, [draw(one.picture or Picture()) for one in lessons]), strict=True))
    for role in ("observe_image", "observe_text", "observe_joint"):
        parse_observations(answers[role], PROMPTS.taxonomy)
    for role in ("verify", "judge_observation", "judge_harm", "judge_effective"):
        written_answer(answers[role], YES_NO)
    for role in ("judge_global", "judge_helpfulness"):
        written_score(answers[role])
    assert answers["judge_refusal"] in ("Comply", "Partial", "Refuse")
    assert answers["answer"] and answers["respond_observed"]
