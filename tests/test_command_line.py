"""The command line as people have it: spellings of help and version, variables, terminals, and files that a command must not replace."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from dream_cli.cli.main import COMMANDS, load
from dream_cli.cli.variables import SHARED
from tests.conftest import Workdir
from tests.loopback import Loopback

RISK = {"malicious_content": "rob a shop", "source": "text instruction", "risk_category": "Illegal activities"}
JUDGED = [
    {
        "id": str(n),
        "prompt": f"prompt {n}",
        "observations": [RISK],
        "responses": [
            {"text": text, "model": "m", "judgement": {"rubric": "sum/expected", "global_score": g, "score": g / 10, "model": "j"}}
            for text, g in (("I will not help with that.", 9), ("Sure, take the first step.", 1))
        ],
    }
    for n in range(3)
]


def test_summaries_are_whole_at_80_columns(work: Workdir) -> None:
    work.env["COLUMNS"] = "80"
    out = work.dream("--help").out
    assert "..." not in out.partition("Commands:")[2]
    for name in COMMANDS:
        assert f"{load(name).help.partition(chr(10))[0]}" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(("words", "same"), [(["help"], ["--help"]), (["help", "pair"], ["pair", "--help"]), ([], ["--help"])])
def test_help_by_other_spellings(work: Workdir, words: list[str], same: list[str]) -> None:
    ran = work.dream(*words)
    assert ran == work.dream(*same)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Usage: dream ")


def test_version_by_every_spelling(work: Workdir) -> None:
    work.env["DREAM_VERSION"] = "1"
    assert {work.dream(word).out for word in ("-V", "--version", "version")} == {work.dream("--version").out}
    assert "DREAM_VERSION" not in work.dream("--help").out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_no_names_of_the_code(work: Workdir, name: str) -> None:
    out = " ".join(work.dream(name, "--help").out.split())
    for leaked in ("[[", "range>", "<str>", "<int>", "<float>", "list[str]", "DREAM_VIEW_ID_", "DREAM_CONVERT_FROM_", "_AS_JSON"):
        assert leaked not in out


def test_n_is_samples_and_l_is_the_limit_wherever_they_are() -> None:
    short = {(option, max(param.opts, key=len)) for name in COMMANDS for param in load(name).params for option in param.opts}
    assert {long for option, long in short if option == "-n"} == {"--samples"}
    assert {long for option, long in short if option == "-l"} == {"--limit"}
    assert {long for option, long in short if option == "-m"} == {"--model"}


def test_view_still_takes_n(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": str(n), "prompt": "Hi"} for n in range(5)])
    for words in (["-n", "2"], ["-n2"], ["-l", "2"], ["--limit", "2"]):
        assert [row["id"] for row in work.dream("view", "in.jsonl", "--json", *words).rows] == ["0", "1"]


# Variables


def test_the_list_of_shared_variables_is_that_of_the_options() -> None:
    listed = {name for command in COMMANDS for param in load(command).params for name in _names(param.envvar)}
    shared = {name for name in listed if not any(name.startswith(f"DREAM_{command.upper()}_") for command in COMMANDS)}
    assert shared | {"DREAM_JUDGE_BASE_URL"} == SHARED


def _names(variable: str | list[str] | None) -> list[str]:
    return [variable] if isinstance(variable, str) else variable or []


@pytest.mark.parametrize("command", ["disentangle", "judge", "sample"])
def test_the_specific_variable_wins(work: Workdir, command: str) -> None:
    row = {"id": "a", "prompt": "Hi", "observations": [RISK], "response": "No."} if command == "judge" else {"id": "a", "prompt": "Hi"}
    work.write("in.jsonl", [row])
    with Loopback(model="general") as general, Loopback(model="role") as role, Loopback(model="own") as own:
        work.env["DREAM_BASE_URL"] = general.url
        work.dream(command, "in.jsonl", "--no-store")
        assert (general.calls > 0, role.calls, own.calls) == (True, 0, 0)
        before = general.calls
        work.env["DREAM_JUDGE_BASE_URL"] = role.url
        work.dream(command, "in.jsonl", "--no-store")
        assert (role.calls > 0) is (general.calls == before) is (command != "sample")
        others = (general.calls, role.calls)
        work.env[f"DREAM_{command.upper()}_BASE_URL"] = own.url
        work.dream(command, "in.jsonl", "--no-store")
        assert (general.calls, role.calls, own.calls > 0) == (*others, True)


def test_a_variable_that_sets_nothing_is_reported_once_with_the_name_meant(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "Hi"}])
    work.env |= {"DREAM_MODLE": "x", "DREAM_PAIR_MARGINN": "0.1", "DREAM_COLOUR_OF_THE_SKY": "blue"}
    work.env |= {"DREAM_LIMIT": "1", "DREAM_SAMPEL_LIMIT": "1"}
    work.env |= {"DREAM_JUDGE_API_KEY": "k", "DREAM_JUDGE_2_API_KEY": "k", "DREAM_SAMPLE_N": "2", "DREAM_SAMPLE_SAMPLES": "2"}
    ran = work.dream("pair", "in.jsonl", "-q")
    assert ran.err.splitlines() == [
        "dream: the environment variable DREAM_COLOUR_OF_THE_SKY sets nothing",
        "dream: the environment variable DREAM_LIMIT sets nothing",
        "dream: the environment variable DREAM_MODLE sets nothing; did you mean DREAM_MODEL?",
        "dream: the environment variable DREAM_PAIR_MARGINN sets nothing; did you mean DREAM_PAIR_MARGIN?",
        "dream: the environment variable DREAM_SAMPEL_LIMIT sets nothing; did you mean DREAM_SAMPLE_LIMIT?",
    ]


# Files


@pytest.mark.parametrize("other", ["in.jsonl", "./in.jsonl", "link.jsonl", "hard.jsonl"])
def test_a_command_that_drops_rows_does_not_replace_its_input(work: Workdir, other: str) -> None:
    before = work.write("in.jsonl", JUDGED).read_bytes()
    (work.path / "link.jsonl").symlink_to("in.jsonl")
    os.link(work.path / "in.jsonl", work.path / "hard.jsonl")
    for words in (
        ["pair", "in.jsonl", "-o", other],
        ["convert", "in.jsonl", "-o", other],
        ["sample", "in.jsonl", "--limit", "1", "-o", other],
        ["view", "in.jsonl", "--html", other],
        ["eval", "in.jsonl", "--card", other.replace(".jsonl", ".json")],
    )[: 5 if other == "link.jsonl" else 4]:
        if words[0] == "eval":
            work.write("in.json", []).write_text("[]")
            (work.path / "link.json").symlink_to("in.json")
            words[1] = "in.json"
        ran = work.dream(*words, "--base-url", "http://127.0.0.1:9/v1") if words[0] == "sample" else work.dream(*words)
        assert ran.code == 2
        assert words[0] == "eval" or "is the input itself (in.jsonl)" in ran.err, ran.err
        assert (work.path / "in.jsonl").read_bytes() == before


def test_the_input_on_stdin_is_not_replaced_either(work: Workdir) -> None:
    before = work.write("in.jsonl", JUDGED).read_bytes()
    with (work.path / "in.jsonl").open("rb") as file:
        done = subprocess.run(
            work.command("pair", "-o", "in.jsonl"), stdin=file, cwd=work.path, env=work.env, capture_output=True, check=False
        )
    assert done.returncode == 2
    assert b"is the input itself (stdin)" in done.stderr
    assert (work.path / "in.jsonl").read_bytes() == before


def test_a_stage_that_keeps_every_row_may_replace_its_input(work: Workdir, server: Loopback) -> None:
    work.write("in.jsonl", [{"id": str(n), "prompt": "Hi"} for n in range(3)])
    assert work.dream("sample", "in.jsonl", "-o", "in.jsonl", "--base-url", server.url).code == 0
    assert [(row["id"], len(row["responses"])) for row in work.read("in.jsonl")] == [("0", 1), ("1", 1), ("2", 1)]


def test_the_null_device_is_an_output(work: Workdir) -> None:
    work.write("in.jsonl", JUDGED)
    ran = work.dream("pair", "in.jsonl", "-o", "/dev/null")
    assert (ran.code, ran.out, ran.err.splitlines()[0]) == (0, "", "pair: 3 pairs of 3 prompts: 3 paired")
    assert Path("/dev/null").is_char_device()
    ran = work.dream("pair", "in.jsonl", "-o", "out.txt")
    assert ran.code == 2
    assert "out.txt: the suffix gives the format, and must be one of .jsonl, .jsonl.gz, .json, .parquet" in ran.err


@pytest.mark.parametrize(
    ("there", "name", "hint"),
    [
        (["in.jsonl", "phone.jsonl"], "nope.jsonl", ""),
        (["pairs.jsonl"], "pars.jsonl", "; did you mean pairs.jsonl?"),
        (["pairs.jsonl"], "pairs.json", "; did you mean pairs.jsonl?"),
        (["d_401.jsonl", "d_402.jsonl"], "pairs.jsonl", ""),
    ],
)
def test_only_a_near_name_is_proposed(work: Workdir, there: list[str], name: str, hint: str) -> None:
    for file in there:
        work.write(file, [])
    assert work.dream("pair", name).err == f"dream: {name} does not exist{hint}\n"


# Terminals and pipes


@pytest.mark.parametrize("words", [["pair"], ["view"], ["convert"]])
def test_a_terminal_as_stdin_is_reported_at_once(work: Workdir, words: list[str]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        work.command(*words), stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=work.path, env=work.env
    ) as process:
        os.close(theirs)
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        os.write(ours, b"\x04")
        process.wait(60)
    os.close(ours)
    assert line == "dream: reading records from the terminal; end with Ctrl-D, or name a file\n"


@pytest.mark.parametrize(
    "words", [["view", "in.jsonl"], ["view", "in.jsonl", "-l", "400"], ["view", "in.jsonl", "--sql", "select * from records"]]
)
def test_a_reader_that_stops_early_is_no_failure(work: Workdir, words: list[str]) -> None:
    work.write("in.jsonl", [{"id": str(n), "prompt": "word " * 400} | {f"field_{i}": i for i in range(30)} for n in range(400)])
    line = " ".join(f"'{word}'" for word in work.command(*words))
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}"],
        cwd=work.path,
        env=work.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_an_id_that_no_record_has_is_exit_code_1(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "Hi"}])
    for words in (["view", "in.jsonl", "--id", "b"], ["view", "in.jsonl", "--id", "b", "--json"], ["why", "b", "in.jsonl"]):
        ran = work.dream(*words)
        assert (ran.code, ran.out) == (1, "")
        assert "has the id 'b'" in ran.err
    assert work.dream("view", "in.jsonl", "--id", "a").code == 0


# SQL


def test_sql_of_a_kind_without_a_name_is_refused(work: Workdir) -> None:
    work.write("in.jsonl", [{"id": "a", "prompt": "Hi"}])
    ran = work.dream("view", "in.jsonl", "--sql", "update extensions")
    assert (ran.code, ran.err) == (2, "dream: only one SELECT statement is run; dream view reads files and never writes them\n")


def test_sql_without_end_is_stopped(work: Workdir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dream_cli.errors import UsageError
    from dream_cli.viewing import looking
    from dream_cli.viewing.tables import open_tables

    work.write("in.jsonl", [{"id": "a", "prompt": "Hi"}])
    monkeypatch.setattr(looking, "QUERY_SECONDS", 0.5)
    with open_tables(str(work.path / "in.jsonl")) as tables, pytest.raises(UsageError, match=r"takes longer than 0\.5 s and was stopped"):
        looking.show_query(tables, "select sum(a.range * b.range) from range(100000000) a, range(100000000) b", as_json=False)


# Names before packages


@pytest.mark.parametrize("words", [["eval", "sioo"], ["eval", "sioo", "--model", "org/model"], ["eval", "sioo", "--judge", "org/model"]])
def test_a_wrong_name_is_reported_before_a_missing_package(work: Workdir, words: list[str]) -> None:
    for package in ("torch", "transformers"):
        (work.path / f"{package}.py").write_text("raise ImportError")
    (work.path / "sitecustomize.py").write_text(
        "import importlib.util as u\nreal = u.find_spec\nu.find_spec = lambda n, p=None: None if n in ('torch', 'transformers') else real(n, p)\n"
    )
    work.env["PYTHONPATH"] = str(work.path)
    ran = work.dream(*words)
    assert ran.code == 2
    assert "sioo" in ran.err and "siuo" in ran.err and "torch" not in ran.err
    ran = work.dream("eval", "--compare", "a.jsonl", "b.jsonl")
    assert ran.code == 2 and "torch" not in ran.err
    ran = work.dream("sample", stdin=json.dumps({"prompt": "Hi"}))
    assert "install the extra 'local' in the checkout: pip install '.[local]' or pipx install" in ran.err


def test_a_name_with_control_characters_cannot_control_the_terminal(work: Workdir) -> None:
    assert "no␛[31m.jsonl holds no file" in work.dream("pair", "no\x1b[31m.jsonl").err
    row = {"id": "a", "prompt": "x", "an\x1b[31m_image": "a.png", "response": "y"}
    work.env["DREAM_\x1b[31m"] = "1"
    err = work.dream("convert", "-", stdin=json.dumps(row)).err
    assert "DREAM_␛[31m sets nothing" in err and r"the column 'an\x1b[31m_image' looks like an image" in err
    assert "\x1b" not in err
