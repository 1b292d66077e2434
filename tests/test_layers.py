"""The directions of the house, and that everything in it is shipped."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
MODULES = sorted([*CHECKOUT.glob("dream_cli/**/*.py"), *CHECKOUT.glob("commands/*.py")])


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_nothing_imports_a_command(path: Path) -> None:
    assert [name for name in imports(path) if name.split(".")[0] == "commands" or name.startswith("dream_cli.commands")] == []


@pytest.mark.parametrize("name", ["records/record", "errors"])
def test_the_record_stands_on_the_standard_library_alone(name: str) -> None:
    others = {n.split(".")[0] for n in imports(CHECKOUT / "dream_cli" / f"{name}.py")} - set(sys.stdlib_module_names)
    assert others <= {"dream_cli"}


def test_only_the_loader_names_the_engines() -> None:
    engines = {f"dream_cli.engines.{name}" for name in ("openai_server", "transformers", "vllm")}
    others = [path for path in MODULES if path.stem not in ("transformers", "vllm", "openai_server")]
    assert {path.name for path in others if engines & set(imports(path))} == {"registry.py"}


def test_every_command_file_is_in_the_table() -> None:
    from dream_cli.cli.main import COMMANDS

    assert {path.stem for path in CHECKOUT.glob("commands/*.py")} - {"__init__"} == set(COMMANDS)


def test_every_subpackage_is_in_the_wheel() -> None:
    listed = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(p.parent.relative_to(CHECKOUT).parts) for p in CHECKOUT.glob("dream_cli/**/__init__.py")}
    assert set(listed) == found | {"dream_cli.commands"}


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("commands/*.py")), ids=lambda p: p.stem)
def test_a_command_stays_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 120
