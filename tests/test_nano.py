"""The embedded model: what it was trained on, and that it loads and plays its roles."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from dream_cli.nano import examples, lessons, tokens
from dream_cli.nano.figures import WEIGHTS, Reader, micro_f1
from dream_cli.nano.pictures import draw, patch_labels
from dream_cli.nano.world import PLACES, Picture, is_held_out, item
from dream_cli.prompts.parsing import parse_observations, parse_score, parse_yes_no
from dream_cli.prompts.rendering import Prompts
from dream_cli.records import Observation, Record

PROMPTS = Prompts.load()


def test_the_training_part_holds_no_held_out_combination() -> None:
    for place in PLACES:
        trained = {key for seed in range(200) for key in item(Random(seed), place=place).keys}
        kept = [item(Random(seed), held_out=True, place=place) for seed in range(50)]
        assert not any(is_held_out(key) for key in trained)
        assert all(any(key not in trained for key in thing.keys) for thing in kept)


def test_the_world_follows_from_the_seed() -> None:
    def drawn() -> list[lessons.Lesson]:
        rng = Random(5)
        return [lessons.lesson(PROMPTS, rng, role) for role in lessons.ROLES for _ in range(5)]

    assert drawn() == drawn()


def test_importing_the_world_needs_no_torch() -> None:
    code = "import sys, dream_cli.nano.recipe, dream_cli.nano.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_harmless_item_has_no_observations_and_a_risky_one_has_some() -> None:
    for place in PLACES:
        assert item(Random(1), place=place, risky=True).observations
    for place in ("text", "words", "sign", "pair"):
        assert not item(Random(1), place=place, risky=False).observations


def test_a_picture_says_its_words_and_a_blank_says_nothing() -> None:
    assert draw(Picture()).getextrema() == ((255, 255),) * 3
    assert {chr(label) for label in patch_labels(Picture(words="mom")) if label} == {"m", "o"}
    assert max(patch_labels(Picture(sign="sun sign"))) >= 128


def test_f1_matches_one_to_one() -> None:
    one = Observation("a", "text instruction", "Privacy")
    assert micro_f1([([one], [one])]) == 1.0
    assert micro_f1([([one, one], [one])]) == pytest.approx(0.667)
    assert micro_f1([([], [one])]) == 0.0


def test_examples_are_records_with_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["examples", str(tmp_path)])
    examples.main()
    rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len(rows) >= 24 and any("response" in row for row in rows)
    assert all((tmp_path / str(Record.from_dict(row).images[0].path)).is_file() for row in rows)


def test_the_weights_were_trained_on_these_prompts() -> None:
    assert json.loads((WEIGHTS / "dream_prompts.json").read_text())["sha256"] == PROMPTS.sha256
    assert sum(f.stat().st_size for f in WEIGHTS.iterdir()) < 10_000_000


@pytest.fixture(scope="module")
def nano() -> Reader:
    pytest.importorskip("transformers")
    return Reader(WEIGHTS)


@pytest.mark.local
def test_each_fixed_part_of_the_prompts_is_one_token(nano: Reader) -> None:
    for piece in tokens.whole_pieces(PROMPTS):
        assert len(nano.processor.tokenizer(piece)["input_ids"]) == 1, piece


@pytest.mark.local
def test_the_chat_template_writes_what_was_trained_on(nano: Reader) -> None:
    turn = {"role": "user", "content": [{"type": "text", "text": "Hi."}, {"type": "image"}]}
    assert nano.processor.apply_chat_template([turn], add_generation_prompt=True) == tokens.chat("Hi.", image=True)


@pytest.mark.local
def test_each_role_gives_an_answer_that_can_be_read(nano: Reader) -> None:
    rng = Random(11)
    asked = [lessons.lesson(PROMPTS, rng, role) for role in lessons.ROLES]
    said = dict(zip(lessons.ROLES, nano.answer(asked, [draw(one.picture or Picture()) for one in asked]), strict=True))
    for role in ("observe_image", "observe_text", "observe_joint"):
        parse_observations(said[role], PROMPTS.taxonomy)
    for role in ("verify", "judge_observation", "judge_harm"):
        parse_yes_no(said[role])
    for role in ("judge_global", "judge_helpfulness"):
        parse_score(said[role])
    assert said["answer"] and said["respond_observed"]
