"""People sign in with a provider (OpenID Connect): which ID token is whose session, and what the others hear.

The provider is an object of this process that signs with a key of its own; no socket is opened.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from support.accounts import refusal
from support.oidc_in_memory import CLIENT, ISSUER, RULES, SETTINGS, Issuer, Stage
from support.server_in_memory import server_in_memory
from support.values import T0
from whimbrel import limits
from whimbrel.flows.accounts.permissions import Role
from whimbrel.server.oidc_settings import OidcRole

REFUSED = "the ID token is not accepted ("


@pytest.fixture
def stage() -> Iterator[Stage]:
    with server_in_memory(versions=0) as server:
        yield Stage(server)


@pytest.fixture(autouse=True)
def unlimited(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "slowed" not in request.node.name:
        monkeypatch.setattr(limits, "SIGN_IN_FAILURES", 10_000)


# --- a good one ---
def test_to_begin_answers_where_and_with_what_to_sign_in(stage: Stage) -> None:
    begun = stage.nobody.post("sign-in/begin")
    assert begun.status_code == 200
    assert begun.json() == {
        "issuer": ISSUER,
        "client_id": CLIENT,
        "scopes": ["openid", "email", "profile"],
        "authorization_endpoint": f"{ISSUER}/authorize",
        "token_endpoint": f"{ISSUER}/token",
        "nonce": begun.json()["nonce"],
    }
    assert len(begun.json()["nonce"]) == 43
    assert stage.nonce() != begun.json()["nonce"]


def test_a_good_token_is_a_session_of_the_person_with_the_roles_of_the_claims(stage: Stage) -> None:
    answer = stage.sign_in(department="security")
    assert answer.status_code == 201
    session = answer.json()
    assert session["token"].startswith("whimbrel_")
    assert session == {
        "id": session["id"],
        "name": f"session-{session['id']}",
        "account": "ada@example.com",
        "kind": "person",
        "roles": ["pipeline", "releaser", "security"],
        "source": "sign-in",
        "created_at": T0,
        "created_by": "ada@example.com",
        "expires_at": T0 + 12 * 3600,
        "revoked_at": None,
        "used_at": None,
        "good": True,
        "token": session["token"],
    }
    ada = stage.client(session["token"])
    assert "approve" in ada.get("caller").json()["permissions"]
    (entry,) = ada.get("audit", params={"action": "sign in"}).json()
    assert (entry["actor"], entry["because"]) == (
        "ada@example.com",
        f"as pipeline, releaser, security, by {ISSUER}",
    )
    assert entry["evidence"] == {"token": session["id"], "subject": "s-ada", "expires_at": T0 + 12 * 3600}


def test_a_session_is_as_long_as_the_settings_say_and_is_not_rotated() -> None:
    with server_in_memory(versions=0) as server:
        stage = Stage(server, msgspec.structs.replace(SETTINGS, session_hours=2.0))
        session = stage.sign_in().json()
        ada = stage.client(session["token"])
        said = refusal(ada.post("tokens/self/rotate", json={}))
        assert said == f"token {session['name']} is a session; sign in again for a new one: whimbrel login"
        server.clock.now = T0 + 2 * 3600 - 1
        assert ada.get("models").status_code == 200
        server.clock.now = T0 + 2 * 3600
        assert ada.get("models").status_code == 401


def test_where_people_sign_in_a_token_that_somebody_made_is_no_persons_word(stage: Stage) -> None:
    admin = stage.client(None)
    permissions = admin.get("caller").json()["permissions"]
    assert ("release" in permissions, "approve" in permissions) == (True, False)
    said = refusal(admin.post("rollouts/some/approve", json={}))
    assert "only who signed in approves" in said
    said = refusal(admin.post("tokens", json={"name": "t", "roles": ["viewer"], "person": "ben"}))
    assert said == (
        "people sign in here with a provider, so nobody makes a token for ben: a person who could make others could "
        "approve as two; they get one with: whimbrel login"
    )
    stage.server.token("ben-token", "viewer", person="ben")
    assert "so nobody makes a token for ben" in refusal(admin.post("tokens/ben-token/rotate", json={}))
    admin.post("tokens", json={"name": "t", "roles": ["viewer"]}).raise_for_status()


# --- a wrong one ---
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"iss": "https://evil.example.com"}, f"{REFUSED}invalid_claim: Invalid claim: 'iss'"),
        ({"aud": "another-app"}, f"{REFUSED}invalid_claim: Invalid claim: 'aud'"),
        ({"aud": None}, f"{REFUSED}missing_claim: Missing claim: 'aud'"),
        ({"aud": ["another-app", CLIENT]}, "the ID token was made for another application; sign in again"),
        ({"azp": "another-app"}, "the ID token was made for another application; sign in again: whimbrel login"),
        ({"exp": None}, f"{REFUSED}missing_claim: Missing claim: 'exp'"),
        ({"iat": None}, f"{REFUSED}missing_claim: Missing claim: 'iat'"),
        ({"sub": None}, f"{REFUSED}missing_claim: Missing claim: 'sub'"),
        ({"nonce": None}, f"{REFUSED}missing_claim: Missing claim: 'nonce'"),
        ({"nonce": ["a"]}, "the ID token's nonce or sub is not as OpenID Connect has it"),
        ({"sub": "s" * (2 * limits.LABEL_VALUE_CHARS + 1)}, "nonce or sub is not as OpenID Connect has it"),
        ({"nonce": "guessed"}, "this sign-in was used already, or is over; sign in again: whimbrel login"),
        ({"email": None}, "the ID token has no email, by which people are named here"),
        ({"email": ""}, "the ID token has no email, by which people are named here"),
        ({"email": ["ada"]}, "the ID token has no email, by which people are named here"),
        ({"email_verified": False}, "the provider has not verified the address ada@example.com; verify it there"),
        ({"email_verified": "true"}, "the provider has not verified the address ada@example.com"),
        ({"email_verified": None}, "the provider has not verified the address ada@example.com"),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(stage: Stage, wrong: dict[str, Any], words: str) -> None:
    assert words in stage.refused(**wrong)
    assert stage.client(None).get("tokens").json()[1:] == []


@pytest.mark.parametrize(
    "right",
    [
        {"aud": [CLIENT]},
        {"aud": [CLIENT, "another-app"], "azp": CLIENT},
        {"azp": CLIENT},
        {"sub": "s" * 2 * limits.LABEL_VALUE_CHARS},
    ],
)
def test_a_token_with_unusual_and_right_claims_signs_in(stage: Stage, right: dict[str, Any]) -> None:
    assert stage.sign_in(**right).status_code == 201


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"exp": int(T0) - 59}, 201),
        ({"exp": int(T0) - 61}, 401),
        ({"iat": int(T0) + 60}, 201),
        ({"iat": int(T0) + 61}, 401),
        ({"iat": int(T0) - 660}, 201),
        ({"iat": int(T0) - 661}, 401),
    ],
)
def test_clocks_may_differ_by_a_minute(stage: Stage, claims: dict[str, Any], status: int) -> None:
    assert stage.sign_in(**claims).status_code == status


def test_a_nonce_is_good_once_and_for_ten_minutes(stage: Stage) -> None:
    token = stage.issuer.token(nonce=stage.nonce())
    assert stage.nobody.post("sign-in", json={"id_token": token}).status_code == 201
    assert "was used already" in refusal(stage.nobody.post("sign-in", json={"id_token": token}), status=401)
    for waited, status in ((600, 201), (601, 401)):
        nonce = stage.nonce()
        stage.server.clock.now += waited
        token = stage.issuer.token(nonce=nonce, now=stage.server.clock.now)
        assert stage.nobody.post("sign-in", json={"id_token": token}).status_code == status


def test_of_too_many_nonces_the_oldest_is_forgotten(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGN_INS_PENDING", 2)
    nonces = []
    for _ in range(3):
        stage.server.clock.now += 1
        nonces.append(stage.nonce())
    statuses = [
        stage.nobody.post("sign-in", json={"id_token": stage.issuer.token(nonce=nonce)}).status_code for nonce in nonces
    ]
    assert statuses == [401, 201, 201]


def test_another_key_and_a_text_that_is_no_token_are_refused(stage: Stage) -> None:
    forger = Issuer()
    token = forger.token(nonce=stage.nonce())
    for text in (token, "x", "a.b.c"):
        said = refusal(stage.nobody.post("sign-in", json={"id_token": text}), status=401)
        assert said.startswith(REFUSED)
        assert said.endswith("); sign in again: whimbrel login")
    said = refusal(stage.nobody.post("sign-in", json={"id_token": "x" * (limits.OIDC_BYTES + 1)}), status=413)
    assert said == f"the body is over the {limits.ADMIN_BODY_BYTES} bytes of this route"


def test_a_namespace_that_is_not_here_is_404(stage: Stage) -> None:
    with stage.server.client(stage.app, base="/other/admin/v1") as http:
        assert refusal(http.post("sign-in/begin"), status=404) == "there is no namespace 'other' here"


# --- roles and names ---
def test_who_has_no_role_here_is_refused_and_named(stage: Stage) -> None:
    for groups in ("ml-cameras", ["ml-cameras", "others"], None, []):
        said = stage.refused(status=403, groups=groups)
        assert said == (
            "the provider knows ada@example.com, and its claims give no role here; ask who runs the server to name one "
            "of your groups in whimbrel.toml ([[oidc.roles]])"
        )
    assert stage.sign_in(groups="ml-release").json()["roles"] == ["pipeline", "releaser"]


def test_the_rules_of_another_namespace_count_there_alone() -> None:
    assert SETTINGS.roles_of({"groups": ["ml-cameras"]}, namespace="cameras") == (Role.ADMIN,)
    assert SETTINGS.roles_of({"groups": ["ml-cameras"]}, namespace="default") == ()
    assert SETTINGS.may_give(Role.ADMIN, namespace="cameras")
    assert not SETTINGS.may_give(Role.ADMIN, namespace="default")
    assert SETTINGS.may_give(Role.SECURITY, namespace="default")
    assert not SETTINGS.may_give(Role.PUBLISHER, namespace="cameras")


def test_an_account_belongs_to_the_first_subject_of_its_name(stage: Stage) -> None:
    assert stage.sign_in().json()["account"] == "ada@example.com"
    said = stage.refused(status=403, sub="s-another")
    assert said == "ada@example.com is the account of another person of the provider; ask who runs the server"
    renamed = stage.sign_in(email="ada.l@example.com").json()
    assert renamed["account"] == "ada@example.com"  # the same subject
    assert stage.sign_in(email="ADA.B@example.com", sub="s-third").json()["account"] == "ada.b@example.com"


@pytest.mark.parametrize(
    ("email", "words"),
    [
        ("admin", "'admin' is the account of the token that init wrote, and no provider's"),
        ("gate", "'gate' is a name that the server itself acts by; choose another; let name_claim in whimbrel.toml"),
        ("\u212a@example.com", "is no name of an account"),  # KELVIN SIGN, whose small letter is k
    ],
)
def test_a_name_that_no_person_may_have_is_refused(stage: Stage, email: str, words: str) -> None:
    assert words in stage.refused(status=403, email=email)


def test_a_machines_account_is_no_persons(stage: Stage) -> None:
    stage.server.token("ci", "viewer")
    assert "ci is the account of a machine" in stage.refused(status=409, email="ci")


def test_another_claim_may_name_people_and_needs_no_verification() -> None:
    with server_in_memory(versions=0) as server:
        stage = Stage(server, msgspec.structs.replace(SETTINGS, name_claim="login"))
        assert stage.sign_in(login="ada", email_verified=None).json()["account"] == "ada"
        assert "has no login, by which" in stage.refused()


def test_one_session_too_many_ends_the_oldest_of_the_same_person(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SESSIONS", 2)
    sessions = []
    stage.sign_in(sub="s-ben", email="ben@example.com").raise_for_status()
    for _ in range(3):
        stage.server.clock.now += 1
        sessions.append(stage.client(stage.sign_in().json()["token"]))
    assert [each.get("models").status_code for each in sessions] == [401, 200, 200]
    good = stage.client(None).get("tokens").json()
    assert sorted(each["account"] for each in good) == ["ada@example.com"] * 2 + ["admin", "ben@example.com"]


def test_a_session_that_was_over_long_ago_is_forgotten(stage: Stage) -> None:
    stage.sign_in().raise_for_status()
    counts = []
    for days in (30.5, 30.6):
        stage.server.clock.now = T0 + days * 86400
        stage.sign_in().raise_for_status()
        everyone = stage.client(None).get("tokens", params={"all": True}).json()
        counts.append(sum(each["created_at"] == T0 and each["source"] == "sign-in" for each in everyone))
    assert counts == [1, 0]  # 12 hours and 30 days after it began


def test_a_group_of_admins_is_a_way_back_once_somebody_came_by_it() -> None:
    rules = (*RULES, OidcRole(claim="groups", value="ml-admin", roles=(Role.ADMIN,)))
    with server_in_memory(versions=0) as server:
        stage = Stage(server, msgspec.structs.replace(SETTINGS, roles=rules))
        admin = stage.client(None)
        assert "is the last with the role admin" in refusal(admin.post("tokens/first/revoke", json={}))
        stage.sign_in(groups=["ml-admin"]).raise_for_status()
        admin.post("tokens/first/revoke", json={}).raise_for_status()


# --- slowed down ---
def test_sign_ins_that_are_never_finished_are_slowed_down(stage: Stage) -> None:
    begun = [stage.nobody.post("sign-in/begin").status_code for _ in range(limits.SIGN_IN_FAILURES + 1)]
    assert begun == [200] * limits.SIGN_IN_FAILURES + [429]
    assert stage.nobody.post("sign-in", json={"id_token": "x"}).status_code == 429
    elsewhere = stage.client("", address="192.0.2.9")
    assert elsewhere.post("sign-in/begin").status_code == 200


def test_sign_ins_that_fail_are_counted_and_slowed_down(stage: Stage) -> None:
    for _ in range(limits.SIGN_IN_FAILURES):
        assert stage.nobody.post("sign-in", json={"id_token": "x"}).status_code == 401
    assert stage.nobody.post("sign-in", json={"id_token": "x"}).status_code == 429
    stage.server.acts.write(all_of_it=True)
    elsewhere = stage.client(None, address="192.0.2.9")
    (entry,) = elsewhere.get("audit", params={"action": "fail_sign_in"}).json()
    assert entry["because"] == f"{limits.SIGN_IN_FAILURES + 1} requests of people were not let in, from 192.0.2.1"
