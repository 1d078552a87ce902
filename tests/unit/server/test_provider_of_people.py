"""What is asked of the provider that people sign in with, how often, and what is not believed.

The provider is an object of this process that signs with a key of its own; no socket is opened.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from joserfc.jwk import ECKey

from support.accounts import refusal
from support.oidc_in_memory import CLIENT, CONFIGURATION, ISSUER, KEYS, RULES, SETTINGS, Stage
from support.server_in_memory import server_in_memory
from support.values import T0
from whimbrel import limits
from whimbrel.errors import Unavailable
from whimbrel.server.oidc_settings import OidcSettings, is_safe_url


@pytest.fixture
def stage() -> Iterator[Stage]:
    with server_in_memory(versions=0) as server:
        yield Stage(server)


@pytest.fixture(autouse=True)
def unlimited(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "slowed" not in request.node.name:
        monkeypatch.setattr(limits, "SIGN_IN_FAILURES", 10_000)


# --- the provider itself ---
def test_what_the_provider_said_is_kept_for_an_hour(stage: Stage) -> None:
    stage.sign_in().raise_for_status()
    assert stage.issuer.asked == [CONFIGURATION, KEYS]
    stage.server.clock.now = T0 + 3599
    stage.nonce()
    assert len(stage.issuer.asked) == 2
    stage.server.clock.now = T0 + 3600
    stage.nonce()
    assert len(stage.issuer.asked) == 4


def test_a_new_key_of_the_provider_is_read_once_a_minute(stage: Stage) -> None:
    stage.sign_in().raise_for_status()
    stage.issuer.key = ECKey.generate_key("P-256", parameters={"kid": "second"})
    stage.issuer.keys.append(stage.issuer.public())
    stage.server.clock.now = T0 + 59
    assert stage.sign_in().status_code == 401
    assert len(stage.issuer.asked) == 2
    stage.server.clock.now = T0 + 60
    assert stage.sign_in().status_code == 201
    assert len(stage.issuer.asked) == 4


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        (httpx.Response(500), "the provider that people sign in with does not answer ("),
        (httpx.Response(302, headers={"location": "https://evil.example.com"}), "does not answer ("),
        (httpx.ConnectError("no way leads there"), f"does not answer ({CONFIGURATION}: no way leads there); try again"),
        (httpx.Response(200, content=b"{"), "the provider's answer cannot be read: "),
        (httpx.Response(200, json={"issuer": ISSUER}), "the provider's answer cannot be read: "),
    ],
)
def test_a_provider_that_does_not_answer_is_503(stage: Stage, fails: Any, words: str) -> None:
    stage.issuer.fails = fails
    answer = stage.nobody.post("sign-in/begin")
    assert words in refusal(answer, status=503)
    assert answer.headers["retry-after"] == "5"


def test_a_provider_that_failed_is_asked_again_after_some_seconds(stage: Stage) -> None:
    stage.issuer.fails = httpx.Response(503)
    for _ in range(3):
        refusal(stage.nobody.post("sign-in/begin"), status=503)
    assert len(stage.issuer.asked) == 1
    stage.issuer.fails = None
    stage.server.clock.now = T0 + limits.OIDC_FAILED_S - 0.1
    refusal(stage.nobody.post("sign-in/begin"), status=503)
    stage.server.clock.now = T0 + limits.OIDC_FAILED_S
    assert stage.nobody.post("sign-in/begin").status_code == 200


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"issuer": "https://evil.example.com"},
            f"the provider calls itself 'https://evil.example.com'; expected '{ISSUER}'",
        ),
        (
            {"authorization_endpoint": "http://id.example.com/a"},
            "names 'http://id.example.com/a'; expected an https:// URL",
        ),
        ({"token_endpoint": "ftp://id.example.com/t"}, "names 'ftp://id.example.com/t'; expected an https:// URL"),
        ({"jwks_uri": "http://id.example.com/keys"}, "names 'http://id.example.com/keys'; expected an https:// URL"),
    ],
)
def test_a_configuration_that_leads_elsewhere_is_not_followed(stage: Stage, wrong: dict[str, Any], words: str) -> None:
    stage.issuer.configuration |= wrong
    assert words in refusal(stage.nobody.post("sign-in/begin"), status=503)
    assert stage.issuer.asked == [CONFIGURATION]


@pytest.mark.parametrize(
    "keys",
    [
        [],
        "keys",
        [{"kty": "oct", "k": "c2VjcmV0", "kid": "first"}],
        ["a key"],
        [{"kty": "EC", "use": "enc", "crv": "P-256"}],
    ],
)
def test_a_provider_without_a_public_key_that_signs_is_503(stage: Stage, keys: Any) -> None:
    stage.issuer.keys = keys
    assert refusal(stage.nobody.post("sign-in/begin"), status=503) == "the provider has no key that signs"


def test_a_key_that_cannot_be_read_is_503(stage: Stage) -> None:
    stage.issuer.keys = [{"kty": "EC", "crv": "P-256"}]
    assert "the provider's keys cannot be read: " in refusal(stage.nobody.post("sign-in/begin"), status=503)


@pytest.mark.parametrize(("over", "status"), [(0, 200), (1, 503)])
def test_the_provider_answers_with_a_short_document(stage: Stage, over: int, status: int) -> None:
    body = msgspec.json.encode(stage.issuer.configuration | {"further": ""})
    filled = limits.OIDC_BYTES - len(body) + over
    stage.issuer.configuration["further"] = "x" * filled
    answer = stage.nobody.post("sign-in/begin")
    assert answer.status_code == status
    if over:
        words = f"{CONFIGURATION} has over {limits.OIDC_BYTES} bytes; expected a short JSON document"
        assert answer.json()["detail"] == words


def test_an_issuer_with_a_slash_at_its_end_is_asked_at_one_place(stage: Stage) -> None:
    provider = stage.issuer.provider(stage.server.clock, msgspec.structs.replace(SETTINGS, issuer=f"{ISSUER}/"))
    with pytest.raises(Unavailable, match="calls itself"):
        stage.server.run(provider.endpoints())
    assert stage.issuer.asked == [CONFIGURATION]


# --- settings ---
@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://id.example.com", True),
        ("https://", False),
        ("http://id.example.com", False),
        ("http://127.0.0.1:8080/x", True),
        ("http://[::1]:8080", True),
        ("http://localhost", True),
        ("http://10.0.0.1", False),
        ("http://", False),
        ("ftp://localhost", False),
        ("id.example.com", False),
    ],
)
def test_a_providers_url_is_https_or_on_this_machine(url: str, safe: bool) -> None:
    assert is_safe_url(url) is safe


def test_settings_without_openid_or_with_an_open_issuer_are_refused() -> None:
    with pytest.raises(ValueError, match="scopes: openid is missing, without which a provider gives no ID token"):
        OidcSettings(issuer=ISSUER, client_id=CLIENT, roles=RULES, scopes=("email",))
    with pytest.raises(ValueError, match=r"issuer 'http://id.example.com': expected an https:// URL"):
        OidcSettings(issuer="http://id.example.com", client_id=CLIENT, roles=RULES)
