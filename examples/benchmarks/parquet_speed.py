"""The speed and the memory of `dream convert` from Parquet to Parquet, compared with DuckDB and `datasets.map` on the same file.

    python examples/benchmarks/parquet_speed.py [RECORDS]      default: 50000

Writes records with an embedded image of 2 KB, an observation, two judged responses and a field of the user, and runs each command once.
CPU is user and system time in seconds without the start (that of one record), the peak the largest resident set in MiB (Linux). DuckDB and
`datasets` copy the table with one thread, and check nothing; dream checks the fields of each record. "by rows" is dream with a column for
the prompt named, which turns the copy by columns off.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import tempfile
from pathlib import Path

from record_speed import DREAM, cost, record

DUCKDB = (
    "import duckdb; duckdb.execute('SET threads = 1'); duckdb.execute(\"COPY (FROM '{0}') TO '{1}' (FORMAT parquet, COMPRESSION zstd)\")"
)
DATASETS = (
    "import datasets; datasets.disable_progress_bars(); datasets.Dataset.from_parquet('{0}', cache_dir='{2}')"
    ".map(lambda row: row).to_parquet('{1}')"
)


def write(path: Path, records: int) -> None:
    """Write the records to a Parquet file of dream."""
    from dream_cli.records.parquet import ParquetRows

    rng = random.Random(0)
    with path.open("wb") as file:
        rows = ParquetRows(file)
        for number in range(records):
            row = record(number, rng)
            image = {"bytes": rng.randbytes(2048), "path": f"{number}.png"}
            rows.write(row | {"images": [image], "responses": row["responses"][:2], "source": "web"})
        rows.close()


def main(records: int) -> None:
    """Print a line for each command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {size: folder / f"{size}.parquet" for size in (1, records)}
        for size, path in sources.items():
            write(path, size)
        out = folder / "out.parquet"
        programs = {name: text for name, text in {"duckdb": DUCKDB, "datasets": DATASETS}.items() if importlib.util.find_spec(name)}
        commands = {
            size: {
                "dream": (*DREAM, "convert", "-q", str(path), "-o", str(out)),
                "dream, by rows": (*DREAM, "convert", "-q", str(path), "-o", str(out), "--prompt-column", "prompt"),
                **{name: (sys.executable, "-c", text.format(path, out, folder / f"cache-{size}")) for name, text in programs.items()},
            }
            for size, path in sources.items()
        }
        sys.stdout.write(f"{records} records, {sources[records].stat().st_size / 2**20:.0f} MiB\n")
        for title in commands[records]:
            start, whole = cost(commands[1][title]), cost(commands[records][title])
            cpu = whole.cpu - start.cpu
            sys.stdout.write(
                f"{title:16}{cpu:8.2f} CPU s{1e6 * cpu / records:8.1f} us per record{whole.peak:8.0f} MiB  start {start.cpu:.2f}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 50_000)
