"""The man page is made from the code, and man can read it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.cli.main import COMMANDS
from dream_cli.cli.man_page import text
from tests.conftest import Workdir


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page as the command prints it."""
    ran = Workdir(tmp_path_factory.mktemp("man")).dream("man")
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def test_every_command_is_in_the_page(page: str) -> None:
    assert [line[11:-1] for line in page.splitlines() if line.startswith(".SS")] == list(COMMANDS)
    assert ".B \\-\\-images <inline|extract|paths>" in page and "DREAM_JUDGE" in page


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_man_shows_the_page(page: str) -> None:
    shown = subprocess.run(["man", "--warnings", "-l", "-"], check=True, input=page, capture_output=True, text=True)
    assert shown.stderr == ""
    assert "dream judge" in shown.stdout and "--score" in shown.stdout.replace("‐", "-").replace("−", "-")


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_finds_nothing_wrong(page: str) -> None:
    # A page made from the code has no date; long lines are a matter of style.
    complaints = subprocess.run(["mandoc", "-Tlint", "-W", "warning"], check=False, input=page, capture_output=True, text=True).stdout
    assert [line for line in complaints.splitlines() if "missing date" not in line] == []


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_no_text_is_taken_for_a_request(value: str) -> None:
    assert all(line[:1] not in (".", "'") for line in text(value).splitlines())
