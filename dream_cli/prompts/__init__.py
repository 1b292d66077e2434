"""Prompts: templates, their rendering, and the parsing of the answers."""
