"""A person signs in to the console with the provider: what must come back the same, and what everybody else hears."""

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from support.console import Browser, console_over, text_of
from support.server_in_memory import NAMESPACE, ServerInMemory
from whimbrel.flows.accounts.permissions import Role
from whimbrel.server.oidc import OidcProvider
from whimbrel.server.oidc_settings import OidcRole, OidcSettings

ISSUER, CLIENT = "https://id.example.com", "whimbrel"
RULES = (OidcRole(claim="groups", value="ml-release", roles=(Role.RELEASER,)),)


class Desk:
    """A server, its provider, and a browser between them."""

    def __init__(self, server: ServerInMemory) -> None:
        self.server = server
        self.key = ECKey.generate_key("P-256", parameters={"kid": "first"})
        self.claims: dict[str, Any] = {}
        self.exchanged: list[dict[str, str]] = []
        self.refuses = False
        settings = OidcSettings(issuer=ISSUER, client_id=CLIENT, roles=RULES)
        provider = OidcProvider(settings, clock=server.clock, transport=httpx.MockTransport(self.answer))
        context = msgspec.structs.replace(server.repository.admin_context(), oidc=provider)
        self.app = console_over(server, context)
        self.browser = Browser(server, app=self.app)

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("openid-configuration"):
            ends = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            return httpx.Response(200, json={"issuer": ISSUER} | {k: f"{ISSUER}/{v}" for k, v in ends.items()})
        if path == "/keys":
            return httpx.Response(200, json={"keys": [dict(self.key.as_dict(private=False)) | {"use": "sig"}]})
        self.exchanged.append({k: v[0] for k, v in parse_qs(request.content.decode()).items()})
        if self.refuses:
            return httpx.Response(400, json={"error": "invalid_grant", "error_description": "the code is over"})
        now = int(self.server.clock.now)
        body = {"iss": ISSUER, "aud": CLIENT, "sub": "s-ada", "iat": now, "exp": now + 300, "groups": ["ml-release"]}
        body |= {"email": "ada@example.com", "email_verified": True} | self.claims
        return httpx.Response(200, json={"id_token": jwt.encode({"alg": "ES256", "kid": "first"}, body, self.key)})

    def begin(self, next_: str = "") -> dict[str, str]:
        """What the browser is sent to the provider with."""
        away = self.browser.get(f"/{NAMESPACE}/sign-in/provider", params={"next": next_} if next_ else {})
        assert away.status_code == 303, text_of(away)
        location = urlsplit(away.headers["location"])
        assert f"{location.scheme}://{location.netloc}{location.path}" == f"{ISSUER}/authorize"
        asked = {name: values[0] for name, values in parse_qs(location.query).items()}
        self.claims["nonce"] = asked["nonce"]
        return asked

    def back(self, asked: dict[str, str], **changes: str) -> httpx.Response:
        return self.browser.get("/-/signed-in", params={"code": "c0de", "state": asked["state"]} | changes)

    def is_in(self) -> bool:
        return self.browser.get(f"/{NAMESPACE}/").status_code == 200


@pytest.fixture
def desk(server: ServerInMemory) -> Desk:
    return Desk(server)


def test_a_person_is_signed_in_as_himself_and_comes_back_to_the_page(desk: Desk) -> None:
    assert "Sign in with id.example.com" in text_of(desk.browser.get(f"/{NAMESPACE}/sign-in"))
    asked = desk.begin(f"/{NAMESPACE}/rollouts")
    answer = desk.back(asked)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/{NAMESPACE}/rollouts")
    assert "ada@example.com" in desk.browser.get(f"/{NAMESPACE}/").text
    (sent,) = desk.exchanged
    challenge = base64.urlsafe_b64encode(hashlib.sha256(sent["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    assert (challenge, asked["code_challenge_method"]) == (asked["code_challenge"], "S256")
    assert sent["redirect_uri"] == asked["redirect_uri"] == "http://server/-/signed-in"
    assert sent["grant_type"] == "authorization_code"
    with desk.server.stores() as stores:
        (token,) = [each for each in stores.accounts.tokens() if each.source == "sign-in"]
    assert (token.account, token.roles) == ("ada@example.com", (Role.RELEASER,))


def test_signing_out_ends_what_the_provider_vouched_for(desk: Desk) -> None:
    desk.back(desk.begin())
    desk.browser.submit(desk.browser.get(f"/{NAMESPACE}/"), "/sign-out")
    with desk.server.stores() as stores:
        (token,) = [each for each in stores.accounts.tokens() if each.source == "sign-in"]
    assert token.revoked_at == desk.server.clock.now


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "another"}, "this sign-in did not begin in this browser"),
        ({"state": "é"}, "this sign-in did not begin in this browser"),
        ({"code": ""}, "the provider did not sign you in (no code came)"),
        ({"error": "access_denied"}, "the provider did not sign you in (access_denied)"),
        ({"iss": "https://evil.example"}, "the answer is of another provider"),
    ],
)
def test_what_comes_back_otherwise_signs_nobody_in(desk: Desk, changes: dict[str, str], words: str) -> None:
    answer = desk.back(desk.begin(), **changes)
    assert answer.status_code == 401
    assert words.lower() in text_of(answer).lower()
    assert desk.exchanged == []
    assert not desk.is_in()


def test_an_answer_in_another_browser_signs_nobody_in(desk: Desk) -> None:
    """Else a person could be signed in as whoever sent him the link."""
    asked = desk.begin()
    desk.browser = Browser(desk.server, app=desk.app)
    assert desk.back(asked).status_code == 401


def test_an_id_token_of_another_sign_in_is_refused(desk: Desk) -> None:
    asked = desk.begin()
    desk.claims["nonce"] = "another"
    answer = desk.back(asked)
    assert answer.status_code == 401
    assert "The ID token is of another sign-in" in text_of(answer)
    assert not desk.is_in()


def test_a_code_is_good_once(desk: Desk) -> None:
    asked = desk.begin()
    kept = dict(desk.browser.http.cookies)
    assert desk.back(asked).status_code == 303
    desk.browser.http.cookies.update(kept)
    assert desk.back(asked).status_code == 401  # its nonce was taken


def test_whoever_has_no_role_is_told_whom_to_ask(desk: Desk) -> None:
    asked = desk.begin()
    desk.claims["groups"] = []
    answer = desk.back(asked)
    assert answer.status_code == 403
    assert "its claims give no role here" in text_of(answer)


def test_what_the_provider_says_against_a_code_is_passed_on(desk: Desk) -> None:
    asked, desk.refuses = desk.begin(), True
    answer = desk.back(asked)
    assert answer.status_code == 401
    assert "The provider gave no ID token, and said: the code is over" in text_of(answer)


def test_without_a_provider_there_is_none_to_sign_in_with(server: ServerInMemory) -> None:
    browser = Browser(server)
    assert "Sign in with" not in browser.get(f"/{NAMESPACE}/sign-in").text
    assert browser.get(f"/{NAMESPACE}/sign-in/provider").status_code == 404
