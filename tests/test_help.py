"""Help is part of the product: every command has it, with an example, and the reference page shows it as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dream_cli.cli.command_reference import renewed
from dream_cli.cli.main import COMMANDS
from tests.conftest import Workdir

REFERENCE = Path(__file__).parent.parent / "docs" / "reference.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(work: Workdir, name: str) -> None:
    ran = work.dream(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert "Example: dream " in ran.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name: str) -> None:
    line = f"import sys; sys.argv = ['dream', '{name}', '--help']\nimport dream_cli.cli.main as m; m._leave = lambda code: None; m.main()\n"
    line += "heavy = {'torch', 'transformers', 'pyarrow', 'PIL', 'aiohttp', 'rich'} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", line], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [["pair", "in.jsonl", "--unbalanced", "-q"], ["convert", "in.jsonl", "-q", "-o", "out.jsonl"]])
def test_records_in_json_are_read_without_arrow(command: list[str], work: Workdir) -> None:
    row = {"prompt": "p", "responses": [{"text": "a"}, {"text": "b"}]}
    work.write("in.jsonl", [row])
    line = f"import sys; sys.argv = {['dream', *command]!r}\n"
    line += "import dream_cli.cli.main as m; m._leave = lambda code: None; m.main()\n"
    line += "heavy = {'torch', 'transformers', 'pyarrow', 'PIL', 'aiohttp'} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", line], check=False, capture_output=True, text=True, cwd=work.path)
    assert done.returncode == 0, done.stderr


def test_the_reference_page_shows_the_help_as_it_is() -> None:
    page = REFERENCE.read_text()
    assert page == renewed(page), "python -m dream_cli.cli.command_reference docs/reference.md"
