"""Statistics as pure functions: confidence intervals and agreement."""
