"""The official files of each benchmark become items, whatever their encoding and layout, and differences are reported by name."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dream_cli.benchmarks.benchmark import Item
from dream_cli.benchmarks.loading import load
from dream_cli.benchmarks.registry import TABLE, get
from dream_cli.errors import UsageError
from dream_cli.evaluation.judge_questions import by_rule
from dream_cli.records.image_bytes import read_bytes
from dream_cli.records.record import Record
from tests.benchmark_files import FIXTURES, official, real
from tests.conftest import Workdir

SIZES = {
    "figstep": 4,
    "figstep_benign": 4,
    "siuo": 3,
    "siuo_mcqa": 3,
    "vlguard": 7,
    "mm_safetybench": 9,
    "mm_safetybench_tiny": 3,
    "mossbench": 4,
    "mssbench": 6,
    "holisafe": 3,
    "vlsbench": 2,
    "msts": 3,
    "jailbreakv_28k": 3,
    "jailbreakv_28k_mini": 1,
    "xstest": 3,
    "xstest_blank": 3,
}


def items(words: str, data: Path, messages: list[str] | None = None) -> list[Record]:
    return load([words], str(data), None, (messages if messages is not None else []).append)


@pytest.mark.parametrize(("name", "n"), SIZES.items())
def test_every_benchmark_loads_from_its_files(tmp_path: Path, name: str, n: int) -> None:
    official(tmp_path)
    loaded = items(name, tmp_path)
    assert len(loaded) == len({record.id for record in loaded}) == n
    assert all(record.id and record.id.startswith(f"{name}:") and record.prompt for record in loaded)
    for record in loaded:
        assert get(name).subset(Item.of(record))
        assert all(read_bytes(image) for image in record.images)
        assert len(record.images) == (0 if name == "xstest" else 1)


def test_every_benchmark_has_a_fixture() -> None:
    on_the_hub_alone = {"spa_vl"}
    assert {name for name in TABLE if get(name).tables} == set(SIZES) | on_the_hub_alone


def test_figstep_and_its_harmless_partner_share_their_pairs(tmp_path: Path) -> None:
    official(tmp_path)
    harmful, harmless = items("figstep", tmp_path), items("figstep_benign", tmp_path)
    assert [Item.of(r).pair for r in harmful] == [Item.of(r).pair for r in harmless] == ["1_1", "1_2", "2_1", "8_1"]
    assert {r.prompt for r in [*harmful, *harmless]} == {harmful[0].prompt}
    assert Item.of(harmful[0]).subset == "tiny"
    # Neither the question nor the instruction of the harmful column goes into the item.
    assert "step by step" not in json.dumps([r.to_dict() for r in [*harmful, *harmless]])


def whole_figstep(folder: Path) -> Path:
    """Make a folder with the whole of FigStep: the four items of the tiny set, and tasks 6 and 7 of two topics."""
    data = official(folder, "figstep") / "figstep" / "data"
    tiny = data / "question" / "SafeBench-Tiny.csv"
    more = [("1_6", "Illegal Activity"), ("1_7", "Illegal Activity"), ("2_6", "Hate Speech"), ("8_6", "Legal Opinion")]
    rows = [f"ForbidQI,{key.replace('_', ',')},{topic},How?,Steps.\n" for key, topic in more]
    (data / "question" / "safebench.csv").write_text(tiny.read_text() + "".join(rows))
    tiny.unlink()
    images = data / "images" / "SafeBench-Tiny"
    for key, _ in more:
        shutil.copy(images / "query_ForbidQI_1_1_6.png", images / f"query_ForbidQI_{key}_6.png")
    return folder


def test_the_tiny_set_is_taken_out_of_the_whole_one(tmp_path: Path) -> None:
    tiny = items("figstep:tiny", official(tmp_path / "a", "figstep"))
    messages: list[str] = []
    assert [(r.id, Item.of(r)) for r in items("figstep:tiny", whole_figstep(tmp_path / "b"), messages)] == [
        (r.id, Item.of(r)) for r in tiny
    ]
    assert "FigStep tiny has 4 items, 50 were published" in messages[0]
    assert {Item.of(r).subset for r in items("figstep", tmp_path / "b")} == {"full"}


@pytest.mark.parametrize("limit", ["--limit", "-q"])
def test_a_subset_without_an_item_is_an_error(work: Workdir, limit: str) -> None:
    official(work.path, "figstep", "mossbench")
    shutil.rmtree(work.path / "mossbench" / "data_contrast")
    more = ["1"] if limit == "--limit" else []
    ran = work.dream("eval", "mossbench:contrast", "--data", ".", "--model", "nano", "--judge", "nano", "-o", "e.jsonl", limit, *more)
    assert (ran.code, ran.out, (work.path / "e.jsonl").exists()) == (2, "", False)
    assert "MOSSBench has no item of the subset contrast there; information.json has oversensitivity" in ran.err
    ran = work.dream("eval", "figstep:full", "--data", ".", "--model", "nano", "--judge", "nano")
    assert ran.code == 2
    assert "FigStep has no item of the subset full there; SafeBench-Tiny.csv has tiny" in ran.err


def test_a_limit_takes_from_each_topic_in_turn(tmp_path: Path) -> None:
    whole_figstep(tmp_path)

    def keys(limit: int) -> list[str]:
        return [Item.of(r).item for r in load(["figstep"], str(tmp_path), limit, lambda _: None)]

    assert keys(3) == ["1_1", "2_1", "8_1"]
    assert keys(5) == ["1_1", "1_2", "2_1", "8_1", "2_6"]
    assert keys(99) == ["1_1", "1_2", "2_1", "8_1", "1_6", "1_7", "2_6", "8_6"]


def test_images_come_out_of_a_zip_and_stay_where_later_stages_find_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_STORE", str(tmp_path / "store" / "calls.sqlite"))
    folder = official(tmp_path, "siuo") / "siuo" / "data"
    with zipfile.ZipFile(folder / "images.zip", "w") as packed:
        for image in (folder / "images").iterdir():
            packed.write(image, f"images/{image.name}")
    want = [read_bytes(r.images[0]) for r in items("siuo", tmp_path)]
    shutil.rmtree(folder / "images")
    loaded = items("siuo", tmp_path)
    assert [read_bytes(r.images[0]) for r in loaded] == want
    assert all(str(r.images[0].path).startswith(str(tmp_path / "store")) for r in loaded)


def test_images_of_one_name_in_several_folders_of_a_zip_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_STORE", str(tmp_path / "store" / "calls.sqlite"))
    data = official(tmp_path, "mm_safetybench") / "mm_safetybench" / "data"
    want = {r.id: read_bytes(r.images[0]) for r in items("mm_safetybench", tmp_path)}
    with zipfile.ZipFile(data / "MM-SafetyBench(imgs).zip", "w") as packed:
        for image in sorted((data / "imgs").rglob("*.jpg")):
            packed.write(image, image.relative_to(data / "imgs"))
    shutil.rmtree(data / "imgs")
    assert {r.id: read_bytes(r.images[0]) for r in items("mm_safetybench", tmp_path)} == want
    assert len(set(want.values())) == len(want)


def test_a_repeated_id_gets_a_number(tmp_path: Path) -> None:
    messages: list[str] = []
    loaded = items("vlguard", official(tmp_path), messages)
    assert [r.id for r in loaded][:3] == ["vlguard:unsafes:Ads_1", "vlguard:unsafes:Ads_1#2", "vlguard:unsafes:Ads_2"]
    assert [line for line in messages if "more than once" in line] == [
        "VLGuard: 1 ids occur more than once (vlguard:unsafes:Ads_1); the later ones get #2, #3 ..."
    ]


def test_vlguard_compares_with_the_stored_answer(tmp_path: Path) -> None:
    safe = [r for r in items("vlguard", official(tmp_path)) if Item.of(r).subset == "safe_safes"]
    assert [Item.of(r).reference for r in safe] == ["A loaf of bread on a board.", "A loaf of bread."]


def test_mm_safetybench_puts_the_question_that_belongs_to_the_kind_of_image(tmp_path: Path) -> None:
    loaded = {r.id: r.prompt for r in items("mm_safetybench", official(tmp_path))}
    assert loaded["mm_safetybench:SD:01/7"] == "How is room 7 in the image tidied?"
    assert loaded["mm_safetybench:TYPO:01/7"] == loaded["mm_safetybench:SD_TYPO:01/7"] == "How is room 7 named in the image tidied?"
    assert [r.id for r in items("mm_safetybench_tiny", tmp_path)] == [f"mm_safetybench_tiny:{k}:01/7" for k in ("SD", "SD_TYPO", "TYPO")]


def test_mossbench_keeps_harm_as_the_list_it_is(tmp_path: Path) -> None:
    first, _, _, contrast = items("mossbench", official(tmp_path))
    assert (Item.of(first).topic, Item.of(first).expects, Item.of(first).extra["harm"]) == ("exaggerated risk", "answer", [7])
    assert (Item.of(contrast).subset, Item.of(contrast).expects) == ("contrast", "refuse")
    assert "data_contrast" in str(contrast.images[0].path)


@pytest.mark.parametrize(
    ("completion", "text", "reasoning", "finish_reason"),
    [
        ("<think>May I?</think>\nI'm sorry, but I can't help.", "I'm sorry, but I can't help.", "May I?", None),
        ("<think>May I", "", "May I", "length"),
        ("The mark <think> opens a thought.", "The mark <think> opens a thought.", None, None),
    ],
)
def test_the_thoughts_of_a_published_response_are_not_scored(
    tmp_path: Path, completion: str, text: str, reasoning: str | None, finish_reason: str | None
) -> None:
    name = FIXTURES / "xstest" / "completions" / "model-x.csv"
    rows = list(csv.DictReader(name.read_text("utf-8").splitlines()))
    with (tmp_path / "thinks.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([rows[0] | {"completion": completion}])
    (record,) = items("xstest", tmp_path / "thinks.csv")
    (response,) = record.responses or ()
    assert (response.text, response.extra.get("reasoning"), response.finish_reason) == (text, reasoning, finish_reason)
    verdict = by_rule(record).responses[0].verdicts_under("official")["refusal"]  # type: ignore[index]
    assert verdict.value == ("refuse" if text.startswith("I'm sorry") else "comply")


def test_xstest_completions_bring_their_responses_and_human_labels(tmp_path: Path) -> None:
    loaded = items("xstest", FIXTURES / "xstest" / "completions" / "model-x.csv")
    assert (loaded[0].responses or ())[0].text == "Read a book.\nOr sleep."
    assert [Item.of(r).gold for r in loaded] == [{"refusal": "comply"}, {"refusal": "refuse"}, {"refusal": "partial"}]
    assert [Item.of(r).subset for r in loaded] == ["safe", "safe", "unsafe"]


def test_a_subset_can_be_named(tmp_path: Path) -> None:
    assert len(items("vlguard:unsafes", official(tmp_path))) == 3
    with pytest.raises(UsageError, match="no subset 'unsafe'; there are unsafes, safe_unsafes, safe_safes"):
        items("vlguard:unsafe", tmp_path)


def test_missing_items_are_reported_by_topic(tmp_path: Path) -> None:
    messages: list[str] = []
    items("mm_safetybench_tiny", official(tmp_path), messages)
    assert messages[0].startswith(
        "MM-SafetyBench tiny SD has 1 item, 168 were published: 01-Illegal_Activitiy 1 of 10, 02-HateSpeech 0 of 16"
    )


def test_a_file_of_another_benchmark_is_named(tmp_path: Path) -> None:
    official(tmp_path)
    with pytest.raises(UsageError, match=r"no file of FigStep; .* there is SafeBench-Tiny-Benign.csv \(a file of FigStep-Benign\)"):
        items("figstep", tmp_path / "figstep_benign")
    with pytest.raises(UsageError, match=r"siuo_mcqa.json is not a file of SIUO: it is a file of SIUO-MCQA"):
        items("siuo", tmp_path / "siuo" / "data" / "siuo_mcqa.json")


def test_of_two_files_of_one_name_the_one_that_looks_right_is_read(tmp_path: Path) -> None:
    official(tmp_path, "vlguard")
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "test.json").write_text('[{"id": 1, "text": "Hello"}]')
    shutil.move(tmp_path / "vlguard", tmp_path / "guard")
    assert len(items("vlguard", tmp_path)) == 7


def test_two_files_of_one_name_that_differ_are_reported(tmp_path: Path) -> None:
    folder = official(tmp_path, "mm_safetybench") / "mm_safetybench"
    read = next(folder.rglob("10-Legal_Opinion.json"))
    messages: list[str] = []
    copy = folder / "a_translation" / read.name
    copy.parent.mkdir()
    shutil.copy(read, copy)
    items("mm_safetybench", tmp_path, messages)
    assert not [message for message in messages if "twice" in message]
    copy.write_text(read.read_text() + " ")
    items("mm_safetybench", tmp_path, messages)
    assert [message for message in messages if "twice" in message] == [
        f"MM-SafetyBench: 1 file occurs twice with different content: {copy} was read, {read} was not (--data names the folder)"
    ]


def test_a_subset_is_not_charged_with_the_missing_images_of_another(tmp_path: Path) -> None:
    folder = official(tmp_path, "mm_safetybench") / "mm_safetybench" / "data" / "imgs"
    shutil.rmtree(folder / "01-Illegal_Activity" / "TYPO")
    messages: list[str] = []
    items("mm_safetybench:SD", tmp_path, messages)
    assert not [message for message in messages if "missing" in message]
    items("mm_safetybench:TYPO", tmp_path, messages)
    assert [message for message in messages if "missing" in message] == [
        (
            "MM-SafetyBench: 2 of 3 images are missing: imgs/01-Illegal_Activitiy/TYPO/0.jpg, imgs/01-Illegal_Activitiy/TYPO/7.jpg; "
            "those rows get an error"
        )
    ]


def test_a_folder_of_parquet_names_the_way_to_read_it(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=rf"no .json, .jsonl or .csv file; Parquet files .* with --data hf://{tmp_path}"):
        items("vlguard", tmp_path)


def test_a_renamed_file_is_known_by_its_fields(tmp_path: Path) -> None:
    folder = official(tmp_path, "xstest") / "xstest"
    (folder / "xstest_prompts.csv").rename(folder / "prompts.csv")
    assert len(items("xstest", tmp_path)) == 3


@pytest.mark.parametrize(("name", "file"), [("siuo", "siuo/data/siuo_gen.json"), ("vlguard", "vlguard/data/test.json")])
def test_a_table_may_be_json_lines_under_its_name(tmp_path: Path, name: str, file: str) -> None:
    path = official(tmp_path, name) / file
    whole = items(name, tmp_path)
    rows = json.loads(path.read_text("utf-8-sig"))
    path.unlink()
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [(record.id, record.prompt) for record in items(name, tmp_path)] == [(record.id, record.prompt) for record in whole] != []
    # Lines under another name, such as an output of ours, are not taken for it.
    path.with_suffix(".jsonl").rename(path.with_name("output.jsonl"))
    with pytest.raises(UsageError, match=r"no file of"):
        items(name, tmp_path)


def test_an_older_version_is_reported_with_its_missing_field(tmp_path: Path) -> None:
    path = official(tmp_path, "siuo") / "siuo" / "data" / "siuo_gen.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8-sig"))
    del rows[1]["safety_warning"]
    path.write_text(json.dumps(rows))
    with pytest.raises(UsageError, match=r"siuo_gen.json is not a file of SIUO: row 2 lacks safety_warning: an older version, or cut"):
        items("siuo", tmp_path)


def test_a_row_of_another_shape_is_no_traceback(tmp_path: Path) -> None:
    path = official(tmp_path, "mossbench") / "mossbench" / "data" / "images_information" / "information.json"
    rows = json.loads(path.read_text())
    rows["2"]["metadata"] = "type 2"
    path.write_text(json.dumps(rows))
    with pytest.raises(UsageError, match=r"information.json has a row that is not as MOSSBench was published \(TypeError"):
        items("mossbench", tmp_path)


def test_a_csv_that_is_cut_off_in_a_row_is_no_silent_item(tmp_path: Path) -> None:
    path = official(tmp_path, "figstep") / "figstep" / "data" / "question" / "SafeBench-Tiny.csv"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"SafeBench-Tiny.csv"):
        items("figstep", tmp_path)


def test_missing_images_are_named_and_none_at_all_stops(tmp_path: Path) -> None:
    folder = official(tmp_path, "siuo") / "siuo" / "data" / "images"
    (folder / "S-02.png").unlink()
    messages: list[str] = []
    assert len(items("siuo", tmp_path, messages)) == 3
    assert messages[-1] == "SIUO: 1 of 3 images are missing: images/S-02.png; those rows get an error"
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match=r"none of the images of SIUO exists \(the first is images/S-01.png\)"):
        items("siuo", tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["siuoo", "--data", "."], "did you mean 'siuo'?"),
        (["siuo"], "name their folder with --data DIR (or hf://NAME)"),
        (["siuo", "--data", "nowhere"], "--data nowhere does not exist"),
        (["siuo", "other.jsonl", "--data", "."], "'other.jsonl' is not a benchmark; run benchmarks and score files in two commands"),
        (["suite", "--data", "."], "--data . has no file of a benchmark"),
    ],
)
def test_wrong_usage_is_reported_at_once(work: Workdir, words: list[str], message: str) -> None:
    ran = work.dream("eval", *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_a_data_set_of_the_hub_is_read_through_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("DREAM_STORE", str(tmp_path / "store" / "calls.sqlite"))
    official(tmp_path, "siuo")
    rows = json.loads((tmp_path / "siuo/data/siuo_gen.json").read_text("utf-8-sig"))
    for row in rows:
        row["image"] = {"path": row["image"], "bytes": (tmp_path / "siuo/data/images" / row["image"]).read_bytes()}
    saved = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    (tmp_path / "hub").mkdir()
    saved.to_parquet(tmp_path / "hub" / "test-00000-of-00001.parquet")
    loaded = load(["siuo"], f"hf://{tmp_path / 'hub'}", None, lambda _: None)
    assert [r.id for r in loaded] == ["siuo:1001", "siuo:1002", "siuo:1003"]
    assert all(read_bytes(r.images[0]).startswith(b"\x89PNG") for r in loaded)


def test_configs_and_splits_of_the_hub_are_scenarios_and_kinds_of_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("DREAM_STORE", str(tmp_path / "store" / "calls.sqlite"))
    image = {"path": None, "bytes": read_bytes(items("figstep", official(tmp_path, "figstep"))[0].images[0])}
    hub = tmp_path / "hub"
    hub.mkdir()
    rows = [{"id": "0", "question": "How is it tidied?", "image": image}]
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).to_parquet(hub / "sd.parquet")
    files = "data_files:\n  - split: SD\n    path: sd.parquet"
    (hub / "README.md").write_text(f"---\nconfigs:\n- config_name: Fraud\n  {files.replace(chr(10), chr(10) + '  ')}\n---\n")
    loaded = load(["mm_safetybench"], f"hf://{hub}", None, lambda _: None)
    assert [(r.id, r.prompt) for r in loaded] == [("mm_safetybench:SD:06/0", "How is it tidied?")]
    with pytest.raises(UsageError, match="no config and split of MOSSBench there"):
        load(["mossbench"], f"hf://{hub}", None, lambda _: None)


@pytest.mark.parametrize(
    ("name", "folder", "n"),
    [("figstep", "figstep_tiny", 50), ("figstep_benign", "figstep_benign", 50), ("mossbench", "mossbench", 30), ("xstest", "xstest", 450)],
)
def test_the_real_files_load(name: str, folder: str, n: int) -> None:
    assert len(items(name, real(folder))) == n


@pytest.mark.parametrize(("name", "n"), [("siuo", 19), ("siuo_mcqa", 19), ("vlguard", 74)])
def test_the_real_files_without_their_images_load_beside_ours(tmp_path: Path, name: str, n: int) -> None:
    folder = tmp_path / "siuo" if name.startswith("siuo") else tmp_path / name
    shutil.copytree(real(folder.name), folder)
    rows = json.loads(next(folder.glob("siuo_gen.json" if name.startswith("siuo") else "test.json")).read_text())
    for row in rows:
        (folder / "images" / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / row["image"]).write_bytes(b"not looked at")
    assert len(items(name, folder)) == n
