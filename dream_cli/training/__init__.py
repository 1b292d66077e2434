"""Training with `dream sft` and `dream dpo`: rows, models, checks before the weights are loaded, checkpoints, reports."""
