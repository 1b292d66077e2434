"""The training and the figures of the embedded model nano; run from the checkout, not installed."""
