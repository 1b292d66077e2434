"""One training run, from records to a finished model: read, check, train, export. An interrupted run is resumed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from dream_cli.engines.checkpoint import read_run
from dream_cli.errors import DreamError, UsageError
from dream_cli.formats.sources import read_records
from dream_cli.records.record import Json
from dream_cli.records.visible import amount
from dream_cli.training import checkpoints, lineage, measuring, models, reporting, sharding
from dream_cli.training.export import export, keep_checkpoints
from dream_cli.training.launching import check_devices, check_world, first_does, is_first, is_started, launch, world_size
from dream_cli.training.preflight import Preflight, Report, Take, check_model, checked
from dream_cli.training.rows import Row, load_rows, open_rows
from dream_cli.training.settings import Job

ROWS, HELD_OUT, METRICS, CURVES = "rows.arrow", "held-out.arrow", "metrics.jsonl", "curves.png"


class Method(Protocol):
    """The part of a run that differs between sft and dpo."""

    name: str
    answers: tuple[str, ...]
    nothing: str  # the message if there is no row

    def settings(self) -> Json:
        """Return the method's own settings for `run.json`."""

    def files(self) -> tuple[str, ...]:
        """Return the files that the method reads in addition to the job's."""

    def take(self) -> Take:
        """Return the function that builds the rows of a record."""

    def more(self, rows: int, job: Job, preflight: Preflight, report: Report) -> Iterator[Row]:
        """Yield additional rows, given the number of the job's rows."""

    def trainer(self, policy: models.Policy, arguments: Json, data: dict[str, Any], callbacks: list[Any]) -> Any:
        """Return the trainer: one of TRL's, with exact checkpoints."""

    def result(self, trainer: Any) -> Json:
        """Return the method's additional fields of the final record."""


@dataclass(frozen=True)
class Done:
    """The final record and the exit code."""

    record: Json
    exit_code: int = 0


@dataclass(frozen=True)
class _Prepared:
    run: Json
    finished: Json | None
    exit_code: int


def perform(job: Job, method: Method, *, only_check: bool = False, processes: int | None = None) -> Done:
    """Check, or train, in `processes` processes; the record is empty if another process prints it."""
    if processes is not None and processes > 1 and not is_started() and not only_check:
        return Done({}, launch(processes))
    check_world(processes)
    done = check(job, method) if only_check else train(job, method)
    return done if is_first() else Done({}, done.exit_code)


def check(job: Job, method: Method) -> Done:
    """Run only the preflight; raise UsageError with all problems."""
    models.quiet()
    start = models.find_start(job.model)
    report = _prepare_rows(job, method, start, None)
    report.raise_problems()
    return Done({"check": "passed", **_counts(report)}, int(report.unreadable > 0))


def train(job: Job, method: Method) -> Done:
    """Train and return the final record; an interrupted run is saved, and the same job resumes it."""
    models.quiet()
    check_devices()
    start = models.find_start(job.model)
    sharding.check(job)
    prepared = first_does(lambda: _prepare(job, method, start))
    if prepared.finished is not None:
        reporting.report(f"{method.name}: {job.out} is finished already; nothing to do")
        return Done(prepared.finished | {"model": str(job.out)}, prepared.exit_code)
    stop = checkpoints.stop_on_signal()
    meter = measuring.meter(job.out / "checkpoints", job.schedule.batch_size * job.schedule.accumulate * world_size())
    with _out_of_memory_explained(job):
        trainer = _trainer(job, method, start, [stop, meter])  # moves the weights to the device
        last = checkpoints.last_checkpoint(job.out / "checkpoints")
        if last is not None:
            reporting.report(f"{method.name}: resuming from {last}")
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        if stop.signal:
            reporting.report(f"{method.name}: stopped at step {trainer.state.global_step}, saved; the same command resumes it")
            return Done({}, 128 + stop.signal)
        if trainer.eval_dataset is not None and not reporting.is_evaluated(job.out / METRICS, trainer.state.global_step):
            trainer.evaluate()
    if meter.moved < measuring.FEW:
        reporting.report(
            f"{method.name}: only {meter.moved:.2%} of the trained weights changed, so little was learnt; raise --lr, or train in "
            "--dtype float32 (auto on a GPU), whose steps are finer"
        )
    record = {"weights_moved": meter.moved, "usage": meter.usage}
    return Done(_finish(trainer, job, method=method, start=start, run=prepared.run, measured=record), prepared.exit_code)


def _prepare(job: Job, method: Method, start: models.Start) -> _Prepared:
    """Read and check the records into the job's folder."""
    job.out.mkdir(parents=True, exist_ok=True)
    settings = {"name": method.name, **method.settings()}
    key = lineage.input_key(start, settings, job, [job.source, *filter(None, [job.held_out]), *method.files()])
    if earlier := _checked_before(job, method, key):
        return earlier
    rows = job.out / f".{ROWS}"
    report = _prepare_rows(job, method, start, rows)
    if report.problems:
        rows.unlink(missing_ok=True)
        report.raise_problems()
    run = lineage.manifest(start, settings, job, lineage.file_hash(rows)) | {"check": key, "receipt": _counts(report)}
    finished = lineage.check_folder(job.out, run, job.overwrite)
    if finished is None:
        rows.replace(job.out / ROWS)
        lineage.write_run(job.out, run)
    rows.unlink(missing_ok=True)
    return _Prepared(run, finished, int(report.unreadable > 0))


def _checked_before(job: Job, method: Method, key: str | None) -> _Prepared | None:
    """Return the prepared rows of an earlier start of the same run, None if there are none."""
    run = read_run(job.out)
    if run is None or key is None or run.get("check") != key:
        return None
    prepared = _Prepared(run, run.get("result"), int(run["receipt"]["unreadable"] > 0))
    if prepared.finished is not None:
        return prepared
    files = [job.out / ROWS, *([job.out / HELD_OUT] if job.held_out is not None else [])]
    if not all(file.exists() for file in files) or lineage.file_hash(files[0]) != run["rows"]["sha256"]:
        return None
    if not job.quiet:
        reporting.report(f"{method.name}: {run['receipt']['rows']} rows to train on, checked before")
    return prepared


def _prepare_rows(job: Job, method: Method, start: models.Start, out: Path | None) -> Report:
    processor, report = models.processor_of(start), Report()
    check_model(start, processor, job, report)
    report.raise_problems()
    limit = job.max_length or models.context_length(start)
    preflight = Preflight(start, processor, limit, job.hardware.workers or min(8, os.cpu_count() or 1))
    with _writing(out, method) as write:
        records = read_records(job.source, job.reading, job.limit)
        rows = checked(records, method.take(), preflight=preflight, job=job, report=report)
        for row in reporting.counted(rows, method.name, job.quiet):
            write(row)
        more = method.more(report.rows, job, preflight, report)
        for row in reporting.counted(more, method.name, job.quiet, work="of the utility file checked"):
            write(row)
    if reason := sharding.why_not_rows(job, report.rows, report.pictured):
        report.add_problem(reason)
    if job.held_out is not None:
        _prepare_held_out(job, method, preflight=preflight, report=report, out=out)
    if not report.rows and not report.problems:
        too_long = f"all usable rows are longer than {limit} tokens (--max-length, or the limit of the model)"
        raise UsageError(f"{job.source or 'stdin'}: {too_long if report.too_long else method.nothing} ({_in_words(report)})")
    _report_rows(job, method, report, limit)
    return report


def _prepare_held_out(job: Job, method: Method, preflight: Preflight, report: Report, out: Path | None) -> None:
    held_out = Report(problems=report.problems)
    with _writing(out and out.with_name(HELD_OUT), method) as write:
        rows = checked(read_records(job.held_out, job.reading), method.take(), preflight=preflight, job=job, report=held_out)
        for row in reporting.counted(rows, method.name, job.quiet, work="of the held-out file checked"):
            write(row)
    if not held_out.rows:
        report.add_problem(f"{job.held_out}: {method.nothing}")
    report.receipt["held out"] = held_out.rows


@contextmanager
def _writing(out: Path | None, method: Method) -> Iterator[Any]:
    if out is None:
        yield lambda row: None
        return
    with open_rows(out, method.answers) as rows:
        yield rows.write


def _trainer(job: Job, method: Method, start: models.Start, callbacks: list[Any]) -> Any:
    policy = models.load_policy(start, job)
    sharding.prepare(policy.model)
    held_out = job.out / HELD_OUT
    data = {
        "train_dataset": load_rows(job.out / ROWS, job.reading.max_pixels),
        "eval_dataset": load_rows(held_out, job.reading.max_pixels) if job.held_out is not None else None,
        "processing_class": models.processor_of(start),
    }
    callbacks = [*callbacks, reporting.metrics_writer(job.out / METRICS)]
    rows_per_step = job.schedule.batch_size * job.schedule.accumulate * world_size()
    if reporting.wants_bar(job.quiet):
        callbacks.append(reporting.progress_bar(method.name, rows_per_step))
    elif not job.quiet:
        callbacks.append(reporting.progress_lines(method.name, rows_per_step))
    more = {"router_aux_loss_coef": 0.0} if models.lacks_router_loss(policy.model.config) else {}
    trainer = method.trainer(policy, arguments(job) | more, data, callbacks)
    trainer.groups, trainer.reports = job.schedule.group_by_length, not job.quiet
    trainer.data_collator = checkpoints.WithRows(trainer.data_collator)
    reporting.remove_printers(trainer)
    return trainer


# The optimisers in the terms of transformers.
_OPTIMISERS: dict[str, Json] = {
    "adamw": {},
    "adamw_8bit": {"optim": "adamw_torch_8bit", "optim_args": "bf16_stochastic_round=True"},
    "paged_adamw_8bit": {"optim": "paged_adamw_8bit"},
}


def arguments(job: Job) -> Json:
    """Return the arguments that TRL's configurations share."""
    import torch

    plan, hardware = job.schedule, job.hardware
    has_device = bool(torch.accelerator.is_available())
    checkpointing = has_device if hardware.gradient_checkpointing is None else hardware.gradient_checkpointing
    return {
        "output_dir": str(job.out / "checkpoints"),
        "num_train_epochs": plan.epochs,
        "max_steps": plan.max_steps or -1,
        "per_device_train_batch_size": plan.batch_size,
        "per_device_eval_batch_size": plan.batch_size,
        "gradient_accumulation_steps": plan.accumulate,
        "learning_rate": plan.learning_rate,
        # transformers' own "constant" ignores the warm-up.
        "lr_scheduler_type": "constant_with_warmup" if plan.decay == "constant" else plan.decay,
        **_OPTIMISERS[plan.optimiser],
        "weight_decay": plan.weight_decay,
        "warmup_steps": plan.warmup,
        "seed": plan.seed,
        "logging_steps": 1,
        # A loss that is not finite must not be hidden.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": hardware.save_every,
        "save_total_limit": max(hardware.keep, 1),
        "eval_strategy": "steps" if hardware.eval_every else "no",
        "eval_steps": hardware.eval_every,
        "report_to": hardware.report_to or "none",
        "disable_tqdm": True,
        "use_cpu": not has_device,
        "bf16": models.has_bfloat16() and hardware.dtype != "float32",
        "gradient_checkpointing": checkpointing,
        "dataloader_num_workers": hardware.workers or 4 if has_device else 0,
        "dataloader_pin_memory": has_device,
        "remove_unused_columns": False,
        # Rows that are too long are dropped beforehand: truncation would cut their images.
        "max_length": None,
    }


def _finish(trainer: Any, job: Job, method: Method, start: models.Start, run: Json, measured: Json) -> Json:
    export(trainer, start, job)
    record: Json = {"model": str(job.out), "method": method.name, "steps": trainer.state.global_step}
    record |= {"rows": len(trainer.train_dataset), **reporting.final_metrics(job.out / METRICS), **method.result(trainer), **measured}
    if is_first():
        reporting.draw_curves(job.out / METRICS, job.out / CURVES)
        record["adapter"] = (job.out / "adapter_config.json").exists()
        run = lineage.without_places(run | {"result": record})
        (job.out / "README.md").write_text(lineage.card(run, start.hub_name))
        # Written last: a result in `run.json` marks a finished run.
        lineage.write_run(job.out, run)
        if job.hardware.keep:
            keep_checkpoints(start, job)
        else:
            shutil.rmtree(job.out / "checkpoints", ignore_errors=True)
        for name in (ROWS, HELD_OUT):  # the data are not part of the model
            (job.out / name).unlink(missing_ok=True)
    return record


@contextmanager
def _out_of_memory_explained(job: Job) -> Iterator[None]:
    """Turn an out-of-memory error of the body into a DreamError that names the options that save memory."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(job) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise _out_of_memory(job) from error


def _out_of_memory(job: Job) -> DreamError:
    half = max(1, job.schedule.batch_size // 2)
    options = [f"--batch-size {half} --accumulate {2 * job.schedule.accumulate} (the same update)"] if job.schedule.batch_size > 1 else []
    options += [
        "--max-pixels",
        "--max-length",
        "--gradient-checkpointing",
        *([] if job.lora else ["--lora"]),
        *([] if job.lora and job.lora.quantize else ["--qlora"]),
    ]
    return DreamError(f"out of memory with --batch-size {job.schedule.batch_size}; lower it by one of: {', '.join(options)}")


def _counts(report: Report) -> Json:
    counts = {k: v for k, v in asdict(report).items() if k in ("rows", "unreadable", "too_long", "longest")}
    return counts | {"rules": dict(report.receipt)}


def _in_words(report: Report) -> str:
    parts = [f"{n} {'pair' if (name, n) == ('pairs', 1) else name}" for name, n in report.receipt.items()]
    parts += [f"{report.too_long} too long"] if report.too_long else []
    return ", ".join(parts) or "no input"


def _report_rows(job: Job, method: Method, report: Report, limit: int | None) -> None:
    if not job.quiet:
        most = f", the longest {report.longest} tokens of {limit or 'any number'} allowed"
        reporting.report(f"{method.name}: {amount(report.rows, 'row')} to train on{most}: {_in_words(report)}")
        for note in report.notes:
            reporting.report(f"{method.name}: {note}")
