"""The embedded model: its weights and its small world."""
