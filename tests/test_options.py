"""Every option of every command arrives where it is used, and nothing else changes with it."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module, util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from dream_cli.cli.main import COMMANDS, load
from tests.option_commands import COMMAND_LINES, ENTRIES, STAGE
from tests.option_rows import ROWS
from tests.shared_option_rows import Row

pytestmark = pytest.mark.filterwarnings("ignore")
TRAINING = ("sft", "dpo")


@dataclass(frozen=True)
class Engine:
    """Stands for an opened engine, whose model carries no prompts."""

    checkpoint: None = None


@dataclass(frozen=True)
class Loaded:
    """Stands for the prompts: where they are read from."""

    folder: Path | None = None
    taxonomy: Path | None = None


@dataclass
class Calls:
    """The calls of the functions that a command hands its options to, as a flat table: `function.parameter.field` and its value."""

    leaves: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def watch(self, function: Callable[..., Any], result: Any) -> Callable[..., Any]:
        """Return a stand-in that notes its arguments and returns `result`, an error or a function of the arguments."""

        def stand_in(*values: Any, **named: Any) -> Any:
            bound = inspect.signature(function).bind(*values, **named)
            bound.apply_defaults()
            self.names.append(function.__name__)
            count = self.names.count(function.__name__)
            self.note(function.__name__ + (f"[{count}]" if count > 1 else ""), bound.arguments)
            return result(**bound.arguments) if callable(result) else result

        return stand_in

    def note(self, place: str, value: Any) -> None:
        if is_dataclass(value) and not isinstance(value, type):
            for one in fields(value):
                self.note(f"{place}.{one.name}", getattr(value, one.name))
        elif isinstance(value, Mapping):
            for name, one in value.items():
                self.note(f"{place}.{name}", one)
        elif isinstance(value, Sequence) and any(map(is_dataclass, value)):
            for number, one in enumerate(value):
                self.note(f"{place}[{number}]", one)
        elif value in (sys.stdout, sys.stderr):
            self.leaves[place] = value.name
        elif not callable(value) and not isinstance(value, SimpleNamespace):
            self.leaves[place] = value

    def stage(self, run: Any, spec: Any, make_step: Callable[[Any], Any], summary: Any) -> Any:
        """Stand for run_stage: make the step with an engine that answers nothing."""
        from dream_cli.method.tally import Tally

        self.note("step", make_step(Engine()))
        return Tally()


def arrived(name: str, line: str, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run a command in this process with stand-ins for what it calls; return the values that arrived there, and what it wrote."""
    calls = Calls()
    with pytest.MonkeyPatch.context() as patch:
        for place, result in ENTRIES[name].items():
            module, _, function = place.partition(":")
            home = import_module(module)
            patch.setattr(home, function, calls.watch(getattr(home, function), calls.stage if result is STAGE else result))
        for module in ("dream_cli.engines.registry", "dream_cli.evaluation.evaluating"):
            patch.setattr(f"{module}.check_model", lambda *_: None)
        patch.setattr("dream_cli.prompts.rendering.Prompts.load", Loaded)
        without_hardware(patch, name)
        capfd.readouterr()
        with load(name).make_context(f"dream {name}", shlex.split(line), auto_envvar_prefix=f"DREAM_{name.upper()}") as context:
            try:
                context.command.invoke(context)
            except typer.Exit as stop:
                calls.leaves["exit"] = stop.exit_code
        written = capfd.readouterr()
    return calls.leaves | {"stdout": written.out, "stderr": written.err}


def without_hardware(patch: pytest.MonkeyPatch, name: str) -> None:
    """Pretend that there are the packages and the GPU that an option needs."""
    if name in TRAINING:
        real = util.find_spec
        patch.setattr("importlib.util.find_spec", lambda module: SimpleNamespace() if module in ("bitsandbytes", "wandb") else real(module))
        patch.setattr("torch.cuda.is_available", lambda: True)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with the files and folders that the rows name, and without variables of dream's."""
    for variable in [variable for variable in os.environ if variable.startswith("DREAM_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    for file in ("in.jsonl", "other.jsonl", "a.jsonl", "b.jsonl"):
        (tmp_path / file).write_text('{"id": "1", "prompt": "What is this?"}\n')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "adapter_config.json").write_text("{}")
    (tmp_path / "taxonomy.json").write_text((Path(util.find_spec("dream_cli").origin).parent / "prompts" / "taxonomy.json").read_text())  # type: ignore[union-attr,arg-type]
    return tmp_path


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_row(name: str) -> None:
    assert {param.name for param in load(name).params if param.name != "help"} == {row.option for row in ROWS[name]}


@pytest.mark.parametrize(("name", "row"), [pytest.param(name, row, id=f"{name} {row.line}") for name in COMMANDS for row in ROWS[name]])
def test_an_option_arrives_and_changes_nothing_else(name: str, row: Row, capfd: pytest.CaptureFixture[str]) -> None:
    if name in TRAINING:
        pytest.importorskip("trl")
    base = COMMAND_LINES[name] if row.base is None else row.base
    before, after = arrived(name, base, capfd), arrived(name, row.line if row.instead else f"{base} {row.line}", capfd)
    assert {place: value for place, value in after.items() if place not in before or before[place] != value} == row.changes


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_and_its_variable_are_the_same(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    if name in TRAINING:
        pytest.importorskip("trl")
    options = {param.name: param for param in load(name).params}
    for row in ROWS[name]:
        words = shlex.split(row.line)
        param = options[row.option]
        base = f"{COMMAND_LINES[name] if row.base is None else row.base} "
        if len(words) != 2 or param.multiple or param.param_type_name != "option" or set(param.opts) & set(base.split()):
            continue
        shared = param.envvar if isinstance(param.envvar, str) else (param.envvar or [None])[0]
        variable = shared or f"DREAM_{name.upper()}_{row.option.upper()}"
        by_option = arrived(name, base + row.line, capfd)
        with variables({variable: words[1]}):
            assert (variable, arrived(name, base, capfd)) == (variable, by_option)
