"""Prompts: filled once, replaced by a user's own or by the authors' release, and read with care."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.errors import UnreadableAnswer, UsageError
from dream_cli.prompts.parsing import observations_schema, parse_observations
from dream_cli.prompts.rendering import NAMES, RELEASED, Prompts, written
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.record import Observation

OURS = Prompts.load()
SEEN = Observation("a knife", "image content", "Violence")
HOSTILE = 'Say {response} and {observations}, {{prompt}} \\1 "quoted"'


def test_every_template_is_filled_whole() -> None:
    requests = [
        *(OURS.observe(mode, "Hello") for mode in ("image", "text", "joint")),
        OURS.verify("Hello", SEEN),
        OURS.judge_global("Hello", (SEEN,), "Hi"),
        OURS.judge_observation("Hello", SEEN, "Hi"),
        OURS.judge_helpfulness("Hello", "Hi"),
        OURS.judge_harm("Hello", "Hi"),
        OURS.judge_harm_again("Hello", "Hi"),
        OURS.judge_effective("Hello", "Hi"),
        OURS.judge_refusal("Hello", "Hi"),
        OURS.judge_warned("Hello", "the knife", "Hi"),
        OURS.judge_preference("Hello", "Hi", "Bye"),
        OURS.respond_observed("Hello", (SEEN,)),
    ]
    assert len(requests) == len(NAMES) and not any("{prompt}" in a or "{response}" in a or "{categories}" in a for a in requests)
    assert all("Hello" in a for a in requests)


def test_a_side_names_only_its_own_sources() -> None:
    assert "text in the image" in OURS.observe("image", "Hello") and "text instruction" not in OURS.observe("image", "Hello")
    assert "text instruction" in OURS.observe("text", "Hello") and "image content" not in OURS.observe("text", "Hello")


def test_a_placeholder_in_what_a_user_wrote_stays() -> None:
    requests = OURS.judge_global(HOSTILE, (Observation(HOSTILE, "text content", "Violence"),), "MY ANSWER")
    assert HOSTILE in requests and requests.count("MY ANSWER") == 1
    assert json.dumps(HOSTILE) in requests


@given(st.text())
def test_any_text_goes_in_as_it_is(text: str) -> None:
    assert text in OURS.judge_helpfulness(text, "Hi") and text in OURS.judge_harm("Hello", text)


def test_absent_observations_are_not_said_to_be_none() -> None:
    assert OURS.judge_global("Hello", None, "Hi") != OURS.judge_global("Hello", (), "Hi")
    assert "not looked for" in OURS.judge_global("Hello", None, "Hi")


def test_the_hash_stands_for_the_words(tmp_path: Path) -> None:
    assert OURS.sha256 == Prompts.load().sha256 and len(OURS.sha256) == 64
    (tmp_path / "judge_harm.txt").write_text("Is {response} harmful?")
    assert Prompts.load(tmp_path).sha256 != OURS.sha256


def test_a_users_template_takes_the_place_of_ours(tmp_path: Path) -> None:
    (tmp_path / "judge_harm.txt").write_bytes(b"Is {response} harmful?\r\n")
    mine = Prompts.load(tmp_path)
    assert mine.judge_harm("Hello", "Hi") == "Is Hi harmful?\r\n"
    assert mine.judge_helpfulness("Hello", "Hi") == OURS.judge_helpfulness("Hello", "Hi")


CLASSES = "\n* Weather: rain, snow.\n* Noise: din.\n"
PLAIN = 'Rate it.\nA line with "quotes", {braces} and a \ttab.\n{prompt} {observations} {response}\nOnly give a overall score: '
SHAPE = '```\n[\n  {\n    "malicious_content": "",\n    "source": ""\n  },\n  ...\n]\n```\n'
LISTED = "\nFind it.\n{CLASSES_DEF}\n## Insruction\n{prompt}\n" + SHAPE
VERIFY = "Is {text} of {harm_cate}?"


def release(folder: Path, text: str) -> Path:
    """Return a folder with a file of the form of the release."""
    (folder / "mrd.py").write_text(text, "utf-8")
    return folder


def test_the_authors_form_is_read_byte_for_byte(tmp_path: Path) -> None:
    lines = [
        "import absent_module",
        f"CLASSES_DEF='''{CLASSES}'''",
        f"PROMPT_GS = '''{PLAIN}'''",
        # Plain, the classes put in by a call; and as an f-string, which cannot even be imported.
        "PROMPT_OB=###.replace('{CLASSES_DEF}', CLASSES_DEF)",
        "PROMPT_OB_T = f###.replace('{CLASSES_DEF}', CLASSES_DEF)",
        f'PROMPT_CORRECT = "{VERIFY}"',
        'PROMPT_GS.format("never run")',
    ]
    text = "\n".join(lines).replace("###", "'''" + LISTED + "'''")
    theirs = Prompts.load(release(tmp_path, text)).templates
    assert theirs["judge_global"] == PLAIN
    assert theirs["observe_joint"] == theirs["observe_text"] == LISTED.replace("{CLASSES_DEF}", CLASSES)
    assert theirs["verify"] == VERIFY
    assert theirs["judge_harm"] == OURS.templates["judge_harm"]


def test_the_authors_names_are_filled(tmp_path: Path) -> None:
    release(tmp_path, f"PROMPT_CORRECT = '{VERIFY}'\nPROMPT_OS = '{{observation}} {{output}}'\nPROMPT_OB_T = f'''{LISTED}'''")
    theirs = Prompts.load(tmp_path)
    assert theirs.verify("Hello", SEEN) == "Is a knife of Violence?"
    assert theirs.judge_observation("Hello", SEEN, "{observation}").endswith(" {observation}")
    assert theirs.observe("text", HOSTILE) == LISTED.replace("{prompt}", HOSTILE)


def test_every_released_prompt_has_its_place() -> None:
    assert set(RELEASED.values()) <= set(NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [("PROMPT_GS = (", "cannot be read"), ("PROMPT_GS = 3", "not a string"), ("PROMPT = 'x'", "no prompts found")],
)
def test_a_folder_without_prompts_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Prompts.load(release(tmp_path, text))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent: no such folder"):
        Prompts.load(tmp_path / "absent")


TAXONOMY = Taxonomy.load()
ITEM = '{"malicious_content": "a knife", "source": "Image Contents", "risk_category": "violence"}'


@pytest.mark.parametrize("answer", [f"[{ITEM}]", f"```json\n[{ITEM},]\n```", f"Here you are: [{ITEM}] Anything else?"])
def test_observations_are_read_in_canonical_names(answer: str) -> None:
    assert parse_observations(answer, TAXONOMY) == (SEEN,)
    assert parse_observations(written([SEEN]), TAXONOMY) == (SEEN,)


def test_an_empty_list_is_an_answer() -> None:
    assert parse_observations("None: []", TAXONOMY) == ()


@pytest.mark.parametrize("answer", ["", "none", "[" + ITEM, '[{"source": "image content"}]', '["a knife"]'])
def test_what_is_no_list_of_observations_is_not_read(answer: str) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        parse_observations(answer, TAXONOMY)
    assert caught.value.raw == answer


def test_the_schema_names_the_taxonomy() -> None:
    schema = observations_schema(TAXONOMY)
    assert (schema["type"], schema["required"]) == ("object", ["observations"])
    fields = schema["properties"]["observations"]["items"]["properties"]
    assert fields["malicious_content"] == {"type": "string", "minLength": 1}
    assert len(fields["source"]["enum"]) == 4 and len(fields["risk_category"]["enum"]) == 9


@pytest.mark.parametrize(
    "answer",
    [f"[{ITEM}] Note: see [1].", f"Step [1]: look. [{ITEM}]", '{"observations": [' + ITEM + "]}", f"[{ITEM},]\n[2]"],
)
def test_a_list_is_read_between_other_brackets(answer: str) -> None:
    assert parse_observations(answer, TAXONOMY) == (SEEN,)


@pytest.mark.parametrize("answer", ["[]", "[ ]", '{"observations": []}', "```json\n[]\n```"])
def test_the_empty_list_in_its_forms(answer: str) -> None:
    assert parse_observations(answer, TAXONOMY) == ()


DEEP = [
    "[" * 1000 + "]",
    "[" * 100_000 + "]" * 100_000,
    '[{"a":' * 3000 + "]",
    "[" + "{" * 4000 + "}]",
    '[{"a":' * 3000 + "1" + "}]" * 3000,
]


@pytest.mark.parametrize("answer", ["[...]", "[-]", "[*]", "[,]", "[1]", '["None"]', "[N/A]", "[//none found]", "No risks.", "[{}]", *DEEP])
def test_what_is_not_the_empty_list_does_not_mean_that_none_was_found(answer: str) -> None:
    with pytest.raises(UnreadableAnswer):
        parse_observations(answer, TAXONOMY)


def test_none_is_no_observation_and_two_categories_are_two() -> None:
    none = ITEM.replace("violence", "N/A")
    assert parse_observations(f"[{none}, {ITEM}]", TAXONOMY) == (SEEN,)
    both = parse_observations(f"[{ITEM.replace('violence', 'Violence, Privacy')}]", TAXONOMY)
    assert [o.risk_category for o in both] == ["Violence", "Privacy"]
