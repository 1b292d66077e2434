"""The cache of image features: only images whose features are missing go through the tower."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from tests.test_preference_trainer import FAMILIES, NEWER, RECENT, assert_equal, difference, fast, pairs, train
from tests.zoo import build

pytest.importorskip("trl")
pytest.importorskip("peft")
pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the folder of a tiny model of a family."""
    return functools.cache(lambda family: build(family, tmp_path_factory.mktemp(family)))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the number of rows in each pass through the tower; that their tokens are those of its features is checked there."""
    from dream_cli.training.preference import image_features

    passes: list[int] = []
    by_row = image_features._by_row

    def noted(out: Any, tokens: Any) -> Any:
        passes.append(len(tokens))
        return by_row(out, tokens)

    monkeypatch.setattr(image_features, "_by_row", noted)
    return passes


@pytest.mark.parametrize("family", [*FAMILIES, *NEWER, *RECENT, "gemma3"])
def test_only_the_rows_without_features_go_through_the_tower(folder_of: Any, tmp_path: Path, family: str, computed: list[int]) -> None:
    from dream_cli.training.preference.preference_trainer import FastPath

    more = {"lora": True, "max_steps": 2, "router_aux_loss_coef": 0.0 if "moe" in family else None}
    kept, copies = FastPath(tmp_path / "cache"), 2 if family == "gemma3" else 1
    train(fast(folder_of(family), tmp_path, rows=pairs().select([2]), settings=kept, **more))
    assert computed == [copies]
    grown, gradients = train(fast(folder_of(family), tmp_path, settings=kept, **more))
    assert computed == [copies, 2], "of four rows one has no image, and the features of one are kept"
    whole, their_gradients = train(fast(folder_of(family), tmp_path, **more))
    assert computed == [copies, 2, 4 * copies]
    assert_equal(whole, grown)
    assert difference(their_gradients, gradients) < 1e-5


def test_features_that_another_process_removed_are_computed_again(folder_of: Any, tmp_path: Path, computed: list[int]) -> None:
    from dream_cli.training.preference.preference_trainer import FastPath

    kept = FastPath(tmp_path / "cache")
    ours = fast(folder_of("llava"), tmp_path, lora=True, settings=kept)
    train(ours)
    collated = ours._pairs(list(pairs()))
    assert "unkept" not in collated
    files = sorted((tmp_path / "cache").glob("features-*/*"))
    files[0].unlink()
    unkept = ours._pairs(list(pairs()))["unkept"]
    assert (unkept["keys"], [*unkept["inputs"]]) == ([files[0].stem], ["pixel_values"])
    files[1].unlink()
    with ours._images({**collated, "unkept": unkept}, collated["pictures"]) as shown:
        assert "pixel_values" in shown and "unkept" not in shown
        ours._bare.base_model.get_image_features(pixel_values=shown["pixel_values"], return_dict=True)
    assert computed[-1] == 4, "two are missing, and the inputs of one alone are there: all are computed"
    assert files == sorted((tmp_path / "cache").glob("features-*/*"))


def test_tokens_are_counted_as_trl_counts_them(folder_of: Any, tmp_path: Path) -> None:
    from tests.test_preference_trainer import stock

    theirs, ours = (train(kind(folder_of("qwen2_5_vl"), tmp_path, max_steps=2))[0] for kind in (stock, fast))
    assert [step["num_tokens"] for step in ours] == [step["num_tokens"] for step in theirs]
