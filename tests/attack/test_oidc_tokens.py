"""ID tokens that are not the provider's, not for this server, or not of this sign-in. The provider is a real one."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jws
from joserfc.jwk import OctKey, RSAKey

from support.accounts import refusal, signed_in
from support.oidc import CLIENT, Provider, provider
from support.server import Running, repository, serving
from whimbrel.server.oidc_settings import is_safe_url


@pytest.fixture(scope="module")
def theirs() -> Iterator[Provider]:
    with provider() as running:
        yield running


@pytest.fixture(scope="module")
def here(theirs: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = repository(tmp_path_factory.mktemp("oidc") / "repo", versions=0)
    with (folder / "whimbrel.toml").open("a") as settings:
        settings.write(
            f'[oidc]\nissuer = "{theirs.issuer}"\nclient_id = "{CLIENT}"\n'
            '[[oidc.roles]]\nclaim = "groups"\nvalue = "ml-release"\nroles = ["releaser"]\n'
            '[[oidc.roles]]\nclaim = "groups"\nvalue = "ml-security"\nroles = ["security"]\nnamespace = "elsewhere"\n'
        )
    with serving(folder) as running:
        yield running


@pytest.fixture
def everybody(here: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{here.admin}/default/admin/v1", trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many sign-ins fail here on purpose; that they are slowed down is another test's."""
    monkeypatch.setattr("whimbrel.limits.SIGN_IN_FAILURES", 10_000)


def nonce(everybody: httpx.Client) -> str:
    return str(everybody.post("sign-in/begin").raise_for_status().json()["nonce"])


def sign_in(everybody: httpx.Client, token: str) -> httpx.Response:
    return everybody.post("sign-in", json={"id_token": token})


def test_a_good_token_signs_in_as_the_person_and_its_roles(
    here: Running, everybody: httpx.Client, theirs: Provider
) -> None:
    session = sign_in(everybody, theirs.token(nonce=nonce(everybody))).raise_for_status().json()
    assert (session["account"], session["roles"], session["source"]) == ("ada@example.com", ["releaser"], "sign-in")
    with signed_in(here, session["token"]) as ada:
        assert ada.get("models").status_code == 200
        assert "'keys'" in refusal(ada.post("models", json={}))
        ada.post("tokens/self/revoke", json={}).raise_for_status()
        assert ada.get("models").status_code == 401


def test_where_people_sign_in_a_token_that_somebody_made_is_no_second_person(
    here: Running, everybody: httpx.Client, theirs: Provider
) -> None:
    """Who held admin.token and had signed in, too, started as the one and approved and finished as the other."""
    session = sign_in(everybody, theirs.token(nonce=nonce(everybody))).raise_for_status().json()
    with signed_in(here, session["token"]) as ada, here.people() as admin:
        caller = admin.get("caller").json()
        assert ("release" in caller["permissions"], "approve" in caller["permissions"]) == (True, False)
        for path in ("rollouts/some/approve", "rollouts/some/reject"):
            answer = admin.post(path, json={})
            assert ("only who signed in approves" in answer.text) == path.endswith("approve")
        assert "approve" in ada.get("caller").json()["permissions"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"iss": "https://evil.example.com"}, "iss"),
        ({"aud": "another-app"}, "aud"),
        ({"aud": ["another-app", CLIENT]}, "made for another application"),
        ({"azp": "another-app"}, "made for another application"),
        ({"exp": 1_000_000_000}, "expired"),
        ({"exp": None}, "exp"),
        ({"iat": 1_000_000_000}, "of an earlier sign-in"),
        ({"iat": 9_000_000_000}, "issued in the future"),
        ({"sub": None}, "sub"),
        ({"nonce": "guessed"}, "used already, or is over"),
        ({"nonce": None}, "nonce"),
        ({"nonce": ["a"]}, "not as OpenID Connect has it"),
        ({"email_verified": False}, "has not verified the address"),
        ({"email": None}, "has no email"),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(
    everybody: httpx.Client, theirs: Provider, wrong: dict[str, Any], words: str
) -> None:
    token = theirs.token(**{"nonce": nonce(everybody)} | wrong)
    assert words in refusal(sign_in(everybody, token), status=401)


def test_a_nonce_is_good_once(everybody: httpx.Client, theirs: Provider) -> None:
    token = theirs.token(nonce=nonce(everybody))
    assert sign_in(everybody, token).status_code == 201
    assert "this sign-in was used already" in refusal(sign_in(everybody, token), status=401)


def test_an_unsigned_token_is_refused(everybody: httpx.Client, theirs: Provider) -> None:
    body = theirs.token(nonce=nonce(everybody)).split(".")[1]
    for algorithm in ("none", "None", "NONE"):
        header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm}).encode()).rstrip(b"=").decode()
        refusal(sign_in(everybody, f"{header}.{body}."), status=401)


def test_a_public_key_is_no_shared_secret(everybody: httpx.Client, theirs: Provider) -> None:
    """HS256 with the provider's public key as its secret: everybody knows that key."""
    body = theirs.token(nonce=nonce(everybody)).split(".")[1]
    payload = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    secret = OctKey.import_key(base64.b64encode(theirs.key.as_pem(private=False)).decode())
    forged = jws.serialize_compact({"alg": "HS256", "kid": theirs.key.kid}, payload, secret)
    refusal(sign_in(everybody, forged), status=401)


def test_another_key_is_refused_also_with_the_right_keys_name(everybody: httpx.Client, theirs: Provider) -> None:
    mine = RSAKey.generate_key(2048)
    for header in ({"kid": theirs.key.kid}, {"kid": "mine"}, {"jwk": mine.as_dict(private=False)}):
        token = theirs.token(key=mine, header=header, nonce=nonce(everybody))
        refusal(sign_in(everybody, token), status=401)


def test_what_is_no_token_is_refused(everybody: httpx.Client) -> None:
    for wrong in ("x", "a.b.c", "..", "\x00", "é.é.é", "e30.e30.e30"):
        refusal(sign_in(everybody, wrong), status=401)


def test_groups_of_another_namespace_and_none_give_no_role(everybody: httpx.Client, theirs: Provider) -> None:
    for groups in (["ml-security"], [], None, "ml-releas", {"ml-release": True}):
        token = theirs.token(nonce=nonce(everybody), groups=groups)
        assert "its claims give no role here" in refusal(sign_in(everybody, token))


def test_another_subject_does_not_take_over_a_name(everybody: httpx.Client, theirs: Provider) -> None:
    """Who renames himself at the provider, or gets an address that somebody had, is not that somebody here."""
    sign_in(everybody, theirs.token(nonce=nonce(everybody), sub="s-eve", email="eve@example.com")).raise_for_status()
    taken = theirs.token(nonce=nonce(everybody), sub="s-mallory", email="EVE@example.com")
    assert "the account of another person" in refusal(sign_in(everybody, taken))
    renamed = theirs.token(nonce=nonce(everybody), sub="s-eve", email="ada2@example.com")
    assert sign_in(everybody, renamed).json()["account"] == "eve@example.com"
    for name in ("gate", "admin", "publisher-wake"):
        asked = theirs.token(nonce=nonce(everybody), sub=f"s-{name}", email=name)
        refusal(sign_in(everybody, asked))


def test_a_letter_that_becomes_ascii_makes_no_other_persons_name(everybody: httpx.Client, theirs: Provider) -> None:
    """The Kelvin sign in small is a k: who had it in his name signed in as kate first, and shut her out."""
    token = theirs.token(nonce=nonce(everybody), sub="kelvin", email="\u212aate@example.com")
    assert "is no name of an account" in refusal(sign_in(everybody, token))


def test_who_signs_in_again_and_again_fills_no_table(
    here: Running, everybody: httpx.Client, theirs: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand sessions of one person were all tokens that a namespace may have: nobody could make another."""
    monkeypatch.setattr("whimbrel.limits.SESSIONS", 3)
    made = [
        sign_in(everybody, theirs.token(nonce=nonce(everybody))).raise_for_status().json()["token"] for _ in range(5)
    ]
    answers = []
    for token in made:
        with signed_in(here, token) as ada:
            answers.append(ada.get("models").status_code)
    assert answers == [401, 401, 200, 200, 200]


def test_where_people_sign_in_nobody_makes_a_person(here: Running) -> None:
    """A person who could make others could approve as two."""
    with here.people() as admin:
        body = {"name": "as-ada", "roles": ["releaser"], "person": "ada@example.com"}
        assert "nobody makes a token for ada@example.com" in refusal(admin.post("tokens", json=body))
        admin.post("tokens", json={"name": "ci", "roles": ["pipeline"]}).raise_for_status()


def test_a_session_is_not_prolonged(here: Running, everybody: httpx.Client, theirs: Provider) -> None:
    session = sign_in(everybody, theirs.token(nonce=nonce(everybody))).raise_for_status().json()
    with signed_in(here, session["token"]) as ada:
        assert "is a session; sign in again" in refusal(ada.post("tokens/self/rotate", json={}))


def test_without_a_provider_nobody_signs_in(here: Running, tmp_path: Path) -> None:
    folder = shutil.copytree(here.folder, tmp_path / "repo")
    text = (folder / "whimbrel.toml").read_text()
    (folder / "whimbrel.toml").write_text(text[: text.index("[oidc]")])
    with (
        serving(folder) as without,
        httpx.Client(base_url=f"{without.admin}/default/admin/v1", trust_env=False) as client,
    ):
        assert "whimbrel.toml has no [oidc]" in refusal(client.post("sign-in/begin"), status=404)


def test_only_https_and_loopback_are_asked() -> None:
    right = ("https://id.example.com", "http://127.0.0.1:9", "http://[::1]:9", "http://localhost:9/realms/a")
    wrong = ("http://id.example.com", "ftp://a", "https://", "file:///etc/passwd", "http://localhost.evil.com", "")
    assert all(is_safe_url(url) for url in right)
    assert not any(is_safe_url(url) for url in wrong)
