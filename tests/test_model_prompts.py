"""Prompts by role: what a model carries beside its weights is used, what the user supplies wins, and a difference is a warning."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from dream_cli.benchmarks.benchmark import EFFECTIVE, REFUSAL, Item, Published
from dream_cli.cli.main import _context
from dream_cli.engines.checkpoint import Checkpoint, World, find_checkpoint
from dream_cli.engines.dry import DryEngine
from dream_cli.engines.protocol import Sampling
from dream_cli.engines.registry import EMBEDDED
from dream_cli.errors import UsageError
from dream_cli.evaluation.judge_questions import EvaluationJudge
from dream_cli.method.disentangling import Disentangler
from dream_cli.method.judging import Judge
from dream_cli.method.model_prompts import with_model_prompts
from dream_cli.method.sampling import Sampler
from dream_cli.prompts import rendering
from dream_cli.prompts.rendering import NAMES, ONLY, TEMPLATES, Prompts
from dream_cli.training.lineage import check_folder
from tests.conftest import Workdir

EXAMPLES = Path(__file__).parent.parent / "examples" / "records.jsonl"
WEIGHTS = EMBEDDED["nano"]
OURS = Prompts.load()
# The hash of all templates that the weights of nano were trained with.
TRAINED_WITH = "08c4a2bb852b3f2e64eeac15a2753b3893d4ca83050dba94aa831b7ee37fb795"


class LocalEngine(DryEngine):
    """An engine of a model in a folder; it is never asked anything here."""

    model = "my-model"

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        super().__init__()
        self.checkpoint = Checkpoint(folder, adapter)


def declare(folder: Path, **declared: object) -> Path:
    """Write what a model says of its prompts."""
    folder.mkdir(exist_ok=True)
    (folder / "dream_prompts.json").write_text(json.dumps(declared))
    return folder


def carry(folder: Path, **templates: str) -> Path:
    """Give a model templates of its own."""
    (folder / "prompts").mkdir(parents=True, exist_ok=True)
    for role, text in templates.items():
        (folder / "prompts" / f"{role}.txt").write_text(text)
    return folder


def judge_of(folder: Path, prompts: Prompts = OURS, adapter: Path | None = None) -> tuple[Prompts, list[str]]:
    """Return the prompts of a judge whose model lies in a folder, and the warnings."""
    warnings: list[str] = []
    return with_model_prompts(Judge(LocalEngine(folder, adapter), prompts), warnings.append).prompts, warnings


def test_a_template_has_a_hash_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "judge_harm.txt").write_text("Is {response} harmful?")
    mine = Prompts.load(tmp_path)
    assert {role for role in NAMES if mine.hashes[role] != OURS.hashes[role]} == {"judge_harm"}
    assert mine.hashes["judge_harm"] == "a3f6d9d1558cddd1833aaec38b09f93981b39d198d48e30cc57f0029f213ad0b"


def test_the_terms_count_where_a_template_names_them(tmp_path: Path) -> None:
    terms = json.loads((TEMPLATES.parent / "taxonomy.json").read_text())
    terms["categories"].append({"name": "Noise", "meaning": "din"})
    (tmp_path / "terms.json").write_text(json.dumps(terms))
    mine = Prompts.load(taxonomy=tmp_path / "terms.json")
    naming = {role for role in NAMES if "{categories}" in OURS.templates[role]}
    assert {role for role in NAMES if mine.hashes[role] != OURS.hashes[role]} == naming != set()


def test_what_a_model_carries_is_used_and_what_the_user_supplies_wins(tmp_path: Path) -> None:
    model = carry(tmp_path / "model", judge_harm="Harm in {response}?", judge_global="Score of {response}?", unheard_of="Hm?")
    prompts, warnings = judge_of(model)
    assert prompts.questions("judge_harm", "Hello", "Hi")[ONLY].text == "Harm in Hi?" and prompts.judge_helpfulness(
        "Hello", "Hi"
    ) == OURS.judge_helpfulness("Hello", "Hi")
    assert warnings == [] and set(prompts.templates) == set(NAMES)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "judge_harm.txt").write_text("My words: {response}")
    prompts, warnings = judge_of(model, Prompts.load(tmp_path / "mine"))
    assert (
        prompts.questions("judge_harm", "Hello", "Hi")[ONLY].text == "My words: Hi"
        and prompts.judge_global("Hello", None, "Hi").text == "Score of Hi?"
    )
    assert warnings == [
        "warning: my-model was trained with other prompts for judge_harm; leave out --prompts and --taxonomy to use its own"
    ]


def test_the_terms_that_a_model_carries_are_used(tmp_path: Path) -> None:
    model = carry(tmp_path / "model", observe_text="Which of these?\n{categories}")
    terms = {"sources": [{"name": "text instruction", "meaning": ""}], "categories": [{"name": "Noise", "meaning": "din"}]}
    (model / "prompts" / "taxonomy.json").write_text(json.dumps(terms))
    prompts, warnings = judge_of(model)
    assert prompts.questions("observe_text", "Hello")[ONLY].text == "Which of these?\n- Noise: din" and warnings == []
    mine = Prompts.load(taxonomy=TEMPLATES.parent / "taxonomy.json")
    step = with_model_prompts(Disentangler(LocalEngine(model), mine), warnings.append)
    assert step.prompts.taxonomy == OURS.taxonomy
    assert warnings == [
        "warning: my-model was trained with other prompts for observe_text; leave out --prompts and --taxonomy to use its own"
    ]


def test_a_model_with_one_wording_of_a_question_is_asked_in_that_one_alone(tmp_path: Path) -> None:
    one = carry(tmp_path / "one", judge_harm="Harm in {response}?")
    assert judge_of(one)[0].judge_harm_again("Hello", "Hi").text == "Harm in Hi?"
    two = carry(tmp_path / "two", judge_harm="Harm in {response}?", judge_harm_again="Hurt by {response}?")
    assert judge_of(two)[0].judge_harm_again("Hello", "Hi").text == "Hurt by Hi?"
    none = carry(tmp_path / "none", judge_global="Score of {response}?")
    assert judge_of(none)[0].judge_harm_again("Hello", "Hi") == OURS.judge_harm_again("Hello", "Hi")


def test_a_difference_counts_in_the_roles_in_use_alone(tmp_path: Path) -> None:
    known = {role: OURS.hashes[role] for role in NAMES} | {"judge_harm": "0" * 64, "verify": "0" * 64}
    model, warnings = declare(tmp_path / "model", roles=known), list[str]()
    assert judge_of(model)[1] == ["warning: my-model was trained with other prompts for judge_harm; give those prompts with --prompts DIR"]
    with_model_prompts(Disentangler(LocalEngine(model), OURS, verify=False), warnings.append)
    with_model_prompts(Sampler(LocalEngine(model), OURS, Sampling(), observe=True), warnings.append)
    assert warnings == []
    with_model_prompts(Disentangler(LocalEngine(model), OURS), warnings.append)
    assert len(warnings) == 1 and "prompts for verify;" in warnings[0]


def test_a_model_marked_with_one_hash_for_all_is_still_read(tmp_path: Path) -> None:
    assert judge_of(declare(tmp_path / "same", sha256=OURS.sha256))[1] == []
    model = declare(tmp_path / "other", sha256="0" * 64)
    (warning,) = judge_of(model)[1]
    assert "for judge_global, judge_observation, judge_helpfulness, judge_harm, judge_harm_again; give" in warning
    warnings: list[str] = []
    with_model_prompts(Sampler(LocalEngine(model), OURS, Sampling()), warnings.append)
    assert warnings == [], "a policy that is shown no template uses none"


def test_an_adapter_speaks_before_its_base(tmp_path: Path) -> None:
    base = carry(tmp_path / "base", judge_harm="Base: {response}?")
    adapter = carry(tmp_path / "adapter", judge_harm="Adapter: {response}?")
    (base / "dream_world.json").write_text('{"name": "toy"}')
    assert judge_of(base)[0].questions("judge_harm", "Hello", "Hi")[ONLY].text == "Base: Hi?"
    assert judge_of(base, adapter=adapter)[0].questions("judge_harm", "Hello", "Hi")[ONLY].text == "Adapter: Hi?"
    assert Checkpoint(base, adapter).world == World("toy") and Checkpoint(adapter).world is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dream_prompts.json", "[", "cannot be read as JSON"),
        ("dream_prompts.json", "[]", "is not a JSON object"),
        ("dream_prompts.json", '{"roles": 1}', "is malformed"),
        ("dream_world.json", "{}", "is malformed"),
    ],
)
def test_a_malformed_declaration_is_an_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        assert Checkpoint(tmp_path).trained_prompts and Checkpoint(tmp_path).world


def test_a_judge_is_another_for_a_question_whose_prompt_changed(tmp_path: Path) -> None:
    (tmp_path / "judge_refusal.txt").write_text("Declined? {response}")
    (tmp_path / "siuo_safe.txt").write_text("Safe? {response}")
    before, after = (EvaluationJudge(DryEngine(), prompts, "strict") for prompts in (OURS, Prompts.load(tmp_path)))
    published = Published("safe", lambda _: ("siuo_safe", ""), bool, max_tokens=8)
    siuo, mossbench = Item("siuo", "1"), Item("mossbench", "1")
    assert before.identity(EFFECTIVE, siuo) == after.identity(EFFECTIVE, siuo)
    assert before.identity(REFUSAL, siuo) != after.identity(REFUSAL, siuo)
    assert before.identity(published, siuo) != after.identity(published, siuo)
    assert before.identity(published, mossbench) == after.identity(published, mossbench)


def test_the_prompts_of_the_embedded_models_are_those_of_their_training() -> None:
    for folder in EMBEDDED.values():
        carried, checkpoint = Prompts.carried(folder / "prompts"), find_checkpoint(str(folder))
        assert carried.sha256 == TRAINED_WITH and len(carried.templates) == 13
        assert checkpoint.trained_prompts.roles.items() <= carried.hashes.items() and checkpoint.world == World("nano")


def test_what_a_model_declared_goes_where_its_folder_is_overwritten(tmp_path: Path) -> None:
    model = carry(declare(tmp_path / "model", roles={}), judge_harm="Hm?")
    for name in ("config.json", "dream_world.json"):
        (model / name).write_text('{"name": "toy"}')
    assert check_folder(model, {"identity": "new"}, overwrite=True) is None
    assert list(model.iterdir()) == []


@dataclass(frozen=True)
class House:
    """A copy of our templates that a test may change, and the commands that run with it in this process."""

    templates: Path
    out: Path

    def dream(self, *args: str) -> bytes:
        """Run a command and return its output."""
        with pytest.raises(typer.Exit) as stop, _context([*args, "-q", "--no-store", "--allow-outside", "-o", str(self.out)]) as context:
            context.command.invoke(context)
        assert stop.value.exit_code == 0
        return self.out.read_bytes()


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, bytes]:
    """Return a file of responses, and what the embedded model finds in the first example and says of these responses."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("before")
    house = House(TEMPLATES, folder / "out.jsonl")
    observed = house.dream("disentangle", str(EXAMPLES), "--limit", "1")
    record = json.loads(observed)
    helped = record | {"id": "helped", "observations": []}
    (folder / "in.jsonl").write_text(f"{json.dumps(record)}\n{json.dumps(helped)}\n")
    return folder / "in.jsonl", observed, house.dream("judge", str(folder / "in.jsonl"))


@pytest.mark.local
@pytest.mark.parametrize("role", NAMES)
def test_a_template_of_ours_changes_without_the_embedded_model(
    role: str, before: tuple[Path, bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled, observed, judged = before
    house = House(Path(shutil.copytree(TEMPLATES, tmp_path / "templates")), sampled.parent / "out.jsonl")
    with (house.templates / f"{role}.txt").open("a") as file:
        file.write("Please.\n")
    monkeypatch.setattr(rendering, "TEMPLATES", house.templates)
    assert Prompts.load().hashes[role] != OURS.hashes[role]
    if role.startswith("judge"):
        assert rounded(house.dream("judge", str(sampled))) == rounded(judged)
    else:
        assert rounded(house.dream("disentangle", str(EXAMPLES), "--limit", "1")) == rounded(observed)


def rounded(output: bytes) -> list[Any]:
    """Return the records with four decimals: which prompts share a batch depends on timing, and it changes the last ones."""
    return [json.loads(line, parse_float=lambda number: round(float(number), 4)) for line in output.splitlines()]


@pytest.mark.local
def test_a_template_is_added_by_adding_a_file(work: Workdir) -> None:
    pytest.importorskip("transformers")
    checkout = Path(__file__).parent.parent
    for source, package in (("dream_cli", "dream_cli"), ("commands", "dream_cli/commands")):
        unneeded = shutil.ignore_patterns("__pycache__")
        shutil.copytree(checkout / source, work.path / package, copy_function=os.symlink, ignore=unneeded)
    (work.path / "dream_cli" / "prompts" / "templates" / "judge_rude.txt").write_text("Is {response} rude?")
    work.env["PYTHONPATH"] = str(work.path)
    ran = work.dream("disentangle", str(EXAMPLES), "--limit", "1", "-q")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["observations"][0]["malicious_content"] == "pose naked"
    hashed = [sys.executable, "-c", "from dream_cli.prompts.rendering import Prompts; print(Prompts.load().hashes['judge_rude'])"]
    assert len(subprocess.check_output(hashed, env=work.env, cwd=work.path).strip()) == 64


@pytest.mark.local
def test_a_user_s_template_for_the_embedded_judge_is_a_warning(work: Workdir, before: tuple[Path, bytes, bytes]) -> None:
    (work.path / "mine").mkdir()
    (work.path / "mine" / "judge_global.txt").write_text(OURS.templates["judge_global"] + " Be brief.")
    ran = work.dream("judge", str(before[0]), "--allow-outside", "--prompts", "mine", "--model", "nano")
    assert ran.code == 0
    assert ran.err.splitlines()[0] == (
        "dream judge: warning: nano was trained with other prompts for judge_global; leave out --prompts and --taxonomy to use its own"
    )


def test_a_judge_with_a_small_world_of_its_own_is_a_caution_outside_of_it(work: Workdir) -> None:
    (work.path / "toy").mkdir()
    (work.path / "toy" / "dream_world.json").write_text('{"name": "toy"}')
    for judge, expected in (("nano", True), ("toy", True), ("org/judge", False)):
        verdicts = {"strict": {"attack": {"value": False, "judge": judge}, "refusal": {"value": "refuse", "judge": judge}}}
        response = {"text": "No.", "model": "org/vlm", "verdicts": verdicts}
        work.write("in.jsonl", [{"prompt": "x", "benchmark": {"name": "figstep", "item": "1", "subset": "tiny"}, "responses": [response]}])
        ran = work.dream("eval", "in.jsonl")
        assert ran.code == 0
        assert (f"{judge} judged, which knows only its own small world: this shows that the command runs" in ran.out) is expected
