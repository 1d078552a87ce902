"""Attack: whoever may revoke tokens takes the last admin's, and nobody can make people or settle roles any more."""

from pathlib import Path
from typing import cast

import pytest

from support.accounts import person, refusal
from support.server import repository, serving
from whimbrel.flows.accounts.permissions import Role
from whimbrel.flows.accounts.records import AccountsPort, TokenRecord, TokenSource
from whimbrel.flows.accounts.tokens import is_last_admin
from whimbrel.server.oidc_settings import OidcRole, OidcSettings

NOW = 1000.0


def test_the_security_role_does_not_revoke_the_last_admin_by_a_slip(tmp_path: Path) -> None:
    with (
        serving(repository(tmp_path / "repo", versions=0)) as here,
        person(here, "eve", "security") as eve,
        here.people() as admin,
    ):
        (first,) = [each for each in admin.get("tokens").json() if "admin" in each["roles"]]
        said = refusal(eve.post(f"tokens/{first['name']}/revoke", json={}))
        assert f"token {first['name']} is the last with the role admin" in said
        assert "--although-last" in said
        with person(here, "ada", "admin") as ada:
            eve.post(f"tokens/{first['id']}/revoke", json={}).raise_for_status()
            assert "is the last" in refusal(ada.post("tokens/self/revoke", json={}))
            meant = {"although_last": True, "because": "the server is shut down"}
            ada.post("tokens/self/revoke", json=meant).raise_for_status()
            assert ada.get("caller").status_code == 401


def test_one_sees_ones_own_token_and_with_a_permission_those_of_others(tmp_path: Path) -> None:
    with serving(repository(tmp_path / "repo", versions=0)) as here, person(here, "bo", "viewer") as bo:
        assert bo.get("tokens/self").json()["account"] == "bo"
        assert "'tokens'" in refusal(bo.get("tokens/first"))
        assert "there is no token 'nothing'" in refusal(bo.get("tokens/nothing"), status=404)


class Tokens:
    """The tokens of a namespace."""

    def __init__(self, *tokens: TokenRecord) -> None:
        self._tokens = [*tokens]

    def tokens(self) -> list[TokenRecord]:
        return self._tokens


def token(name: str, *roles: Role, source: TokenSource = "made", expires_at: float | None = None) -> TokenRecord:
    return TokenRecord(
        id=name,
        name=name,
        account=name,
        kind="person",
        roles=roles,
        source=source,
        created_at=0.0,
        created_by="admin",
        expires_at=expires_at,
    )


LAST = token("last", Role.ADMIN)


@pytest.mark.parametrize(
    ("others", "admins_sign_in", "is_last"),
    [
        ((), False, True),
        ((), True, True),  # a group that nobody signed in by yet is perhaps nobody's
        ((token("releaser", Role.RELEASER),), False, True),
        ((token("other", Role.ADMIN),), False, False),
        ((token("over", Role.ADMIN, expires_at=NOW - 1),), False, True),
        ((token("session", Role.ADMIN, source="sign-in", expires_at=NOW + 60),), False, True),
        ((token("session", Role.ADMIN, source="sign-in", expires_at=NOW - 60),), True, False),
        ((token("session", Role.VIEWER, source="sign-in", expires_at=NOW + 60),), True, True),
    ],
)
def test_who_is_the_last_admin(others: tuple[TokenRecord, ...], admins_sign_in: bool, is_last: bool) -> None:
    accounts = cast("AccountsPort", Tokens(LAST, *others))
    assert is_last_admin(accounts, LAST, admins_sign_in=admins_sign_in, now=NOW) is is_last


def test_a_session_and_a_token_that_is_over_are_not_the_last_admin() -> None:
    session = token("session", Role.ADMIN, source="sign-in", expires_at=NOW + 60)
    over = token("over", Role.ADMIN, expires_at=NOW - 1)
    for each in (session, over, token("releaser", Role.RELEASER)):
        assert not is_last_admin(cast("AccountsPort", Tokens(each)), each, admins_sign_in=False, now=NOW)


def test_a_group_gives_a_role_in_its_namespace() -> None:
    rule = OidcRole(claim="groups", value="ops", roles=(Role.ADMIN,), namespace="cameras")
    settings = OidcSettings(issuer="https://id.example.com", client_id="whimbrel", roles=(rule,))
    assert settings.may_give(Role.ADMIN, namespace="cameras")
    assert not settings.may_give(Role.ADMIN, namespace="default")
    assert not settings.may_give(Role.RELEASER, namespace="cameras")
