"""The world of nano: its splits, twins, pictures and records."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.benchmarks.files import Folder
from dream_cli.benchmarks.loading import drawn
from dream_cli.benchmarks.nano_world import first, load
from dream_cli.nano import items
from dream_cli.nano.lexicon import ALARMING, CATEGORIES, CATEGORY, HARMLESS, PAIRS, SIGNS, TWINS
from dream_cli.nano.pictures import LOOKS, Picture, draw, spot_labels
from dream_cli.nano.truth import Truth
from dream_cli.nano.world import NEW, PLACES, SKILLS, SPLITS, WorldItem, harmless_twin, item, split_of
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.record import Record
from examples.nano import draw_examples


@given(st.integers(), st.sampled_from([*PLACES, *SKILLS]), st.sampled_from(SPLITS))
def test_an_item_of_a_split_holds_no_combination_that_is_withheld_further(seed: int, place: str, split: str) -> None:
    thing = item(Random(seed), split, place)
    assert thing.split == split
    assert all(SPLITS.index(split_of(key)) <= SPLITS.index(split) for key in thing.keys)
    assert any(split_of(key) == split for key in thing.keys)


def test_no_combination_of_the_held_out_items_is_ever_trained_on() -> None:
    rng = Random(0)
    trained = {key for _ in range(4000) for key in item(rng, "train", rng.choice([*PLACES, *SKILLS])).keys}
    for split in ("development", "held-out"):
        assert all(any(key not in trained for key in thing.keys) for thing in items.drawn(split, 300, 0))


def words_of(thing: WorldItem) -> set[str]:
    """The phrases, things and frames of an item: what its keys are made of."""
    return {part for key in thing.keys for part in key.split("|")[1:]} - {"True", "False"}


def test_no_item_of_another_split_has_a_new_phrase_thing_or_frame_and_an_item_of_new_phrases_has_no_other() -> None:
    for split in SPLITS:
        assert not any(words_of(thing) & NEW for thing in items.drawn(split, 300, 0, "training"))
    drawn = items.drawn(items.NEW_PHRASES, 140, 0, "phrases")
    assert all(words_of(thing) <= NEW for thing in drawn)
    assert {bool(thing.observations) for thing in drawn} == {True, False} and {thing.place for thing in drawn} == set(PLACES)
    # A quarter of the risky phrases, two of eight per category, and the twin of each.
    assert len(NEW & set(CATEGORY)) == 18 and {TWINS[risk] for risk in NEW & set(CATEGORY)} <= NEW
    assert {CATEGORY[risk] for risk in NEW & set(CATEGORY)} == set(CATEGORIES)


@pytest.mark.parametrize("mix", items.MIXES)
def test_a_cycle_of_a_mix_has_its_numbers_of_each_place_risky_and_harmless(mix: str) -> None:
    shares = items.MIXES[mix]
    turn = items.drawn("train", sum(map(sum, shares.values())), 0, mix)
    for place, (risky, harmless) in shares.items():
        own = [thing for thing in turn if thing.place == place]
        assert len(own) == risky + harmless
        # In three of ten items with a deed in text and image, one of the two is of the other kind.
        if place != "both":
            assert sum(bool(thing.observations) for thing in own) == (0 if place in SKILLS else risky)


def test_every_phrase_and_sign_can_be_trained_on_in_some_combination() -> None:
    rng = Random(1)
    seen = {deed.name for _ in range(20_000) for deed in item(rng).truth.deeds}
    assert {*CATEGORY, *HARMLESS, *SIGNS} <= seen


def test_the_world_has_the_nine_categories_in_each_place() -> None:
    names = {term.name for term in Taxonomy.load().categories}
    assert set(CATEGORIES) == set(PAIRS) == {risk for _, _, risk in SIGNS.values() if risk} == names


def test_each_risk_has_a_harmless_twin_and_alarming_words_are_harmless() -> None:
    assert len(TWINS) == 72 and set(TWINS) == set(CATEGORY)
    assert not set(CATEGORY) & set(HARMLESS) and set(ALARMING) < set(HARMLESS)


@given(st.integers(), st.sampled_from(PLACES))
def test_the_twin_of_a_picture_has_its_layout_and_takes_the_risk_out(seed: int, place: str) -> None:
    thing = item(Random(seed), place=place, risky=True)
    twin = harmless_twin(thing, Random(seed))
    assert not any(risk in twin.words for risk in CATEGORY) and (not twin.sign or SIGNS[twin.sign][2] is None)
    if place == "words":
        assert (twin.listed, twin.look) == (thing.picture.listed, thing.picture.look) and twin.words != thing.picture.words


@given(st.integers(), st.sampled_from(PLACES), st.booleans())
def test_a_risk_is_in_its_place(seed: int, place: str, risky: bool) -> None:
    thing = item(Random(seed), place=place, risky=risky)
    for risk in thing.observations:
        where = thing.prompt if risk.source in ("text instruction", "text content") else thing.picture.sign or thing.picture.words
        assert risk.malicious_content in where
    if place != "both":
        assert bool(thing.observations) == risky
    assert Truth.from_dict(json.loads(json.dumps(thing.truth.to_dict()))) == thing.truth


def test_a_pair_is_a_risk_only_where_question_and_thing_belong_together() -> None:
    rng = Random(2)
    for _ in range(300):
        thing = item(rng, place="pair")
        (deed,) = thing.truth.deeds
        together = [c for c, (questions, things) in PAIRS.items() if thing.prompt in questions and deed.name in things]
        assert [deed.risk.risk_category] == together if deed.risk else not together


def test_a_picture_shows_its_words_its_list_and_its_sign() -> None:
    assert draw(Picture()).getextrema() == ((255, 255),) * 3
    assert {chr(label) for label in spot_labels(Picture(words="mom")) if label} == {"m", "o"}
    assert {chr(label) for label in spot_labels(Picture(words="mom", listed=True)) if label} == set("mo123.")
    assert max(spot_labels(Picture(sign="sun sign"))) >= 128
    assert draw(Picture(words="mom", look=LOOKS[0])).tobytes() != draw(Picture(words="mom", look=LOOKS[1])).tobytes()


def test_items_are_distinct_records_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    made = items.records("development", 64, 5)
    assert len({(r.prompt, r.images[0].data) for r in made}) == 64
    assert [r.to_dict() for r in made] == [r.to_dict() for r in items.records("development", 64, 5)]
    items.write(tmp_path, made)
    rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert all((tmp_path / row["images"][0]).is_file() for row in rows)
    subsets = {row["benchmark"]["subset"]: row for row in rows}
    assert subsets["risk"]["truth"]["deeds"][0].keys() == {"name", "risk"} and subsets["skill"]["truth"]["reading"]


def test_items_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dream_cli.nano.items", "--split", "held-out", "--count", "16", "--out", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 0
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == len(list((tmp_path / "images").iterdir())) == 16


def test_examples_are_records_with_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["examples", str(tmp_path)])
    draw_examples.main()
    rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len(rows) >= 24 and any("response" in row for row in rows)
    assert all((tmp_path / str(Record.from_dict(row).images[0].path)).is_file() for row in rows)


def test_a_limit_selects_the_same_items_without_making_all_of_them() -> None:
    whole = load(Folder(Path(), ""))
    for limit in (1, 3):
        some = first(limit)
        assert len(some) < len(whole) / 4
        assert drawn(some, limit) == drawn(whole, limit)
