"""Devices, the tokens that let them in, and tickets of users over the admin API."""

from typing import Any

import httpx
import pytest

from support.accounts import refusal
from support.enrolling import KeyedDevice
from support.server_in_memory import ServerInMemory
from support.values import T0
from whimbrel import limits

V1, V2 = "2026.01.01.1", "2026.01.01.2"


@pytest.fixture
def http(server: ServerInMemory) -> httpx.Client:
    return server.people()


def audited(http: httpx.Client, action: str) -> list[tuple[str, str, str | None]]:
    entries = http.get("audit", params={"action": action}).raise_for_status().json()
    return [(each["actor"], each["because"], each["device"]) for each in entries]


def ids(http: httpx.Client, **asked: Any) -> list[str]:
    return [each["device_id"] for each in http.get("devices", params=asked).raise_for_status().json()["devices"]]


def runs(server: ServerInMemory, device: str, serial: int | None, **labels: str) -> None:
    """A device enrols, and says what it runs."""
    with server.device(device, **labels) as client:
        if serial is not None:
            told = {"model": "wake", "step": "activated", "serial": serial}
            client.post("/device/v1/announce", json=told).raise_for_status()
        body = {"epoch": "0123456789abcdef", "windows": [], "models": ["wake"], "labels": labels}
        client.post("/device/v1/reports", json=body).raise_for_status()
    server.round()


# --- the inventory ---
def test_a_device_is_shown_with_all_that_is_known_of_it(server: ServerInMemory, http: httpx.Client) -> None:
    server.clock.now = T0 + 7
    runs(server, "dev-1", 2, hardware="pi3")
    shown = http.get("devices/dev-1").raise_for_status().json()
    (model,) = shown.pop("models")
    assert shown == {
        "device_id": "dev-1",
        "labels": {"hardware": "pi3"},
        "operator_labels": {},
        "enrolled_at": T0 + 7,
        "heard_at": T0 + 7,
        "blocked": None,
        "granted_labels": {},
        "admission": shown["admission"],
        "admitted_at": shown["admitted_at"],
        "enrol_token_name": "first",
        "has_key": False,
        "credential_epoch": 1,
        "allowed_again_until": None,
        "duplicate": None,
        "cohorts": [],
    }
    assert (model["model"], model["serial"], model["version"], model["since"]) == ("wake", 2, V2, T0 + 7)
    assert (model["heard_at"], model["waits_for"], model["build"]) == (T0 + 7, None, None)
    page = http.get("devices").json()
    assert page["after"] is None
    assert page["devices"][0]["models"] == [model]
    assert "cohorts" not in page["devices"][0]


def test_devices_are_selected_by_every_condition(server: ServerInMemory, http: httpx.Client) -> None:
    runs(server, "a", 1, hardware="pi3")
    runs(server, "b", 2, hardware="pi3")
    server.clock.now = T0 + 100
    runs(server, "c", 2, hardware="pi4")
    runs(server, "d", None, hardware="pi4")
    http.post("devices/b/block", json={}).raise_for_status()
    assert ids(http) == ["a", "b", "c", "d"]
    assert ids(http, selector="hardware=pi3") == ["a", "b"]
    assert ids(http, selector="hardware!=pi3") == ["c", "d"]
    assert ids(http, model="wake", version="2.0.0") == ["b", "c"]
    assert ids(http, model="wake", version="none") == ["d"]
    assert ids(http, model="wake", version="2.0.0", selector="hardware=pi4") == ["c"]
    assert ids(http, blocked=True) == ["b"]
    assert ids(http, duplicate=True) == []
    assert ids(http, silent_for_s=99) == ["a", "b"]
    assert ids(http, silent_for_s=101) == []
    said = refusal(http.get("devices", params={"version": "2.0.0"}), status=400)
    assert said == "version '2.0.0' was given without a model; name the model that it is a version of"
    refusal(http.get("devices", params={"model": "wake", "version": "9.9.9"}), status=404)
    refusal(http.get("devices", params={"selector": "="}), status=400)


def test_devices_come_a_page_at_a_time(server: ServerInMemory, http: httpx.Client) -> None:
    for name in ("c", "a", "e", "b", "d"):
        server.device(name).close()
    pages, after = [], ""
    while True:
        page = http.get("devices", params={"limit": 2, "after": after}).json()
        pages.append([each["device_id"] for each in page["devices"]])
        if page["after"] is None:
            break
        after = page["after"]
    assert pages == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/history", None),
        ("POST", "/labels", {"labels": {"a": "b"}}),
        ("POST", "/admit", {}),
        ("POST", "/block", {}),
        ("POST", "/unblock", {}),
        ("POST", "/allow-again", {}),
        ("POST", "/remove", {}),
    ],
)
def test_a_device_that_is_not_there_is_404(http: httpx.Client, method: str, path: str, body: Any) -> None:
    assert "none" in refusal(http.request(method, f"devices/none{path}", json=body), status=404)


# --- governed ---
def test_an_operator_labels_a_device_beside_what_it_tells(server: ServerInMemory, http: httpx.Client) -> None:
    runs(server, "dev-1", 1, hardware="pi3")
    rae = server.person("rae")
    body = {"labels": {"site": "oslo", "ring": "first"}, "because": "moved"}
    shown = rae.post("devices/dev-1/labels", json=body).raise_for_status().json()
    assert (shown["labels"], shown["operator_labels"]) == ({"hardware": "pi3"}, {"site": "oslo", "ring": "first"})
    shown = rae.post("devices/dev-1/labels", json={"labels": {"site": "bergen"}, "without": ["ring"]}).json()
    assert shown["operator_labels"] == {"site": "bergen"}
    entries = audited(http, http.get("audit", params={"device": "dev-1"}).json()[0]["action"])
    assert (entries[-1][0], entries[-1][2]) == ("rae", "dev-1")
    assert "moved" in entries[-1][1]
    assert "'devices'" in refusal(server.machine("ci", "publisher").post("devices/dev-1/labels", json=body))


def test_a_blocked_device_is_refused_until_it_is_unblocked(server: ServerInMemory, http: httpx.Client) -> None:
    server.device("dev-1").close()
    server.clock.now = T0 + 5
    shown = server.person("sec", "security").post("devices/dev-1/block", json={"because": "stolen"}).json()
    assert shown["blocked"] == {"since": T0 + 5, "actor": "sec", "because": "stolen"}
    with server.public() as device:
        body = {"device_id": "dev-1", "enrol_token": server.enrol_token}
        assert device.post("/device/v1/enrol", json=body).status_code in {401, 403}
    shown = http.post("devices/dev-1/unblock", json={"because": "back"}).raise_for_status().json()
    assert shown["blocked"] is None
    actions = [(each["actor"], each["because"]) for each in http.get("audit", params={"device": "dev-1"}).json()]
    assert [actor for actor, _ in actions[:2]] == ["admin", "sec"]
    assert ("back" in actions[0][1], "stolen" in actions[1][1]) == (True, True)


def test_a_removed_device_leaves_the_inventory_and_may_come_again(server: ServerInMemory, http: httpx.Client) -> None:
    server.device("dev-1").close()
    answer = http.post("devices/dev-1/remove", json={"because": "scrapped"}).raise_for_status().json()
    assert answer == {"device_id": "dev-1", "cohorts": 0}
    refusal(http.get("devices/dev-1"), status=404)
    assert ids(http) == []
    server.clock.now += 1
    server.device("dev-1").close()
    assert ids(http) == ["dev-1"]


def test_a_device_that_a_shared_token_let_in_is_vouched_for(server: ServerInMemory, http: httpx.Client) -> None:
    server.device("dev-1").close()
    before = http.get("devices/dev-1").json()
    answer = server.person("rae").post("devices/dev-1/admit", json={"because": "I know it"})
    assert answer.json() == before | {"admission": "person", "admitted_at": T0}


def test_an_id_may_come_back_once_with_another_key(server: ServerInMemory, http: httpx.Client) -> None:
    with server.public() as client:
        KeyedDevice(client, "dev-1").enrol(server.enrol_token).raise_for_status()
        assert KeyedDevice(client, "dev-1").enrol(server.enrol_token).status_code in {401, 403, 409}
        shown = http.post("devices/dev-1/allow-again", json={"for_s": 60, "because": "new board"})
        assert shown.raise_for_status().json()["allowed_again_until"] == T0 + 60
        server.clock.now = T0 + 1
        KeyedDevice(client, "dev-1").enrol(server.enrol_token).raise_for_status()
    shown = http.get("devices/dev-1").json()
    assert (shown["has_key"], shown["credential_epoch"], shown["allowed_again_until"]) == (True, 2, None)


def test_a_device_without_a_run_history_has_an_empty_proof(server: ServerInMemory, http: httpx.Client) -> None:
    server.device("dev-1").close()
    server.clock.now = T0 + 9
    proof = http.get("devices/dev-1/history").raise_for_status().json()
    assert (proof["device_id"], proof["made_at"], proof.get("branches", [])) == ("dev-1", T0 + 9, [])


# --- tokens that let devices in ---
def test_enrolment_tokens_are_made_on_terms_and_told_once(server: ServerInMemory, http: httpx.Client) -> None:
    sec = server.person("sec", "security")
    body = {
        "name": "factory",
        "count": 3,
        "expires_in_s": 600,
        "uses_max": 1,
        "labels": {"hardware": ["pi3"]},
        "granted_labels": {"tier": "pro"},
        "rate_per_min": 5,
        "requires_key": True,
        "because": "line 2",
    }
    answer = sec.post("enrol-tokens", json=body)
    assert answer.status_code == 201
    made = answer.json()
    assert (made["name"], len(set(made["tokens"])), {len(each) for each in made["tokens"]}) == ("factory", 3, {32})
    newest, first = http.get("enrol-tokens").json()
    assert newest == {
        "name": "factory",
        "created_at": T0,
        "actor": "sec",
        "tokens": 3,
        "uses": 0,
        "expires_at": T0 + 600,
        "uses_max": 1,
        "labels": {"hardware": ["pi3"]},
        "granted_labels": {"tier": "pro"},
        "rate_per_min": 5,
        "requires_key": True,
        "revoked_at": None,
    }
    assert (first["name"], first["expires_at"], first["uses_max"], first["requires_key"]) == (
        "first",
        None,
        None,
        False,
    )
    refusal(sec.post("enrol-tokens", json=body), status=409)
    assert "'enrol'" in refusal(server.person("rae").post("enrol-tokens", json=body | {"name": "mine"}))
    said = http.get("audit", params={"limit": 3}).json()
    assert any(each["actor"] == "sec" and "line 2" in each["because"] for each in said)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "A"}, "name is 'A'"),
        ({"count": 0}, "count is 0"),
        ({"count": limits.ENROL_TOKENS_AT_ONCE + 1}, "count is"),
        ({"expires_in_s": 0}, "expires_in_s is 0"),
        ({"expires_in_s": 3650 * 86400 + 1}, "expires_in_s is"),
        ({"uses_max": 0}, "uses_max is 0"),
        ({"uses_max": limits.ENROL_TOKEN_USES + 1}, "uses_max is"),
        ({"rate_per_min": 0}, "rate_per_min is 0"),
    ],
)
def test_terms_have_bounds(http: httpx.Client, wrong: dict[str, Any], words: str) -> None:
    assert words in refusal(http.post("enrol-tokens", json={"name": "x"} | wrong), status=400)
    assert len(http.get("enrol-tokens").json()) == 1


@pytest.mark.parametrize(
    "right",
    [
        {"count": limits.ENROL_TOKENS_AT_ONCE},
        {"expires_in_s": 3650 * 86400},
        {"expires_in_s": 0.5},
        {"uses_max": 1},
        {"uses_max": limits.ENROL_TOKEN_USES},
        {"rate_per_min": 1},
        {"rate_per_min": limits.ENROLMENTS_A_MINUTE_MAX},
    ],
)
def test_terms_within_their_bounds_are_taken(http: httpx.Client, right: dict[str, Any]) -> None:
    made = http.post("enrol-tokens", json={"name": "x"} | right).raise_for_status().json()
    assert len(made["tokens"]) == right.get("count", 1)
    (view,) = (each for each in http.get("enrol-tokens").json() if each["name"] == "x")
    expected = right | ({"expires_at": T0 + right["expires_in_s"]} if "expires_in_s" in right else {})
    assert {name: view[name] for name in expected if name in view} == {
        name: value for name, value in expected.items() if name in view
    }


def test_a_revoked_enrolment_token_lets_nobody_in(server: ServerInMemory, http: httpx.Client) -> None:
    server.device("before").close()
    server.clock.now = T0 + 3
    view = http.post("enrol-tokens/first/revoke", json={"because": "it was in an image"}).raise_for_status().json()
    assert (view["name"], view["revoked_at"], view["uses"]) == ("first", T0 + 3, 1)
    with server.public() as device:
        answer = device.post("/device/v1/enrol", json={"device_id": "after", "enrol_token": server.enrol_token})
    assert answer.status_code in {401, 403}
    assert ids(http) == ["before"]
    refusal(http.post("enrol-tokens/none/revoke", json={}), status=404)


# --- tickets ---
def test_tickets_are_handed_on_each_once(server: ServerInMemory, http: httpx.Client) -> None:
    ticket = {"ticket": "T-1", "model": "wake", "version": "2.0.0", "text": "it listens"}
    answers = [http.post("user-reports", json={"reports": [ticket]}).raise_for_status().json() for _ in range(2)]
    assert answers == [{"new": 1, "known": 0, "refused": {}}, {"new": 0, "known": 1, "refused": {}}]
    (listed,) = http.get("user-reports", params={"model": "wake"}).json()
    assert listed == {
        "ticket": "T-1",
        "model": "wake",
        "device_id": None,
        "serial": 2,
        "at": T0,
        "text": "it listens",
        "fate": "waiting",
        "decided_at": None,
        "version": V2,
    }
    assert server.controllers.wake.is_set()
    server.clock.now = T0 + 1
    further = {"ticket": "T-2", "model": "wake", "device_id": "dev-9"}
    refused = http.post("user-reports", json={"reports": [further]}).raise_for_status().json()
    words = "no device 'dev-9' is enrolled; name a version where the device is not known"
    assert refused == {"new": 0, "known": 0, "refused": {"T-2": words}}
    server.device("dev-9").close()
    http.post("user-reports", json={"reports": [further]}).raise_for_status()
    newest = http.get("user-reports", params={"model": "wake", "limit": 1}).json()
    assert [(each["ticket"], each["version"]) for each in newest] == [("T-2", None)]
    assert "'feedback'" in refusal(server.machine("ci", "pipeline").post("user-reports", json={}))
