"""The server of `dream view --port`: large files page by page, for a browser on this machine only."""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from dream_cli.errors import UsageError
from dream_cli.records.visible import amount
from dream_cli.viewing.html.pages import render
from dream_cli.viewing.html.record_page import shown_records
from dream_cli.viewing.selecting import Selection, choose, fetch
from dream_cli.viewing.shapes import literal
from dream_cli.viewing.tables import Tables

PAGE = 24
PARTS = ("q", "categories", "sources", "outcomes", "low", "high")
OUTCOMES = {
    "scored": "responses.score IS NOT NULL",
    "unscored": "responses.unscored IS NOT NULL",
    "not judged": "responses.text IS NOT NULL AND responses.score IS NULL AND responses.unscored IS NULL",
    "no response": "responses.text IS NULL AND records.error IS NULL",
    "error": "records.error IS NOT NULL",
}


_COLUMNS = (("categories", "observations.risk_category"), ("sources", "observations.source"))


class Pages:
    """The pages of one file; requests come from several threads and are answered one at a time."""

    def __init__(self, tables: Tables, selection: Selection) -> None:
        self.tables, self.selection = tables, selection
        self._lock = threading.Lock()
        self._chosen: Selection | None = None
        self._count = 0
        tables.make_views()
        self.filters = {
            "categories": self._names("SELECT DISTINCT risk_category FROM observations WHERE risk_category <> '' ORDER BY 1"),
            "sources": self._names("SELECT DISTINCT source FROM observations WHERE source <> '' ORDER BY 1"),
            "outcomes": [(outcome, None) for outcome in OUTCOMES],
        }

    def _names(self, sql: str) -> list[tuple[str, None]]:
        return [(name, None) for (name,) in self.tables.query(f"{sql} LIMIT 200")]

    def page(self, query: Mapping[str, str]) -> str:
        """Return the page for a URL query; raise UsageError where it cannot be answered."""
        wanted = {part: query.get(part, "") for part in PARTS}
        requested = query.get("page", "1")
        # Python does not convert numbers of thousands of digits; a page beyond the last one is the last one.
        number = 1 if not (requested.isascii() and requested.isdigit()) else int(requested) if len(requested) < 10 else sys.maxsize
        selection = replace(self.selection, where=condition(self.selection.where, wanted))
        with self._lock:
            if selection != self._chosen:
                self._count, self._chosen = choose(self.tables, selection), selection
            count = self._count
            last = max(1, -(-count // PAGE))
            number = min(max(1, number), last)
            items = shown_records(fetch(self.tables, PAGE, (number - 1) * PAGE))
        return render(
            "gallery.html",
            title=os.path.basename(self.tables.shown),
            subtitle=amount(count, "record"),
            made_by="dream view --port",
            filters=self.filters,
            count=amount(count, "record"),
            has_scores=True,
            items=items,
            served=wanted,
            pages={
                "number": number,
                "all": last,
                "previous": _link(wanted, number - 1) if number > 1 else "",
                "next": _link(wanted, number + 1) if number < last else "",
            },
        )


def condition(where: str | None, wanted: Mapping[str, str]) -> str | None:
    """Return the SQL condition of the filters in a URL query and of the user's `where`; values become literals, never code."""
    parts = [f"({where}\n)"] if where else []
    parts += [f"{column} = {literal(wanted[part])}" for part, column in _COLUMNS if wanted[part]]
    parts += [
        f"responses.score {sign} {float(wanted[part])!r}" for part, sign in (("low", ">="), ("high", "<=")) if _is_number(wanted[part])
    ]
    parts += [f"({OUTCOMES[wanted['outcomes']]})"] if wanted["outcomes"] in OUTCOMES else []
    text = "lower(concat_ws(' ', records.id, records.prompt, responses.text, observations.malicious_content, records.error.message))"
    parts += [f"contains({text}, {literal(word.lower())})" for word in wanted["q"].split()]
    return " AND ".join(parts) or None


def _is_number(value: str) -> bool:
    try:
        return abs(float(value)) < 1e9
    except ValueError:
        return False


def _link(wanted: Mapping[str, str], page: int) -> str:
    return "?" + urlencode({part: value for part, value in wanted.items() if value} | {"page": page})


def serve(tables: Tables, selection: Selection, port: int) -> None:
    """Serve a file until interrupted; raise UsageError where the port is taken."""
    # Other users of this machine can reach the port too: the address contains a secret token.
    pages, token = Pages(tables, selection), secrets.token_urlsafe(24)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(pages, token))
    except OSError as error:
        raise UsageError(f"cannot listen on port {port} ({error.strerror or error}); choose another, 0 picks a free one") from None
    with server:
        sys.stderr.write(f"dream view: http://127.0.0.1:{server.server_address[1]}/{token}/ until Ctrl-C\n")
        sys.stderr.flush()
        server.serve_forever()


def _handler(pages: Pages, token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Responds to `/TOKEN/` with a page, to other paths below it with 404, and to requests without the token with 403."""

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            # Against DNS rebinding: a web site that resolves its own name to this machine must not read the file.
            if (self.headers.get("Host") or "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
                self._send(403, "this server responds to 127.0.0.1 and localhost only")
            elif not secrets.compare_digest(f"{address.path}/".split("/")[1].encode("utf-8", "backslashreplace"), token.encode()):
                self._send(403, "the address lacks the token that dream view printed")
            elif address.path != f"/{token}/":
                self._send(404, "there is one page, at the address that dream view printed")
            else:
                try:
                    self._send(200, pages.page({k: v[-1] for k, v in parse_qs(address.query).items()}), "text/html")
                except UsageError as error:
                    self._send(400, str(error))

        def _send(self, code: int, text: str, kind: str = "text/plain") -> None:
            body = text.encode("utf-8", "backslashreplace")
            self.send_response(code)
            for name, value in (
                ("Content-Type", f"{kind}; charset=utf-8"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                ("X-Frame-Options", "DENY"),
                ("Cross-Origin-Resource-Policy", "same-origin"),
                ("Referrer-Policy", "no-referrer"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
