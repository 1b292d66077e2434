"""The preference losses on numbers worked by hand, as TRL computes them from what we ask it for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dream_cli.errors import UsageError
from dream_cli.training.preference.losses import TERMS, PreferenceLoss, answer_scores, read_terms

pytest.importorskip("trl")
# TRL 1.16 uses names that transformers 5.23 will drop.
pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore:.* will be removed in v6:FutureWarning")]

# One pair: log pi of the chosen tokens -1 and -2, of the one rejected token -1.5; the reference gives -4 and -1 in all.
# So r_c = -3 + 4 = 1, r_r = -1.5 + 1 = -0.5, delta = 1.5; with beta = 1/4 the rewards are 0.25 and -0.125.
BY_HAND = {
    "sigmoid": (PreferenceLoss(beta=0.25), 0.523124),  # log(1 + exp(-0.375))
    "hinge": (PreferenceLoss({"hinge": 1.0}, beta=0.25), 0.625),  # 1 - 0.375
    "ipo": (PreferenceLoss({"ipo": 1.0}, beta=0.25), 1.0),  # (1/2 + 0.5 - 2)^2
    "robust": (PreferenceLoss({"robust": 1.0}, beta=0.25, label_smoothing=0.1), 0.476249),  # (0.9 * 0.523124 - 0.1 * 0.898124) / 0.8
    "sigmoid_norm": (PreferenceLoss({"sigmoid_norm": 1.0}, beta=0.25), 0.575939),  # log(1 + exp(-0.25 * (1/2 + 0.5)))
    # 0.8 * 0.523124 + 0.2 * (0.575939 + 0.632597) + (1 + 2) / 2, the second term of 0.25 and of -(-0.125)
    "mpo": (PreferenceLoss({"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}, beta=0.25), 2.160206),
    "sft": (PreferenceLoss({"sigmoid": 1.0, "sft": 0.5}, beta=0.25), 1.273124),  # 0.523124 + 0.5 * (1 + 2) / 2
    # log pi of the chosen answer is -1 - 2 / 2: r_c = 2, delta = 2.5, log(1 + exp(-0.625))
    "ld_alpha": (PreferenceLoss(beta=0.25, ld_alpha=0.5), 0.428701),
}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's own trainer around a model that is never asked."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer

    from tests.zoo import tokenizer

    folder: Path = tmp_path_factory.mktemp("losses")
    words = tokenizer()
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), pad_token_id=0, **shape))
    reference = LlamaForCausalLM(model.config)
    rows = Dataset.from_dict({"prompt": ["Yes."], "chosen": [" Yes. No."], "rejected": [" No."]})
    arguments = DPOConfig(str(folder), use_cpu=True, bf16=False, report_to=[])
    return DPOTrainer(model, reference, arguments, train_dataset=rows, processing_class=words)


def loss_of(trainer: Any, loss: PreferenceLoss) -> float:
    """Return the loss of the one pair above."""
    import torch

    config = SimpleNamespace(**loss.to_trl())
    trainer.loss_types, trainer.loss_weights = config.loss_type, config.loss_weights
    trainer.beta, trainer.label_smoothing, trainer.ld_alpha = config.beta, config.label_smoothing, config.ld_alpha
    trainer.precompute_ref_logps = True
    scored = torch.tensor([[-1.0, -2.0], [-1.5, 0.0]])
    output = SimpleNamespace(log_probs=scored, entropy=scored * 0, mean_logits=scored * 0, is_top1=scored > 0)
    batch = {
        "input_ids": torch.ones(2, 3, dtype=torch.long),
        "attention_mask": torch.ones(2, 3, dtype=torch.long),
        "completion_mask": torch.tensor([[0, 1, 1], [0, 1, 0]]),
        "ref_chosen_logps": torch.tensor([-4.0]),
        "ref_rejected_logps": torch.tensor([-1.0]),
    }
    return float(trainer.compute_loss(lambda **_: output, batch))


@pytest.mark.parametrize("name", BY_HAND)
def test_a_loss_worked_by_hand(trainer: Any, name: str) -> None:
    loss, value = BY_HAND[name]
    assert loss_of(trainer, loss) == pytest.approx(value, abs=1e-6)


def test_rewards_and_margin_worked_by_hand(trainer: Any) -> None:
    trainer._metrics["train"].clear()
    loss_of(trainer, PreferenceLoss(beta=0.25))
    logged = trainer._metrics["train"]
    assert [logged[f"rewards/{name}"] for name in ("chosen", "rejected", "margins", "accuracies")] == [[0.25], [-0.125], [0.375], [1.0]]


def test_every_term_is_worked_by_hand() -> None:
    assert {name for loss, _ in BY_HAND.values() for name in loss.terms} == set(TERMS)


def test_the_tail_of_the_longer_answer_counts_in_part() -> None:
    """Answers of 3 and 2 tokens, and of 1 and 3, with a padded column between."""
    import torch

    log_probs = torch.tensor([[-1.0, -2.0, -4.0, -9.0], [-1.0, 0.0, 0.0, 0.0], [-3.0, -5.0, 0.0, 0.0], [-7.0, -1.0, -1.0, 0.0]])
    real = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]])
    assert answer_scores(log_probs, real, 0.5).tolist() == [-3 - 4.5, -1, -8, -7 - 1]
    assert answer_scores(log_probs, real, 0.0).tolist() == [-3, -1, -8, -7]
    assert answer_scores(log_probs * real, real, 1.0).tolist() == answer_scores(log_probs * real, real, None).tolist()


def test_terms_are_read_with_their_weights() -> None:
    assert read_terms("sigmoid") == {"sigmoid": 1.0}
    assert read_terms("sigmoid=0.8, bco_pair=0.2,sft") == {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}
    for text, message in (("sft=1,sft=2", "sft is named twice"), ("sigmoid=much", "'much' is not a number; write NAME=WEIGHT,...")):
        with pytest.raises(UsageError, match=message):
            read_terms(text)


def test_what_the_loss_would_ignore_is_refused() -> None:
    with pytest.raises(UsageError) as refusal:
        PreferenceLoss({"sigmoid": 1.0, "sft": -1, "bco_pair": float("nan")}, beta=0, label_smoothing=0.2)
    assert str(refusal.value) == (
        "the weight of sft is -1; it must be more than 0; the weight of bco_pair is nan; it must be more than 0; "
        "beta is 0; it must be more than 0; label smoothing belongs to the robust loss; sigmoid, sft, bco_pair would ignore it"
    )
    with pytest.raises(UsageError) as refusal:
        PreferenceLoss({"ipo": 1.0, "dpo": 1.0}, ld_alpha=1.5)
    assert str(refusal.value) == (
        "no such loss: 'dpo'; there are sigmoid, hinge, ipo, robust, sigmoid_norm, bco_pair, sft; "
        "ld_alpha is 1.5; it must be from 0 to 1; ipo divides by the length already; leave out ld_alpha"
    )
    with pytest.raises(UsageError, match="the loss compares no pairs; dream sft trains on responses alone"):
        PreferenceLoss({"sft": 1.0})
