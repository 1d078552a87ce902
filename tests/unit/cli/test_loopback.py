"""The exchange of a sign-in's code: PKCE, state and issuer (RFC 7636, RFC 9207)."""

import base64
import hashlib
import socket
import ssl
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest

from whimbrel.cli.loopback import id_token_by_browser, id_token_by_paste
from whimbrel.errors import Refused, UntrustedInput
from whimbrel.server.admin.views.accounts import SignInView

BEGUN = SignInView(
    issuer="https://id.example.com",
    client_id="whimbrel",
    scopes=["openid"],
    authorization_endpoint="https://id.example.com/authorize",
    token_endpoint="https://id.example.com/token",
    nonce="n",
)


@pytest.fixture
def exchanged(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    forms: list[dict[str, str]] = []

    def post(url: str, *, data: dict[str, str], timeout: float, verify: ssl.SSLContext) -> httpx.Response:
        forms.append(data)
        return httpx.Response(200, json={"id_token": "the token"}, request=httpx.Request("POST", url))

    monkeypatch.setattr(httpx, "post", post)
    return forms


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def answered(**more: Any) -> Any:
    """A person who signs in, and what comes back."""

    def ask(url: str) -> str:
        given = {"state": query_of(url)["state"], "code": "c0de"} | more
        return "http://127.0.0.1:1/callback?" + "&".join(f"{name}={value}" for name, value in given.items())

    return ask


def test_the_verifier_is_that_of_the_challenge(exchanged: list[dict[str, str]]) -> None:
    asked: list[str] = []

    def ask(url: str) -> str:
        asked.append(url)
        return str(answered()(url))

    assert id_token_by_paste(BEGUN, ask=ask) == "the token"
    (form,), query = exchanged, query_of(asked[0])
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == query["code_challenge"]
    assert (query["code_challenge_method"], query["nonce"], form["code"]) == ("S256", "n", "c0de")
    assert form["redirect_uri"] == query["redirect_uri"]
    assert "code_verifier" not in asked[0]


def test_an_answer_of_another_sign_in_or_issuer_is_not_exchanged(exchanged: list[dict[str, str]]) -> None:
    for wrong in ({"state": "x"}, {"iss": "https://evil.example.com"}):
        with pytest.raises(UntrustedInput):
            id_token_by_paste(BEGUN, ask=answered(**wrong))
    with pytest.raises(Refused, match="did not let you in: access_denied"):
        id_token_by_paste(BEGUN, ask=answered(error="access_denied"))
    with pytest.raises(UntrustedInput):
        id_token_by_paste(BEGUN, ask=lambda _: "")
    assert exchanged == []


def browser(url: str, *, before: Any = None) -> None:
    """A browser that signs in at once, after `before` had the address that it will be sent to."""
    query = query_of(url)
    if before is not None:
        before(query["redirect_uri"])
    httpx.get(query["redirect_uri"], params={"state": query["state"], "code": "c0de"}).raise_for_status()


def test_what_else_asks_the_port_is_no_answer_and_holds_nothing_up(exchanged: list[dict[str, str]]) -> None:
    """Any page that a browser shows could end a sign-in by an answer of its own; a connection that said nothing, as
    browsers open them ahead of need, held it up.
    """

    def others(redirect: str) -> None:
        place = urlsplit(redirect)
        silent.append(socket.create_connection((place.hostname or "", place.port or 0)))
        for path in ("/callback?state=x&error=access_denied", "/callback", "/", "/favicon.ico"):
            assert httpx.get(f"http://{place.netloc}{path}").status_code == 404

    silent: list[socket.socket] = []
    began = time.monotonic()
    assert id_token_by_browser(BEGUN, open_url=lambda url: browser(url, before=others)) == "the token"
    assert time.monotonic() - began < 9  # the silent one would have been waited for 10 s
    assert len(exchanged) == 1
    silent[0].close()


@pytest.mark.parametrize("wrong", ["file:///etc/passwd", "javascript:alert(1)", "--version", "http://id.example.com/"])
@pytest.mark.parametrize("field", ["authorization_endpoint", "token_endpoint"])
def test_no_address_but_https_is_opened_or_given_the_code(field: str, wrong: str) -> None:
    """What the server said was handed to the browser, whatever it was."""
    opened: list[str] = []
    with pytest.raises(UntrustedInput, match="expected an https:// URL"):
        id_token_by_browser(msgspec.structs.replace(BEGUN, **{field: wrong}), open_url=opened.append)
    assert opened == []
