"""Completion of commands and options in the shell.    eval "$(dream completion bash)\""""

from __future__ import annotations

from typing import Annotated

import typer

from dream_cli.records.choices import Shell

ShellName = Annotated[Shell, typer.Argument(metavar="SHELL", help="The shell: bash, zsh or fish.")]


def run(shell: ShellName) -> None:
    """Print the completion script of a shell.

    It completes commands, options and their values.

    bash, in ~/.bashrc: eval "$(dream completion bash)"

    zsh, in ~/.zshrc after compinit: eval "$(dream completion zsh)"

    fish: dream completion fish > ~/.config/fish/completions/dream.fish

    Example: dream completion bash
    """
    from dream_cli.cli.completion import script

    typer.echo(script(shell))
