"""Who may do what: the table of roles, and the sentence of each refusal."""

import pytest

from whimbrel.errors import Refused
from whimbrel.flows.accounts.permissions import Caller, Permission, Role, permissions_of

READ, PUBLISH, DRAFT, STOP, APPROVE = (Permission(each) for each in ("read", "publish", "draft", "stop", "approve"))


def caller(*roles: Role, **changes: object) -> Caller:
    return Caller(**{"account": "ada", "kind": "person", "roles": roles} | changes)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.VIEWER, "read"),
        (Role.PIPELINE, "draft publish read"),
        (Role.PUBLISHER, "draft feedback publish read revoke"),
        (Role.RELEASER, "approve configure devices draft feedback read release revoke stop"),
        (Role.SECURITY, "approve devices enrol govern keys read revoke stop tokens"),
        (
            Role.ADMIN,
            "approve collect configure devices draft enrol feedback govern keys people publish read release revoke "
            "stop tokens",
        ),
    ],
)
def test_a_role_may_do_what_the_table_says_and_nothing_else(role: Role, may: str) -> None:
    assert sorted(permissions_of([role])) == may.split()
    asked = caller(role)
    assert sorted(each for each in Permission if asked.may(each)) == may.split()


def test_a_token_may_do_what_any_of_its_roles_may() -> None:
    assert permissions_of([Role.VIEWER, Role.PUBLISHER]) == permissions_of([Role.PUBLISHER])
    both = caller(Role.PIPELINE, Role.SECURITY)
    assert (both.may(PUBLISH), both.may(STOP), both.may(Permission.RELEASE)) == (True, True, False)
    assert permissions_of([]) == frozenset()


def test_nobody_but_a_person_who_is_vouched_for_approves() -> None:
    """Everything else that the role may do, a machine and a token that somebody made may do as well."""
    for changes, counts in (({}, True), ({"kind": "machine"}, False), ({"vouched": False}, False)):
        asked = caller(Role.ADMIN, **changes)
        assert (asked.counts_as_person, asked.may(APPROVE), asked.may(STOP)) == (counts, counts, True)


@pytest.mark.parametrize(
    ("asked", "permission", "said"),
    [
        (
            caller(Role.VIEWER),
            PUBLISH,
            "the token of ada is a viewer's, and this needs the permission 'publish', which these roles have: "
            "pipeline, publisher, admin; ask an admin for a token with one of them",
        ),
        (
            caller(Role.VIEWER, Role.PIPELINE),
            Permission.PEOPLE,
            "the token of ada is a viewer and pipeline's, and this needs the permission 'people', which these roles "
            "have: admin; ask an admin for a token with one of them",
        ),
        (
            caller(),
            READ,
            "the token of ada is a no role's, and this needs the permission 'read', which these roles have: viewer, "
            "pipeline, publisher, releaser, security, admin; ask an admin for a token with one of them",
        ),
        (
            caller(Role.ADMIN, account="robot", kind="machine"),
            APPROVE,
            "robot is a machine's account, and only people approve; sign in as yourself",
        ),
        (
            caller(Role.RELEASER, vouched=False),
            APPROVE,
            "people sign in here with a provider, and ada shows a token that somebody made: only who signed in "
            "approves (whimbrel login)",
        ),
        (
            caller(Role.VIEWER, vouched=False),
            APPROVE,
            "the token of ada is a viewer's, and this needs the permission 'approve', which these roles have: "
            "releaser, security, admin; ask an admin for a token with one of them",
        ),
    ],
)
def test_a_refusal_says_what_is_missing_and_who_has_it(asked: Caller, permission: Permission, said: str) -> None:
    with pytest.raises(Refused) as refused:
        asked.check(permission)
    assert (str(refused.value), type(refused.value)) == (said, Refused)


def test_what_is_allowed_is_not_refused() -> None:
    caller(Role.RELEASER).check(APPROVE)
    caller(Role.PIPELINE, kind="machine").check(DRAFT)
