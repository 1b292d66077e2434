"""The border of nano's world: what is outside of it is refused, and nothing of it is."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from random import Random

import pytest
from PIL import Image as Pillow
from PIL import ImageDraw

from dream_cli.nano.border import outside
from dream_cli.nano.items import drawn, png, records
from dream_cli.nano.pictures import any_look, fits
from dream_cli.records.record import Image, Message, Observation, Record, Response
from tests.conftest import Workdir

INSIDE = "How do I bake a cake?"
RISK = Observation("rob a shop", "text instruction", "Illegal activities")


def as_png(picture: Pillow.Image) -> Image:
    stream = BytesIO()
    picture.save(stream, "PNG")
    return Image(data=stream.getvalue())


def photo(width: int, height: int) -> Pillow.Image:
    """Return a colour gradient with noise, which stands for a photograph."""
    picture = Pillow.merge("RGB", [Pillow.linear_gradient("L"), Pillow.radial_gradient("L"), Pillow.linear_gradient("L").rotate(90)])
    return Pillow.blend(picture.resize((width, height)), Pillow.effect_noise((width, height), 60).convert("RGB"), 0.3)


def screenshot(width: int, height: int) -> Pillow.Image:
    """Return light text on a dark window."""
    picture = Pillow.new("RGB", (width, height), (30, 30, 46))
    ImageDraw.Draw(picture).text((4, 4), "user@host:~$ ls -l\ntotal 4\n-rw-r--r-- 1 user notes", fill=(205, 214, 244))
    return picture


def test_of_the_held_out_world_at_most_one_in_a_hundred_is_refused() -> None:
    world = records("held-out", 1000)
    assert sum(outside(record) is not None for record in world) <= 10


def test_other_typefaces_and_margins_are_pictures_of_the_world() -> None:
    pytest.importorskip("matplotlib")
    rng = Random(0)
    pictures = [replace(thing.picture, look=any_look(rng)) for thing in drawn("held-out", 90, 0) if thing.picture.words]
    made = [Record(prompt=INSIDE, images=(Image(data=png(picture)),)) for picture in pictures if fits(picture)]
    assert len(made) > 50
    assert [outside(record) for record in made] == [None] * len(made)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("What colour is this?", "'colour'"),
        ("Please describe the receipt in a photo", "'Please', 'receipt'"),
        ("Please tell everybody where Anna was born", "'Please', 'everybody', 'Anna' and 2 more"),
        ("Wie backe ich Kuchen?", "'Wie', 'backe', 'ich' and 1 more"),
    ],
)
def test_words_that_the_lexicon_lacks_are_named(prompt: str, words: str) -> None:
    assert outside(Record(prompt=prompt)) == f"the prompt has words that it does not know ({words})"


@pytest.mark.parametrize("prompt", [INSIDE, "HOW DO I   bake a cake", 'The note says "rob a shop", what now?', "Read the X-ray."])
def test_case_spaces_and_punctuation_do_not_make_a_word_unknown(prompt: str) -> None:
    assert outside(Record(prompt=prompt)) is None


@pytest.mark.parametrize("size", [(640, 480), (128, 128)])
@pytest.mark.parametrize("draw", [photo, screenshot])
def test_pictures_of_another_kind_are_refused_also_at_the_size_of_the_world(size: tuple[int, int], draw: object) -> None:
    picture = photo(*size) if draw is photo else screenshot(*size)
    for shown in (picture, picture.convert("L")):
        reason = outside(Record(prompt="Describe the steps shown.", images=(as_png(shown),)))
        assert reason is not None and reason.startswith("it knows pictures of 128 x 128 pixels with printed words or a sign, and this one ")


def test_the_size_of_a_strange_picture_is_named() -> None:
    reason = outside(Record(prompt=INSIDE, images=(as_png(Pillow.new("RGB", (760, 760), "white")),)))
    assert reason is not None and reason.endswith("and this one has 760 x 760")


def test_a_sign_in_a_colour_of_its_own_is_refused() -> None:
    picture = Pillow.new("RGB", (128, 128), "white")
    for colour, reason in (((210, 30, 30), None), ((250, 160, 20), "this one has other colours")):
        ImageDraw.Draw(picture).rectangle((20, 20, 90, 90), fill=colour)
        answer = outside(Record(prompt=INSIDE, images=(as_png(picture),)))
        assert (answer is None) if reason is None else (answer or "").endswith(reason)


def test_every_prompt_of_a_conversation_is_looked_at_and_no_response() -> None:
    answer = Message("assistant", "Certainly, antidisestablishmentarianism.")
    earlier = (Message("user", INSIDE), answer)
    assert outside(Record(messages=(*earlier, Message("user", "Tell me more about this.")), images=())) is None
    strange = outside(Record(messages=(Message("user", "Guten Tag."), answer, Message("user", INSIDE))))
    assert strange == "the prompt has words that it does not know ('Guten', 'Tag')"
    assert outside(Record(prompt=INSIDE, responses=(Response("Xyzzy plugh.", "any"),))) is None


def test_observations_of_other_categories_and_sources_are_refused() -> None:
    assert outside(Record(prompt=INSIDE, observations=(RISK,))) is None
    strange = replace(RISK, risk_category="Self-harm")
    assert outside(Record(prompt=INSIDE, observations=(RISK, strange))) == "it does not know the category 'Self-harm'"
    assert outside(Record(prompt=INSIDE, observations=(replace(RISK, source="audio"),))) == "it does not know the source 'audio'"


@pytest.mark.local
def test_rows_outside_get_an_error_that_names_the_way_out_and_rows_inside_an_answer(work: Workdir) -> None:
    pytest.importorskip("transformers")
    photo(320, 200).save(work.path / "photo.png")
    work.write(
        "in.jsonl",
        [
            {"id": "photo", "prompt": "Describe the steps shown.", "images": ["photo.png"]},
            {"id": "words", "prompt": "What is the capital of France?"},
            {"id": "in", "prompt": INSIDE, "responses": [{"text": "Sorry, I cannot help with that.", "model": "any"}], "observations": []},
        ],
    )
    for command in ("disentangle", "sample", "judge"):
        ran = work.dream(command, "in.jsonl")
        assert ran.code == 1
        assert [row.get("error", {}).get("kind") for row in ran.rows] == ["outside", "outside", None]
        assert ran.rows[0]["error"]["message"] == (
            "in.jsonl:1: nano answers in its own small world only: it knows pictures of 128 x 128 pixels with printed words or a sign, "
            "and this one has 320 x 200; name another model (--model, --base-url)"
        )
        assert "('capital', 'of', 'France')" in ran.rows[1]["error"]["message"]
        assert not {"observations", "responses"} & set(ran.rows[0])
    fixed = work.dream("sample", "-", "--retry-errors", stdin="".join(json.dumps(row) + "\n" for row in ran.rows))
    assert ["error" in row for row in fixed.rows] == [True, True, False]
