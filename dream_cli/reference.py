"""The reference page, made from the code.    python -m dream_cli.reference commands/README.md"""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from dream_cli.main import COMMANDS, app

BEGIN, END = "<!-- help -->", "<!-- /help -->"


def reference() -> str:
    """Return the help of every command as Markdown, 80 columns wide."""
    table = typer.main.get_command(app)
    blocks = []
    for name in COMMANDS:
        with table.make_context("dream", [], resilient_parsing=True) as parent:
            command = table.get_command(parent, name)  # type: ignore[attr-defined]
            with command.make_context(f"dream {name}", [], resilient_parsing=True, terminal_width=80) as context:
                blocks.append(f"### dream {name}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(blocks)


def renewed(page: str) -> str:
    """Return a page with the part between the two marks made anew."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{reference()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text()))
