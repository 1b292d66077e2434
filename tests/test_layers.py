"""The directions of the house, and that everything in it is shipped."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted([*CHECKOUT.glob("dream_cli/**/*.py"), *CHECKOUT.glob("commands/*.py")])
}
# The rooms, floor by floor from the top. A file imports from its own room and from lower floors, nothing else.
FLOORS = (
    ("commands", "__main__"),
    ("cli",),
    ("evaluation", "api"),
    ("viewing", "training", "benchmarks", "method"),
    ("formats",),
    ("engines", "prompts"),
    ("nano",),
    ("records", "stats"),
    ("errors",),
)
FLOOR = {room: -depth for depth, rooms in enumerate(FLOORS) for room in rooms}
# What a room may import besides the standard library before a function of it runs.
OUTSIDE = {"errors": set(), "stats": set(), "records": {"pyarrow", "PIL", "msgspec", "orjson"}}
ENGINES = ("openai_server", "transformers", "vllm")

Arrows = Mapping[str, set[str]]


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, inside functions and for type checking too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inner)


def room(module: str) -> str:
    """Return the room of a module: a folder of `dream_cli`, a file that lies beside the folders, or the commands."""
    parts = module.split(".")
    return "commands" if parts[0] == "commands" else parts[1] if len(parts) > 1 else ""


def arrows(modules: Mapping[str, Path]) -> Arrows:
    """Return for each module the others that it imports; the bare package, which holds the version, is not counted."""
    return {
        name: {other for other in imports(path) if other in modules and other != "dream_cli"} - {name} for name, path in modules.items()
    }


def between_rooms(arrows: Arrows) -> Arrows:
    results: dict[str, set[str]] = {}
    for module, others in arrows.items():
        if room(module):
            results.setdefault(room(module), set()).update(r for other in others if (r := room(other)) != room(module))
    return results


def upward(rooms: Arrows) -> list[str]:
    """Return the arrows that do not lead to a lower floor."""
    return sorted(f"{a} -> {b}" for a, others in rooms.items() for b in others if FLOOR[b] >= FLOOR[a])


def circles(arrows: Arrows) -> list[str]:
    """Return what is left after every module that imports nothing of the rest has been taken away, again and again."""
    left = {name: set(others) for name, others in arrows.items()}
    while bottom := {name for name, others in left.items() if not others & set(left)}:
        left = {name: others for name, others in left.items() if name not in bottom}
    return sorted(left)


def test_every_room_stands_in_the_table() -> None:
    assert {room(name) for name in MODULES if room(name)} <= set(FLOOR)


def test_every_arrow_leads_down() -> None:
    assert upward(between_rooms(arrows(MODULES))) == []


def test_there_is_no_circle_of_files() -> None:
    assert circles(arrows(MODULES)) == []


def test_an_arrow_upward_and_a_circle_are_seen() -> None:
    assert upward({"records": {"method"}, "method": {"records", "training"}}) == ["method -> training", "records -> method"]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_nothing_imports_a_command(path: Path) -> None:
    assert [name for name in imports(path) if name.split(".")[0] == "commands" or name.startswith("dream_cli.commands")] == []


def at_the_top(path: Path) -> Iterable[str]:
    """Yield the packages that importing a file imports."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_lowest_rooms_stand_on_the_standard_library(name: str) -> None:
    files = [path for module, path in MODULES.items() if room(module) == name]
    outside = {package for path in files for package in at_the_top(path)} - set(sys.stdlib_module_names) - {"dream_cli"}
    assert outside <= OUTSIDE[name]


def test_only_the_registry_names_the_engines() -> None:
    engines = {f"dream_cli.engines.{name}" for name in ENGINES}
    others = [path for name, path in MODULES.items() if name not in engines]
    assert {path.name for path in others if engines & set(imports(path))} == {"registry.py"}


# The products of the tool, which `dream_cli.records` reads into types.
TYPED = {"chosen", "rejected", "margin", "chosen_score", "rejected_score", "verdicts"}


def readers(source: str) -> list[str]:
    """Return where a source reads one of `TYPED` by its name: from `extra`, a record or a response, or tests that it is there."""
    read = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Subscript(value=holder, slice=ast.Constant(value=str(name))):
                pass
            case ast.Call(func=ast.Attribute(value=holder, attr="get" | "pop"), args=[ast.Constant(value=str(name)), *_]):
                pass
            case ast.Compare(left=ast.Constant(value=str(name)), ops=[ast.In() | ast.NotIn()], comparators=[holder]):
                pass
            case _:
                continue
        whose = ast.unparse(holder).split(".")[-1]
        if name in TYPED and (name == "verdicts" or whose in ("extra", "record", "response")):
            read.append(ast.unparse(node))
    return read


def test_only_the_records_room_reads_pairs_and_verdicts_by_name() -> None:
    others = [path for name, path in MODULES.items() if room(name) != "records"]
    assert {path.name: results for path in others if (results := readers(path.read_text()))} == {}


def test_a_reader_by_name_is_seen() -> None:
    lines = [
        'a = record.extra["chosen"]',
        'b = response.extra.get("verdicts", {})',
        'c = "rejected" in record.extra',
        'd = record["margin"]',
    ]
    assert [readers(line) for line in [*lines, 'e = row["chosen"]']] == [[line.split(" = ")[1].replace('"', "'")] for line in lines] + [[]]


def test_nothing_but_the_registry_and_its_benchmark_names_the_embedded_model() -> None:
    # What else depends on it goes by what a model declares: its prompts and its world.
    own = {CHECKOUT / "dream_cli" / name for name in ("engines/registry.py", "benchmarks/nano_world.py")}
    others = [p for p in MODULES.values() if p not in own and CHECKOUT / "dream_cli" / "nano" not in p.parents]
    naming = [(path.name, line.strip()) for path in others for line in path.read_text().splitlines() if "nano" in line.lower()]
    assert sorted(naming) == [
        ("eval.py", "Example: dream eval nano_world --limit 20 --summary -o judged.jsonl"),
        ("registry.py", '"nano_world": ("nano_world", "NANO_WORLD"),'),
        ("training_options.py", '"--allow-nano-verdicts",'),
    ]


def test_every_command_file_is_in_the_table() -> None:
    from dream_cli.cli.main import COMMANDS

    assert {path.stem for path in CHECKOUT.glob("commands/*.py")} - {"__init__"} == set(COMMANDS)


def test_every_subpackage_is_in_the_wheel() -> None:
    listed = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    results = {".".join(p.parent.relative_to(CHECKOUT).parts) for p in CHECKOUT.glob("dream_cli/**/__init__.py")}
    assert set(listed) == results | {"dream_cli.commands"}


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("commands/*.py")), ids=lambda p: p.stem)
def test_a_command_stays_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 120


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("dream_cli/**/*.py")), ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_a_module_and_its_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert len(text.splitlines()) <= 400
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 40] == []


def report() -> str:
    """Return the house in numbers: rooms, floors, arrows between rooms, arrows upward, files in circles."""
    files = arrows(MODULES)
    rooms = between_rooms(files)
    count = sum(map(len, rooms.values()))
    return (
        f"{len(rooms)} rooms on {len(FLOORS)} floors, {sum(map(len, files.values()))} arrows between files, {count} between rooms, "
        f"{len(upward(rooms))} upward, {len(circles(files))} files in circles"
    )


if __name__ == "__main__":
    print("\n".join(", ".join(rooms) for rooms in FLOORS))  # noqa: T201
    print(report())  # noqa: T201
