"""API keys per server: a key is sent only to the host it belongs to."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence

from dream_cli.engines.address import Address, read_address
from dream_cli.errors import UsageError

SHARED = "DREAM_API_KEY"
OPENAI = "OPENAI_API_KEY"


def key_names(role: str) -> tuple[str, ...]:
    """Return the environment variables of the key for a role ("judge": DREAM_JUDGE_API_KEY), the specific one first."""
    return (f"DREAM_{role.upper()}_API_KEY", SHARED)


def judge_key_names(urls: Sequence[str | None], policy_url: str | None) -> list[tuple[str, ...]]:
    """Return the environment variables of the key of each judge.

    DREAM_JUDGE_2_API_KEY is for the second judge. DREAM_JUDGE_API_KEY is for the host of the first judge. DREAM_API_KEY is for the host of
    the policy, or of the first judge if the policy has no server.
    """
    hosts = [read_address(url).host if url else None for url in urls]
    first = hosts[0] if hosts else None
    policy = read_address(policy_url).host if policy_url else first
    return [
        (
            f"DREAM_JUDGE_{number}_API_KEY",
            *(("DREAM_JUDGE_API_KEY",) if host == first else ()),
            *((SHARED,) if host == policy else ()),
        )
        for number, host in enumerate(hosts, 1)
    ]


def api_key(names: Sequence[str], address: Address) -> str:
    """Return the key for a server, "" if there is none.

    OPENAI_API_KEY is used only for OpenAI's own hosts and for the host of OPENAI_BASE_URL. Raises UsageError for a key that is not
    valid in a header.
    """
    for name in (*names, *((OPENAI,) if _is_openai(address.host) else ())):
        if key := os.environ.get(name, "").strip():
            if not key.isprintable() or not key.isascii():
                raise UsageError(f"{name} holds a line break or another character that cannot be sent; set it to the key alone")
            return key
    return ""


def key_advice(names: Sequence[str]) -> str:
    """Return where the key is read from, for the message about a refused key."""
    return f"The key is read from {', else from '.join(names)}; {OPENAI} is sent to OpenAI's own hosts and to that of OPENAI_BASE_URL"


def authorization(address: Address, key: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that authorise a request: from the user's own headers, else the credentials in the URL, else the key."""
    if {"authorization", "api-key"} & {name.lower() for name in headers}:
        return dict(headers)
    if address.user or address.password:
        pair = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
        return {**headers, "Authorization": f"Basic {pair}"}
    if not key:
        return dict(headers)
    # Azure takes the key in its own header; its bearer tokens are something else.
    azure = address.host.endswith(".azure.com") or "api-version=" in address.query
    return {**headers, **({"api-key": key} if azure else {"Authorization": f"Bearer {key}"})}


def _is_openai(host: str) -> bool:
    named = os.environ.get("OPENAI_BASE_URL", "")
    if host == "openai.com" or host.endswith(".openai.com"):
        return True
    try:
        return bool(named) and read_address(named).host == host
    except UsageError:
        return False
