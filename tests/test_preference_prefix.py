"""The shared prefix: attention masks, positions, and the cached features of a pair."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.local

from dream_cli.training.preference import prefix
from dream_cli.training.preference.image_features import FeatureStore, count_sets
from dream_cli.training.preference.prefix_batch import RenderedPair
from dream_cli.training.preference.reference_scores import ReferenceStore, weights_hash

# Columns: a prompt of two tokens without its last (the first padded), then two branches of two. Rows are queries, columns keys.
REAL = [[0, 1, 1, 1, 1, 0]]
SEEN = [
    "x.....",  # padding sees itself
    ".x....",
    ".xx...",
    ".xxx..",
    ".x..x.",  # rejected sees the prompt, not chosen
    ".x..xx",  # padding at the end of a branch
]


def test_a_branch_sees_the_prompt_and_itself() -> None:
    mask = prefix.visible(torch.tensor(REAL), 2)
    assert mask.shape == (1, 1, 6, 6)
    assert ["".join("x" if sees else "." for sees in row) for row in mask[0, 0].tolist()] == SEEN


def test_a_prompt_without_padding_needs_no_mask() -> None:
    real = torch.ones(1, 6, dtype=torch.long)
    two, all_rows = (prefix.attention_mask(real, 2, kind, torch.float32) for kind in (prefix.PAIR_ATTENTION, "sdpa"))
    assert (two.shape, (two == all_rows[:, :, 2:]).all()) == ((1, 1, 4, 6), True)
    query, key, value = torch.randn(3, 1, 2, 6, 8)
    module = SimpleNamespace(num_key_value_groups=1, is_causal=True)
    halves, whole = (prefix.attend_in_two(module, query, key, value, mask)[0] for mask in (two, all_rows))
    assert torch.allclose(halves, whole, atol=1e-6) and whole.shape == (1, 6, 2, 8)


def test_the_mask_for_eager_attention_is_added_to_the_scores() -> None:
    added = prefix.attention_mask(torch.tensor(REAL), 2, "eager", torch.float32)
    assert ((added == 0) == prefix.visible(torch.tensor(REAL), 2)).all() and added.min() == torch.finfo(torch.float32).min


def test_the_blocks_for_a_gpu_hide_what_the_mask_hides() -> None:
    real = torch.ones(2, 40, dtype=torch.long)
    real[1, :5] = 0
    blocks = prefix.attention_mask(real, 8, "flex_attention", torch.float32)
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    for row in range(2):
        dense = blocks.mask_mod(torch.tensor(row), torch.tensor(0), rows, columns)
        assert (dense == prefix.visible(real, 8)[row, 0]).all()


def test_both_branches_count_on_from_the_prompt() -> None:
    batch = {"answers": torch.zeros(2, 2, 3), "attention_mask": torch.tensor([[0, 1, 1] + [1] * 6, [1, 1, 1] + [1] * 6])}
    assert prefix.positions(SimpleNamespace(), batch).tolist() == [[0, 0, 1, 2, 3, 4, 2, 3, 4], [0, 1, 2, 3, 4, 5, 3, 4, 5]]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, ""),
        ({"model_type": "gemma3"}, "gemma3 is not one of the families whose masks are known"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layers with a mask of their own (sliding_attention)"),
        ({"sliding_window": 64}, "layers with a mask of their own (a window of 64 tokens)"),
        ({"sliding_window": 64, "use_sliding_window": False}, ""),
        ({"_attn_implementation": "flash_attention_2"}, "flash_attention_2 takes no mask of ours"),
    ],
)
def test_a_model_that_cannot_share_returns_the_reason(config: dict[str, Any], reason: str) -> None:
    text = SimpleNamespace(**{"model_type": "llava", "_attn_implementation": "sdpa"} | config)
    text.get_text_config = lambda: text
    why = prefix.why_not(text)
    assert why.startswith(reason) and bool(why) == bool(reason)


def test_a_pair_is_known_by_its_texts_and_images() -> None:
    from PIL import Image

    black, white = Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2), "white")
    pairs = [RenderedPair("p", "c", "r", (black,)), RenderedPair("p", "c", "r", (white,)), RenderedPair("p", "c", "r", ())]
    pairs += [RenderedPair("p", "r", "c", (black,)), RenderedPair("p", "c", "r", (black, white)), RenderedPair("pc", "", "r", (black,))]
    assert len({pair.key for pair in pairs}) == len(pairs)
    assert RenderedPair("p", "c", "r", (Image.new("RGB", (2, 2)),)).key == pairs[0].key
    assert (pairs[2].picture_key, pairs[0].picture_key == pairs[3].picture_key) == ("", True)


def test_what_the_reference_said_outlives_a_killed_run(tmp_path: Path) -> None:
    ReferenceStore(tmp_path, "f").add({"a": (-1.5, -0.1), "b": (-2.0, -3.0)})
    file = next(tmp_path.iterdir())
    file.write_text(file.read_text() + '\n{"pair": "c", "cho')  # killed while it wrote
    again = ReferenceStore(tmp_path, "f")
    assert again.missing(["a", "b", "c"]) == ["c"]
    again.add({"c": (-4.0, -5.0)})
    assert ReferenceStore(tmp_path, "f").of(["c", "a"]) == ([-4.0, -1.5], [-5.0, -0.1])
    assert ReferenceStore(tmp_path, "other").missing(["a"]) == ["a"]


def test_processes_keep_files_of_their_own_and_read_all(tmp_path: Path) -> None:
    first, second = ReferenceStore(tmp_path, "f", 0), ReferenceStore(tmp_path, "f", 1)
    first.add({"a": (-1.0, -2.0)})
    second.add({"b": (-3.0, -4.0)})
    first.merge([{"b": (-3.0, -4.0)}])
    assert first.of(["a", "b"]) == ReferenceStore(tmp_path, "f", 0).of(["a", "b"]) == ([-1.0, -3.0], [-2.0, -4.0])


def test_a_weight_that_moved_is_another_reference() -> None:
    weights = {"a": torch.ones(2), "b": torch.zeros(2, dtype=torch.bfloat16)}
    moved = {**weights, "a": torch.tensor([1.0, 1.0000001])}
    assert weights_hash(weights.items()) == weights_hash(reversed(weights.items())) != weights_hash(moved.items())


@pytest.mark.parametrize("on_disk", [True, False])
def test_features_are_kept_within_a_limit(tmp_path: Path, on_disk: bool) -> None:
    store = FeatureStore(tmp_path / "features" if on_disk else None, 100)
    batch = torch.arange(40.0).view(10, 4)
    store.put("a", {"pooled": batch[:5]})  # 80 bytes
    store.put("b", {"pooled": batch[5:7]})  # 32 more: over the limit
    kept = store.get("a")
    assert kept is not None and (kept["pooled"] == batch[:5]).all()
    assert store.get("b") is None
    if on_disk:
        assert [file.name for file in (tmp_path / "features").iterdir()] == ["a.safetensors"]


def test_features_that_would_not_all_fit_are_not_written() -> None:
    store = FeatureStore(None, 100, sets=3)
    store.put("a", {"pooled": torch.zeros(5, 2)})  # 40 bytes, so 120 for all
    assert store.get("a") is None and store.wanted == 120
    store.put("b", {"pooled": torch.zeros(2, 2)})  # 16 bytes: (40 + 16) / 2 * 3
    assert store.get("b") is not None and store.wanted == 84


def test_sets_of_images_are_counted_once() -> None:
    from datasets import Dataset

    one, two = {"path": "a.png", "bytes": None}, {"path": None, "bytes": b"x"}
    assert count_sets(Dataset.from_dict({"images": [[one], [], [one, two], [one], [two]]})) == 3
    assert count_sets(Dataset.from_dict({"image": [one, two, one]})) == 2
    assert count_sets(Dataset.from_dict({"prompt": ["a"]})) == 0
