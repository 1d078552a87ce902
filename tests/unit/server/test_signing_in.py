"""Who is asking? Tokens of people and machines: which are let in, as whom, and what the others hear."""

import getpass
import logging
import os

import pytest

from support.server_in_memory import NAMESPACE, ServerInMemory
from support.values import T0
from whimbrel import limits
from whimbrel.errors import NotAllowed, Refused, TooMany
from whimbrel.flows.accounts.permissions import Caller, Permission, Role
from whimbrel.server.auth import bearer
from whimbrel.server.failure_limit import FailureLimit
from whimbrel.server.people import People, folder_caller

DAY_S = 86400.0
NO_TOKEN = (
    "the admin API needs a token (Authorization: Bearer ...): init wrote one to admin.token, and whimbrel login or an "
    "admin gives you your own"
)
WRONG_TOKEN = "this token is not known here, was revoked, or is over; get a new one (whimbrel login, or ask an admin)"


def sign_in(server: ServerInMemory, authorization: str | None, *, address: str = "192.0.2.1") -> tuple[int, str]:
    """Status and sentence of a question with this header. A good token: its account."""
    headers = {} if authorization is None else {"authorization": authorization}
    with server.people("", address=address) as http:
        answer = http.get("caller", headers=headers)
    return answer.status_code, str(answer.json().get("detail") or answer.json()["account"])


# --- which token is let in ---
def test_a_token_is_its_account_with_its_roles_and_their_permissions(server: ServerInMemory) -> None:
    token = server.token("ci", "pipeline", "viewer")
    assert server.people(token).get("caller").json() == {
        "account": "ci",
        "kind": "machine",
        "roles": ["pipeline", "viewer"],
        "permissions": ["read", "publish", "draft"],
        "token": server.people().get("tokens/ci").json()["id"],
    }
    admin = server.people().get("caller").json()
    assert (admin["account"], admin["kind"], admin["roles"]) == ("admin", "person", ["admin"])
    assert admin["permissions"] == [each.value for each in Permission]


def test_a_machine_that_is_an_admin_may_do_everything_but_approve(server: ServerInMemory) -> None:
    permissions = server.machine("robot", "admin").get("caller").json()["permissions"]
    assert set(Permission) - set(permissions) == {Permission.APPROVE}


@pytest.mark.parametrize(
    ("spelled", "sentence"),
    [
        (None, NO_TOKEN),
        ("", NO_TOKEN),
        ("Bearer", NO_TOKEN),
        ("Bearer ", NO_TOKEN),
        ("bearer {}", NO_TOKEN),
        ("Basic {}", NO_TOKEN),
        ("{}", NO_TOKEN),
        ("Bearer  {}", WRONG_TOKEN),
        ("Bearer {}=", WRONG_TOKEN),
        ("Bearer x{}", WRONG_TOKEN),
    ],
)
def test_a_token_has_one_spelling(server: ServerInMemory, spelled: str | None, sentence: str) -> None:
    token = server.token("ci", "viewer")
    assert sign_in(server, f"Bearer {token}") == (200, "ci")
    assert sign_in(server, None if spelled is None else spelled.format(token)) == (401, sentence)


def test_a_token_of_another_case_is_another_token(server: ServerInMemory) -> None:
    assert sign_in(server, f"Bearer {server.token('ci', 'viewer').upper()}") == (401, WRONG_TOKEN)


def test_a_token_is_kept_as_its_hash_alone(server: ServerInMemory) -> None:
    made = server.people().post("tokens", json={"name": "ci", "roles": ["viewer"]}).raise_for_status().json()
    assert made["token"].startswith("whimbrel_")
    raw = server.database.engine.raw_connection()
    try:
        dump = "\n".join(raw.driver_connection.iterdump())
    finally:
        raw.close()
    assert made["id"] in dump
    assert made["token"] not in dump
    assert made["token"].removeprefix("whimbrel_") not in dump


def test_a_token_is_good_until_its_end_and_no_longer(server: ServerInMemory) -> None:
    token = server.token("ci", "viewer", days=2)
    server.clock.now = T0 + 2 * DAY_S - 1
    assert sign_in(server, f"Bearer {token}") == (200, "ci")
    server.clock.now = T0 + 2 * DAY_S
    assert sign_in(server, f"Bearer {token}") == (401, WRONG_TOKEN)


def test_the_token_of_init_has_no_end(server: ServerInMemory) -> None:
    server.clock.now = T0 + 5000 * DAY_S
    assert sign_in(server, f"Bearer {server.admin_token}") == (200, "admin")


def test_a_revoked_token_is_shut_out_at_once(server: ServerInMemory) -> None:
    token = server.token("ci", "viewer")
    assert sign_in(server, f"Bearer {token}") == (200, "ci")
    server.people().post("tokens/ci/revoke", json={"because": "it was in a log"}).raise_for_status()
    assert sign_in(server, f"Bearer {token}") == (401, WRONG_TOKEN)


def test_a_rotated_token_is_over_and_the_new_one_is_good(server: ServerInMemory) -> None:
    token = server.token("ci", "viewer")
    new = server.people(token).post("tokens/self/rotate", json={}).raise_for_status().json()["token"]
    assert sign_in(server, f"Bearer {token}") == (401, WRONG_TOKEN)
    assert sign_in(server, f"Bearer {new}") == (200, "ci")


def test_a_token_of_one_namespace_is_none_of_another(server: ServerInMemory) -> None:
    with server.client(server.admin, base="/other/admin/v1", token=server.admin_token) as other:
        answer = other.get("caller")
    assert (answer.status_code, answer.json()["detail"]) == (401, WRONG_TOKEN)


@pytest.mark.parametrize(("over", "sentence"), [(0, WRONG_TOKEN), (1, NO_TOKEN)])
def test_what_is_too_long_for_a_token_is_not_looked_up(server: ServerInMemory, over: int, sentence: str) -> None:
    assert sign_in(server, "Bearer " + "x" * (limits.SECRET_BYTES + over)) == (401, sentence)


def test_a_problem_is_a_problem_document(server: ServerInMemory) -> None:
    answer = server.people("").get("models")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {"title": "Not allowed", "status": 401, "detail": NO_TOKEN}


def test_when_a_token_was_used_is_known_to_five_minutes(server: ServerInMemory) -> None:
    http, looker = server.people(), server.people(server.token("ci", "viewer"))
    used = []
    for at in (0, 299, 300, 301, 700):
        server.clock.now = T0 + at
        looker.get("caller").raise_for_status()
        used.append(http.get("tokens/ci").json()["used_at"] - T0)
    assert used == [0, 0, 0, 301, 700]


@pytest.mark.parametrize(
    ("header", "token"),
    [(None, None), ("Bearer abc", "abc"), ("Bearer a b", "a b"), ("BEARER abc", None), ("Bearer ", None), ("x", None)],
)
def test_the_token_of_a_header(header: str | None, token: str | None) -> None:
    assert bearer(header) == token


# --- who asks without a token ---
def test_who_has_the_folder_asks_without_a_token_and_a_wrong_token_is_wrong_all_the_same(
    server: ServerInMemory,
) -> None:
    caller = Caller(account="ada", kind="person", roles=(Role.VIEWER,))
    http = server.people("", app=server.admin_over(server.repository.admin_context(folder=caller)))
    assert http.get("caller").json() == {
        "account": "ada",
        "kind": "person",
        "roles": ["viewer"],
        "permissions": ["read"],
        "token": None,
    }
    assert http.get("caller", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert http.post("collect").status_code == 403


def test_the_folders_caller_is_the_systems_user_and_an_admin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "somebody-else")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    caller = folder_caller()
    assert caller.account != "somebody-else"
    assert (caller.kind, caller.roles, caller.token) == ("person", (Role.ADMIN,), "")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_123)
    assert folder_caller().account == "uid-4000123"  # a container without that user
    assert getpass.getuser() == "somebody-else"


# --- sign-ins that fail ---
def guess(server: ServerInMemory, count: int, *, address: str = "192.0.2.1") -> list[int]:
    with server.people("", address=address) as http:
        return [
            http.get("caller", headers={"authorization": f"Bearer guess-{number}"}).status_code
            for number in range(count)
        ]


def test_the_address_of_too_many_wrong_tokens_is_refused_for_a_minute(server: ServerInMemory) -> None:
    most = limits.SIGN_IN_FAILURES
    assert guess(server, most + 1) == [401] * most + [429]
    right = f"Bearer {server.admin_token}"
    assert sign_in(server, right) == (
        429,
        f"{most} sign-ins from 192.0.2.1 failed within a minute; wait for a minute, then use the right token",
    )
    assert sign_in(server, right, address="192.0.2.2") == (200, "admin")
    server.clock.now = T0 + 59.9
    assert guess(server, 1) == [429]
    server.clock.now = T0 + 60
    assert guess(server, 1) == [401]


def test_a_token_that_was_good_lately_is_let_in_whatever_its_address_did(server: ServerInMemory) -> None:
    right = f"Bearer {server.admin_token}"
    assert sign_in(server, right)[0] == 200
    guess(server, limits.SIGN_IN_FAILURES + 1)
    assert sign_in(server, right) == (200, "admin")


def test_a_customers_network_of_ipv6_is_one_address(server: ServerInMemory) -> None:
    guess(server, limits.SIGN_IN_FAILURES, address="2001:db8:1:2::7")
    assert guess(server, 1, address="2001:db8:1:2::8") == [429]
    assert guess(server, 1, address="2001:db8:1:3::8") == [401]


def test_no_token_at_all_is_counted_and_shuts_no_address_out(server: ServerInMemory) -> None:
    for _ in range(limits.SIGN_IN_FAILURES + 1):
        assert sign_in(server, None) == (401, NO_TOKEN)
    assert guess(server, 1) == [401]


def test_the_log_says_once_that_an_address_fails(server: ServerInMemory, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        guess(server, limits.SIGN_IN_FAILURES - 1)
        assert caplog.messages == []
        guess(server, 10)
    assert caplog.messages == [f"{limits.SIGN_IN_FAILURES} sign-ins from 192.0.2.1 failed within a minute"]


def test_failures_are_one_entry_of_the_audit_log_with_who_failed_most(server: ServerInMemory) -> None:
    guess(server, 2, address="192.0.2.7")
    guess(server, limits.SIGN_IN_FAILURES + 3, address="192.0.2.9")
    sign_in(server, None)
    server.clock.now += 1
    server.acts.write()
    (entry,) = server.people().get("audit", params={"action": "fail_sign_in"}).json()
    count = limits.SIGN_IN_FAILURES + 3 + 2 + 1
    assert (entry["actor"], entry["because"]) == (
        "anybody",
        f"{count} requests of people were not let in, most from 192.0.2.9",
    )
    assert entry["evidence"] == {
        "count": count,
        "since": T0,
        "until": T0 + 1,
        "most_by": {"192.0.2.9": count - 3, "192.0.2.7": 2, "192.0.2.1": 1},
    }
    server.acts.write()
    assert len(server.people().get("audit", params={"action": "fail_sign_in"}).json()) == 1


# --- the bound by itself ---
def full(bound: FailureLimit, address: str, *, now: float) -> None:
    for _ in range(limits.SIGN_IN_FAILURES):
        bound.failed(address, now=now)


def test_the_failure_from_which_on_an_address_is_refused_is_told_once() -> None:
    bound = FailureLimit()
    told = [bound.failed("a", now=T0) for _ in range(limits.SIGN_IN_FAILURES + 5)]
    assert told.index(True) == limits.SIGN_IN_FAILURES - 1
    assert sum(told) == 1


def test_a_minute_begins_with_its_first_failure() -> None:
    bound = FailureLimit()
    bound.failed("a", now=T0)
    for _ in range(limits.SIGN_IN_FAILURES - 1):
        bound.failed("a", now=T0 + 59)
    with pytest.raises(TooMany):
        bound.check("a", now=T0 + 59.5)
    bound.check("a", now=T0 + 60)
    for _ in range(limits.SIGN_IN_FAILURES - 1):  # a minute later they count anew
        bound.failed("a", now=T0 + 60)
    bound.check("a", now=T0 + 60)
    bound.failed("a", now=T0 + 60)
    with pytest.raises(TooMany):
        bound.check("a", now=T0 + 60)


def test_addresses_of_longest_ago_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGN_IN_ADDRESSES", 3)
    bound = FailureLimit()
    for address in ("a", "b", "c"):
        full(bound, address, now=T0)
    bound.failed("a", now=T0)  # it is of now again
    bound.failed("d", now=T0)
    bound.check("b", now=T0)
    for address in ("a", "c"):
        with pytest.raises(TooMany):
            bound.check(address, now=T0)


def test_good_tokens_of_longest_ago_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KNOWN_TOKENS", 2)
    bound = FailureLimit()
    for token in ("first", "second", "first", "third"):
        bound.good(token)
    full(bound, "a", now=T0)
    bound.check("a", "first", now=T0)
    bound.check("a", "third", now=T0)
    with pytest.raises(TooMany):
        bound.check("a", "second", now=T0)


# --- what a caller may ---
def caller(*roles: Role, kind: str = "person", vouched: bool = True) -> Caller:
    return Caller(account="ada", kind=kind, roles=roles, vouched=vouched)


@pytest.mark.parametrize(
    ("who", "asked", "sentence"),
    [
        (
            caller(Role.VIEWER),
            Permission.RELEASE,
            "the token of ada is a viewer's, and this needs the permission 'release', which these roles have: "
            "releaser, admin; ask an admin for a token with one of them",
        ),
        (
            caller(Role.PIPELINE, Role.VIEWER),
            Permission.COLLECT,
            "the token of ada is a pipeline and viewer's, and this needs the permission 'collect', which these roles "
            "have: admin; ask an admin for a token with one of them",
        ),
        (
            caller(Role.ADMIN, kind="machine"),
            Permission.APPROVE,
            "ada is a machine's account, and only people approve; sign in as yourself",
        ),
        (
            caller(Role.ADMIN, vouched=False),
            Permission.APPROVE,
            "people sign in here with a provider, and ada shows a token that somebody made: only who signed in "
            "approves (whimbrel login)",
        ),
        (
            caller(Role.VIEWER, vouched=False),
            Permission.APPROVE,
            "the token of ada is a viewer's, and this needs the permission 'approve', which these roles have: "
            "releaser, security, admin; ask an admin for a token with one of them",
        ),
    ],
)
def test_who_is_refused_hears_why_and_who_may(who: Caller, asked: Permission, sentence: str) -> None:
    assert not who.may(asked)
    with pytest.raises(Refused) as caught:
        who.check(asked)
    assert (caught.value.status, str(caught.value)) == (403, sentence)


def test_one_of_several_roles_is_enough() -> None:
    caller(Role.VIEWER, Role.RELEASER).check(Permission.RELEASE)
    assert caller(Role.RELEASER).counts_as_person
    assert not caller(Role.RELEASER, kind="machine").counts_as_person
    assert not caller(Role.RELEASER, vouched=False).counts_as_person


def test_nobody_is_signed_in_by_no_provider(server: ServerInMemory) -> None:
    for path in ("sign-in/begin", "sign-in"):
        answer = server.people("").post(path, json={"id_token": "x"})
        assert answer.status_code == 404
        assert answer.json()["detail"] == (
            "nobody signs in here with a provider: whimbrel.toml has no [oidc]; ask an admin for a token"
        )


def test_people_signs_in_of_the_namespace_that_is_asked(server: ServerInMemory) -> None:
    people = People(server.database, acts=server.acts, clock=server.clock)
    assert people.sign_in(NAMESPACE, f"Bearer {server.admin_token}", address="a").account == "admin"
    with pytest.raises(NotAllowed):
        people.sign_in("other", f"Bearer {server.admin_token}", address="a")
