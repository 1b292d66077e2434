"""Completion at a tab, as each shell asks for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dream_cli.cli.main import COMMANDS
from tests.conftest import Workdir


def offered(work: Workdir, *words: str) -> list[str]:
    """What bash is offered for the last of these words."""
    work.env |= {"_DREAM_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["dream", *words]), "COMP_CWORD": str(len(words))}
    ran = work.dream()
    assert (ran.code, ran.err) == (0, "")
    return ran.out.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("",), list(COMMANDS)),
        (("conv",), ["convert"]),
        (("convert", "--im"), ["--images", "--image-folder", "--image-root", "--image-column"]),
        (("convert", "in.jsonl", "--to", "l"), ["llamafactory", "llava"]),
        (("judge", "--score", "su"), ["sum"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        # Files are offered by the shell itself.
        (("judge", "rec"), []),
        (("nothing", "--x"), []),
    ],
)
def test_bash_is_offered_commands_options_and_values(work: Workdir, words: tuple[str, ...], expected: list[str]) -> None:
    assert offered(work, *words) == expected


def test_neither_torch_nor_rich_is_imported_at_a_tab(work: Workdir) -> None:
    line = "import sys\nimport dream_cli.cli.main as m; m._leave = lambda code: None; m.main()\n"
    line += "heavy = {'torch', 'transformers', 'pyarrow', 'PIL', 'aiohttp', 'rich.console'} & set(sys.modules); assert not heavy, heavy"
    env = work.env | {"_DREAM_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "dream "}
    done = subprocess.run([sys.executable, "-c", line], check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "Score how well each response" in done.stdout


# Each shell reads the script and completes the words: bash by its own variables, fish by `complete -C`; zsh needs a terminal.
SHELLS = {
    "bash": "source ./script; COMP_WORDS=(dream convert --to l); COMP_CWORD=3; _dream_completion dream; echo ${COMPREPLY[@]}",
    "fish": "source ./script; complete -C 'dream convert --to l' | string join ' '",
    "zsh": "autoload -Uz compinit && compinit -D; source ./script; "
    "_arguments() { print -r -- $1 }; words=(dream convert --to l); CURRENT=4; _dream_completion",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_completes_with_the_script(work: Workdir, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    ran = work.dream("completion", shell)
    assert ran.code == 0
    (work.path / "script").write_text(ran.out)
    command = work.path / "bin" / "dream"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m dream_cli "$@"\n')
    command.chmod(0o755)
    env = work.env | {"PATH": f"{command.parent}:{work.env['PATH']}", "HOME": str(work.path), "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([shell, "-c", SHELLS[shell]], check=False, capture_output=True, text=True, cwd=work.path, env=env)
    assert "llava" in done.stdout and "llamafactory" in done.stdout and "openai" not in done.stdout, done.stderr
