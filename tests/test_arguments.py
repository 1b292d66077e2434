"""Everything that is wrong with a command line is said at once, before a model is loaded; every flag has an environment twin."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from typing import Annotated

import pytest
import typer

from dream_cli.cli.arguments import OptionGroup, expanded
from dream_cli.cli.main import COMMANDS, load
from dream_cli.errors import UsageError
from tests.conftest import Workdir
from tests.loopback import Loopback


def test_all_problems_at_once(work: Workdir) -> None:
    work.write("in.jsonl", [{"prompt": "Hi"}])
    ran = work.dream(
        *("disentangle", "in.jsnl", "-o", "absent/out.jsonl", "--model", "nowhere", "--image-root", "absent", "--prompts", "absent"),
        *("--taxonomy", "absent.json", "--store", ".", "--max-tokens", "0", "--limt", "3", "--price-in", "1", "--nosuch"),
    )
    assert (ran.code, ran.out) == (2, "")
    first, *problems = ran.err.splitlines()
    assert first == "dream: 11 problems with the arguments:"
    for message in (
        "no such option --limt; did you mean --limit?",
        "no such option --nosuch",
        "in.jsnl does not exist; did you mean in.jsonl?",
        "cannot write absent/out.jsonl: the folder absent does not exist",
        "there is no model folder nowhere; --base-url names the server of a model, and ORG/NAME is a model of the hub",
        "'--image-root'",
        "absent: no such folder of prompts",
        "absent.json: not a taxonomy",
        "--store . is a directory",
        "'--max-tokens'",
        "needs both prices",
    ):
        assert sum(message in problem for problem in problems) == 1, message


def test_a_server_and_its_address_are_seen_through_before_it_is_asked(work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [{"prompt": "Hi"}])
    ran = work.dream("sample", "in.jsonl", "--model", "not/here", "--base-url", "localhost:8000", "--temperature", "-1")
    assert ran.code == 2
    assert "'localhost:8000' is not a URL" in ran.err
    assert "not/here" not in ran.err  # a name at a server is no folder, even where the address is wrong
    ran = work.dream("sample", "absent.jsonl", "--base-url", server.url)
    assert (ran.code, server.calls) == (2, 0)
    assert "absent.jsonl does not exist" in ran.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["sample", "--tempreature=0.5"], "dream: no such option --tempreature; did you mean --temperature?\n"),
        (["sample", "--top-p"], "dream: Option '--top-p' requires an argument.\n"),
        (["view", "a.jsonl", "b.jsonl"], "Got unexpected extra argument(s) (b.jsonl)"),
        (["pair", "-z"], "dream: no such option -z\n"),
        (["judge", "--read", "guess"], "--read"),
    ],
)
def test_one_problem_is_one_line(work: Workdir, args: list[str], message: str) -> None:
    work.write("a.jsonl", [{"prompt": "Hi"}])
    ran = work.dream(*args)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


def test_help_wins_over_bad_arguments(work: Workdir) -> None:
    ran = work.dream("sample", "--nosuch", "absent.jsonl", "--help")
    assert ran.code == 0
    assert ran.out.startswith("Usage: dream sample")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_an_environment_twin(name: str) -> None:
    command = load(name)
    context = command.make_context(f"dream {name}", ["--help"], auto_envvar_prefix=f"DREAM_{name.upper()}", resilient_parsing=True)
    shown = " ".join(command.get_help(context).split())
    for param in command.params:
        if param.param_type_name == "option" and param.name != "help":
            names = [param.envvar] if isinstance(param.envvar, str) else param.envvar or [f"DREAM_{name}_{param.name}".upper()]
            twin = ", ".join(names)
            assert re.search(rf"\[env var: {twin}[\];]", shown), param.name


def test_environment_twins_are_read(work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [{"id": str(i), "prompt": f"Hi {i}"} for i in range(3)])
    work.env |= {"DREAM_BASE_URL": server.url, "DREAM_SAMPLE_N": "2", "DREAM_SAMPLE_LIMIT": "2", "DREAM_SAMPLE_TEMPERATURE": "0.5"}
    work.env |= {"DREAM_SAMPLE_QUIET": "1", "DREAM_CONCURRENCY": "1"}
    ran = work.dream("sample", "in.jsonl")
    assert [len(row["responses"]) for row in ran.rows] == [2, 2]
    assert (ran.err, server.peak, {body["temperature"] for body in server.bodies}) == ("", 1, {0.5})
    work.env["DREAM_SAMPLE_N"] = "many"
    assert "'-n' / '--samples'" in work.dream("sample", "in.jsonl").err


def test_models_come_from_the_environment(work: Workdir) -> None:
    work.write("in.jsonl", [{"prompt": "Hi", "response": "Hello."}])
    work.env |= {"DREAM_MODEL": "policy/of/mine", "DREAM_JUDGE": "judge/of/mine"}
    message = {name: work.dream(name, "in.jsonl").err for name in ("disentangle", "sample", "judge")}
    assert "policy/of/mine" in message["sample"]
    assert all("judge/of/mine" in message[name] for name in ("disentangle", "judge"))


def test_a_fault_of_ours_shows_where_it_is_and_is_not_taken_for_rows_with_errors() -> None:
    broken = "import sys, dream_cli.cli.main as m; sys.argv = ['dream', 'man']; m.load = lambda name: {}[name]; m.main()"
    ran = subprocess.run([sys.executable, "-c", broken], check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr.splitlines()[-1]) == (2, "", "KeyError: 'man'")


def test_a_command_that_is_parsed_again_names_its_problems_again() -> None:
    command = load("disentangle")
    lines = []
    for _ in range(2):
        with pytest.raises(UsageError) as problem:
            command.make_context("dream disentangle", ["--max-tokens", "0", "--limit", "x"])
        lines.append(str(problem.value).splitlines())
    assert lines[0] == lines[1]
    assert lines[0][0] == "2 problems with the arguments:"


class Inner(OptionGroup):
    size: Annotated[int, typer.Option(help="Size.")] = 3


class Outer(OptionGroup):
    name: Annotated[str, typer.Option(help="Name.")]
    inner: Inner


def test_a_group_becomes_its_fields_and_is_built_again() -> None:
    calls: list[tuple[bool, str, int]] = []

    def run(flag: bool = False, *, outer: Outer) -> None:
        calls.append((flag, outer.name, outer.inner.size))

    command = expanded(run)
    assert [(p.name, p.default) for p in inspect.signature(command).parameters.values()] == [
        ("flag", False),
        ("name", inspect.Parameter.empty),
        ("size", 3),
    ]
    command(flag=True, name="x", size=5)
    assert calls == [(True, "x", 5)]


def test_a_group_cannot_be_changed_and_keeps_its_defaults() -> None:
    group = Inner()
    assert group.size == 3
    with pytest.raises(AttributeError, match="Inner.size cannot be changed"):
        group.size = 4  # type: ignore[misc]


def test_two_groups_with_one_field_are_refused() -> None:
    def run(*, one: Inner, two: Inner) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'size'"):
        expanded(run)


def test_the_value_of_a_misspelt_option_is_not_checked_as_that_of_the_guess(work: Workdir) -> None:
    ran = work.dream("sample", "--prompt", "x")
    assert (ran.code, ran.err) == (2, "dream: no such option --prompt; did you mean --prompts?\n")


def test_the_value_of_an_unknown_option_is_not_reported_as_a_file(work: Workdir) -> None:
    assert work.dream("sample", "-t", "0.5", "--limit", "0").err.splitlines()[1:2] == ["  no such option -t"]
    assert "0.5" not in work.dream("sample", "-t", "0.5").err
    assert "nope.jsonl does not exist" in work.dream("sample", "--limit", "0", "nope.jsonl").err


def test_a_missing_choice_is_one_line(work: Workdir) -> None:
    assert work.dream("store").err == "dream: Missing argument 'ACTION'. Choose from: path, info, prune, export, import\n"
