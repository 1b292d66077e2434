"""The computations of `dream eval`, `prefer`, `agree` and `leak`: verdicts, rates, cards, comparisons, agreement, contamination."""
