"""The CPU seconds of one stage as a plain command, and on one and on two workers of a Ray cluster of this machine (Linux, extra `ray`).

    python examples/benchmarks/ray_efficiency.py [ROWS]      default: 400

`dream sample -n 2` with the embedded model on eight files, without a store. Counted are the CPU seconds of the command and of its workers,
which are read from /proc while they run; Ray's own processes are counted apart. The efficiency is the CPU per row of one worker over that
of two, without the start of the command and the workers, which a run with one row per file shows. The break-even is the number of rows
from which two workers on free cores are done before the plain command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

FILES = 8
TICK = os.sysconf("SC_CLK_TCK")
HEAD = """
import sys, ray
context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=100_000_000)
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
}


class Cost(NamedTuple):
    """CPU seconds: of the command, of its workers, and of Ray's own processes."""

    command: float
    workers: float
    ray: float


class Processes(threading.Thread):
    """The CPU seconds of the processes of a Ray cluster, read until `stop` is called."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.done = folder, threading.Event()
        self.seconds: dict[bool, dict[int, float]] = {True: {}, False: {}}
        self.before: dict[int, float] = {}

    def run(self) -> None:
        self.before = dict(self._read(False))
        while not self.done.wait(0.1):
            for workers in (True, False):
                self.seconds[workers].update(self._read(workers))

    def stop(self) -> tuple[float, float]:
        """Return the CPU seconds of the workers and of Ray's own processes."""
        self.done.set()
        self.join()
        own = sum(seconds - self.before.get(process, 0.0) for process, seconds in self.seconds[False].items())
        return sum(self.seconds[True].values()), own

    def _read(self, workers: bool) -> Iterator[tuple[int, float]]:
        for entry in Path("/proc").iterdir():
            try:
                line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
                if not (line.startswith(b"ray::") if workers else b"/ray/" in line and not line.startswith(b"ray::")):
                    continue
                if workers and not (entry / "cwd").samefile(self.folder):
                    continue
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(entry.name), (int(fields[11]) + int(fields[12])) / TICK
            except OSError:
                continue


def write(folder: Path, rows: int) -> None:
    """Write prompts of nano's world to the files of a folder."""
    from dream_cli.nano.items import records
    from dream_cli.records.outputs import open_writer

    items = records("held-out", rows)
    for number in range(FILES):
        with open_writer(str(folder / f"{number}.jsonl")) as writer:
            for item in items[number::FILES]:
                writer.write(item)


def cost(folder: Path, source: str, *more: str) -> Cost:
    """Run the stage on a folder of files and return its cost; raise SystemExit where it fails."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    processes = Processes(folder)
    processes.start()
    line = [sys.executable, "-m", "dream_cli", "sample", source, "-n", "2", "-q", "--no-store", "-o", "out/", *more]
    command = subprocess.Popen(line, cwd=folder, env=ENVIRONMENT)
    _, status, usage = os.wait4(command.pid, 0)
    workers, own = processes.stop()
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(line)} failed")
    return Cost(usage.ru_utime + usage.ru_stime, workers, own)


@contextmanager
def cluster() -> Iterator[tuple[str, float]]:
    """Start a cluster with two CPUs; yield its address and the CPU seconds of its start."""
    with subprocess.Popen([sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True) as head:
        assert head.stdin is not None and head.stdout is not None
        address = head.stdout.readline().strip()
        if not address:
            raise SystemExit("Ray does not start: it allows its processes half a minute, and this machine is too busy")
        time.sleep(1)
        yield address, sum(dict(Processes(Path.cwd())._read(False)).values())
        head.stdin.close()


def main(rows: int) -> None:
    """Print the cost of each way, the efficiency of two workers, and the break-even."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in (FILES, rows):
            (folder / f"in{size}").mkdir()
            write(folder / f"in{size}", size)
        plain = [cost(folder, f"in{size}") for size in (FILES, rows)]
        per_row, start = {0: (plain[1].command - plain[0].command) / (rows - FILES)}, plain[0].command
        sys.stdout.write(f"plain      start {start:6.2f} CPU s  {1e3 * per_row[0]:6.1f} ms per row\n")
        with cluster() as (address, own):
            starts = {}
            for workers in (1, 2):
                few, many = (cost(folder, f"in{size}", "--ray", address, "--ray-workers", str(workers)) for size in (FILES, rows))
                starts[workers] = few.command + few.workers / workers + few.ray
                per_row[workers] = (many.command + many.workers - few.command - few.workers) / (rows - FILES)
                sys.stdout.write(
                    f"{workers} on Ray   start {few.command + few.workers:6.2f} CPU s  {1e3 * per_row[workers]:6.1f} ms per row  "
                    f"(Ray's own processes {many.ray:.1f} s)\n"
                )
                sys.stdout.flush()
        sys.stdout.write(f"start of Ray: {own:.1f} CPU s\n")
        sys.stdout.write(
            f"efficiency of 2 workers over 1: {per_row[1] / per_row[2]:.0%}; over the plain command: {per_row[0] / per_row[2]:.0%}\n"
        )
        gain = per_row[0] - per_row[2] / 2
        sys.stdout.write(f"break-even with a running cluster: {(starts[2] - start) / gain:.0f} rows\n")
        sys.stdout.write(f"break-even with one that is started for the run: {(starts[2] + own - start) / gain:.0f} rows\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 400)
