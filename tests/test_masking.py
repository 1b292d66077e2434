"""Secrets in the text of a server: no form of them is printed, and other text stays as it is."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cli.engines.masking import Mask
from dream_cli.engines.protocol import ChatMessage, Engine, Sampling
from dream_cli.errors import EngineError
from tests.loopback import Fault, Loopback, using

KEY = "sk-a/B9+mild Tone=="
FORMS: list[Callable[[str], str]] = [
    str,
    str.upper,
    str.lower,
    quote,
    html.escape,
    lambda key: quote(key, safe="").lower(),
    lambda key: json.dumps(json.dumps({"key": key})),
    lambda key: f"{key[:8]}...",
    lambda key: key[:8].upper(),
    lambda key: f"{key[:12]}....",
]


@pytest.mark.parametrize("form", FORMS)
def test_no_spelling_of_a_secret_is_shown(form: Callable[[str], str]) -> None:
    shown = Mask((KEY,))(f"no <{form(KEY)}> here, <{form(KEY)}>")
    assert shown.startswith("no <") and " here, <" in shown and shown.count("***") == 2
    assert KEY[:8].lower() not in shown.lower() and "mild" not in shown.lower()


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("around", [("", ""), ("user:", ""), ("Bearer ", ""), ("ab", "\n"), ("x", "x")])
def test_a_secret_in_base64_is_masked_whatever_stands_around_it(encode: Callable[[bytes], bytes], around: tuple[str, str]) -> None:
    text = encode(f"{around[0]}{KEY}{around[1]}".encode()).decode()
    shown = Mask((KEY,))(f"header {text} refused")
    left, mask, right = shown.removeprefix("header ").removesuffix(" refused").partition("***")
    # What is left encodes the text around the secret, and not one whole character of the secret.
    known = base64.urlsafe_b64decode(left[: len(left) // 4 * 4].replace("/", "_").replace("+", "-"))
    assert mask and around[0].encode().startswith(known) and len(right) <= 4


@pytest.mark.parametrize(
    ("secrets", "text"),
    [
        ((), "unauthorized"),
        (("ab", ""), "ab cd"),
        (("EMPTY",), "the message is empty"),
        (("sk-1234567890",), "sk-12345 sk-0"),
        (("token-123",), "a token, TOKEN-1"),
    ],
)
def test_other_text_is_left_as_it_is(secrets: tuple[str, ...], text: str) -> None:
    assert Mask(secrets)(text) == (text if "sk-12345" not in text else "*** sk-0")


def test_of_two_secrets_with_the_same_beginning_the_longer_is_masked() -> None:
    assert Mask(("token-12345", "token-123"))("token-12345 token-123 token-12") == "*** *** ***"


@given(st.text(min_size=3), st.text(), st.text())
def test_no_text_holds_a_secret_after_it_is_masked(secret: str, before: str, after: str) -> None:
    shown = Mask((secret,))(before + secret + after)
    assert secret not in shown or secret in "***"


def test_the_reply_of_a_server_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_API_KEY", KEY.strip("="))

    async def report(engine: Engine) -> str:
        with pytest.raises(EngineError) as caught:
            await engine.generate([ChatMessage("user", "Name a colour.")], Sampling(), [0])
        return str(caught.value)

    with Loopback(faults=[Fault(400, f"incorrect key: {base64.b64encode(KEY.encode()).decode()}, {KEY[:8]}, {KEY.upper()}")]) as server:
        message = using(server, report)
    assert message.count("***") == 3 and "sk-a" not in message.lower()
