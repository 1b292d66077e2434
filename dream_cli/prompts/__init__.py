"""Our prompts as files, rendered here, and the parsers of their answers beside them."""
