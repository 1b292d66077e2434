"""The man page of dream.    dream man > ~/.local/share/man/man1/dream.1"""

from __future__ import annotations

import typer


def run() -> None:
    """Print the man page, made from what the commands say of themselves.

    To have it where man looks for it: dream man > ~/.local/share/man/man1/dream.1

    Example: dream man | man -l -
    """
    from dream_cli.cli.man_page import manual

    typer.echo(manual(), nl=False)
