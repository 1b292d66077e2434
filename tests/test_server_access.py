"""Which key goes to which server, how a server is reached, and what of an address is never written anywhere."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import re
import ssl
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from dream_cli.engines.address import public_address, read_address
from dream_cli.engines.api_keys import api_key, authorization, judge_key_names, key_names
from dream_cli.engines.openai_server import open_openai
from dream_cli.engines.protocol import ChatMessage, EngineSpec, Sampling
from dream_cli.errors import EngineError, UsageError
from tests.conftest import Ran, Workdir
from tests.loopback import Fault, Loopback

ROW = {"id": "a", "prompt": "Name a colour."}
OBSERVED = ROW | {"observations": [], "response": "Blue."}
SECRET = "hunter2-secret"


@pytest.fixture
def ready(work: Workdir) -> Workdir:
    """Return a folder with a row and without keys in the environment."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        work.env.pop(name, None)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        work.env.pop(name, None)
        work.env.pop(name.upper(), None)
    work.write("in.jsonl", [OBSERVED])
    return work


def sent_key(work: Workdir, server: Loopback, *command: str, **env: str) -> str | None:
    """Return the Authorization of the last request of a command."""
    work.env |= env
    assert work.dream(*command, "in.jsonl", "--no-store", "--base-url", server.url).code in (0, 1)
    for name in env:
        del work.env[name]
    return server.headers[-1].get("Authorization")


def test_the_key_of_the_role_comes_before_the_key_of_all(ready: Workdir) -> None:
    with Loopback() as server:
        for command in ("disentangle", "sample", "judge"):
            own = {f"DREAM_{command.upper()}_API_KEY": f"own-{command}", "DREAM_API_KEY": "shared", "OPENAI_API_KEY": "openai"}
            again = ["--redo"] if command == "disentangle" else []
            assert sent_key(ready, server, command, *again, **own) == f"Bearer own-{command}"
        assert sent_key(ready, server, "judge", DREAM_SAMPLE_API_KEY="other", DREAM_API_KEY="shared") == "Bearer shared"
        assert sent_key(ready, server, "judge", DREAM_SAMPLE_API_KEY="other") is None


def test_the_key_of_openai_goes_to_the_hosts_it_was_given_for(ready: Workdir) -> None:
    with Loopback() as server:
        assert sent_key(ready, server, "sample", OPENAI_API_KEY=SECRET) is None
        assert sent_key(ready, server, "sample", OPENAI_API_KEY=SECRET, OPENAI_BASE_URL=server.url) == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://API.OPENAI.COM/v1", "openai"),
        ("https://notopenai.com/v1", ""),
        ("https://openai.com.example.org/v1", ""),
        ("https://api.openai.com@example.org/v1", ""),
        ("http://localhost:8000/v1", ""),
    ],
)
def test_which_hosts_are_those_of_openai(monkeypatch: pytest.MonkeyPatch, url: str, key: str) -> None:
    for name in ("DREAM_API_KEY", "DREAM_JUDGE_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "openai")
    assert api_key(key_names("judge"), read_address(url)) == key


def test_each_server_of_an_evaluation_gets_its_own_key(ready: Workdir) -> None:
    item = {"benchmark": {"name": "figstep", "subset": "tiny", "item": "1", "topic": "Privacy Violation"}}
    ready.write("items.jsonl", [ROW | item])
    with Loopback() as policy, Loopback(reply=lambda body: "No") as judge:
        # The same machine, but not the same host name.
        elsewhere = judge.url.replace("127.0.0.1", "localhost")
        run = ("eval", "items.jsonl", "--model", "loopback", "--base-url", policy.url, "--judge", "loopback", "--no-store")
        ready.env |= {"DREAM_API_KEY": "shared"}
        ready.dream(*run, "--judge-base-url", elsewhere)
        assert policy.headers[-1]["Authorization"] == "Bearer shared"
        assert "Authorization" not in judge.headers[-1]
        ready.env |= {"DREAM_EVAL_API_KEY": "of-policy", "DREAM_JUDGE_API_KEY": "of-judge"}
        ready.dream(*run, "--judge-base-url", elsewhere, "--header", "X-Of: policy", "--judge-header", "X-Of: judge")
    assert [(s.headers[-1]["Authorization"], s.headers[-1]["X-Of"]) for s in (policy, judge)] == [
        ("Bearer of-policy", "policy"),
        ("Bearer of-judge", "judge"),
    ]


def test_a_judge_at_another_host_has_a_key_of_its_own() -> None:
    first, second, policy = "https://a.example/v1", "https://b.example/v1", "https://c.example/v1"
    assert judge_key_names([first, second], policy) == [
        ("DREAM_JUDGE_1_API_KEY", "DREAM_JUDGE_API_KEY"),
        ("DREAM_JUDGE_2_API_KEY",),
    ]
    assert judge_key_names([policy, first], policy)[0] == ("DREAM_JUDGE_1_API_KEY", "DREAM_JUDGE_API_KEY", "DREAM_API_KEY")
    assert judge_key_names([first], None) == [("DREAM_JUDGE_1_API_KEY", "DREAM_JUDGE_API_KEY", "DREAM_API_KEY")]


def test_a_refused_key_names_where_keys_are_read_from(ready: Workdir) -> None:
    ready.env["DREAM_JUDGE_API_KEY"] = SECRET
    with Loopback(list_status=401) as server:
        ran = ready.dream("judge", "in.jsonl", "--base-url", server.url)
    assert ran.code == 2
    assert "The key is read from DREAM_JUDGE_API_KEY, else from DREAM_API_KEY" in ran.err
    assert SECRET not in ran.err


def test_a_key_with_a_line_break_is_refused_by_the_name_of_its_variable(ready: Workdir) -> None:
    ready.env["DREAM_API_KEY"] = f"{SECRET}\nX-Other: 1"
    with Loopback() as server:
        ran = ready.dream("judge", "in.jsonl", "--base-url", server.url)
    assert (ran.code, server.calls) == (2, 0)
    assert ran.err == "dream: DREAM_API_KEY holds a line break or another character that cannot be sent; set it to the key alone\n"


def test_azure_takes_the_key_in_its_own_header_and_the_version_on_every_request(ready: Workdir) -> None:
    ready.env["DREAM_API_KEY"] = SECRET
    with Loopback() as server:
        url = f"http://127.0.0.1:{server.port}/openai/deployments/d?api-version=2024-10-21"
        assert ready.dream("sample", "in.jsonl", "--base-url", url, "--no-store").code == 0
    assert server.paths == [
        "/openai/deployments/d/models?api-version=2024-10-21",
        "/openai/deployments/d/chat/completions?api-version=2024-10-21",
    ]
    assert server.headers[0]["api-key"] == SECRET
    assert "Authorization" not in server.headers[0]
    own = authorization(read_address("https://x.openai.azure.com/openai/v1"), "k", {})
    assert own == {"api-key": "k"}


def test_headers_of_the_user_are_sent_and_win(ready: Workdir) -> None:
    ready.env["DREAM_API_KEY"] = SECRET
    with Loopback() as server:
        run = ("sample", "in.jsonl", "--base-url", server.url, "--no-store")
        ready.dream(*run, "--header", "X-Project: alignment", "--header", "X-Team:safety")
        assert (server.headers[-1]["X-Project"], server.headers[-1]["X-Team"]) == ("alignment", "safety")
        assert server.headers[-1]["Authorization"] == f"Bearer {SECRET}"
        ready.dream(*run, "--header", "authorization: Token abc")
        assert server.headers[-1]["Authorization"] == "Token abc"


def everywhere(work: Workdir, ran: Ran) -> str:
    """Return all that a command has printed or written."""
    files = [path.read_bytes().decode("utf-8", "replace") for path in work.path.rglob("*") if path.is_file()]
    return "\n".join([ran.out, ran.err, *files])


@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_secrets_of_an_address_are_sent_and_written_nowhere(ready: Workdir, status: int) -> None:
    with Loopback(
        refuse=lambda body: None if status == 200 else Fault(status, f"not supported for user:{SECRET} of query-{SECRET}")
    ) as server:
        url = f"http://user:{SECRET}@127.0.0.1:{server.port}/v1?key=query-{SECRET}"
        ran = ready.dream("judge", "in.jsonl", "--base-url", url, "-v", "-o", "out.jsonl")
    assert server.paths[-1] == f"/v1/chat/completions?key=query-{SECRET}"
    assert server.headers[-1]["Authorization"] == "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()
    # The row has more calls than a key may be refused: that stops the run.
    assert ran.code == {200: 0, 401: 2}.get(status, 1)
    assert f"openai at http://127.0.0.1:{server.port}/v1, model" in ran.err
    assert SECRET not in everywhere(ready, ran)


@pytest.mark.parametrize(
    ("place", "headers", "sent"),
    [
        ("user:p%40ss%2Fword@", {}, base64.b64encode(b"user:p@ss/word").decode()),
        ("user:p%40ss%2Fword@", {}, "p@ss/word"),
        ("token-123@", {}, "token-123"),
        ("?api_key=se%20cret%2F1", {}, "se cret/1"),
        ("?token-123", {}, "token-123"),
        ("", {"Authorization": "Bearer token-123"}, "token-123"),
        ("", {"X-Token": 'to"ken é'}, 'to"ken é'),
    ],
)
def test_a_secret_that_a_server_repeats_in_any_spelling_is_masked(place: str, headers: dict[str, str], sent: str) -> None:
    forms = [sent, json.dumps(sent), sent.replace("/", "\\/"), quote(sent, safe=""), html.escape(sent)]
    for form in forms:
        with Loopback(refuse=lambda body, form=form: Fault(400, f"refused <{form}> here")) as server:  # type: ignore[misc]
            url = f"http://{'' if place.startswith('?') else place}127.0.0.1:{server.port}/v1{place if place.startswith('?') else ''}"

            async def message(spec: EngineSpec) -> str:
                engine = await open_openai(spec)
                try:
                    with pytest.raises(EngineError) as caught:
                        await engine.generate([ChatMessage("user", "Name a colour.")], Sampling(), [0])
                finally:
                    await engine.close()
                return str(caught.value)

            shown = asyncio.run(message(EngineSpec(base_url=url, headers=headers)))
        assert re.search(r"400: refused <[\\\"]*\*\*\*[\\\"]*> here$", shown), (form, shown)


@pytest.mark.parametrize(
    "command", [("judge", "in.jsonl"), ("judge", "in.jsonl", "--dry-run"), ("doctor",), ("eval", "siuo", "--data", "nowhere", "--dry-run")]
)
def test_secrets_of_an_address_are_in_no_message(ready: Workdir, command: tuple[str, ...]) -> None:
    for address in (f"http://user:{SECRET}@127.0.0.1:9/v1?key={SECRET}", f"http://user:{SECRET}@127.0.0.1:99999/v1", f"user:{SECRET}@h/v1"):
        ran = ready.dream(*command, "--base-url", address)
        assert ran.out or ran.err
        assert SECRET not in everywhere(ready, ran)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("http://u:p@h:8000/v1?key=k#f", "http://h:8000/v1"),
        ("https://h/v1", "https://h/v1"),
        ("https://u:p@ss@h/v1", "https://h/v1"),
        ("u:p@h/v1", "h/v1"),
        ("htp://u:p@h?k=1", "htp://h"),
        ("http://h/a@b", "http://h/a@b"),
        ("", ""),
    ],
)
def test_the_public_part_of_an_address(url: str, public: str) -> None:
    assert public_address(url) == public


@pytest.mark.parametrize(
    "url", ["", "h:8000", "ftp://h", "http://", "http://h:99999", "http://[::1", f"http://{'a' * 64}.org", "http://h /v1"]
)
def test_what_is_not_a_url(url: str) -> None:
    with pytest.raises(UsageError, match="is not a URL"):
        read_address(url)


def test_an_address_of_the_sixth_version_keeps_its_brackets() -> None:
    assert read_address("http://[::1]:8000/v1/").url("/models") == "http://[::1]:8000/v1/models"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(ready: Workdir, status: int) -> None:
    with Loopback() as other:
        location = {"Location": f"http://u:{SECRET}@127.0.0.1:{other.port}/v1/chat/completions?k={SECRET}"}
        with Loopback(refuse=lambda body: Fault(status, "moved", location)) as server:
            ran = ready.dream("sample", "in.jsonl", "--base-url", server.url, "--no-store")
        assert (ran.code, server.calls, other.calls) == (1, 1, 0)
    target = f"http://127.0.0.1:{other.port}/v1/chat/completions"
    assert ran.rows[0]["error"]["message"].endswith(f"{status}: the server redirects to {target}; name that server with --base-url")
    assert SECRET not in ran.out


def test_the_proxy_of_the_environment_is_used_unless_it_is_excepted(ready: Workdir) -> None:
    with Loopback() as proxy, Loopback() as server:
        ready.env["HTTP_PROXY"] = ready.env["http_proxy"] = f"http://127.0.0.1:{proxy.port}"
        assert ready.dream("sample", "in.jsonl", "--base-url", "http://models.invalid/v1", "--no-store").code == 0
        assert (proxy.calls, proxy.headers[0]["Host"]) == (1, "models.invalid")
        ready.env["NO_PROXY"] = ready.env["no_proxy"] = "127.0.0.1"
        assert ready.dream("sample", "in.jsonl", "--base-url", server.url, "--no-store").code == 0
        assert (proxy.calls, server.calls) == (1, 1)


def test_passwords_for_a_host_in_netrc_are_not_read(ready: Workdir) -> None:
    (ready.path / ".netrc").write_text(f"machine 127.0.0.1 login user password {SECRET}\n")
    ready.env |= {"HOME": str(ready.path), "NETRC": str(ready.path / ".netrc"), "DREAM_API_KEY": "key"}
    with Loopback() as server:
        assert ready.dream("sample", "in.jsonl", "--base-url", server.url, "--no-store").code == 0
    assert server.headers[0]["Authorization"] == "Bearer key"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a self-signed certificate of 127.0.0.1 with its key beside it."""
    made = tmp_path / "own-ca.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {made}.key -out {made} -days 2 -subj /CN=test -addext"
    subprocess.run([*command.split(), "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return made


def test_a_ca_of_ones_own(ready: Workdir, certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, f"{certificate}.key")
    with Loopback(tls=tls) as server:
        run = ("sample", "in.jsonl", "--base-url", server.url, "--no-store")
        ran = ready.dream(*run)
        assert ran.code == 2
        assert "name its CA with SSL_CERT_FILE or REQUESTS_CA_BUNDLE" in ran.err
        for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            ready.env[variable] = str(certificate)
            assert ready.dream(*run).code == 0
            del ready.env[variable]
        ready.env["REQUESTS_CA_BUNDLE"] = "nowhere.pem"
        ran = ready.dream(*run)
    assert ran.code == 2
    assert "REQUESTS_CA_BUNDLE=nowhere.pem cannot be read as certificates" in ran.err


def test_a_reply_beyond_16_mb_is_refused(ready: Workdir) -> None:
    def long(size: int) -> bytes:
        return json.dumps({"choices": [{"message": {"content": "x" * size}, "finish_reason": "stop"}]}).encode()

    with Loopback(whole=lambda body: long(16 << 20)) as server:
        ran = ready.dream("sample", "in.jsonl", "--base-url", server.url, "--no-store")
        assert (ran.code, server.calls) == (1, 1)
        assert ran.rows[0]["error"]["message"].endswith("the reply is larger than 16 MB")
    with Loopback(whole=lambda body: long(15 << 20)) as server:
        assert ready.dream("sample", "in.jsonl", "--base-url", server.url, "--no-store").code == 0
