"""The check that a file has the layout of its suffix; the error message names the right suffix or command."""

from __future__ import annotations

import re

from dream_cli.errors import UsageError

_HEAD = 64 * 1024  # bytes that are read; the file may be large
# The first key of an object whose value is a list of objects.
_WRAPPED = re.compile(rb'"([^"\\]{1,80})"\s*:\s*\[\s*\{')
# An object of rows by their index, as pandas writes it.
_INDEXED = re.compile(rb'\{\s*"\d+"\s*:\s*\{')


def check_layout(source: str, suffix: str) -> None:
    """Raise UsageError for a .jsonl, .jsonl.gz or .json file that begins like a file of another layout.

    A file that only has a malformed first line is accepted: its other lines are rows.
    """
    with open(source, "rb") as file:
        head = file.read(_HEAD)
        whole = not file.read(1)
    if not head:
        return
    packed = head.startswith(b"\x1f\x8b")
    if packed and suffix != ".jsonl.gz":
        raise UsageError(f"{source} is compressed with gzip; name it {source.removesuffix(suffix)}.jsonl.gz, or unpack it")
    if suffix == ".jsonl.gz":
        if not packed:
            raise UsageError(f"{source} is not compressed with gzip; name it {source[:-3]}")
        return
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{source} is UTF-16; save it as UTF-8")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if suffix == ".json":
        if not text.startswith(b"["):
            if wrapped := _WRAPPED.search(text) if text.startswith(b"{") else None:
                key = wrapped[1].decode(errors="replace")
                raise UsageError(f"{source} is a JSON object; its rows seem to be in {key!r} (jq .{key} {source})")
            if _INDEXED.match(text):
                raise UsageError(f"{source} is a JSON object; its rows seem to be its values (jq '[.[]]' {source})")
            raise UsageError(f"{source} is not a JSON array; if it holds one object per line, name it {source}l")
        return
    lines = [line.strip() for line in text.split(b"\n", 2) if line.strip()]
    first, more = lines[0] if lines else b"", lines[1:]
    if first == b"[" or (re.match(rb"\[\s*\{", first) and (first.endswith(b",") or (not more and (whole or len(text) == _HEAD)))):
        raise UsageError(f"{source} is a JSON array; name it {source[:-1]}")
    if first == b"{" and more and not more[0].startswith(b"{"):
        raise UsageError(f"{source} is JSON over several lines; a record is one line (jq -c . {source})")
