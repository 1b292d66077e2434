"""The command lines of the option tests, and what stands in for the library behind each command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from dream_cli.records.record import Record

STAGE = "stage"  # stands for run_stage, which is given a function that makes the step


@contextmanager
def opened(*_: Any, **__: Any) -> Iterator[Any]:
    yield SimpleNamespace(write=lambda record: None)


def nothing(*_: Any, **__: Any) -> None:
    """Stand for what only prints or writes."""


def no_items(*_: Any, **__: Any) -> tuple[list[Any], int]:
    return [], 0


def no_rows(*_: Any, **__: Any) -> list[Record]:
    return []


def one_row(*_: Any, **__: Any) -> list[Record]:
    return [Record.from_dict({"id": "1", "prompt": "What is this?"})]


COMMAND_LINES = {
    "disentangle": "",
    "sample": "",
    "judge": "",
    "prefer": "other.jsonl",
    "pair": "",
    "sft": "-o out --model nano-policy",
    "dpo": "-o out --model nano-policy",
    "eval": "nano_world --judge j",
    "agree": "a.jsonl b.jsonl",
    "convert": "",
    "leak": "a.jsonl b.jsonl",
    "view": "in.jsonl --limit 3",
    "diff": "a.jsonl b.jsonl",
    "why": "1 a.jsonl",
    "store": "prune --model m --store a.sqlite",
    "doctor": "",
    "completion": "bash",
    "man": "",
}

STAGES = {"dream_cli.method.stages:run_stage": STAGE}
ENTRIES: Mapping[str, Mapping[str, Any]] = {
    "disentangle": STAGES,
    "sample": STAGES,
    "judge": STAGES,
    "prefer": STAGES | {"dream_cli.formats.sources:read_records": no_rows},
    "pair": {
        "dream_cli.formats.sources:read_shards": one_row,
        "dream_cli.records.outputs:open_writer": opened,
        "dream_cli.method.pairing:pairs_of": lambda record, rules: [],
        "dream_cli.method.pair_sets:PairSet": lambda share, even, lessons: SimpleNamespace(
            judges=set(), kept=list, receipt=lambda: "counted\n", report=lambda: "taught\n"
        ),
    },
    "sft": {"dream_cli.training.running:perform": lambda **_: SimpleNamespace(record={}, exit_code=0)},
    "dpo": {"dream_cli.training.running:perform": lambda **_: SimpleNamespace(record={}, exit_code=0)},
    "eval": {
        "dream_cli.benchmarks.registry:read_file": lambda path: SimpleNamespace(name="mine"),
        "dream_cli.benchmarks.loading:read_items": no_items,
        "dream_cli.benchmarks.answers:read_answers": lambda **_: [],
        "dream_cli.benchmarks.answers:with_answers": lambda **_: [],
        "dream_cli.evaluation.item_parts:items_of_part": lambda items, part: items,
        "dream_cli.evaluation.evaluating:run_evaluation": no_items,
        "dream_cli.evaluation.reports:deliver": nothing,
        "dream_cli.evaluation.reports:print_comparison": lambda **_: 0,
    },
    "agree": {
        "dream_cli.formats.sources:read_records": no_rows,
        "dream_cli.evaluation.label_agreement:judged_voices": lambda records, rule: {record.id: rule for record in records},
        "dream_cli.evaluation.label_agreement:matched": lambda **_: [{}],
        "dream_cli.evaluation.label_agreement:agreement_report": lambda **_: {"n": 1},
        "dream_cli.evaluation.label_agreement:report_text": lambda **_: "in words\n",
    },
    "convert": {
        "dream_cli.formats.converting:convert": lambda **_: SimpleNamespace(report=lambda target: "receipt\n", errors=0),
        "dream_cli.formats.hub_datasets:upload": lambda **_: "the hub",
    },
    "leak": {
        "dream_cli.benchmarks.loading:read_items": no_items,
        "dream_cli.formats.sources:read_records": no_rows,
        "dream_cli.evaluation.contamination:leaks": lambda **_: [],
    },
    "view": {
        "dream_cli.viewing.tables:open_tables": opened,
        "dream_cli.viewing.looking:check_options": nothing,
        "dream_cli.viewing.looking:show_query": nothing,
        "dream_cli.viewing.looking:show_summary": nothing,
        "dream_cli.viewing.looking:show": nothing,
        "dream_cli.viewing.looking:write_gallery": nothing,
        "dream_cli.viewing.html.serving:serve": nothing,
    },
    "diff": {
        "dream_cli.viewing.differing:difference": lambda **_: SimpleNamespace(to_dict=lambda: "as JSON"),
        "dream_cli.formats.sources:read_records": no_rows,
        "dream_cli.viewing.looking:print_json": nothing,
        "dream_cli.viewing.printing:print_difference": nothing,
    },
    "why": {
        "dream_cli.viewing.tracing:rows_of": lambda **_: ([], []),
        "dream_cli.viewing.tracing:calls_of": lambda **_: [],
        "dream_cli.viewing.tracing:trace_json": lambda **_: "as JSON",
        "dream_cli.viewing.looking:print_json": nothing,
        "dream_cli.viewing.record_printing:print_trace": nothing,
    },
    "store": {
        "dream_cli.engines.store_upkeep:time_before": lambda age: f"{age} ago",
        "dream_cli.engines.store_upkeep:contents": lambda **_: SimpleNamespace(to_json=lambda: "as JSON", report=lambda: "in words"),
        "dream_cli.engines.store_upkeep:prune": lambda **_: "pruned",
        "dream_cli.engines.store_upkeep:export_to": lambda **_: ("exported", 0),
        "dream_cli.engines.store_upkeep:import_from": lambda **_: ("imported", 0),
    },
    "doctor": {
        "dream_cli.cli.doctor:examine": lambda **_: [],
        "dream_cli.cli.doctor:as_json": lambda **_: "as JSON",
        "dream_cli.cli.doctor:report": lambda **_: "in words",
    },
    "completion": {"dream_cli.cli.completion:script": lambda **_: "script"},
    "man": {},
}
