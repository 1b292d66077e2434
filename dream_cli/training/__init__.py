"""What `dream sft` and `dream dpo` share: rows, models, checks before the weights are loaded, checkpoints, reports."""
