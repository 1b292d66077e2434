"""Documentation that runs: the commands of README and docs, their output where it is shown, and the links between pages.

Each `console` block is run in a folder of its page: lines that start with `$ ` are commands, the lines below are their output, in which
`...` stands for anything. Each `python` block is run too. A comment `<!-- not run: REASON -->` before a block keeps it from being run.
All other `dream` lines are parsed: their commands and options must exist.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dream_cli.cli.main import COMMANDS, load
from tests.conftest import CHECKOUT, Workdir

PAGES = [CHECKOUT / "README.md", *sorted(page for page in (CHECKOUT / "docs").glob("*.md") if page.name != "reference.md")]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = [page.name for page in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of a page in a language that are to be run."""
    return [found["body"] for found in BLOCK.finditer(page.read_text()) if found["language"] == language and not found["reason"]]


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a console block, each with the output that is shown below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def fits(shown: str, output: str) -> bool:
    """Whether an output is what is shown, where `...` is anything."""
    pattern = ".*".join(re.escape(piece) for piece in shown.rstrip("\n").split("..."))
    return re.fullmatch(pattern, output.rstrip("\n"), re.DOTALL) is not None


@pytest.fixture
def bench(work: Workdir) -> Workdir:
    """A folder with the examples, and `dream` on the path."""
    shutil.copytree(CHECKOUT / "examples", work.path / "examples", ignore=shutil.ignore_patterns("benchmarks", "nano"))
    shim = work.path / "bin" / "dream"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m dream_cli "$@"\n')
    shim.chmod(0o755)
    work.env |= {"PATH": f"{shim.parent}:{work.env['PATH']}", "PYTHONPATH": str(CHECKOUT), "COLUMNS": "100"}
    return work


@pytest.mark.local
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_commands_of_a_page_run_and_print_what_it_shows(page: Path, bench: Workdir) -> None:
    for block in blocks(page, "console"):
        for command, shown in commands(block):
            ran = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                cwd=bench.path,
                env=bench.env,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert ran.returncode == 0, (command, ran.stdout[-500:], ran.stderr[-500:])
            assert not shown or fits(shown, ran.stdout) or fits(shown, ran.stderr), (command, ran.stdout, ran.stderr)


@pytest.mark.local
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_python_of_a_page_runs(page: Path, bench: Workdir) -> None:
    for block in blocks(page, "python"):
        ran = subprocess.run(
            [sys.executable, "-c", block], cwd=bench.path, env=bench.env, capture_output=True, text=True, timeout=300, check=False
        )
        assert ran.returncode == 0, (block, ran.stderr)


def lines(page: Path) -> Iterator[str]:
    """Yield the command lines of all code of a page, those that run and those that do not."""
    text = page.read_text()
    for line in re.findall(r"^(?:    |\$ )(.*)$", text, re.MULTILINE):
        yield line.partition("  #")[0]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    for line in lines(page):
        for piece in re.split(r"\|\||&&|[|;]", line):
            words = piece.split()
            if words[:1] != ["dream"] or len(words) < 2 or words[1].startswith("-"):
                continue
            assert words[1] in COMMANDS, piece
            known = {name for param in load(words[1]).params for name in (*param.opts, *param.secondary_opts)}
            named = {word.partition("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
            assert named <= known | {"--help"}, (piece, named - known)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_pipe_of_stages_stands_below_pipefail(page: Path) -> None:
    # A block is fenced or indented; a reader copies it whole.
    for block in re.findall(r"(?:^(?:    |\$ ).*\n)+", page.read_text(), re.MULTILINE):
        if re.search(r"dream \S+.*\| dream ", block):
            assert "set -o pipefail" in block


@pytest.mark.parametrize("script", sorted((CHECKOUT / "examples").rglob("*.sh")), ids=lambda script: script.name)
def test_scripts_stop_at_a_stage_that_fails(script: Path) -> None:
    assert re.search(r"^set -e?uo pipefail$", script.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "page", [*PAGES, *(CHECKOUT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))], ids=lambda page: page.name
)
def test_every_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in headings], link


def test_the_messages_of_troubleshooting_are_those_of_the_code() -> None:
    sources = [file.read_text() for folder in ("dream_cli", "commands") for file in (CHECKOUT / folder).rglob("*.py")]
    table = (CHECKOUT / "docs" / "troubleshooting.md").read_text().partition("|---|")[2].partition("\n\n")[0]
    messages = [message for row in table.splitlines()[1:] for message in re.findall("`(.+?)`", row.split("|")[1])]
    assert len(messages) > 20
    for message in messages:
        assert any(message in source for source in sources), message


def test_what_is_not_run_says_why() -> None:
    assert [found["reason"] for page in PAGES for found in BLOCK.finditer(page.read_text()) if found["reason"]] == ["needs a server"]


@pytest.mark.local
def test_the_cells_of_the_notebook_run(bench: Workdir) -> None:
    cells = json.loads((CHECKOUT / "examples" / "stages.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=bench.path, env=bench.env, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"6 records, \d+ pairs\n", ran.stdout), ran.stdout
