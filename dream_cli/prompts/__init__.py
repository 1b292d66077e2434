"""The prompts: templates, their rendering, and the parsers of the answers."""
