"""Calls that stay readable: no more than four values are passed by position to what the project defines."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
FILES = sorted([*CHECKOUT.glob("dream_cli/**/*.py"), *CHECKOUT.glob("commands/*.py")])
TREES = {str(path.relative_to(CHECKOUT)): ast.parse(path.read_text()) for path in FILES}
MOST = 4

Function = ast.FunctionDef | ast.AsyncFunctionDef


def definitions(trees: Mapping[str, ast.Module]) -> set[str]:
    """Return the names of the functions and classes that a project defines; without those that take any number of values."""
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    functions = [node for node in nodes if isinstance(node, Function)]
    open_ended = {node.name for node in functions if node.args.vararg}
    return ({node.name for node in functions} | {node.name for node in nodes if isinstance(node, ast.ClassDef)} | {"cls"}) - open_ended


def long_calls(trees: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield the place and the text of each call that passes more than `MOST` values by position; values behind a `*` are not counted."""
    names = definitions(trees)
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and len(node.args) > MOST:
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in names:
                    yield f"{file}:{node.lineno}: {ast.unparse(node)}"


def test_no_call_passes_more_than_four_values_by_position() -> None:
    assert list(long_calls(TREES)) == []


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ("def f(a, b, c, d, e): ...\nf(1, 2, 3, 4, 5)", ["x.py:2: f(1, 2, 3, 4, 5)"]),
        ("def f(a, b, c, d, e): ...\nf(1, 2, 3, 4, e=5)", []),
        ("class A:\n    def __init__(self, a, b, c, d, e): ...\nA(1, 2, 3, 4, 5)", ["x.py:3: A(1, 2, 3, 4, 5)"]),
        ("class A:\n    def f(self, a, b, c, d, e): ...\nA().f(1, 2, 3, 4, 5)", ["x.py:3: A().f(1, 2, 3, 4, 5)"]),
        ("def f(*a): ...\nf(1, 2, 3, 4, 5)\nprint(1, 2, 3, 4, 5)", []),
    ],
)
def test_a_long_call_is_seen(source: str, calls: list[str]) -> None:
    assert list(long_calls({"x.py": ast.parse(source)})) == calls
