"""How the embedded model nano is made and measured; run from the checkout, not installed."""
