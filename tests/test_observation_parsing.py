"""Answers of a teacher: lists of observations, read with care."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dream_cli.errors import UnreadableAnswer
from dream_cli.prompts.parsing import observations_schema, parse_observations
from dream_cli.prompts.rendering import written
from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.record import Observation

TAXONOMY = Taxonomy.load()
CATEGORY = '"violence"'
ITEM = '{"malicious_content": "a knife", "source": "Image Contents", "risk_category": "violence"}'
SEEN = Observation("a knife", "image content", "Violence")


@pytest.mark.parametrize("answer", [f"[{ITEM}]", f"```json\n[{ITEM},]\n```", f"Here you are: [{ITEM}] Anything else?"])
def test_observations_are_read_in_canonical_names(answer: str) -> None:
    assert parse_observations(answer, TAXONOMY) == (SEEN,)
    assert parse_observations(written([SEEN]), TAXONOMY) == (SEEN,)


def test_control_characters_in_a_text_are_kept() -> None:
    for raw in ("a\tknife", "a\x13knife", "a\nknife"):
        assert parse_observations(f"[{ITEM.replace('a knife', raw)}]", TAXONOMY) == (replace(SEEN, malicious_content=raw),)


def test_objects_without_a_list_are_read_where_they_are_whole() -> None:
    other = ITEM.replace("a knife", "a fork")
    assert parse_observations(f"{ITEM}\n{other}", TAXONOMY) == (SEEN, replace(SEEN, malicious_content="a fork"))
    for cut in range(1, len(other)):
        with pytest.raises(UnreadableAnswer):
            parse_observations(f"{ITEM}\n{other[:cut]}", TAXONOMY)


def test_an_empty_list_is_an_answer() -> None:
    assert parse_observations("None: []", TAXONOMY) == ()


@pytest.mark.parametrize("answer", ["", "none", "[" + ITEM, '[{"source": "image content"}]', '["a knife"]'])
def test_what_is_no_list_of_observations_is_not_read(answer: str) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        parse_observations(answer, TAXONOMY)
    assert caught.value.raw == answer


@pytest.mark.parametrize(
    "entry", ['{"source": "image content"}', '"a knife"', "null", ITEM.replace('"a knife"', '" "'), ITEM.replace('"a knife"', "5")]
)
def test_one_bad_entry_leaves_the_others_and_is_reported_in_them(entry: str) -> None:
    reason = "1 of 3 in the list lack one of malicious_content, source, risk_category"
    for answer in (f"[{entry}, {ITEM}, {ITEM}]", f'{{"observations": [{ITEM}, {entry}, {ITEM}]}}', f"[{ITEM}, {ITEM}, {entry}]"):
        assert parse_observations(answer, TAXONOMY) == 2 * (replace(SEEN, extra={"incomplete": reason}),)


def test_the_schema_names_the_taxonomy() -> None:
    schema = observations_schema(TAXONOMY)
    assert (schema["type"], schema["required"]) == ("object", ["observations"])
    fields = schema["properties"]["observations"]["items"]["properties"]
    assert fields["malicious_content"] == {"type": "string", "minLength": 1}
    assert len(fields["source"]["enum"]) == 4 and len(fields["risk_category"]["enum"]) == 9


@pytest.mark.parametrize(
    "answer",
    [
        f"[{ITEM}] Note: see [1].",
        f"Step [1]: look. [{ITEM}]",
        '{"observations": [' + ITEM + "]}",
        f"[{ITEM},]\n[2]",
        f"[\n// one was found\n{ITEM}\n]",
        f"[ /* one */ {ITEM}]",
        f"[{ITEM.replace(':', '：')}]",
        ITEM,
        f"```json\n{ITEM}\n```",
        f"1. {ITEM}",
        f"- {ITEM.replace(chr(34), chr(39))}",
        f'{{"observations": {ITEM}}}',
        f"[[{ITEM}]]",
        f"[]\n[{ITEM}]",
        f"[{ITEM}]\n[]",
        f'{{"observations": [{ITEM}], "notes": [{{"of": "the image"}}]}}',
        f"[{ITEM.replace('malicious_content', 'Malicious content').replace('risk_category', 'Risk Category')}]",
        f"[{ITEM.replace(CATEGORY, f'[{CATEGORY}]')}]",
    ],
)
def test_a_list_is_read_between_other_brackets(answer: str) -> None:
    assert parse_observations(answer, TAXONOMY) == (SEEN,)


OTHER = ITEM.replace("a knife", "a fork")


@pytest.mark.parametrize(
    "answer",
    [
        f"[{ITEM}]\n[{OTHER}]",
        f"[{ITEM},]\n[{OTHER}]",
        f"[{ITEM}]\nand\n[{OTHER},]",
        f"[[{ITEM}], [{OTHER}]]",
        f'{{"image": [{ITEM}], "text": [{OTHER}]}}',
        f"- {ITEM}\n- {OTHER}",
        f"{ITEM},\n{OTHER},",
    ],
)
def test_no_list_of_several_is_lost(answer: str) -> None:
    assert parse_observations(answer, TAXONOMY) == (SEEN, replace(SEEN, malicious_content="a fork"))


def test_a_further_list_that_is_cut_off_is_reported_in_the_others() -> None:
    cut = {"incomplete": "the list of observations is cut off; raise --max-tokens"}
    assert parse_observations(f"[{ITEM}]\n[{OTHER}", TAXONOMY) == (replace(SEEN, extra=cut),)


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, I can't assist with that request. []",
        "I am unable to view the image. []",
        "I cannot analyze images, so: []",
        "I won't help with this: []",
        "I refuse. []",
        "I must decline. []",
        "I would rather not. []",
        "As an AI I must not answer. []",
        "This request is against my policy. []",
        "I am not comfortable with this. []",
        "Lo siento, no puedo ayudar. []",
        "Désolé, je ne peux pas. []",
        "无法回答 []",
        "I don't see any image. []",
        "No image was provided: []",
        "The image could not be loaded. []",
    ],
)
def test_an_empty_list_of_a_teacher_that_declines_is_no_answer(answer: str) -> None:
    with pytest.raises(UnreadableAnswer):
        parse_observations(answer, TAXONOMY)


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot find any risk: []",
        "No image content does harm: []",
        "I see no risk in the image: []",
        "[].",
        "`[]`",
        "**[]**",
        "“[]”",
        "<answer>[]</answer>",
        "\\boxed{[]}",
        "[]<|im_end|>",
    ],
)
def test_an_empty_list_is_read_in_marks_and_behind_words(answer: str) -> None:
    assert parse_observations(answer, TAXONOMY) == ()


@pytest.mark.parametrize(
    "answer", ["[]", "[ ]", '{"observations": []}', "```json\n[]\n```", '["None"]', "[N/A]", "['none']", '{"observations": ["N/A"]}']
)
def test_the_empty_list_in_its_forms(answer: str) -> None:
    assert parse_observations(answer, TAXONOMY) == ()


DEEP = [
    "[" * 1000 + "]",
    "[" * 100_000 + "]" * 100_000,
    '[{"a":' * 3000 + "]",
    "[" + "{" * 4000 + "}]",
    '[{"a":' * 3000 + "1" + "}]" * 3000,
]


@pytest.mark.parametrize(
    "answer",
    [
        "[...]",
        "[-]",
        "[*]",
        "[,]",
        "[1]",
        '["None of these"]',
        '["None", "N/A"]',
        "[none, a knife]",
        "[//none found]",
        "No risks.",
        "[{}]",
        *DEEP,
    ],
)
def test_what_is_not_the_empty_list_does_not_mean_that_none_was_found(answer: str) -> None:
    with pytest.raises(UnreadableAnswer):
        parse_observations(answer, TAXONOMY)


def test_none_is_no_observation_and_two_categories_are_two() -> None:
    none = ITEM.replace("violence", "N/A")
    assert parse_observations(f"[{none}, {ITEM}]", TAXONOMY) == (SEEN,)
    for content in ("None identified", "none.", "No malicious content", "No risk found", "No harm is present in the image", "-"):
        assert parse_observations(f"[{ITEM.replace('a knife', content)}, {ITEM}]", TAXONOMY) == (SEEN,)
    for content in ("No safety harness", "none of the exits is open", "no content warning"):
        (read,) = parse_observations(f"[{ITEM.replace('a knife', content)}]", TAXONOMY)
        assert read.malicious_content == content
    for several in ('"Violence, Privacy"', '"violence and privacy"', '"Violence & Privacy"', '["Violence", "Privacy"]'):
        both = parse_observations(f"[{ITEM.replace(CATEGORY, several)}]", TAXONOMY)
        assert [o.risk_category for o in both] == ["Violence", "Privacy"]
