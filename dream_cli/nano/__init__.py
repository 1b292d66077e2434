"""The embedded model: its world, its recipe and its weights."""
