"""The reference page of the commands, generated from their help.    python -m dream_cli.cli.command_reference docs/reference.md"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from dream_cli.cli.main import COMMANDS, app

BEGIN, END = "<!-- help -->", "<!-- /help -->"


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the click command and a context 80 columns wide of each command."""
    table: Any = typer.main.get_command(app)
    for name in COMMANDS:
        with table.make_context("dream", [], resilient_parsing=True) as parent:
            command = table.get_command(parent, name)
            with command.make_context(f"dream {name}", [], resilient_parsing=True, terminal_width=80) as context:
                yield name, command, context


def reference() -> str:
    """Return the help of every command as Markdown, 80 columns wide."""
    return "\n".join(f"### dream {name}\n\n```\n{command.get_help(context)}\n```\n" for name, command, context in commands())


def renewed(page: str) -> str:
    """Return a page with the part between the two marks generated again."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{reference()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text()))
