"""The CPU of the client per call of `dream sample` and of other tools, against one local server that responds immediately.

    python examples/benchmarks/call_peers.py [CALLS] [--peers PYTHON ...]      default: 1000 calls

Each PYTHON is that of an environment with `openai`, `inspect_ai` or `bespokelabs-curator` (they need different versions of `openai`);
tools that are in none are left out. Each tool sends
short texts, 32 at once, without a store or cache. Counted is the CPU time (user and system) of the process and its children; the CPU per
call is the difference to a run with 20 calls, which is the start.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
START = 20
DREAM = 'import sys\nfrom dream_cli.cli.main import main\nsys.argv = ["dream", "sample", "in.jsonl", "-q", "--no-store", "--max-tokens", "16", "--concurrency", "32", "--base-url", URL]\nmain()\n'
OPENAI = """
import asyncio
from openai import AsyncOpenAI
async def run():
    client, slots = AsyncOpenAI(base_url=URL, api_key="none"), asyncio.Semaphore(32)
    async def one(text):
        async with slots:
            reply = await client.chat.completions.create(model="loopback", messages=[{"role": "user", "content": text}], max_tokens=16)
        assert reply.choices[0].message.content
    await asyncio.gather(*(one(text) for text in TEXTS))
asyncio.run(run())
"""
INSPECT = """
import os
os.environ["LOCAL_API_KEY"], os.environ["LOCAL_BASE_URL"] = "none", URL
from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.solver import generate
task = Task(dataset=MemoryDataset([Sample(input=text) for text in TEXTS]), solver=generate())
(log,) = eval(task, model="openai-api/local/loopback", max_connections=32, max_samples=32, max_tokens=16, display="none", log_dir="logs")
assert log.status == "success", log.error
"""
CURATOR = """
import os
import litellm
# It counts tokens with a table that it would otherwise download.
os.environ["TIKTOKEN_CACHE_DIR"] = os.path.join(os.path.dirname(litellm.__file__), "litellm_core_utils", "tokenizers")
from bespokelabs import curator
limits = {"base_url": URL, "api_key": "none", "max_concurrent_requests": 32, "max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**9}
llm = curator.LLM(model_name="loopback", backend="openai", backend_params=limits, generation_params={"max_tokens": 16})
out = llm(TEXTS)
"""
PROGRAMS = {"dream": DREAM, "openai": OPENAI, "inspect_ai": INSPECT, "curator": CURATOR}
MODULES = {"dream": "dream_cli", "openai": "openai", "inspect_ai": "inspect_ai", "curator": "bespokelabs.curator"}
OFF = {"CURATOR_DISABLE_CACHE": "1", "TELEMETRY_ENABLED": "false", "HF_HUB_OFFLINE": "1", "CURATOR_DISABLE_RICH_DISPLAY": "1"}


def has(python: str, module: str) -> bool:
    """Whether an environment has a module."""
    return subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True).returncode == 0


def cost(python: str, program: str, calls: int, url: str) -> float:
    """Run a program on `calls` prompts in a new folder and return its CPU seconds; raise SystemExit where it fails."""
    texts = [f"How do I water fern {i}?" for i in range(calls)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "in.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
        Path(folder, "run.py").write_text(f"URL = {url!r}\nTEXTS = {texts!r}\n{program}")
        env = os.environ | OFF | {"HOME": folder, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([python, "run.py"], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        talk = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{program.split()[1]} failed: {talk[-2000:]}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print a line for each tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calls", type=int, nargs="?", default=1000)
    parser.add_argument("--peers", nargs="*", default=[sys.executable])
    args = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-m", "tests.loopback", "--port", "0"], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = re.search(r"http://\S+", server.stdout.readline())
        assert address, "the server printed no address"
        for name, program in PROGRAMS.items():
            pythons = [sys.executable] if name == "dream" else args.peers
            python = next((python for python in pythons if has(python, MODULES[name])), None)
            if python is None:
                sys.stdout.write(f"{name:12} is not installed\n")
                continue
            start, whole = (min(cost(python, program, calls, address[0]) for _ in range(2)) for calls in (START, args.calls))
            sys.stdout.write(f"{name:12} start {start:6.2f} CPU s{1e3 * (whole - start) / (args.calls - START):8.2f} ms CPU per call\n")
            sys.stdout.flush()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
