"""Calls per second, and CPU of the client per call, against a server that responds immediately.    python examples/benchmarks/client.py [ROWS]"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent


def main(rows: int) -> None:
    """Run `dream sample` over text rows, with and without the store, and print the figures."""
    lines = "".join(json.dumps({"prompt": f"How do I water fern {i}?"}) + "\n" for i in range(rows)).encode()
    server = subprocess.Popen([sys.executable, "-m", "tests.loopback", "--port", "0"], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    try:
        address = re.search(r"http://\S+", server.stdout.readline())
        assert address, "the server printed no address"
        for name, options in {"no store": ["--no-store"], "store": ["--store", f"/tmp/bench-{os.getpid()}.sqlite"]}.items():
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            command = [sys.executable, "-m", "dream_cli", "sample", "-q", "--base-url", address[0], "--concurrency", "32", *options]
            subprocess.run(command, input=lines, stdout=subprocess.DEVNULL, check=True)
            wall = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            sys.stdout.write(f"{name:9} {rows / wall:7.0f} calls/s   {1000 * cpu / rows:.2f} ms CPU per call\n")
    finally:
        server.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000)
