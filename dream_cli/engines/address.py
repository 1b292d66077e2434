"""The address of a server: its parts, and a form without secrets for messages."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from dream_cli.errors import UsageError


@dataclass(frozen=True)
class Address:
    """The parts of a base URL; only `place` is ever printed or written to a file.

    `query` (such as Azure's `api-version=...`) is sent with every request; `user` and `password` become a header.
    """

    place: str
    host: str
    query: str = field(repr=False)
    user: str = field(repr=False)
    password: str = field(repr=False)

    def url(self, path: str) -> str:
        """Return the URL of a path on the server."""
        return self.place + path + (f"?{self.query}" if self.query else "")

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the parts that must not appear in messages."""
        # A field without a value, or a user without a password, is a token by itself.
        values = [value or name for name, value in parse_qsl(self.query, keep_blank_values=True) if name != "api-version"]
        return tuple(part for part in (self.password or self.user, *values) if part)


def read_address(base_url: str) -> Address:
    """Return the parts of a base URL; raise UsageError if it is not an http or https URL."""
    error = UsageError(f"--base-url {public_address(base_url)!r} is not a URL; it looks like http://localhost:8000/v1")
    if not re.match(r"https?://[^/\s]\S*$", base_url):
        raise error
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise error from None
    if not host or any(len(label) > 63 for label in host.split(".")):
        raise error
    bare = f"[{host}]" if ":" in host else host
    place = urlunsplit((parts.scheme, bare if port is None else f"{bare}:{port}", parts.path, "", "")).rstrip("/")
    return Address(
        place=place, host=host.lower(), query=parts.query, user=unquote(parts.username or ""), password=unquote(parts.password or "")
    )


def public_address(url: str) -> str:
    """Return a URL without its user, password and query; the text need not be a valid URL."""
    return re.sub(r"[?#].*", "", re.sub(r"^([^/?#]*//)?[^/]*@", r"\1", url, flags=re.DOTALL), flags=re.DOTALL)
