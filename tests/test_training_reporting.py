"""What a training run reports while it runs: a bar on a terminal, one line per minute elsewhere, and trackers."""

from __future__ import annotations

import io
import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dream_cli.training import reporting, running
from dream_cli.training.settings import Hardware
from tests import training
from tests.conftest import Workdir

pytest.importorskip("transformers")
pytestmark = [pytest.mark.local, pytest.mark.filterwarnings("ignore")]

LOGS = {"loss": 0.69314, "rewards/accuracies": 0.75, "rewards/margins": 0.125, "grad_norm": 1.0}


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, max_steps=12345, is_world_process_zero=True)


def test_the_bar_shows_count_loss_accuracy_rate_and_time_left_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    import rich.console

    screen = io.StringIO()
    made = partial(rich.console.Console, file=screen, force_terminal=True, width=80, color_system=None, legacy_windows=False)
    monkeypatch.setattr(rich.console, "Console", lambda **_: made())
    bar = reporting.progress_bar("dpo", 8)
    bar.on_train_begin(None, state(1000), None)
    began = bar.began
    monkeypatch.setattr("dream_cli.training.reporting.time.monotonic", lambda: began + 10)
    bar.on_log(None, state(10234), None, logs=LOGS)
    bar.on_log(None, state(10234), None, logs={"eval_loss": 0.5})  # of an evaluation: the metrics of the last step stay
    bar.bar.refresh()
    bar.on_train_end(None, state(10234), None)
    shown = [line for line in re.split(r"[\r\n]|\x1b\[[\d;?]*[A-Za-z]", screen.getvalue()) if "10234" in line]
    # (10234 - 1000) steps of 8 rows in 10 seconds
    assert re.fullmatch(r"dpo ━+[╸ ━]* 10234/12345 loss 0\.693 acc 0\.750 7387\.2 rows/s [\d:-]+\s*", shown[-1]), shown
    assert len(shown[-1]) <= 80


def test_off_a_terminal_training_reports_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert reporting.SECONDS == 60
    clock = iter([0.0, 59.0, 60.0, 61.0, 125.0])
    monkeypatch.setattr("dream_cli.training.reporting.time.monotonic", lambda: next(clock))
    lines = reporting.progress_lines("dpo", 8)
    lines.on_train_begin(None, state(100), None)
    for step in (110, 120, 121, 200):
        lines.on_log(None, state(step), None, logs=LOGS)
    metrics = "loss 0.693, accuracy of rewards 0.750, margin of rewards 0.125"
    assert capsys.readouterr().err.splitlines() == [
        f"dpo: step 120 of 12345, {metrics}, 2.7 rows per second",  # 20 steps of 8 rows in 60 s
        f"dpo: step 200 of 12345, {metrics}, 6.4 rows per second",  # 100 steps of 8 rows in 125 s
    ]


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_missing_is_one_of_the_problems_of_a_line(work: Workdir) -> None:
    work.write("in.jsonl", training.rows(work.path, 4))
    line = ("dpo", "in.jsonl", "--model", "nano-policy", "-o", "out", "--report-to", "wandb", "--eval-every", "3", "--rank", "4")
    ran = work.dream(*line, "--loss", "sigmoid,dpo")
    assert ran.code == 2 and ran.out == ""
    for problem in (
        "--report-to wandb needs wandb: pip install wandb",
        "--eval-every needs --held-out",
        "--rank needs --lora",
        "no such loss: 'dpo'",
    ):
        assert problem in ran.err, ran.err
    assert not (work.path / "out").exists()


def test_a_tracker_gets_the_metrics_beside_the_file(tmp_path: Path) -> None:
    job = training.job("in.jsonl", Path("model"), tmp_path, hardware=Hardware(report_to="trackio", eval_every=5, keep=2))
    given = running.arguments(job)
    assert (given["report_to"], given["eval_strategy"], given["eval_steps"]) == ("trackio", "steps", 5)
    assert (given["logging_steps"], given["save_total_limit"], given["disable_tqdm"]) == (1, 2, True)
    assert running.arguments(training.job("in.jsonl", Path("model"), tmp_path))["report_to"] == "none"
