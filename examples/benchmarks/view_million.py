"""The time and memory of `dream view` for a million records of 1 KB.    python examples/benchmarks/view_million.py [ROWS]"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dream_cli.prompts.taxonomy import Taxonomy
from dream_cli.records.outputs import open_writer
from dream_cli.records.record import Record

DISTINCT = 50_000
WORDS = ("the", "garden", "plan", "shows", "how", "to", "water", "each", "plant", "every", "other", "day", "and", "keep", "tools", "dry")


def records(n: int) -> Iterator[dict[str, Any]]:
    """Yield judged records of about 1 KB: two responses each, none to two risks."""
    draw, terms = random.Random(0), Taxonomy.load()

    def words(least: int, most: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(least, most)))

    for i in range(n):
        risks = [
            {
                "malicious_content": words(5, 9),
                "source": draw.choice(terms.sources).name,
                "risk_category": draw.choice(terms.categories).name,
            }
            for _ in range(i % 3)
        ]
        judged = [
            {"rubric": "sum/expected", "global_score": round(10 * draw.random(), 6), "score": round(draw.random(), 6), "model": "judge"}
            for _ in range(2)
        ]
        responses = [{"text": words(20, 50), "model": "policy", "finish_reason": "stop", "judgement": judgement} for judgement in judged]
        yield {"id": f"record-{i}", "prompt": words(20, 50), "observations": risks, "responses": responses}


def write(folder: Path, rows: int) -> list[Path]:
    """Write the same records as Parquet and JSONL, each distinct record several times."""
    import pyarrow.parquet as pq

    part, lines, columns = folder / "part.parquet", folder / "million.jsonl", folder / "million.parquet"
    with open_writer(str(part)) as writer, lines.open("w") as file:
        for row in records(min(rows, DISTINCT)):
            writer.write(Record.from_dict(row))
            file.write(json.dumps(row) + "\n")
    text, table = lines.read_text(), pq.read_table(part)
    with lines.open("a") as file, pq.ParquetWriter(columns, table.schema, compression="zstd") as parquet:
        for i in range(max(1, rows // DISTINCT)):
            parquet.write_table(table, row_group_size=4096)
            file.write(text if i else "")
    return [columns, lines]


def main(rows: int) -> None:
    """Print seconds, seconds of CPU and the peak memory of each format."""
    with tempfile.TemporaryDirectory() as folder:
        for path in write(Path(folder), rows):
            start = time.perf_counter()
            process = subprocess.Popen([sys.executable, "-m", "dream_cli", "view", str(path)], stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            assert status == 0, status
            taken, cpu = time.perf_counter() - start, used.ru_utime + used.ru_stime
            size = path.stat().st_size / rows
            sys.stdout.write(
                f"{path.suffix[1:]:8} {rows:,} rows of {size:,.0f} bytes: {taken:.2f} s, CPU {cpu:.2f} s, {used.ru_maxrss // 1024} MB\n"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
