"""The memory of `dream pair`, and its records per second: neither should depend on the length of the input.

    python examples/benchmarks/pair_memory.py [RECORDS ...]      default: 10000 1000000

Runs the real command on a stream generated on the fly (four judged responses per record) and prints one line of JSON for each size.
The peak is the largest resident set of the command alone, in MiB (Linux).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

COMMAND = (sys.executable, "-m", "dream_cli", "pair", "--quiet")
WORDS = ["soup", "knife", "bread", "garden", "window", "yellow", "train", "letter", "music", "river", "stone", "paper"]


def record(number: int) -> dict[str, Any]:
    """Return one record with four responses of about 60 words, scored between 0.2 and 0.95."""
    texts = [" ".join(WORDS[(number + i * k) % len(WORDS)] for k in range(60)) for i in range(1, 5)]
    scores = (0.95, 0.7, 0.45, 0.2)
    judged = [{"rubric": "global", "global_score": 10 * s, "score": s} for s in scores]
    responses = [{"text": t, "judgement": j} for t, j in zip(texts, judged, strict=True)]
    return {"id": str(number), "prompt": f"What is in picture {number}?", "responses": responses}


def measure(records: int) -> dict[str, float]:
    """Pipe `records` records through the command; return records, pairs, seconds, records per second and the peak in MiB."""
    # The lines are repeated, so that the command is measured and not this script.
    lines = [json.dumps(record(n)).encode() + b"\n" for n in range(min(records, 1000))]
    started = time.perf_counter()
    counted = subprocess.Popen(["wc", "-l"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    command = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=counted.stdin)
    assert command.stdin and counted.stdin and counted.stdout
    counted.stdin.close()
    for n in range(records):
        command.stdin.write(lines[n % len(lines)])
    command.stdin.close()
    if command.wait():
        raise SystemExit(f"{' '.join(COMMAND)} ended with exit code {command.returncode}")
    seconds = time.perf_counter() - started
    pairs = int(counted.stdout.read())
    counted.wait()
    # The maximum over all children so far: sizes run in ascending order, so it belongs to this run or to a smaller one.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    figures = {"records": records, "pairs": pairs, "seconds": seconds, "records_per_second": records / seconds, "peak_mib": peak}
    return {name: round(value, 1) for name, value in figures.items()}


def main(sizes: Sequence[int]) -> None:
    """Measure each size, the smallest first."""
    for size in sorted(sizes):
        sys.stdout.write(json.dumps(measure(size)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [10_000, 1_000_000])
