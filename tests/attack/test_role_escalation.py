"""A token reaches for more than its role: every route with every role, and the ways to a better token."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler

from support.accounts import refusal, started
from support.server_in_memory import ADDRESS, ServerInMemory, admin_routes, server_in_memory
from whimbrel import limits
from whimbrel.errors import InvariantBroken
from whimbrel.flows.accounts.permissions import PERMISSIONS, Permission, Role
from whimbrel.server.admin import app as admin
from whimbrel.server.admin.moves import EXPERIMENT_ACTS, ROLLOUT_MOVES

PLAN = (
    'rollout: {model_version: "wake@2.0.0", stages: [{name: a, target_percent: 5}, {name: b, target_percent: 100}]}\n'
)
OPEN = {("POST", "sign-in"), ("POST", "sign-in/begin")}
PREFIX = "/{namespace:str}/admin/v1/"
NAMED = {  # what a path's parameter is called here: nothing that exists, so that no call changes anything
    "model": "nothing",
    "version": "9",
    "alias": "nothing",
    "sha256": "0" * 64,
    "identifier": "nothing",
    "form": "png",
    "device": "nothing",
    "name": "nothing",
    "role": "timestamp",
    "token": "nothing",
    "proposal": "nothing",
    "sequence": "9",
    "before": "8",
    "after": "9",
}


@pytest.fixture
def here() -> Iterator[ServerInMemory]:
    with server_in_memory() as opened:
        yield opened


@pytest.fixture
def clients(here: ServerInMemory) -> dict[Role, httpx.Client]:
    return {role: here.person(f"some-{role}", role) for role in Role}


def routes() -> list[tuple[str, str, HTTPRouteHandler]]:
    """Method, path and handler of every route of a namespace, as the application has them."""
    return [
        (method, route.path_format.removeprefix(PREFIX.replace(":str", "")), handler)
        for route in admin_routes()
        if "namespace" in route.path_parameters
        for handler in route.route_handlers
        for method in sorted(handler.http_methods - {"OPTIONS"})
    ]


def calls() -> Iterator[tuple[str, str, Permission]]:
    """Every call that a token is asked for, and the permission that it needs. A route by path: once a move or act."""
    for method, path, handler in routes():
        if (method, path) in OPEN:
            continue
        acts = {"move": ROLLOUT_MOVES.permissions, "act": EXPERIMENT_ACTS.permissions}
        by_path = next((name for name in acts if f"{{{name}}}" in path), None)
        for word in acts[by_path] if by_path is not None else [""]:
            filled = path.format(**NAMED, **({by_path: word} if by_path is not None else {}))
            yield method, filled, admin.permission_needed(handler, {by_path: word} if by_path is not None else {})


def test_every_route_needs_a_permission_and_each_role_is_refused_exactly_where_it_lacks_it(
    here: ServerInMemory, clients: dict[Role, httpx.Client]
) -> None:
    asked = list(calls())
    assert len(asked) >= 55
    assert {permission for _, _, permission in asked} >= set(Permission) - {Permission.GOVERN, Permission.PEOPLE}
    wrong = []
    for method, path, permission in asked:
        for role, client in clients.items():
            if role is Role.ADMIN and (path == "collect" or path.endswith("/test")):
                continue
            answer = client.request(method, path, json={} if method in {"POST", "PUT", "PATCH"} else None)
            lacks = answer.status_code == 403 and (method == "HEAD" or "this needs the permission" in answer.text)
            if answer.status_code == 401 or lacks != (permission not in PERMISSIONS[role]):
                wrong.append((method, path, role.value, answer.status_code, answer.text))
    assert not wrong


def test_without_a_token_every_route_is_401(here: ServerInMemory) -> None:
    with here.people("") as nobody:
        for method, path, _ in calls():
            assert nobody.request(method, path, json={}).status_code == 401, (method, path)


def test_a_route_that_declares_no_permission_is_not_served(
    here: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, _, handler), *_ = routes()
    monkeypatch.setitem(handler.opt, "permission", None)
    with pytest.raises(InvariantBroken, match="declares no permission, so nobody may ask it"):
        admin.permission_needed(handler, {})


def test_nobody_gives_away_what_he_has_not(clients: dict[Role, httpx.Client]) -> None:
    security = clients[Role.SECURITY]
    for role in (Role.ADMIN, Role.RELEASER, Role.PIPELINE):
        said = refusal(security.post("tokens", json={"name": "better", "roles": [role]}))
        assert "your own may not: nobody gives away what he has not" in said
    security.post("tokens", json={"name": "looker", "roles": ["viewer"]}).raise_for_status()
    for role in (Role.VIEWER, Role.PUBLISHER, Role.RELEASER):
        assert "'tokens'" in refusal(clients[role].post("tokens", json={"name": "mine", "roles": ["viewer"]}))


def test_only_who_may_make_people_makes_a_token_of_another(clients: dict[Role, httpx.Client]) -> None:
    body = {"name": "as-ada", "roles": ["security"], "person": "some-admin"}
    assert "'people'" in refusal(clients[Role.SECURITY].post("tokens", json=body))


def test_a_token_is_not_changed_into_another_persons(here: ServerInMemory, clients: dict[Role, httpx.Client]) -> None:
    for name in ("some-admin-token", "first"):  # the new token would be told to whoever asked
        said = refusal(clients[Role.SECURITY].post(f"tokens/{name}/rotate", json={}))
        assert "nobody gives away" in said
        assert "'tokens'" in refusal(clients[Role.RELEASER].post(f"tokens/{name}/rotate", json={}))
        assert "'tokens'" in refusal(clients[Role.RELEASER].post(f"tokens/{name}/revoke", json={}))
    said = refusal(clients[Role.SECURITY].post("tokens/some-viewer-token/rotate", json={}))
    assert "'people'" in said


def test_a_stolen_token_does_not_live_longer_by_being_rotated(here: ServerInMemory) -> None:
    with here.machine("stolen", "pipeline") as thief:
        (before,) = [each for each in admin_tokens(here) if each["name"] == "stolen"]
        assert "'tokens'" in refusal(thief.post("tokens/self/rotate", json={"days": 300}))
        after = thief.post("tokens/self/rotate", json={}).raise_for_status().json()
        assert (after["expires_at"], after["roles"]) == (before["expires_at"], ["pipeline"])
        assert thief.get("models").status_code == 401  # and the old one is over
    with here.people(after["token"]) as renewed:
        assert renewed.get("models").status_code == 200


def admin_tokens(here: ServerInMemory) -> list[dict[str, Any]]:
    with here.people() as admin_client:
        answer: list[dict[str, Any]] = admin_client.get("tokens").raise_for_status().json()
        return answer


def test_a_revoked_token_is_shut_out_at_once(here: ServerInMemory) -> None:
    with here.machine("ended", "viewer") as viewer, here.people() as admin_client:
        assert viewer.get("models").status_code == 200
        admin_client.post("tokens/ended/revoke", json={"because": "it was in a log"}).raise_for_status()
        assert viewer.get("models").status_code == 401


def test_a_token_is_over_at_its_end(here: ServerInMemory) -> None:
    with here.people() as admin_client:
        body = {"name": "short", "roles": ["viewer"], "days": 1 / 86400}
        made = admin_client.post("tokens", json=body).raise_for_status().json()
        for wrong in ({"days": 367}, {"days": 0}, {"roles": []}, {"roles": ["root"]}, {"name": "A B"}):
            assert admin_client.post("tokens", json=body | wrong).status_code == 400, wrong
        for actor in ("gate", "controller", "publisher-wake", "Ada", "ada\n"):
            asked = {"name": "nobody", "roles": ["viewer"], "person": actor}
            assert admin_client.post("tokens", json=asked).status_code == 400, actor
    here.clock.now += 1
    with here.people(made["token"]) as late:
        assert late.get("models").status_code == 401


def test_a_token_has_one_spelling(here: ServerInMemory) -> None:
    token = here.token("spelled", "viewer")
    right = {"authorization": f"Bearer {token}"}
    wrong = [
        f"bearer {token}",
        f"Bearer {token} ",
        f"Bearer  {token}",
        f"Bearer {token.upper()}",
        f"Bearer {token}=",
        token,
    ]
    with here.people("") as client:
        assert client.get("models", headers=right).status_code == 200
        assert {client.get("models", headers={"authorization": each}).status_code for each in wrong[2:]} == {401}
        assert client.get("models", headers={"authorization": wrong[0]}).status_code == 401


def test_a_pipeline_publishes_and_writes_a_draft_and_nothing_else(here: ServerInMemory) -> None:
    with here.machine("ci", "pipeline") as ci, here.person("rae") as releaser:
        assert "'release'" in refusal(ci.post("rollouts", json={"plan": PLAN}))
        draft = started(ci, PLAN, draft=True)
        assert draft["state"] == "draft"
        for move in ("approve", "finish", "pause", "abort", "rollback"):
            assert ci.post(f"rollouts/{draft['id']}/{move}", json={}).status_code == 403
        begun = releaser.post(f"rollouts/{draft['id']}/approve", json={}).raise_for_status().json()
        assert begun["state"] != "draft"
        releaser.post(f"rollouts/{draft['id']}/abort", json={}).raise_for_status()


def test_a_releaser_does_not_lift_the_rule_that_binds_him(
    here: ServerInMemory, clients: dict[Role, httpx.Client]
) -> None:
    clients[Role.SECURITY]  # who governs may
    said = refusal(clients[Role.RELEASER].patch("models/wake", json={"second_person_above_percent": None}))
    assert "'govern'" in said
    clients[Role.RELEASER].patch("models/wake", json={"refresh_s": 120}).raise_for_status()


def test_wrong_tokens_are_slowed_down_and_right_ones_are_not(here: ServerInMemory) -> None:
    with here.machine("steady", "viewer") as steady, here.people(address="192.0.2.9") as admin_client:
        assert steady.get("models").status_code == 200
        with here.people("") as guesser:
            answers = [
                guesser.get("models", headers={"authorization": f"Bearer guess-{number}"}).status_code
                for number in range(limits.SIGN_IN_FAILURES + 5)
            ]
        assert answers[-5:] == [429] * 5
        assert steady.get("models").status_code == 200  # the same address
        written = entries_of_failures(here, admin_client)
        assert {entry["action"] for entry in written} == {"fail_sign_in"}
        assert all(set(entry["evidence"]["most_by"]) == {ADDRESS} for entry in written)


def test_failed_sign_ins_are_told_of_once(here: ServerInMemory) -> None:
    """A burst of them left an entry of the room that counts them, and a second one of the room that slows them down."""
    with here.people() as admin_client:
        admin_client.get("models").raise_for_status()  # a token that was good lately is heard later, too
        with here.people("") as guesser:
            for number in range(limits.SIGN_IN_FAILURES + 5):
                guesser.get("models", headers={"authorization": f"Bearer guess-{number}"})
            guesser.get("models")  # with no token at all
            guesser.post("sign-in", json={"id_token": "x"})  # nobody signs in here so
        (first,) = entries_of_failures(here, admin_client)
        here.clock.now += 2  # and two more looks of the writer
        here.acts.write()
        (entry,) = entries_of_failures(here, admin_client)
        assert (first["sequence"], entry["actor"]) == (entry["sequence"], "anybody")
        written = admin_client.get("audit").json()
        assert not [each for each in written if "sign" in each["action"] and each["action"] != "fail_sign_in"]


def entries_of_failures(here: ServerInMemory, client: httpx.Client) -> list[dict[str, Any]]:
    """The entries of the audit log about sign-ins that failed, after a look of the writer."""
    here.acts.write()
    written: list[dict[str, Any]] = client.get("audit").raise_for_status().json()
    return [each for each in written if each["actor"] == "anybody"]
