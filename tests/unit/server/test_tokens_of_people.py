"""Tokens are made, listed, changed for new ones and revoked: who may give whom what, over the admin API."""

from typing import Any

import httpx
import pytest

from support.accounts import refusal
from support.server_in_memory import ServerInMemory
from support.values import T0
from whimbrel import limits
from whimbrel.server.people import folder_caller

DAY_S = 86400.0


def made(http: httpx.Client, name: str, *roles: str, **more: Any) -> httpx.Response:
    return http.post("tokens", json={"name": name, "roles": list(roles)} | more)


def audited(server: ServerInMemory, action: str) -> list[tuple[str, str, dict[str, Any]]]:
    entries = server.people().get("audit", params={"action": action}).json()
    return [(each["actor"], each["because"], each["evidence"]) for each in entries]


# --- made ---
def test_a_machines_token_is_told_once_with_all_its_fields(server: ServerInMemory) -> None:
    answer = made(server.people(), "ci", "viewer", "pipeline", "viewer")
    assert answer.status_code == 201
    token = answer.json()
    assert len(token["token"]) == len("whimbrel_") + 43  # 32 random bytes
    assert len(token["id"]) == 12
    fields = {
        "id": token["id"],
        "name": "ci",
        "account": "ci",
        "kind": "machine",
        "roles": ["pipeline", "viewer"],
        "source": "made",
        "created_at": T0,
        "created_by": "admin",
        "expires_at": T0 + 90 * DAY_S,
        "revoked_at": None,
        "used_at": None,
        "good": True,
    }
    assert token == fields | {"token": token["token"]}
    assert server.people().get("tokens/ci").json() == fields
    evidence = {"token": token["id"], "account": "ci", "roles": ["pipeline", "viewer"], "expires_at": T0 + 90 * DAY_S}
    assert audited(server, "create token") == [("admin", "ci (pipeline, viewer) of machine ci", evidence)]


def test_two_tokens_are_never_alike(server: ServerInMemory) -> None:
    first, second = (made(server.people(), name, "viewer").json() for name in ("one", "two"))
    assert first["token"] != second["token"]
    assert first["id"] != second["id"]


def test_a_persons_token_is_of_the_person(server: ServerInMemory) -> None:
    token = made(server.people(), "adas-laptop", "releaser", person="ada@example.com", days=7).json()
    assert (token["name"], token["account"], token["kind"]) == ("adas-laptop", "ada@example.com", "person")
    assert token["expires_at"] == T0 + 7 * DAY_S
    assert server.people(token["token"]).get("caller").json()["account"] == "ada@example.com"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"name": "A B"}, "name is 'A B'; expected "),
        ({"roles": []}, "roles is 0 long; expected at least 1 of them"),
        ({"roles": ["root"]}, "role 1 is 'root'; expected one of 'viewer', 'pipeline', "),
        ({"days": 0}, "days is 0; expected a number above 0"),
        ({"days": limits.TOKEN_DAYS + 1}, "days is 367.0; expected a number of at most 366"),
        ({"person": ""}, "person is 0 characters long; expected a text that is not empty"),
        ({"person": "x" * 129}, "person is 129 characters long"),
        ({"secret": "mine"}, "has no field 'secret'"),
        ({"actor": "ben"}, "who does something is the account of the token that asks; leave actor out"),
    ],
)
def test_a_token_that_cannot_be_is_refused_with_what_was_wrong(
    server: ServerInMemory, wrong: dict[str, Any], sentence: str
) -> None:
    answer = server.people().post("tokens", json={"name": "ci", "roles": ["viewer"]} | wrong)
    assert sentence in refusal(answer, status=400)
    assert len(server.people().get("tokens").json()) == 1


@pytest.mark.parametrize("days", [1e-6, limits.TOKEN_DAYS])
def test_the_shortest_and_the_longest_life_of_a_token(server: ServerInMemory, days: float) -> None:
    assert made(server.people(), "ci", "viewer", days=days).json()["expires_at"] == pytest.approx(T0 + days * DAY_S)


@pytest.mark.parametrize(
    ("person", "sentence"),
    [
        ("Ada", "'Ada' is no name of an account; expected lower-case letters, digits and @ . _ + -, at most 128"),
        ("ada\n", "'ada\\n' is no name of an account"),
        ("-ada", "'-ada' is no name of an account"),
        ("gate", "'gate' is a name that the server itself acts by; choose another"),
        ("publisher-wake", "'publisher-wake' is a name that the server itself acts by; choose another"),
    ],
)
def test_nobody_is_called_as_the_server_acts_or_in_letters_that_mislead(
    server: ServerInMemory, person: str, sentence: str
) -> None:
    assert sentence in refusal(made(server.people(), "t", "viewer", person=person), status=400)


def test_a_name_is_one_good_tokens(server: ServerInMemory) -> None:
    http = server.people()
    made(http, "ci", "viewer", days=1).raise_for_status()
    said = refusal(made(http, "ci", "viewer"), status=409)
    assert said == "there is a token 'ci' already; rotate or revoke it, or choose another name"
    server.clock.now += DAY_S
    made(http, "ci", "viewer").raise_for_status()  # the first is over


def test_an_account_is_a_person_or_a_machine(server: ServerInMemory) -> None:
    http = server.people()
    made(http, "ci", "viewer").raise_for_status()
    said = refusal(made(http, "other", "viewer", person="ci"), status=409)
    assert said == "ci is the account of a machine, and a person was asked for; choose another name"
    said = refusal(made(http, "admin", "viewer"), status=409)
    assert said == "admin is the account of a person, and a machine was asked for; choose another name"


def test_a_namespace_has_so_many_good_tokens(server: ServerInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "API_TOKENS", 3)
    http = server.people()
    made(http, "one", "viewer", days=1).raise_for_status()
    made(http, "two", "viewer").raise_for_status()
    said = refusal(made(http, "three", "viewer"))
    assert said == "there are 3 tokens that are good; revoke some: whimbrel token list"
    server.clock.now += DAY_S
    made(http, "three", "viewer").raise_for_status()


# --- who gives whom what ---
def test_nobody_gives_away_what_he_has_not(server: ServerInMemory) -> None:
    security = server.person("sec", "security")
    said = refusal(made(security, "better", "releaser", "viewer"))
    assert said == (
        "a token with the role releaser and viewer may configure, draft, feedback, release, and your own may not: "
        "nobody gives away what he has not; ask an admin"
    )
    made(security, "looker", "viewer").raise_for_status()
    made(security, "another", "security").raise_for_status()
    assert "'tokens'" in refusal(made(server.person("rae", "releaser"), "mine", "viewer"))


def test_only_who_may_make_people_makes_a_token_of_another(server: ServerInMemory) -> None:
    security = server.person("sec", "security")
    assert "'people'" in refusal(made(security, "as-ada", "viewer", person="ada"))
    mine = made(security, "second", "viewer", person="sec").raise_for_status().json()  # one's own
    assert (mine["account"], mine["created_by"]) == ("sec", "sec")


# --- listed ---
def test_good_tokens_are_listed_oldest_first_and_the_others_when_asked_for(server: ServerInMemory) -> None:
    http = server.people()
    for at, (name, days) in enumerate([("old", 1.0), ("ended", 90.0), ("good", 90.0)], start=1):
        server.clock.now = T0 + at
        made(http, name, "viewer", days=days).raise_for_status()
    http.post("tokens/ended/revoke", json={}).raise_for_status()
    server.clock.now = T0 + 1 + DAY_S
    assert [each["name"] for each in http.get("tokens").json()] == ["first", "good"]
    everyone = http.get("tokens", params={"all": True}).json()
    assert [(each["name"], each["good"]) for each in everyone] == [
        ("first", True),
        ("old", False),
        ("ended", False),
        ("good", True),
    ]
    assert all("token" not in each for each in everyone)


# --- one's own and another's ---
def test_one_sees_changes_and_ends_ones_own_and_nobody_elses(server: ServerInMemory) -> None:
    viewer = server.machine("ci", "viewer")
    server.token("other", "viewer")
    own = viewer.get("tokens/self").raise_for_status().json()
    assert own["name"] == "ci"
    assert viewer.get("tokens/ci").json()["id"] == viewer.get(f"tokens/{own['id']}").json()["id"] == own["id"]
    for method, path in (("GET", "tokens/other"), ("POST", "tokens/other/rotate"), ("POST", "tokens/other/revoke")):
        assert "'tokens'" in refusal(viewer.request(method, path, json={}))
    assert viewer.post("tokens/self/revoke", json={}).raise_for_status().json()["revoked_at"] == T0
    assert viewer.get("tokens/self").status_code == 401


def test_a_token_that_is_not_there_is_404(server: ServerInMemory) -> None:
    http = server.people()
    for method, path in (("GET", "tokens/none"), ("POST", "tokens/none/rotate"), ("POST", "tokens/none/revoke")):
        said = refusal(http.request(method, path, json={}), status=404)
        assert said == "there is no token 'none' that is good; see: whimbrel token list"


def test_who_has_the_folder_has_no_token_of_his_own(server: ServerInMemory) -> None:
    app = server.admin_over(server.repository.admin_context(folder=folder_caller()))
    assert "there is no token 'self'" in refusal(server.people("", app=app).get("tokens/self"), status=404)


# --- rotated ---
def test_a_rotated_token_keeps_its_name_roles_and_end(server: ServerInMemory) -> None:
    before = server.machine("ci", "pipeline").get("tokens/self").json()
    server.clock.now = T0 + 10
    after = server.people("secret-of-ci").post("tokens/self/rotate", json={}).raise_for_status().json()
    assert after == before | {
        "id": after["id"],
        "token": after["token"],
        "created_at": T0 + 10,
        "created_by": "ci",
        "used_at": None,
    }
    assert after["id"] != before["id"]
    ((actor, because, evidence),) = audited(server, "rotate token")
    assert (actor, because, evidence["token"]) == ("ci", "ci (pipeline) of machine ci", after["id"])
    everyone = server.people().get("tokens", params={"all": True}).json()
    assert [each["revoked_at"] for each in everyone if each["id"] == before["id"]] == [T0 + 10]


def test_a_later_end_takes_the_permission_for_tokens(server: ServerInMemory) -> None:
    server.token("ci", "pipeline")
    assert "'tokens'" in refusal(server.people("secret-of-ci").post("tokens/self/rotate", json={"days": 300}))
    longer = server.people().post("tokens/ci/rotate", json={"days": 300}).raise_for_status().json()
    assert (longer["expires_at"], longer["created_by"]) == (T0 + 300 * DAY_S, "admin")
    said = refusal(server.people().post("tokens/ci/rotate", json={"days": 400}), status=400)
    assert said == "days is 400; expected a number of at most 366"


def test_nobody_changes_a_better_token_or_another_persons_into_his_own(server: ServerInMemory) -> None:
    security = server.person("sec", "security")
    server.token("ben-token", "viewer", person="ben")
    assert "nobody gives away what he has not" in refusal(security.post("tokens/first/rotate", json={}))
    assert "'people'" in refusal(security.post("tokens/ben-token/rotate", json={}))
    server.token("ci", "viewer")
    security.post("tokens/ci/rotate", json={}).raise_for_status()  # a machine's


def test_a_token_that_is_over_is_not_rotated(server: ServerInMemory) -> None:
    identifier = server.machine("ci", "viewer").get("tokens/self").json()["id"]
    server.people().post("tokens/ci/revoke", json={}).raise_for_status()
    said = refusal(server.people().post(f"tokens/{identifier}/rotate", json={}))
    assert said == "token ci is over; make a new one: whimbrel token create"


# --- revoked ---
def test_a_revocation_says_why_and_is_written_once(server: ServerInMemory) -> None:
    identifier = server.machine("ci", "viewer").get("tokens/self").json()["id"]
    http = server.people()
    server.clock.now = T0 + 5
    first = http.post("tokens/ci/revoke", json={"because": "it was in a log"}).raise_for_status().json()
    assert (first["revoked_at"], first["good"], "token" in first) == (T0 + 5, False, False)
    server.clock.now = T0 + 50
    again = http.post(f"tokens/{identifier}/revoke", json={"because": "again"}).raise_for_status().json()
    assert again["revoked_at"] == T0 + 5
    ((actor, because, _),) = audited(server, "revoke token")
    assert (actor, because) == ("admin", "ci (viewer) of machine ci: it was in a log")


def test_the_last_admins_token_takes_a_word_of_its_own(server: ServerInMemory) -> None:
    http = server.people()
    said = refusal(http.post("tokens/first/revoke", json={}))
    assert said == (
        "token first is the last with the role admin: nobody could make people or settle roles any more, except "
        "whoever has the repository's folder; make another first (whimbrel token create NAME --person WHO --role "
        "admin), or say --although-last"
    )
    second = server.person("ben", "admin", "viewer")
    http.post("tokens/first/revoke", json={}).raise_for_status()
    assert "is the last with the role admin" in refusal(second.post("tokens/self/revoke", json={}))
    second.post("tokens/self/revoke", json={"although_last": True}).raise_for_status()
    assert second.get("models").status_code == 401


def test_an_admins_token_that_is_over_is_no_second_one(server: ServerInMemory) -> None:
    server.token("ben-token", "admin", person="ben", days=1)
    server.token("sec-token", "security", person="sec")
    server.clock.now = T0 + DAY_S
    assert "is the last" in refusal(server.people().post("tokens/first/revoke", json={}))
