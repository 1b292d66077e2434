"""The environment variables of options: DREAM_COMMAND_OPTION sets an option of one command and overrides a shared variable."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

from dream_cli.records.visible import visible_line

# The variables that several commands share, or that are read outside the options; a test compares the list with the options.
SHARED = frozenset(
    f"DREAM_{name}"
    for name in (
        *(
            "MODEL",
            "BASE_URL",
            "JUDGE",
            "JUDGE_BASE_URL",
            "ENGINE",
            "ENGINE_ARGS",
            "MODEL_TAG",
            "CONCURRENCY",
            "TIMEOUT",
            "BATCH_SIZE",
            "STORE",
        ),
        *("PRICE_IN", "PRICE_OUT", "PRICE_CACHED", "MAX_COST", "RPM", "TPM"),
        *("IMAGE_ROOT", "IMAGE_COLUMN", "PROMPT_COLUMN", "HARMFUL_COLUMN", "MAX_PIXELS", "TRAIN_BATCH_SIZE"),
    )
)
_KEY = re.compile(r"DREAM_([A-Z]+_)?(\d+_)?API_KEY")


def add_variables(command: Any, name: str) -> None:
    """Add to every option of a command its own variable, DREAM_COMMAND_OPTION, which is read first."""
    for param in command.params:
        if param.param_type_name != "option" or not param.allow_from_autoenv:
            continue
        own = variable_of(name, param)
        if param.envvar is None and own != f"DREAM_{name}_{param.name}".upper():
            # The option has another name in the code, from which click would derive its variable.
            param.envvar = own
        elif param.envvar is not None:
            # Read first but not shown: the help names the variable for all commands.
            vars(param)["resolve_envvar_value"] = _first(own, param.resolve_envvar_value)


def variable_of(name: str, param: Any) -> str:
    """Return the variable of one option of a command."""
    return f"DREAM_{name}_{max(param.opts, key=len).lstrip('-')}".upper().replace("-", "_")


def _first(own: str, other: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    return lambda ctx: os.environ.get(own) or other(ctx)


def report_unknown(commands: Iterable[str], load: Callable[[str], Any]) -> None:
    """Report on stderr each environment variable that begins like dream's and has no effect."""
    for variable in sorted(name for name in os.environ if name.startswith("DREAM_") and name not in SHARED and not _KEY.fullmatch(name)):
        rest = variable.removeprefix("DREAM_")
        owner = next(iter(difflib.get_close_matches(rest.partition("_")[0].lower(), commands, 1, cutoff=0.75)), None)
        known = _variables(load(owner), owner) if owner else set()
        if variable not in known:
            # Compared without the common beginning, which makes any two names similar.
            begin = f"DREAM_{owner.upper()}_" if owner else "DREAM_"
            names = [name.removeprefix(begin) for name in known or SHARED]
            near = difflib.get_close_matches(rest.partition("_")[2] if owner else rest, names, 1, cutoff=0.75)
            hint = f"; did you mean {begin}{near[0]}?" if near else ""
            sys.stderr.write(f"dream: the environment variable {visible_line(variable)} sets nothing{hint}\n")


def _variables(command: Any, name: str) -> set[str]:
    """Return the variables of the options of one command, including those with the name of the option in the code."""
    options = [param for param in command.params if param.param_type_name == "option"]
    return {variable_of(name, param) for param in options} | {f"DREAM_{name}_{param.name}".upper() for param in options}
