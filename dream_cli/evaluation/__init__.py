"""What `dream eval`, `prefer`, `agree` and `leak` compute: verdicts, rates, cards, comparisons, agreement, contamination."""
