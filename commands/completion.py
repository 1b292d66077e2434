"""Completion of commands and options in the shell.    eval "$(dream completion bash)\""""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Shell = Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]


def run(shell: Shell) -> None:
    """Print the script that makes a shell complete commands, options and their values at a tab.

    bash, in ~/.bashrc: eval "$(dream completion bash)"

    zsh, in ~/.zshrc after compinit: eval "$(dream completion zsh)"

    fish: dream completion fish > ~/.config/fish/completions/dream.fish

    Example: dream completion bash
    """
    from dream_cli.cli.completion import script

    typer.echo(script(shell))
