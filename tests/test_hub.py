"""A data set on a hub: read by its name, and uploaded. The hub is one of ours, on loopback."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.conftest import Workdir

SHA = "0" * 40


class Hub(ThreadingHTTPServer):
    """As much of a hub as one data set needs; `files` are its contents, `visibility` how it was made, `asked` every path asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, bytes] = {}
        self.visibility = ""
        self.requests: list[str] = []


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(path)
        name = path.partition("/resolve/")[2].partition("/")[2]
        if name in self.server.files:
            self._file(self.server.files[name])
        elif "/tree/" in path:
            self._json([{"type": "file", "path": f, "oid": SHA, "size": len(b)} for f, b in self.server.files.items() if "/" in f])
        elif path.startswith("/api/datasets/"):
            self._json({"id": "me/mine", "sha": SHA, "siblings": [{"rfilename": f} for f in self.server.files]})
        else:
            self._json({}, 404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.requests.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        where = f"http://{self.headers['Host']}/datasets/me/mine"
        if self.path.endswith("/create"):
            self.server.visibility = json.loads(body).get("visibility", "")
            self._json({"url": where, "id": "me/mine"})
        elif "/preupload/" in self.path:
            sent = json.loads(body)["files"]
            self._json({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in sent]})
        elif "/commit/" in self.path:
            files = [line["value"] for line in map(json.loads, body.splitlines()) if line["key"] == "file"]
            self.server.files = {f["path"]: base64.b64decode(f["content"]) for f in files}
            self._json({"success": True, "commitOid": SHA, "commitUrl": f"{where}/commit/{SHA}"})
        else:
            self._json({"errors": [], "warnings": []})

    def _file(self, data: bytes) -> None:
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        end = min(int(last or len(data)), len(data) - 1)
        headers = {"ETag": f'"{SHA}"', "X-Repo-Commit": SHA, "Content-Range": f"bytes {first}-{end}/{len(data)}"}
        self._send(206 if "Range" in self.headers else 200, data[int(first) : end + 1], headers)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"X-Error-Code": "EntryNotFound"} if status == 404 else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(work: Workdir) -> Iterator[Hub]:
    """A hub, and `dream` pointed at it."""
    pytest.importorskip("datasets")
    with Hub() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        home = {"HF_ENDPOINT": f"http://127.0.0.1:{running.server_port}", "HF_TOKEN": "hf_none", "HF_HOME": str(work.path / "home")}
        work.env = {k: v for k, v in work.env.items() if not k.startswith("HF_")} | home
        yield running
        running.shutdown()


def test_a_folder_is_uploaded_as_a_private_data_set_and_read_by_its_name(work: Workdir, hub: Hub) -> None:
    work.picture("a.png")
    work.write("pairs.jsonl", [{"id": "a", "prompt": "What is this?", "images": ["a.png"], "chosen": "A fern.", "rejected": "No."}])
    ran = work.dream("convert", "pairs.jsonl", "--to", "trl", "-o", "set/", "--push", "me/mine")
    assert ran.code == 0, ran.err
    assert ran.err.splitlines()[-1] == f"dream convert: uploaded to {work.env['HF_ENDPOINT']}/datasets/me/mine"
    assert hub.visibility == "private" and set(hub.files) == {"README.md", "data/train.parquet"}
    ran = work.dream("convert", "hf://datasets/me/mine")
    assert ran.code == 0, ran.err
    (row,) = ran.rows
    assert row["images"][0].startswith("data:image/png;base64,") and row["chosen"] == "A fern."
    assert [path for path in hub.requests if "telemetry" in path or "agent" in path] == []


def test_a_hub_that_refuses_is_reported(work: Workdir, hub: Hub) -> None:
    ran = work.dream("convert", "hf://datasets/me/gone")
    assert ran.code == 2 and ran.err.startswith("dream: hf://datasets/me/gone cannot be read from the hub (")
    assert work.dream("convert", "--push", "me/mine", stdin="").code == 2
