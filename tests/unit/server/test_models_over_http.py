"""Models, their settings, names, policies, line and floor over the admin API: each answer with its figures."""

from base64 import b64encode
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from support.accounts import refusal
from support.server_in_memory import MODEL, ServerInMemory, server_in_memory
from support.values import SALT, T0
from whimbrel.model.documents import encode
from whimbrel.model.release import Floor, Line
from whimbrel.stores.floor_roles import delegate_floor, lift_floor, sign_floor
from whimbrel.stores.signer import load_signer
from whimbrel.stores.tuf_repository import delegate_model, publish_documents
from whimbrel.trust import roles

V1, V2 = "2026.01.01.1", "2026.01.01.2"
DAY_S = 86400.0


@pytest.fixture
def http(server: ServerInMemory) -> httpx.Client:
    return server.people()


def text(content: bytes) -> str:
    return b64encode(content).decode()


def audited(http: httpx.Client, action: str) -> list[tuple[str, str, dict[str, Any]]]:
    entries = http.get("audit", params={"action": action}).raise_for_status().json()
    return [(each["actor"], each["because"], each["evidence"]) for each in entries]


def running(server: ServerInMemory, device: str, serial: int | None, *, model: str = MODEL) -> None:
    """A device says which version it runs, and the round counts it."""
    body = {"epoch": "0123456789abcdef", "windows": [], "models": [model]}
    with server.device(device) as http:
        if serial is not None:
            announcement = {"model": model, "step": "activated", "serial": serial}
            http.post("/device/v1/announce", json=announcement).raise_for_status()
        http.post("/device/v1/reports", json=body).raise_for_status()
    server.round()


# --- shown ---
def test_a_model_is_shown_with_its_versions_names_and_devices(server: ServerInMemory, http: httpx.Client) -> None:
    for device, serial in (("a", 1), ("b", 1), ("c", 2), ("d", None)):
        running(server, device, serial)
    shown = http.get(f"models/{MODEL}").raise_for_status().json()
    assert {name: shown[name] for name in shown if name != "settings"} == {
        "namespace": "default",
        "name": "wake",
        "created_at": T0,
        "salt": SALT,
        "baseline": 1,
        "warnings": [],
        "baseline_version": V1,
        "versions": 2,
        "aliases": {"champion": 1},
        "devices": {V1: 2, V2: 1, "none": 1},
    }
    assert http.get("models").json() == [shown]
    said = refusal(http.get("models/none"), status=404)
    assert said == "there is no model 'none' (models: wake); make it with: whimbrel model add none"


def test_a_namespace_without_models_lists_none() -> None:
    with server_in_memory(versions=0) as server:
        assert server.people().get("models").json() == []
        assert "there is no model 'wake'" in refusal(server.people().get("models/wake"), status=404)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "models/none", {"refresh_s": 60}),
        ("PUT", "models/none/aliases/stable", {"version": "1"}),
        ("POST", "models/none/rollback", {}),
        ("GET", "models/none/history", None),
        ("GET", "models/none/health", None),
        ("GET", "models/none/policies", None),
        ("GET", "models/none/policies/1", None),
        ("GET", "models/none/policies/1/changes/2", None),
        ("POST", "models/none/policies/1/restore", {}),
        ("GET", "models/none/versions", None),
        ("GET", "models/none/versions/1", None),
        ("GET", "models/none/versions/1/devices", None),
        ("GET", "models/none/versions/1/deltas", None),
        ("GET", "models/none/versions/1/provenance", None),
        ("GET", f"models/none/versions/1/provenance/{'0' * 64}", None),
        ("POST", "models/none/versions/1/retire", {}),
        ("POST", "models/none/versions/1/unquarantine", {}),
        ("POST", "models/none/fit", {"variants": [{"name": "a"}]}),
        ("GET", "models/none/line", None),
        ("GET", "models/none/revocations/drafts", None),
        ("GET", "user-reports?model=none", None),
        ("GET", "devices?model=none", None),
    ],
)
def test_a_model_that_is_not_there_is_404_everywhere(http: httpx.Client, method: str, path: str, body: Any) -> None:
    assert "there is no model 'none' (models: wake)" in refusal(http.request(method, path, json=body), status=404)


# --- added ---
def signed_model(server: ServerInMemory, name: str, *, line: Line | None = None) -> dict[str, Any]:
    """What `model add` sends, signed with the offline keys."""
    online = load_signer(server.folder.online_keys / "policy.pem")
    document = encode(line or Line(model=name, sequence=1))
    with server.stores() as stores:
        before = stores.roles.role_bytes(roles.TARGETS)
    targets = delegate_model(
        before,
        name,
        publisher=server.publisher.public_key,
        policy=online.public_key,
        signer=server.publisher,
        now=server.today,
    )
    publisher = publish_documents(None, {roles.line_path(name): document}, signer=server.publisher, now=server.today)
    return {
        "name": name,
        "targets": text(targets),
        "publisher": text(publisher),
        "line": text(document),
        "salt": 7,
        "settings": {"refresh_s": 120},
    }


def test_a_model_is_added_by_who_may_change_keys_and_signed_at_once(server: ServerInMemory) -> None:
    body = signed_model(server, "sleep")
    assert "'keys'" in refusal(server.person("rae", "releaser").post("models", json=body))
    answer = server.person("sec", "security").post("models", json=body)
    assert answer.status_code == 201
    added = answer.json()
    assert (added["name"], added["salt"], added["baseline"], added["warnings"]) == ("sleep", 7, None, [])
    assert added["settings"]["refresh_s"] == 120
    assert audited(server.people(), "add model")[0][:2] == ("sec", "delegated by the targets key")
    policy = server.people().get("models/sleep/policies/0").raise_for_status().json()
    assert (policy["sequence"], policy["policy"]["refresh_s"]) == (1, 120)
    said = refusal(server.people().post("models", json=body), status=409)
    assert said == "model 'sleep' exists already; publish to it, or choose another name"


@pytest.mark.parametrize("salt", [0, 2**53 - 1])
def test_a_salt_is_a_whole_number_that_json_holds(server: ServerInMemory, http: httpx.Client, salt: int) -> None:
    body = signed_model(server, "sleep") | {"salt": salt}
    assert http.post("models", json=body).raise_for_status().json()["salt"] == salt


def test_a_model_that_was_signed_wrongly_leaves_nothing(server: ServerInMemory, http: httpx.Client) -> None:
    body = signed_model(server, "sleep")
    other = signed_model(server, "sleep", line=Line(model="other", sequence=1))
    wrong = [
        (body | {"line": other["line"]}, 400, "the line is of 'other'; expected 'sleep'"),
        (body | {"line": "x"}, 400, "line"),
        (body | {"salt": -1}, 400, "salt is -1; expected a number of at least 0"),
        (body | {"salt": 2**53}, 400, "salt is 9007199254740992; expected a number of at most"),
        (body | {"publisher": body["targets"]}, 403, "the new publisher-sleep delegates to others; only the targets"),
        (body | {"targets": ""}, 400, "publisher-sleep is not delegated in this repository; add the model first"),
    ]
    for sent, status, words in wrong:
        assert words in refusal(http.post("models", json=sent), status=status)
    assert [each["name"] for each in http.get("models").json()] == ["wake"]
    assert http.get("roles/targets").json()["signed"]["version"] == 2


# --- settings ---
def test_only_what_a_body_names_is_changed(server: ServerInMemory, http: httpx.Client) -> None:
    before = http.get("models/wake").json()["settings"]
    releaser = server.person("rae")
    shown = releaser.patch("models/wake", json={"refresh_s": 61}).raise_for_status().json()
    assert shown["settings"] == before | {"refresh_s": 61}
    assert http.get("models/wake/policies/0").json()["policy"]["refresh_s"] == 61
    ((actor, _, evidence),) = audited(http, "set model")
    assert actor == "rae"
    assert "refresh_s" in str(evidence)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"refresh_s": "60"}, "refresh_s is '60'; expected a number"),
        ({"refresh_s": -1}, "refresh_s is -1"),
        ({"refreshs": 60}, "has no field 'refreshs'"),
        ([], "expected"),
    ],
)
def test_settings_must_be_what_they_say(http: httpx.Client, body: Any, words: str) -> None:
    assert words in refusal(http.patch("models/wake", json=body), status=400)


@pytest.mark.parametrize(
    "rule", [{"second_person_above_percent": 10}, {"second_person_above_percent": None}, {"model_signer": None}]
)
def test_the_rule_that_binds_a_releaser_takes_another_permission(server: ServerInMemory, rule: dict[str, Any]) -> None:
    said = refusal(server.person("rae", "releaser").patch("models/wake", json=rule | {"refresh_s": 99}))
    assert "this needs the permission 'govern'" in said
    assert "'configure'" in refusal(server.person("sec", "security").patch("models/wake", json=rule))
    server.person("both", "security", "releaser").patch("models/wake", json=rule).raise_for_status()


def test_objectives_answer_with_what_a_person_should_know(http: httpx.Client) -> None:
    shown = (
        http.patch("models/wake", json={"objectives": [{"measure": "nonsense", "at_most": 50}]})
        .raise_for_status()
        .json()
    )
    (warning,) = shown["warnings"]
    assert "nonsense" in warning
    assert http.patch("models/wake", json={"refresh_s": 60}).json()["warnings"] == []
    assert http.get("models/wake").json()["warnings"] == []


# --- names ---
def test_a_version_gets_a_name(server: ServerInMemory, http: httpx.Client) -> None:
    answer = server.person("rae").put("models/wake/aliases/stable", json={"version": "2.0.0"})
    assert answer.status_code == 200
    assert answer.json() == {"model": "wake", "alias": "stable", "version": V2, "serial": 2}
    assert http.get("models/wake").json()["aliases"] == {"champion": 1, "stable": 2}
    assert http.get("models/wake/versions/stable").json()["serial"] == 2
    assert audited(http, "set_alias")[0][:2] == ("rae", f"stable is {V2} (2.0.0)")
    said = refusal(http.put("models/wake/aliases/stable", json={"version": "9.9.9"}), status=404)
    assert said == f"wake has no version '9.9.9'; it has: {V1} (1.0.0), {V2} (2.0.0)"
    assert "version is 257 characters long" in refusal(
        http.put("models/wake/aliases/stable", json={"version": "x" * 257}), status=400
    )


# --- policies ---
def test_policies_are_listed_newest_first_with_what_each_changed(server: ServerInMemory, http: httpx.Client) -> None:
    signed = http.get("models/wake/policies/0").json()["sequence"]
    server.clock.now = T0 + 60
    http.patch("models/wake", json={"refresh_s": 61}).raise_for_status()
    http.patch("models/wake", json={"refresh_s": 62}).raise_for_status()
    newest, before, *_ = http.get("models/wake/policies").json()
    assert (newest["sequence"], before["sequence"]) == (signed + 2, signed + 1)
    assert (newest["signed_at"], newest["baseline_version"]) == (T0 + 60, f"{V1} (1.0.0)")
    assert len(newest["changes"]) == 1
    assert "62" in newest["changes"][0]
    (only,) = http.get("models/wake/policies", params={"limit": 1}).json()
    assert only == newest  # the oldest one of a page is compared with the one before it
    everything = http.get("models/wake/policies").json()
    assert [each["sequence"] for each in everything] == list(range(signed + 2, 0, -1))


def test_policies_are_compared_both_ways(http: httpx.Client) -> None:
    first = http.get("models/wake/policies/0").json()["sequence"]
    http.patch("models/wake", json={"refresh_s": 61}).raise_for_status()
    forth = http.get(f"models/wake/policies/{first}/changes/0").json()
    back = http.get(f"models/wake/policies/0/changes/{first}").json()
    assert (forth["before"], forth["after"], back["before"], back["after"]) == (first, first + 1, first + 1, first)
    assert forth["changes"] != back["changes"]
    assert len(forth["changes"]) == len(back["changes"]) == 1
    assert http.get("models/wake/policies/0/changes/0").json()["changes"] == []


def test_a_policy_is_shown_with_the_names_of_its_serials(http: httpx.Client) -> None:
    shown = http.get("models/wake/policies/1").json()
    assert (shown["model"], shown["sequence"], shown["policy"]["sequence"]) == ("wake", 1, 1)
    assert shown["versions"] == {"1": f"{V1} (1.0.0)", "2": f"{V2} (2.0.0)"}
    assert refusal(http.get("models/wake/policies/99"), status=404)
    assert http.get("models/wake/policies/x").status_code == 404


def test_an_earlier_policy_is_restored_with_the_next_number(server: ServerInMemory, http: httpx.Client) -> None:
    first = http.get("models/wake/policies/0").json()["sequence"]
    http.patch("models/wake", json={"refresh_s": 61}).raise_for_status()
    restored = server.person("rae").post(f"models/wake/policies/{first}/restore", json={"because": "too often"}).json()
    assert (restored["restored"], restored["sequence"], restored["differs"]) == (first, first + 2, [])
    assert len(restored["changes"]) == 1
    assert "refresh_s" not in http.get("models/wake/policies/0").json()["policy"]  # the default
    assert "'release'" in refusal(
        server.person("sec", "security").post(f"models/wake/policies/{first}/restore", json={})
    )


# --- the line and the floor ---
def test_a_publisher_revokes_a_version_and_the_line_only_grows(server: ServerInMemory, http: httpx.Client) -> None:
    assert http.get("models/wake/line").json() == {"format": "whimbrel-line-1", "model": "wake", "sequence": 1}
    line = encode(Line(model=MODEL, sequence=2, revoked=(2,)))
    body = {"line": text(line), "publisher": text(server.signed(MODEL, {roles.line_path(MODEL): line}))}
    publisher = server.machine("ci", "publisher")
    assert publisher.put("models/wake/line", json=body | {"because": "it listens"}).raise_for_status().json() == {
        "format": "whimbrel-line-1",
        "model": "wake",
        "sequence": 2,
        "revoked": [2],
    }
    assert http.get("models/wake/line").json()["revoked"] == [2]
    assert [each["revoked"] for each in http.get("models/wake/versions").json()] == [False, True]
    assert "sequence 2 came, and 3 is next" in refusal(http.put("models/wake/line", json=body), status=409)
    back = encode(Line(model=MODEL, sequence=3))
    body = {"line": text(back), "publisher": text(server.signed(MODEL, {roles.line_path(MODEL): back}))}
    said = refusal(http.put("models/wake/line", json=body))
    assert said == "a line only grows: its floor is never lowered, and a revocation is never taken back"
    assert "'revoke'" in refusal(server.machine("pipe", "pipeline").put("models/wake/line", json=body))


def test_a_line_that_raises_the_floor_revokes_what_is_below(server: ServerInMemory, http: httpx.Client) -> None:
    line = encode(Line(model=MODEL, sequence=2, minimum_serial=2))
    body = {"line": text(line), "publisher": text(server.signed(MODEL, {roles.line_path(MODEL): line}))}
    http.put("models/wake/line", json=body).raise_for_status()
    assert [each["revoked"] for each in http.get("models/wake/versions").json()] == [True, False]


def floor(server: ServerInMemory, *, sequence: int = 1, days: int = 30, version: int = 1) -> dict[str, Any]:
    """What `floor require` sends, and `floor renew` for a later `version` of the role."""
    key, new = server.publisher, Floor(model=MODEL, sequence=sequence, days=days)
    document, role = sign_floor(new, version=version, signers=[key], now=server.today)
    body = {"floor": text(document), "role": text(role)}
    if version > 1:
        return body
    with server.stores() as stores:
        targets = stores.roles.role_bytes(roles.TARGETS)
    delegated = delegate_floor(targets, MODEL, floor=key.public_key, signers=[key], now=server.today)
    return body | {"targets": text(delegated)}


def test_a_floor_is_required_renewed_and_lifted(server: ServerInMemory, http: httpx.Client) -> None:
    assert http.get("floors").json() == []
    body = floor(server)
    assert "'keys'" in refusal(server.machine("pipe", "pipeline").put("models/wake/floor", json=body))
    state = http.put("models/wake/floor", json=body).raise_for_status().json()
    expires = (server.today + timedelta(days=30)).timestamp()
    assert state == {"model": "wake", "sequence": 1, "line_sequence": 1, "days": 30, "expires_at": expires}
    assert http.get("floors").json() == [state]
    server.clock.now = T0 + DAY_S
    renewed = server.people("secret-of-pipe").put("models/wake/floor", json=floor(server, version=2))
    assert renewed.raise_for_status().json()["expires_at"] == expires + DAY_S
    with server.stores() as stores:
        targets = stores.roles.role_bytes(roles.TARGETS)
    lifted = {"targets": text(lift_floor(targets, MODEL, signers=[server.publisher], now=server.today)), "because": "x"}
    assert "'keys'" in refusal(server.people("secret-of-pipe").post("models/wake/floor/lift", json=lifted))
    answer = http.post("models/wake/floor/lift", json=lifted).raise_for_status().json()
    assert answer == {"changes": ["floor-wake: is delegated no more"], "proposal": None}
    assert http.get("floors").json() == []
    assert audited(http, "lift floor")[0][:2] == ("admin", "x")


def test_a_floor_is_lifted_by_two_where_two_are_asked(server: ServerInMemory, http: httpx.Client) -> None:
    http.put("models/wake/floor", json=floor(server)).raise_for_status()
    context = msgspec.structs.replace(server.repository.admin_context(), second_person_for_keys=True)
    server.admin = server.admin_over(context)
    with server.stores() as stores:
        targets = stores.roles.role_bytes(roles.TARGETS)
    body = {"targets": text(lift_floor(targets, MODEL, signers=[server.publisher], now=server.today))}
    proposed = server.person("ada", "security").post("models/wake/floor/lift", json=body).raise_for_status().json()
    (waiting,) = http.get("keys/proposals").json()
    assert (waiting["id"], waiting["because"], waiting["roles"]) == (
        proposed["proposal"],
        "lift floor of wake",
        ["targets"],
    )
    assert len(http.get("floors").json()) == 1
    server.person("ben", "security").post(f"keys/proposals/{waiting['id']}/approve").raise_for_status()
    assert http.get("floors").json() == []


def test_a_floor_of_another_line_is_refused(server: ServerInMemory, http: httpx.Client) -> None:
    said = refusal(http.put("models/wake/floor", json=floor(server, sequence=2)), status=409)
    assert said == "the floor is of line 2, and line 1 holds; sign it anew"
    body = floor(server)
    del body["targets"]
    said = refusal(http.put("models/wake/floor", json=body), status=404)
    assert said == "wake has no floor; begin with: whimbrel floor require wake --expires-days 30"


# --- back ---
def test_a_model_goes_back_only_where_it_went_on(server: ServerInMemory, http: httpx.Client) -> None:
    said = refusal(http.post("models/wake/rollback", json={}))
    assert "wake" in said
    assert http.get("models/wake").json()["baseline"] == 1
    for body, status in (({"to": "9.9.9"}, 404), ({"rollout": "none"}, 404), ({"leaves": "x"}, 400)):
        refusal(http.post("models/wake/rollback", json=body), status=status)


# --- history and health ---
def test_history_and_health_of_a_model_nobody_told_of(http: httpx.Client) -> None:
    history = http.get("models/wake/history").raise_for_status().json()
    assert history["model"] == "wake"
    assert http.get("models/wake/history", params={"version": "wake@2.0.0"}).status_code == 200
    assert http.get("models/wake/history", params={"version": "wake@9.9.9"}).status_code == 404
    health = http.get("models/wake/health", params={"hours": 3}).raise_for_status().json()
    assert health["model"] == "wake"
    assert http.get("models/wake/health", params={"version": "9.9.9"}).status_code == 404
