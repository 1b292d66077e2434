"""The man page as roff, generated from the help of the commands."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from dream_cli import __version__
from dream_cli.cli.command_reference import commands
from dream_cli.cli.main import app
from dream_cli.cli.variables import SHARED

_EXITS = {
    "0": "All rows were processed.",
    "1": "Some rows have an error; they are in the output with an `error` field.",
    "2": "The command could not continue: its arguments, its files, or the server or model as a whole.",
    "130": "Interrupted (Ctrl-C; SIGTERM: 143, SIGHUP: 129); run the same command again to continue: calls in the store are not repeated.",
}
_TWINS = "Every option can also be set by an environment variable; an option on the command line takes precedence."


def manual() -> str:
    """Return the page dream(1) as roff."""
    from typer.main import get_command

    first, *rest = paragraphs(get_command(app).help)
    table = list(commands())
    lines = [f'.TH DREAM 1 "" "dream {__version__}" "User Commands"']
    lines += [".SH NAME", rf"dream \- {text(first[:1].lower() + first[1:].rstrip('.'))}"]
    lines += [".SH SYNOPSIS", ".B dream", ".I COMMAND", "[OPTIONS] [FILE]", ".SH DESCRIPTION", *_body(rest)]
    lines += [".SH COMMANDS"]
    for name, command, context in table:
        usage = f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"
        lines += [f'.SS "dream {name}"', *_body([usage, *paragraphs(command.help)]), *_options(command, context)]
    lines += [".SH EXIT STATUS", *(line for code, meaning in _EXITS.items() for line in (".TP", f".B {code}", text(meaning)))]
    lines += [".SH ENVIRONMENT", text(_TWINS)]
    lines += [line for name, meaning in _variables(table) for line in (".TP", f".B {name}", text(meaning))]
    return "\n".join(lines) + "\n"


def paragraphs(help_text: str | None) -> list[str]:
    """Return the paragraphs of a docstring, each as one line."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", inspect.cleandoc(help_text or "")) if part.strip()]


def text(plain: str) -> str:
    """Return a text escaped for roff."""
    lines = textwrap.wrap(plain, 78, break_on_hyphens=False, break_long_words=False)
    return "\n".join(map(_line, lines)) or "\\&"


def _line(words: str) -> str:
    escaped = words.replace("\\", "\\e").replace("-", "\\-")
    # roff reads a dot or a quote at the start of a line as a request.
    return "\\&" + escaped if escaped[:1] in (".", "'") else escaped


def _body(parts: list[str]) -> Iterator[str]:
    for number, part in enumerate(parts):
        yield from (".PP", text(part)) if number else (text(part),)


def _options(command: Any, context: Any) -> Iterator[str]:
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None:
            yield from (".TP", f".B {text(record[0])}", text(record[1]))


def _variables(table: list[tuple[str, Any, Any]]) -> list[tuple[str, str]]:
    """Return the environment variables that commands share, with the option that each of them sets."""
    shared = {
        variable: max(param.opts, key=len)
        for _, command, _ in table
        for param in command.params
        for variable in ([param.envvar] if isinstance(param.envvar, str) else param.envvar or [])
        if variable in SHARED
    }
    own = ("DREAM_COMMAND_OPTION", "An option of one command, such as DREAM_SAMPLE_SEED for dream sample --seed.")
    return [*((variable, f"Sets {option}.") for variable, option in sorted(shared.items())), own]
