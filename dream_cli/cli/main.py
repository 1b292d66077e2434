"""The table of commands, and the boundary at which errors become messages and exit codes."""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from dream_cli import __version__
from dream_cli.cli.arguments import Command, expanded
from dream_cli.cli.completion import VARIABLE, answer
from dream_cli.cli.signals import ignore_signals, occupy_closed_streams, raise_interrupts
from dream_cli.cli.variables import add_variables, report_unknown
from dream_cli.errors import DreamError, NoMatch, RunFailure, UsageError
from dream_cli.records.visible import visible

COMMANDS = (
    "disentangle",
    "sample",
    "judge",
    "pair",
    "sft",
    "dpo",
    "eval",
    "agree",
    "prefer",
    "convert",
    "leak",
    "view",
    "diff",
    "why",
    "store",
    "doctor",
    "completion",
    "man",
)


_PLACEHOLDERS = {"<int>": "N", "<int range>": "N", "<float>": "NUMBER", "<float range>": "NUMBER", "<str>": "TEXT"}


def load(name: str) -> Any:
    """Return the click command of one file in `commands/`."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    settings = {"help_option_names": ["-h", "--help"]}
    alone.command(name, cls=Command, context_settings=settings)(expanded(import_module(f"dream_cli.commands.{name}").run))
    command: Any = typer.main.get_command(alone)
    # The summary in the table of commands, which click would otherwise truncate.
    command.short_help = str(command.help).partition("\n\n")[0]
    add_variables(command, name)
    for param in command.params:
        # Set on the instance, as in parse_args.
        vars(param)["display_type"] = _plain(param)
    return command


def _plain(param: Any) -> Callable[[Any], str]:
    """Return the function that shows the type of a parameter: a placeholder in capitals, nothing for an argument with a name."""
    if param.param_type_name == "argument":
        return lambda ctx: ""
    shown = param.display_type
    return lambda ctx: _PLACEHOLDERS.get(str(shown(ctx)), shown(ctx))


class CommandTable(TyperGroup):
    """Loads a command's file when it is used, so that a command does not spend time on importing the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the pipeline."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the click command of one file in `commands/`; raise UsageError where there is no such file."""
        if cmd_name not in COMMANDS:
            close = difflib.get_close_matches(cmd_name, COMMANDS, 1)
            raise UsageError(
                f"no command {cmd_name!r}; " + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(COMMANDS)}")
            )
        return load(cmd_name)


app = typer.Typer(
    cls=CommandTable,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"auto_envvar_prefix": "DREAM", "help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dream {__version__}")
        raise typer.Exit


@app.callback()
def dream(
    version: bool = typer.Option(
        False, "-V", "--version", callback=_version, is_eager=True, allow_from_autoenv=False, help="Print the version."
    ),
) -> None:
    """Disentangle, judge and reduce the risks of vision-language models.

    Each command reads records (JSONL or Parquet) and writes records, so that they pipe (with set -o pipefail, so that a stage that
    fails fails the pipe):

    dream disentangle in.jsonl | dream sample -n 4 | dream judge | dream pair > pairs.jsonl
    """


def main() -> None:
    """Run `dream` and exit with 0 (all rows), 1 (some rows have an error), 2 (could not continue), or 128 + the signal that ended it."""
    occupy_closed_streams()
    signals, context = raise_interrupts(), None
    try:
        if instruction := os.environ.get(VARIABLE):
            answer(typer.main.get_command(app), instruction)
        else:
            # Not through click's main(), which has its own exit codes for a closed pipe and an interrupt.
            with _context(_spelled_out(sys.argv[1:])) as context:
                _invoke(context)
        _leave(0)
    except BrokenPipeError:
        _leave(0)
    except SystemExit as stop:
        # rich ends the process if its output is closed.
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        _leave(0)
    except typer.Exit as stop:
        _leave(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        ignore_signals()
        _leave(128 + (signals or [signal.SIGINT])[0], f"interrupted{_continuation(context)}")
    except RunFailure as error:
        _leave(2, f"{error}{_continuation(context)}")
    except DreamError as error:
        _leave(1 if isinstance(error, NoMatch) else 2, str(error))
    except OSError as error:
        # Files are opened by name: an error without a file name is about a standard stream.
        _leave(2, str(error) if error.filename else f"cannot write stdout: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - printed with its traceback, with exit code 2
        # click's own usage errors; its classes are not imported here because typer may ship its own copy of them.
        if hasattr(error, "format_message"):
            _leave(2, error.format_message())
        # Python's own exit code is 1, which here means that some rows have an error: a calling loop would continue.
        sys.excepthook(*sys.exc_info())
        _leave(2)


def _invoke(context: Any) -> None:
    """Run a command; an exception that an interrupt causes while the command ends is raised as that interrupt."""
    try:
        context.command.invoke(context)
    except Exception as error:
        cause: BaseException | None = error
        # An event loop that ends and is interrupted in the same step raises RuntimeError when it is closed.
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__context__
        if cause is not None:
            raise KeyboardInterrupt from error
        raise


def _continuation(context: Any) -> str:
    """Return the hint how to continue a stopped run; empty for a command that makes no calls."""
    options = {} if context is None else context.params
    if "no_store" not in options:
        return ""
    kept = "" if options["no_store"] or options.get("dry_run") else ": calls in the store are not repeated"
    return f"; run the same command again{' to continue' if kept else ''}{kept}"


def _spelled_out(args: list[str]) -> list[str]:
    """Return a command line in which `help`, `help COMMAND`, `version` and an empty line are replaced by options."""
    match args:
        case [] | ["help"]:
            return ["--help"]
        case ["help", name, *_]:
            return [name, "--help"]
        case ["version"]:
            return ["--version"]
        case ["view", *rest]:
            # -n is the number of samples in dream sample; dream view still accepts it, undocumented, as an old name of --limit.
            return ["view", *(re.sub(r"^-n(?=\d*$)", "-l", word) for word in rest)]
    return args


def _context(args: list[str]) -> Any:
    # A named command is loaded without the table of commands, whose options double the time of a --help.
    report_unknown(COMMANDS, load)
    if args and args[0] in COMMANDS:
        return load(args[0]).make_context(f"dream {args[0]}", args[1:], auto_envvar_prefix=f"DREAM_{args[0].upper()}")
    return typer.main.get_command(app).make_context("dream", args, auto_envvar_prefix="DREAM")


def _leave(code: int, message: str = "") -> None:
    """Exit with a code and a message, without Python's shutdown.

    A thread that is blocked reading stdin holds the lock of the stream, and the shutdown would wait for it until the input ends.
    Nothing is lost: files and stores are closed by the code that opened them, and the two streams are flushed here.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        # The earlier error may have had the same cause, with the message of a library.
        code, message = 2, f"cannot write stdout: {error.strerror}"
    with suppress(OSError):
        sys.stderr.write(f"dream: {visible(message)}\n" if message else "")
        sys.stderr.flush()
    os._exit(code)
