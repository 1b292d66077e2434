"""Shell completion: the script that a shell loads once, and the completions that it requests at each tab."""

from __future__ import annotations

import sys
from typing import Any

VARIABLE = "_DREAM_COMPLETE"


def script(shell: str) -> str:
    """Return the script with which bash, zsh or fish gets completions from `dream`."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    return str(get_completion_script(prog_name="dream", complete_var=VARIABLE, shell=shell))


def answer(table: Any, instruction: str) -> None:
    """Write the completions at the cursor; none where the line cannot be parsed, so that the shell completes file names."""
    # Typer imports rich if it is installed, which takes longer than everything else, and the help has no markup. The process ends
    # after the answer, so nothing else needs rich.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    from typer.completion import completion_init, shell_complete  # type: ignore[attr-defined]

    from dream_cli.errors import DreamError

    completion_init()
    try:
        shell_complete(table, {}, "dream", VARIABLE, instruction)
    except DreamError:
        sys.stderr.flush()
