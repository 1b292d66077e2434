"""The papers of the repository: licence, citation, version, and what is named in them exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import dream_cli

CHECKOUT = Path(__file__).parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def test_the_version_stands_once_and_the_citation_and_the_change_log_agree() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "dream_cli.__version__"}
    assert f"\nversion: {dream_cli.__version__}\n" in (CHECKOUT / "CITATION.cff").read_text()
    released = re.findall(r"^## (\d+\.\d+\.\d+)", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == dream_cli.__version__


def test_the_licence_is_apache_2_everywhere() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert (CHECKOUT / "LICENSE").read_text().lstrip().startswith("Apache License")
    assert "\nlicense: Apache-2.0\n" in (CHECKOUT / "CITATION.cff").read_text()


@pytest.mark.parametrize("paper", ["CONTRIBUTING.md", ".ci/README.md"])
def test_every_file_that_a_paper_names_exists(paper: str) -> None:
    text = (CHECKOUT / paper).read_text()
    named = [
        name
        for name in re.findall(r"`((?:dream_cli|tests|examples|commands|constraints|\.ci)/[\w./-]+|[A-Z]+\.md)`", text)
        if "NAME" not in name
    ]
    assert named, "the pattern matches nothing"
    assert [name for name in named if not (CHECKOUT / name).exists()] == []


def test_every_make_target_that_a_paper_names_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for paper in ("CONTRIBUTING.md", ".ci/README.md", "README.md"):
        named = set(re.findall(r"(?:`|^ +)(?:PYTHON=\S+ )?make ([\w-]+)", (CHECKOUT / paper).read_text(), re.MULTILINE))
        assert named <= targets, (paper, named - targets)
