"""What the admin API says of a request as such: its route, its body, its parameters, and what goes wrong behind it."""

import gzip
import json
from typing import Any

import httpx
import pytest

from support.accounts import refusal
from support.server_in_memory import ServerInMemory
from support.values import T0
from whimbrel import limits
from whimbrel.errors import DiskFull, InvariantBroken, Unavailable
from whimbrel.server.admin.app import admin_app, permission_needed
from whimbrel.server.admin.status import STATUS_ROUTES
from whimbrel.server.admin.views.repository import NOTICE
from whimbrel.stores.accounts import Accounts
from whimbrel.trust import roles

DAY_S = 86400.0


@pytest.fixture
def http(server: ServerInMemory) -> httpx.Client:
    return server.people()


def sized(body: dict[str, Any], size: int, *, fill: str) -> bytes:
    """The JSON of a body, with `fill` as long as it takes for `size` bytes."""
    empty = json.dumps(body | {fill: ""}).encode()
    return json.dumps(body | {fill: "x" * (size - len(empty))}).encode()


# --- bodies ---
@pytest.mark.parametrize(
    ("method", "path", "body", "fill", "limit", "taken"),
    [
        ("POST", "tokens", {}, "name", limits.ADMIN_BODY_BYTES, 400),
        ("POST", "sign-in", {}, "id_token", limits.ADMIN_BODY_BYTES, 404),
        ("POST", "devices/none/block", {}, "because", limits.ADMIN_BODY_BYTES, 400),
        ("PATCH", "models/wake", {}, "note", limits.ADMIN_FILE_BYTES, 400),
        ("POST", "rollouts", {"file_name": "p"}, "plan", limits.ADMIN_FILE_BYTES, 400),
        ("POST", "plans/check", {"file_name": "p"}, "plan", limits.ADMIN_FILE_BYTES, 400),
        ("POST", "experiments", {"file_name": "p"}, "plan", limits.ADMIN_FILE_BYTES, 400),
        ("POST", "experiments/check", {"file_name": "p"}, "plan", limits.ADMIN_FILE_BYTES, 400),
        ("POST", "models/wake/fit", {}, "x", limits.ADMIN_FILE_BYTES, 400),
    ],
)
def test_a_route_takes_a_body_up_to_its_limit_and_not_a_byte_more(
    http: httpx.Client, method: str, path: str, body: dict[str, Any], fill: str, limit: int, taken: int
) -> None:
    assert http.request(method, path, content=sized(body, limit, fill=fill)).status_code == taken
    content = sized(body, limit + 1, fill=fill)
    words = f"the body is over the {limit} bytes of this route"
    assert refusal(http.request(method, path, content=content), status=413) == words
    chunks = (content[at : at + 65536] for at in range(0, len(content), 65536))  # its length is not said
    assert refusal(http.request(method, path, content=chunks), status=413) == words


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "models", limits.ADMIN_DOCUMENT_BYTES),
        ("POST", "models/wake/versions", limits.ADMIN_DOCUMENT_BYTES),
        ("PUT", "models/wake/line", limits.ADMIN_DOCUMENT_BYTES),
        ("PUT", "models/wake/floor", limits.ADMIN_DOCUMENT_BYTES),
        ("POST", "models/wake/floor/lift", limits.ADMIN_DOCUMENT_BYTES),
        ("POST", "keys/changes", limits.ADMIN_DOCUMENT_BYTES),
        ("POST", "user-reports", limits.ADMIN_TICKETS_BYTES),
        ("PUT", f"artifacts/{'0' * 64}", limits.ARTIFACT_BYTES),
    ],
)
def test_a_route_for_documents_takes_more_and_has_a_limit_too(
    http: httpx.Client, method: str, path: str, limit: int
) -> None:
    def declared(size: int) -> httpx.Response:
        return http.request(method, path, content=b"{}", headers={"content-length": str(size)})

    assert declared(limit).status_code in {200, 400}  # a list of tickets may be empty
    assert refusal(declared(limit + 1), status=413) == f"the body is over the {limit} bytes of this route"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty; expected a JSON document"),
        (b"{", "the body cannot be read: "),
        (b"\xff", "the body cannot be read: "),
        (b"[]", "the body is a list; expected fields with values: name, roles, person, days"),
        (b"{}", "the field 'name' is missing"),
        (b'{"name": "ci", "roles": ["viewer"], "name2": 1}', "has no field 'name2'"),
        (b'{"name": 7, "roles": ["viewer"]}', "name is 7; expected text"),
    ],
)
def test_a_body_that_is_not_understood_is_400_with_what_was_wrong(http: httpx.Client, body: bytes, words: str) -> None:
    answer = http.post("tokens", content=body)
    assert words in refusal(answer, status=400)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["title"], answer.json()["status"]) == ("The request cannot be accepted", 400)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("audit?limit=0", "limit is '0'; expected a number of at least 1"),
        ("audit?limit=1001", "limit is '1001'; expected a number of at most 1000"),
        ("audit?limit=many", "limit is 'many'; expected a whole number"),
        ("audit/chain?after=-1", "after is '-1'; expected a number of at least 0"),
        ("alerts?limit=0", "limit is '0'"),
        ("alerts?limit=1001", "limit is '1001'"),
        ("devices?limit=0", "limit is '0'"),
        (f"devices?limit={limits.DEVICES_A_PAGE + 1}", f"limit is '{limits.DEVICES_A_PAGE + 1}'"),
        (f"devices?after={'x' * (limits.DEVICE_ID_BYTES + 1)}", "after is"),
        (f"devices?selector={'x' * 4097}", "selector is"),
        ("devices?silent_for_s=-1", "silent_for_s is '-1'"),
        ("user-reports", "Missing required query parameter 'model'"),
        ("user-reports?model=wake&limit=0", "limit is '0'"),
        ("user-reports?model=wake&limit=1001", "limit is '1001'"),
        ("models/wake/health?hours=0", "hours is '0'"),
        (f"models/wake/health?hours={limits.HEALTH_SHOWN + 1}", f"hours is '{limits.HEALTH_SHOWN + 1}'"),
        ("models/wake/policies?limit=0", "limit is '0'"),
        (f"models/wake/policies?limit={limits.POLICIES_SHOWN + 1}", f"limit is '{limits.POLICIES_SHOWN + 1}'"),
        ("audit/chain?limit=0", "limit is '0'"),
        (f"audit/chain?limit={limits.AUDIT_PAGE + 1}", f"limit is '{limits.AUDIT_PAGE + 1}'"),
        ("tokens?all=perhaps", "all is 'perhaps'; expected true or false"),
    ],
)
def test_a_parameter_beyond_its_bounds_is_400_with_what_was_wrong(http: httpx.Client, path: str, words: str) -> None:
    assert words in refusal(http.get(path), status=400)


@pytest.mark.parametrize(
    "path",
    [
        "audit?limit=1",
        "audit?limit=1000",
        "audit/chain?after=0&limit=1",
        f"audit/chain?limit={limits.AUDIT_PAGE}",
        "alerts?limit=1",
        "alerts?limit=1000",
        "devices?limit=1",
        f"devices?limit={limits.DEVICES_A_PAGE}",
        f"devices?after={'x' * limits.DEVICE_ID_BYTES}",
        "devices?silent_for_s=0",
        "user-reports?model=wake&limit=1",
        "user-reports?model=wake&limit=1000",
        "models/wake/health?hours=1",
        f"models/wake/health?hours={limits.HEALTH_SHOWN}",
        "models/wake/policies?limit=1",
        f"models/wake/policies?limit={limits.POLICIES_SHOWN}",
    ],
)
def test_a_parameter_within_its_bounds_is_taken(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "most"),
    [
        ("POST", "rollouts", {"plan": "x"}, "file_name", 1024),
        ("POST", "rollouts", {"plan": "x"}, "override", 2000),
        ("POST", "rollouts", {}, "plan", limits.PLAN_BYTES),
        ("POST", "plans/check", {"plan": "x"}, "file_name", 1024),
        ("POST", "plans/check", {}, "plan", limits.PLAN_BYTES),
        ("POST", "experiments", {"plan": "x"}, "file_name", 1024),
        ("POST", "experiments", {}, "plan", limits.PLAN_BYTES),
        ("POST", "experiments/none/stop", {}, "because", 2000),
        ("POST", "experiments/none/stop", {}, "arm", limits.NAME_CHARS),
        ("POST", "rollouts/none/pause", {}, "because", 2000),
        ("PUT", "models/wake/aliases/a", {}, "version", 256),
        ("POST", "models/wake/rollback", {}, "to", 256),
        ("POST", "models/wake/rollback", {}, "selector", 4096),
        ("POST", "models/wake/rollback", {}, "rollout", 256),
        ("POST", "keys/changes", {"documents": {}}, "because", 1000),
        ("POST", "tokens", {"name": "ci", "roles": ["viewer"]}, "person", 128),
    ],
)
def test_a_text_of_a_body_has_a_limit(
    http: httpx.Client, method: str, path: str, body: dict[str, Any], field: str, most: int
) -> None:
    words = f"{field} is {most + 1} characters long"
    assert words in refusal(http.request(method, path, json=body | {field: "x" * (most + 1)}), status=400)
    assert "characters long" not in http.request(method, path, json=body | {field: "x" * most}).text


# --- routes ---
def test_a_route_that_is_not_there_says_where_they_stand(http: httpx.Client) -> None:
    words = "there is no {} /default/admin/v1/{}; see /schema"
    assert refusal(http.get("nothing"), status=404) == words.format("GET", "nothing")
    assert refusal(http.delete("models"), status=405) == words.format("DELETE", "models")


def test_no_route_gives_a_file_of_the_server_or_anything_of_the_devices_listener(server: ServerInMemory) -> None:
    with server.client(server.admin, base="", token=server.admin_token) as http:
        for path in ("/", "/default/metadata/timestamp.json", "/default/device/v1/check", "/healthz"):
            assert http.get(path).status_code == 404


def test_the_description_is_open_to_everybody_and_is_openapi(server: ServerInMemory) -> None:
    with server.client(server.admin, base="") as http:
        page, document = http.get("/schema"), http.get("/schema/openapi.json")
    assert page.status_code == document.status_code == 200
    assert page.json() == document.json()
    assert document.headers["content-type"].startswith("application/vnd.oai.openapi+json")
    assert (document.json()["openapi"], document.json()["info"]["title"]) == ("3.1.0", "Whimbrel admin API")
    assert document.json()["components"]["schemas"]["MadeToken"]["properties"].keys() >= {"token", "name", "roles"}


def test_a_route_without_a_permission_is_nobodys() -> None:
    class Handler:
        opt: dict[str, Any] = {}

    with pytest.raises(InvariantBroken, match="declares no permission, so nobody may ask it"):
        permission_needed(Handler(), {})


def test_an_application_with_such_a_route_is_not_made(server: ServerInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATUS_ROUTES[0].opt, "permission", None)
    with pytest.raises(InvariantBroken, match="declares no permission"):
        admin_app(server.repository.admin_context())


# --- notices ---
def test_an_answer_says_that_a_role_expires_soon(server: ServerInMemory, http: httpx.Client) -> None:
    assert NOTICE not in http.get("models").headers
    server.clock.now = T0 + roles.TARGETS_LIFE.total_seconds() - 3 * DAY_S
    server.round()
    notice = http.get("models").headers[NOTICE]
    assert "3 days" in notice
    assert http.get("models/none").headers[NOTICE] == notice  # also with a problem
    assert NOTICE not in server.people("").get("models").headers  # and not to somebody who was not let in


# --- what goes wrong behind it ---
@pytest.mark.parametrize(
    ("error", "status", "title", "detail", "retry", "logged"),
    [
        (Unavailable("the database is locked"), 503, "Not available now", "the database is locked", "5", []),
        (
            DiskFull("there is no room"),
            507,
            "The disk is full",
            "there is no room",
            "5",
            ["a request was answered with 507: there is no room"],
        ),
        (
            OSError(28, "No space left on device"),
            507,
            "The disk is full",
            "the disk is full",
            "5",
            ["a request was answered with 507: "],
        ),
        (
            ZeroDivisionError("secret"),
            500,
            "Whimbrel has a bug",
            "ZeroDivisionError; see the server's log",
            None,
            ["a request failed"],
        ),
        (
            OSError(5, "Input/output error"),
            500,
            "Whimbrel has a bug",
            "OSError; see the server's log",
            None,
            ["a request failed"],
        ),
    ],
)
def test_an_error_behind_a_route_is_a_problem_document(
    http: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    error: Exception,
    status: int,
    title: str,
    detail: str,
    retry: str | None,
    logged: list[str],
) -> None:
    def fails(_: Accounts) -> None:
        raise error

    monkeypatch.setattr(Accounts, "tokens", fails)
    answer = http.get("tokens")
    assert detail in refusal(answer, status=status)
    assert answer.headers.get("retry-after") == retry
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == title
    assert len(caplog.messages) == len(logged)
    assert all(words in message for words, message in zip(logged, caplog.messages, strict=True))


def test_a_body_is_not_unpacked(http: httpx.Client) -> None:
    body = gzip.compress(b'{"name": "ci", "roles": ["viewer"]}')
    answer = http.post("tokens", content=body, headers={"content-encoding": "gzip"})
    assert "the body cannot be read" in refusal(answer, status=400)
