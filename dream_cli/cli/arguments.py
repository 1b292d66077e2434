"""Command-line parsing: groups of options that commands share, and a report of all problems at once."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeGuard, dataclass_transform, get_type_hints

from typer.core import TyperCommand

from dream_cli.errors import UsageError


@dataclass_transform(frozen_default=True, kw_only_default=True)
class OptionGroup:
    """Options of several commands: like a frozen dataclass with keyword arguments, whose fields declare their options in `Annotated`.

    A real dataclass generates code for each class, which takes longer than the rest of a --help.
    """

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")


def source_of(ctx: Any, name: str) -> str:
    """Return where the value of an option comes from: COMMANDLINE, ENVIRONMENT, or DEFAULT also where the command has no such option."""
    return getattr(ctx.get_parameter_source(name), "name", "DEFAULT")


def expanded(run: Callable[..., None]) -> Callable[..., None]:
    """Return a command's function with every OptionGroup parameter replaced by the fields of the group.

    A call builds the groups again from its values; groups may contain groups. Raise ValueError where two have a field of the same name.
    """
    hints = get_type_hints(run, include_extras=True)
    result = hints.pop("return")
    defaults = {name: parameter.default for name, parameter in inspect.signature(run).parameters.items()}
    flat = [one for name, kind in hints.items() for one in _flat(name, kind, defaults[name])]

    @functools.wraps(run)
    def call(**values: Any) -> None:
        run(**{name: _grouped(name, kind, values) for name, kind in hints.items()})

    vars(call)["__signature__"] = inspect.Signature(flat, return_annotation=result)
    call.__annotations__ = {one.name: one.annotation for one in flat}
    return call


def _flat(name: str, kind: Any, default: Any) -> list[inspect.Parameter]:
    if not _is_group(kind):
        return [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)]
    hints = get_type_hints(kind, include_extras=True)
    return [one for field, inner in hints.items() for one in _flat(field, inner, getattr(kind, field, inspect.Parameter.empty))]


def _grouped(name: str, kind: Any, values: Mapping[str, Any]) -> Any:
    if not _is_group(kind):
        return values[name]
    return kind(**{field: _grouped(field, inner, values) for field, inner in get_type_hints(kind, include_extras=True).items()})


def _is_group(kind: Any) -> TypeGuard[type[OptionGroup]]:
    return isinstance(kind, type) and issubclass(kind, OptionGroup)


class OptionalValue(NamedTuple):
    """An option whose value is optional: the pattern of a value, so that the next argument is not read as one, and the default."""

    pattern: re.Pattern[str]
    default: str


OPTIONAL_VALUES = {"--ray": OptionalValue(re.compile(r"auto|local|(ray://)?(\[[0-9a-fA-F:]+\]|[\w.-]+):\d+"), "auto")}


def with_values(args: list[str]) -> list[str]:
    """Return a command line in which each of `OPTIONAL_VALUES` has a value: the next argument, or the default."""
    result: list[str] = []
    for word in [*args, ""]:
        option = OPTIONAL_VALUES.get(result[-1]) if result else None
        if option is not None:
            value = word if option.pattern.fullmatch(word) else option.default
            result[-1] += f"={value}"
            if value is word:
                continue
        result.append(word)
    return result if result[-1] else result[:-1]


class Command(TyperCommand):
    """A click command that continues after a bad argument, and then raises one UsageError for all of them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments into the context; raise UsageError with a line for each problem."""
        problems: list[str] = []
        guessed: set[str] = set()
        known, left = self._known(ctx, with_values(args), problems, guessed), list[str]()
        for param in self.params:
            # Set on the instance: typer creates the parameters, so no class can be overridden.
            # The value of a misspelt option may belong to another option than the guessed one.
            vars(param)["handle_parse_result"] = _gathering(param.handle_parse_result, [] if guessed & {*param.opts} else problems)
        try:
            # Otherwise the value of an unknown option would also be reported, as an unexpected argument.
            with _gathered([] if problems else problems):
                left = super().parse_args(ctx, known)
        finally:
            # A process may parse a command again: its problems must not be added to this list.
            for param in self.params:
                del vars(param)["handle_parse_result"]
        if problems:
            raise UsageError("\n  ".join([f"{len(problems)} problems with the arguments:", *problems]) if problems[1:] else problems[0])
        return left

    def _known(self, ctx: Any, args: list[str], problems: list[str], guessed: set[str]) -> list[str]:
        """Return the arguments without unreadable options; a misspelt option is read as the most similar one, which is `guessed`."""
        known = list(args)
        while True:
            try:
                self.make_parser(ctx).parse_args(list(known))
            except Exception as error:  # noqa: BLE001 - click's own errors are recognised by their attributes, see _gathered
                wrong = str(getattr(error, "option_name", ""))
                at = next((i for i, arg in enumerate(known) if arg.partition("=")[0] == wrong), None)
                if at is None:
                    return known
                near = getattr(error, "possibilities", None) or ()
                # Compared without the dashes, which make any two options similar.
                meant = next((name for name in near if difflib.get_close_matches(wrong.lstrip("-"), [name.lstrip("-")])), None)
                problems.append(_unknown_option(error, wrong, meant))
                guessed |= {meant} if meant else set()
                if meant:
                    known[at] = known[at].replace(wrong, meant, 1)
                    continue
                # The next word is most likely its value, unless it is a file.
                ends = at + 2 if known[at] == wrong and _is_value(known[at + 1 :]) else at + 1
                del known[at:ends]
            else:
                return known


def _is_value(words: list[str]) -> bool:
    return bool(words) and not words[0].startswith("-") and not os.path.exists(words[0])


def _message(error: Any) -> str:
    """Return the message of a usage error as one line, without the prefix of the parser."""
    return " ".join(str(error.format_message()).split()).replace(": Value error, ", ": ")


def _unknown_option(error: Any, wrong: str, meant: str | None) -> str:
    if not hasattr(error, "possibilities"):
        return _message(error)
    return f"no such option {wrong}" + (f"; did you mean {meant}?" if meant else "")


def _gathering(handle: Callable[..., Any], problems: list[str]) -> Callable[..., Any]:
    """Return a click handler that adds its errors to `problems` and then returns no value."""

    def one(ctx: Any, opts: Any, args: list[str]) -> Any:
        with _gathered(problems):
            return handle(ctx, opts, args)
        return None, args

    return one


@contextmanager
def _gathered(problems: list[str]) -> Iterator[None]:
    """Add usage errors of the body, of click and of dream, to `problems`."""
    try:
        yield
    except UsageError as error:
        problems.append(str(error))
    except Exception as error:
        # click's own usage errors; its classes are not imported here because typer may ship its own copy of them.
        if not hasattr(error, "format_message"):
            raise
        problems.append(_message(error))
