"""The time of `dream X --help`, against bare Python with typer.    python examples/benchmarks/startup.py"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from dream_cli.cli.main import COMMANDS

# A program with one typed option, for which typer already loads pydantic.
FLOOR = """
import typer
app = typer.Typer(rich_markup_mode=None)
@app.command()
def run(n: int = 1) -> None: ...
app()
"""


def seconds(command: list[str], runs: int = 9) -> float:
    """Return the median wall time of a command, after one warm-up run."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Print a line for each command: seconds, and the ratio to bare Python with typer."""
    floor = seconds([sys.executable, "-c", FLOOR, "--help"])
    sys.stdout.write(f"{'the least typer program':24} {floor:.3f} s\n")
    for name in ("", *COMMANDS):
        taken = seconds([sys.executable, "-m", "dream_cli", *name.split(), "--help"])
        sys.stdout.write(f"{'dream ' + name + ' --help':24} {taken:.3f} s  {taken / floor:.2f}\n")


if __name__ == "__main__":
    main()
