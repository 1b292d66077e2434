"""The man page of dream.    dream man > ~/.local/share/man/man1/dream.1"""

from __future__ import annotations

import typer


def run() -> None:
    """Print the man page.

    To install it: dream man > ~/.local/share/man/man1/dream.1

    Example: dream man | man -l -
    """
    from dream_cli.cli.man_page import manual

    typer.echo(manual(), nl=False)
