"""examples/serve.sh against a stand-in for `vllm`: its flags, the wait for its health, the command, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "examples" / "serve.sh"
# It writes down its arguments, starts a worker as vLLM does, and answers from a moment later on.
SERVER = """\
import http.server, json, os, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
json.dump({"line": sys.argv[1:], "pids": [os.getpid(), worker.pid]}, open("server.json", "w"))
if "broken" in sys.argv:
    print("no such model")
    worker.kill()
    sys.exit(1)
time.sleep(0.5)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with the stand-in and an adapter of rank 12."""
    (tmp_path / "server.py").write_text(SERVER)
    program = tmp_path / "vllm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} server.py "$@"\n')
    program.chmod(0o755)
    (tmp_path / "safe").mkdir()
    (tmp_path / "safe" / "adapter_config.json").write_text('{"r": 12}')
    return tmp_path


def serve(place: Path, *line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, "PORT": port, "VLLM": "./vllm", **variables}
    return subprocess.run(["bash", str(SCRIPT), *line], check=False, cwd=place, env=env, capture_output=True, text=True, timeout=120)


def is_running(pid: int) -> bool:
    """Whether a process is there; one that ended and that nobody waited for is not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def nothing_is_left(place: Path) -> bool:
    """Whether the server and its worker end within a moment."""
    pids = json.loads((place / "server.json").read_text())["pids"]
    for _ in range(100):
        if not any(is_running(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def test_a_command_finds_the_server_and_leaves_nothing_behind(place: Path) -> None:
    shown = 'echo "$DREAM_BASE_URL $DREAM_MODEL $DREAM_JUDGE"; exit 3'
    ran = serve(place, "org/vlm", "sh", "-c", shown, ADAPTER="safe", SERVE="--max-model-len 512", DREAM_JUDGE="other")
    assert (ran.returncode, ran.stderr) == (3, "")
    line = json.loads((place / "server.json").read_text())["line"]
    port = line[line.index("--port") + 1]
    assert ran.stdout == f"http://127.0.0.1:{port}/v1 vlm+safe other\n"
    assert line[:4] == ["serve", "org/vlm", "--served-model-name", "vlm"]
    assert line[-7:] == ["--enable-lora", "--max-lora-rank", "16", "--lora-modules", "vlm+safe=safe", "--max-model-len", "512"]
    assert nothing_is_left(place)


def test_a_server_that_ends_is_reported_with_its_own_words(place: Path) -> None:
    ran = serve(place, "org/vlm", "true", SERVE="broken")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[0] == "serve: the server ended; the last lines of serve.log:"
    assert "no such model" in ran.stderr
    assert nothing_is_left(place)


def test_a_server_that_does_not_answer_in_time_is_ended(place: Path) -> None:
    (place / "server.py").write_text(SERVER.replace("time.sleep(0.5)", "time.sleep(600)"))
    ran = serve(place, "org/vlm", "true", WAIT="2")
    assert (ran.returncode, ran.stderr) == (2, "serve: no answer after 2 s; see serve.log\n")
    assert nothing_is_left(place)


def test_without_a_command_nothing_is_started(place: Path) -> None:
    ran = serve(place, "org/vlm")
    assert (ran.returncode, ran.stderr) == (2, "usage: bash examples/serve.sh MODEL COMMAND...\n")
    assert not (place / "server.json").exists()
