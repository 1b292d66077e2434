"""Training progress: one JSON object per step, a progress bar, and curves at the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from dream_cli.records.visible import amount, visible

T = TypeVar("T")

# (metric, title) of the progress bar and of the panels of the curves; metrics that were not logged are left out.
_IN_BAR = (("loss", "loss"), ("rewards/accuracies", "acc"))
PANELS = (
    ("loss", "loss"),
    ("rewards/accuracies", "accuracy of rewards"),
    ("rewards/margins", "margin of rewards"),
    ("rewards/chosen", "reward of chosen"),
    ("rewards/rejected", "reward of rejected"),
    ("grad_norm", "norm of gradients"),
)
# Seconds between two lines of progress.
SECONDS = 60.0
_SUMMARY = ("train_", "total_flos")


def metrics_writer(path: Path) -> Any:
    """Return a callback that writes each log entry to `path`; a resumed run continues after the step of its checkpoint."""
    from transformers import TrainerCallback

    class MetricsWriter(TrainerCallback):  # type: ignore[misc]
        """One object per line: `step`, `epoch` and the metrics of that step."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            kept = [line for line in read_metrics(path) if line["step"] <= state.global_step]
            # TRL counts tokens from zero again after a resume.
            self.tokens = max((line.get("num_tokens", 0) for line in kept), default=0)
            if state.is_world_process_zero:
                path.write_text("".join(json.dumps(line) + "\n" for line in kept))

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            numbers = {k: v for k, v in (logs or {}).items() if not k.startswith(_SUMMARY)}
            if state.is_world_process_zero and set(numbers) - {"epoch"}:
                if "num_tokens" in numbers:
                    numbers["num_tokens"] += self.tokens
                with path.open("a") as file:
                    file.write(json.dumps({"step": state.global_step, **numbers}) + "\n")

    return MetricsWriter()


def progress_bar(name: str, rows_per_step: int) -> Any:
    """Return a callback that draws a bar on stderr: loss, accuracy of rewards, rows per second, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from transformers import TrainerCallback

    class ProgressBar(TrainerCallback):  # type: ignore[misc]
        """Only the first process draws."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar = BarColumn(bar_width=16)  # the whole line fits 80 columns
            columns = (TextColumn(name), bar, MofNCompleteColumn(), TextColumn("{task.fields[metrics]}"), TimeRemainingColumn(compact=True))
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not state.is_world_process_zero)
            self.task = self.bar.add_task(name, total=state.max_steps, completed=state.global_step, metrics="")
            self.first, self.began = state.global_step, time.monotonic()
            self.bar.start()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return  # of an evaluation, or the summary at the end
            metrics = [f"{title} {logs[metric]:.3f}" for metric, title in _IN_BAR if metric in logs]
            rate = (state.global_step - self.first) * rows_per_step / max(time.monotonic() - self.began, 1e-9)
            self.bar.update(self.task, completed=state.global_step, metrics=" ".join([*metrics, f"{rate:.1f} rows/s"]))

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.stop()

    return ProgressBar()


def progress_lines(name: str, rows_per_step: int) -> Any:
    """Return a callback that reports the progress in one line per minute, for logs: step, loss, accuracy of rewards, rows per second."""
    from transformers import TrainerCallback

    class ProgressLines(TrainerCallback):  # type: ignore[misc]
        """Only the first process reports."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.first, self.began = state.global_step, time.monotonic()
            self.last = self.began

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            now = time.monotonic()
            if now - self.last < SECONDS or not logs or "loss" not in logs:
                return
            self.last = now
            metrics = [f"{title} {logs[metric]:.3f}" for metric, title in PANELS[:3] if metric in logs]
            rate = (state.global_step - self.first) * rows_per_step / (now - self.began)
            report(f"{name}: " + ", ".join([f"step {state.global_step} of {state.max_steps}", *metrics, f"{rate:.1f} rows per second"]))

    return ProgressLines()


def counted(rows: Iterable[T], name: str, quiet: bool, *, work: str = "checked", size: int = 1) -> Iterator[T]:
    """Yield the rows, or batches of `size` rows; report the number of rows done in one line per minute."""
    began = last = time.monotonic()
    for number, row in enumerate(rows, 1):
        yield row
        if not quiet and time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            report(f"{name}: {amount(number * size, 'row')} {work}, {number * size / (last - began):.1f} rows per second")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the metrics of a run, one dict per log entry; a line that a killed process left incomplete is skipped."""
    metrics = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            metrics.append(json.loads(line))
        except ValueError:
            break
    return metrics


def is_evaluated(path: Path, step: int) -> bool:
    """Return whether the held-out rows were evaluated after a step."""
    return any("eval_loss" in line and line["step"] == step for line in read_metrics(path))


def final_metrics(path: Path) -> dict[str, float]:
    """Return the first loss of a run, and the metrics of its last step and last evaluation."""
    logs = read_metrics(path)
    steps = [line for line in logs if "loss" in line]
    held_out = [line for line in logs if "eval_loss" in line]
    first = {"first_loss": steps[0]["loss"]} if steps else {}
    last = {k: v for line in (steps[-1:] + held_out[-1:]) for k, v in line.items() if k not in ("step", "epoch")}
    return first | {k: v for k, v in last.items() if not k.startswith(("eval_runtime", "eval_samples", "eval_steps"))}


def draw_curves(metrics: Path, out: Path) -> None:
    """Draw the curves of a run as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    logs = read_metrics(metrics)
    panels = [(metric, title) for metric, title in PANELS if any(metric in line for line in logs)]
    if not panels:
        return
    rows = -(-len(panels) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(15, 3.5 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (metric, title) in zip(axes.flat, panels, strict=False):
        for prefix, style in (("", "-"), ("eval_", "o")):
            points = [(line["step"], line[prefix + metric]) for line in logs if prefix + metric in line]
            if points:
                axis.plot(*zip(*points, strict=True), style, label="held out" if prefix else "training")
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(out, dpi=120)
    pyplot.close(figure)


def report(line: str) -> None:
    """Print a line on stderr, in the first process only."""
    from dream_cli.training.launching import is_first

    if is_first():
        sys.stderr.write(visible(line) + "\n")


def wants_bar(quiet: bool) -> bool:
    """Whether a progress bar is drawn: stderr is a terminal, and `quiet` is off."""
    return not quiet and sys.stderr.isatty()


def remove_printers(trainer: Any) -> None:
    """Keep transformers' own callbacks from printing to stdout, which carries data."""
    from transformers import PrinterCallback, ProgressCallback

    for printer in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(printer)
