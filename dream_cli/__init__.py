"""Disentangle, judge and reduce the risks of vision-language models: the nouns behind the `dream` commands."""

__version__ = "0.1.0"
