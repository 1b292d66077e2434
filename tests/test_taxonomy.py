"""The taxonomy: tolerant in reading, canonical in writing, and data that a user can replace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.errors import UsageError
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.record import Observation

TAXONOMY = Taxonomy.load()


def test_the_paper_names_four_sources_and_nine_categories() -> None:
    assert [s.name for s in TAXONOMY.sources] == ["text instruction", "text content", "image content", "text in the image"]
    assert len(TAXONOMY.categories) == 9 and TAXONOMY.categories[0].name == "Illegal activities"


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        # As the released data write them.
        ("text instructions", "text instruction"),
        ("text in the image", "text in the image"),
        ("image content", "image content"),
        ("image content: non-textual content depicted in the image.", "image content"),
        ("n/a", "other:n/a"),
        # As the released prompts write them.
        ("Text instruction", "text instruction"),
        ("Text content", "text content"),
        ("Image content", "image content"),
        ("Text in the image", "text in the image"),
        ("  IMAGE   contents. ", "image content"),
        ("text_instruction", "text instruction"),
        ("other:sound", "other:sound"),
        ("sound", "other:sound"),
    ],
)
def test_sources(raw: str, canonical: str) -> None:
    assert TAXONOMY.source(raw) == canonical


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("Privacy", "Privacy"),
        ("privacy", "Privacy"),
        ("Sexual content", "Sexual content"),
        ("Professional Advice", "Professional advice"),
        ("professional advices", "Professional advice"),
        ("illegal activity", "Illegal activities"),
        ("Illegal_Activities", "Illegal activities"),
        ("political-interference", "Political interference"),
        ("Impersonation", "Impersonating"),
        ("Misinformation", "Disinformation"),
        ("Health", "other:Health"),
        ("N/A", "other:N/A"),
        ("other:Health", "other:Health"),
        (" Weather ", "other:Weather"),
    ],
)
def test_categories(raw: str, canonical: str) -> None:
    assert TAXONOMY.category(raw) == canonical


@given(st.text())
def test_a_canonical_name_stays_as_it_is(name: str) -> None:
    source, category = TAXONOMY.source(name), TAXONOMY.category(name)
    assert TAXONOMY.source(source) == source and TAXONOMY.category(category) == category


def test_an_observation_keeps_what_else_is_known() -> None:
    raw = Observation("a pill", "Image contents", "Health", 0.7, {"by": "hand"})
    assert TAXONOMY.canonical(raw) == Observation("a pill", "image content", "other:Health", 0.7, {"by": "hand"})


def test_a_user_brings_their_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"sources": [{"name": "sound"}], "categories": [{"name": "Noise", "aliases": ["din"]}]}))
    mine = Taxonomy.load(file)
    assert (mine.source("Sounds"), mine.category("DIN"), mine.category("Privacy")) == ("sound", "Noise", "other:Privacy")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 5000 + "]" * 5000, '{"sources": [{}], "categories": []}', '{"sources": 3, "categories": []}']
)
def test_what_is_no_taxonomy_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(UsageError, match="mine.json: not a taxonomy"):
        Taxonomy.load(file)


def test_a_missing_taxonomy_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent.json"):
        Taxonomy.load(tmp_path / "absent.json")
