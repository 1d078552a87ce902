"""The exchange of a sign-in's code: PKCE, state and issuer (RFC 7636, RFC 9207)."""

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from whimbrel.cli.loopback import id_token_by_paste
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

    def post(url: str, *, data: dict[str, str], timeout: float) -> httpx.Response:
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
