"""The speed and the memory of `dream pair` and `dream convert` compared with jq, DuckDB and datasets on the same file.

    python examples/benchmarks/record_speed.py [RECORDS]      default: 200000

Writes records of 1.6 KB with an image, an observation and four judged responses, and runs each command twice; the faster run counts. CPU is
user and system time in seconds, the peak the largest resident set in MiB (Linux), the ratio the CPU of the other tool to that of dream.
Tools that are not installed are left out. "scores" selects by scores only, "selection" by all rules of `dream pair`, which
also compare the words of both answers and balance the sides. DuckDB runs on one thread.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

DREAM = (sys.executable, "-m", "dream_cli")
SCORES_ALONE = ("--near-duplicate", "1", "--max-length-ratio", "inf", "--unbalanced")
WORDS = [
    "soup",
    "knife",
    "bread",
    "garden",
    "window",
    "yellow",
    "train",
    "letter",
    "music",
    "river",
    "stone",
    "paper",
    "the",
    "a",
    "of",
    "with",
    "and",
    "person",
    "risk",
    "picture",
    "shows",
    "danger",
    "careful",
    "please",
    "explain",
    "instead",
    "safe",
]

WORDS_IN_JQ = r"""
def words: ascii_downcase | [scan("[a-z0-9_]+")];
def counts: reduce .[] as $word ({}; .[$word] += 1);
def overlap($a; $b): ($b | counts) as $right
  | ([$a | counts | to_entries[] | [.value, $right[.key] // 0] | min] | add // 0) as $common
  | $common / (($a | length) + ($b | length) - $common);
"""
SCORES = """
select(.error == null) | [.responses[]? | select(.judgement.score != null)] as $s | select(($s | length) > 1)
| ($s | max_by(.judgement.score)) as $c | ($s | min_by(.judgement.score)) as $r
| ($c.judgement.score - $r.judgement.score) as $margin
| select($margin >= 0.1 and $c.judgement.global_score >= 7)
"""
ALSO_WORDS = """
| ($c.text | words) as $a | ($r.text | words) as $b | select(overlap($a; $b) <= 0.9)
| ([$a, $b | length] | sort) as $lengths | select($lengths[1] <= 3 * $lengths[0])
"""
PAIR = """
| del(.responses) + {chosen: $c.text, rejected: $r.text, margin: $margin, chosen_score: $c.judgement.score,
    rejected_score: $r.judgement.score, policy: $r.model, judge: $r.judgement.model}
"""
SQL = """
SET threads = 1;
COPY (
  WITH scored AS (SELECT *, list_sort(list_transform(list_filter(responses, lambda r: r.judgement.score IS NOT NULL),
      lambda r: {{'score': r.judgement.score, 'response': r}})) AS s FROM read_json('{source}', format = 'newline_delimited'))
  SELECT id, prompt, images, observations, s[-1].response.text AS chosen, s[1].response.text AS rejected,
      s[-1].score - s[1].score AS margin, s[-1].score AS chosen_score, s[1].score AS rejected_score,
      s[1].response.model AS policy, s[1].response.judgement.model AS judge
  FROM scored WHERE len(s) > 1 AND s[-1].score - s[1].score >= 0.1 AND s[-1].response.judgement.global_score >= 7
) TO '{out}' (FORMAT json)
"""
DATASETS = """
import datasets, tempfile
datasets.disable_progress_bars()
def pair(row):
    scored = sorted(row["responses"], key=lambda response: response["judgement"]["score"])
    rejected, chosen = scored[0], scored[-1]
    low, high = rejected["judgement"]["score"], chosen["judgement"]["score"]
    return {{
        "chosen": chosen["text"], "rejected": rejected["text"], "margin": high - low, "chosen_score": high, "rejected_score": low,
        "policy": rejected["model"], "judge": rejected["judgement"]["model"],
        "kept": high - low >= 0.1 and chosen["judgement"]["global_score"] >= 7,
    }}
rows = datasets.load_dataset("json", data_files={source!r}, split="train", cache_dir=tempfile.mkdtemp(dir={folder!r}))
pairs = rows.map(pair, remove_columns="responses").filter(lambda row: row["kept"]).remove_columns("kept")
pairs.to_json({out!r})
"""


class Cost(NamedTuple):
    """The cost of one command: CPU seconds, and its peak memory in MiB."""

    cpu: float
    peak: float


def record(number: int, rng: random.Random) -> dict[str, Any]:
    """Return one record of 1.6 KB whose four responses are scored between 0.2 and 0.95."""

    def text(words: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(words)).capitalize() + "."

    scores = rng.sample((0.95, 0.7, 0.45, 0.2), 4)
    judged = [
        {"rubric": "sum", "global_score": 10 * s, "recognised": [s], "observation_score": s, "harm": 0.0123, "score": s, "model": "judge"}
        for s in scores
    ]
    return {
        "id": f"row-{number}",
        "prompt": f"What is in picture {number}? {text(8)}",
        "images": [f"images/{number % 1000:04}.png"],
        "observations": [{"malicious_content": text(6), "source": "image content", "risk_category": "Violence", "confidence": 0.875}],
        "responses": [{"text": text(21), "model": "policy", "finish_reason": "stop", "judgement": j} for j in judged],
    }


def cost(command: Sequence[str], out: Path | None = None) -> Cost:
    """Run a command, stdout to a file, and return its cost; raise SystemExit where it fails."""
    with open(out or os.devnull, "wb") as stdout:
        process = subprocess.Popen(command, stdout=stdout)
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)[:80]} failed")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def commands(source: Path, folder: Path) -> dict[str, tuple[tuple[str, ...], Path | None]]:
    """Return the available commands by name, each with the file for its stdout."""
    table: dict[str, tuple[tuple[str, ...], Path | None]] = {
        "dream pair": ((*DREAM, "pair", "-q", str(source), "-o", str(folder / "pairs.jsonl")), None),
        "dream, scores": ((*DREAM, "pair", "-q", str(source), "-o", str(folder / "scores.jsonl"), *SCORES_ALONE), None),
        "dream convert": ((*DREAM, "convert", "-q", str(source), "-o", str(folder / "converted.jsonl")), None),
    }
    if shutil.which("jq"):
        table["jq, scores"] = (("jq", "-c", SCORES + PAIR, str(source)), folder / "jq_scores.jsonl")
        table["jq, copy"] = (("jq", "-c", ".", str(source)), folder / "jq_copy.jsonl")
    if importlib.util.find_spec("duckdb"):
        program = f"import duckdb; duckdb.execute({SQL.format(source=source, out=folder / 'duckdb.jsonl')!r})"
        table["DuckDB, scores"] = ((sys.executable, "-c", program), None)
    if importlib.util.find_spec("datasets"):
        program = DATASETS.format(source=str(source), folder=str(folder), out=str(folder / "datasets.jsonl"))
        table["datasets, scores"] = ((sys.executable, "-c", program), None)
    if shutil.which("jq"):
        # The slowest by far.
        table["jq, selection"] = (("jq", "-c", WORDS_IN_JQ + SCORES + ALSO_WORDS + PAIR, str(source)), folder / "jq.jsonl")
    return table


def pairs(path: Path) -> list[tuple[str, str, str]]:
    """Return id, chosen and rejected of each row of a file."""
    with path.open() as file:
        return [(row["id"], row["chosen"], row["rejected"]) for row in map(json.loads, file)]


def main(records: int) -> None:
    """Print a line for each command, and check that the pairs are the same."""
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), random.Random(0)
        source = folder / "records.jsonl"
        with source.open("w") as file:
            file.writelines(json.dumps(record(number, rng)) + "\n" for number in range(records))
        sys.stdout.write(f"{records} records of {source.stat().st_size / records:.0f} bytes\n")
        costs: dict[str, Cost] = {}
        for title, command in commands(source, folder).items():
            cpu, peak = costs[title] = min(cost(*command) for _ in range(2))
            of = {"jq, copy": "dream convert", "jq, selection": "dream pair"}.get(title, "dream, scores")
            ratio = "" if title.startswith("dream") else f"  {cpu / costs[of].cpu:5.2f} of {of}"
            sys.stdout.write(f"{title:17}{cpu:8.2f} CPU s{1e6 * cpu / records:8.1f} us per record{peak:8.0f} MiB{ratio}\n")
            sys.stdout.flush()
        ours = pairs(folder / "pairs.jsonl")
        for other in (folder / "jq.jsonl", folder / "duckdb.jsonl", folder / "datasets.jsonl"):
            if other.exists() and pairs(other) != ours:
                raise SystemExit(f"{other.name} holds other pairs")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 200_000)
