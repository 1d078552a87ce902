"""Keys, changes that wait for a second person, the audit log, status and receivers over the admin API."""

from base64 import b64encode
from typing import Any

import httpx
import msgspec
import pytest

from support.accounts import refusal
from support.server_in_memory import ServerInMemory
from support.values import T0
from whimbrel import limits
from whimbrel.flows.audit_chain import ChainedEntry, check_chain
from whimbrel.server.alerts import DeliveryResult
from whimbrel.server.people import folder_caller
from whimbrel.stores.signed_metadata import SERIALIZER, add_signature, read_metadata
from whimbrel.stores.signer import load_signer, make_signer
from whimbrel.trust import roles
from whimbrel.version import __version__


@pytest.fixture
def http(server: ServerInMemory) -> httpx.Client:
    return server.people()


def audited(http: httpx.Client, action: str) -> list[tuple[str, str, dict[str, Any]]]:
    entries = http.get("audit", params={"action": action}).raise_for_status().json()
    return [(each["actor"], each["because"], each["evidence"]) for each in entries]


# --- who signs what ---
def test_each_role_is_told_with_its_keys_and_its_end(server: ServerInMemory, http: httpx.Client) -> None:
    states = {each["role"]: each for each in http.get("keys/roles").raise_for_status().json()["roles"]}
    assert list(states) == ["root", "targets", "snapshot", "timestamp", "publisher-wake", "policy"]
    assert [each["offline"] for each in states.values()] == [True, True, False, False, True, False]
    for name, state in states.items():
        assert (state["threshold"], len(state["keys"]), state["warning"]) == (1, 1, None), name
        assert state["held"] == ([] if state["offline"] else [state["keys"][0]["keyid"]])
    keyid = load_signer(server.folder.online_keys / "policy.pem").public_key.keyid
    assert states["policy"]["keys"][0]["keyid"] == keyid == http.get("keys").json()["policy"]["keyid"]
    assert states["root"]["expires"] == T0 + roles.ROOT_LIFE.total_seconds()
    assert (states["root"]["version"], states["targets"]["version"]) == (1, 2)
    assert http.get("keys/roles").json()["unused"] == []
    signed = http.get("roles/root")
    assert signed.json()["signed"]["version"] == 1
    assert http.get("roles/targets", params={"version": 1}).json()["signed"]["version"] == 1
    assert refusal(http.get("roles/targets", params={"version": 9}), status=404)
    assert refusal(http.get("roles/none"), status=404)


def test_a_key_that_this_server_does_not_hold_is_told(server: ServerInMemory, http: httpx.Client) -> None:
    keyid = load_signer(server.folder.online_keys / "snapshot.pem").public_key.keyid
    (server.folder.online_keys / "snapshot.pem").unlink()
    states = {each["role"]: each for each in http.get("keys/roles").json()["roles"]}
    assert states["snapshot"]["held"] == []
    words = f"this server does not hold the key {keyid[:8]}, and cannot sign snapshot"
    assert states["snapshot"]["warning"] == words
    assert states["timestamp"]["warning"] is None


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "policy"])
def test_the_server_makes_a_key_that_signs_nothing_yet(server: ServerInMemory, http: httpx.Client, role: str) -> None:
    sec = server.person("sec", "security")
    first, second = (sec.post("keys/online", json={"role": role}) for _ in range(2))
    assert first.status_code == 201
    names = [f"{role}-{number}.pem" for number in (2, 3)]
    made = [load_signer(server.folder.online_keys / name).public_key.keyid for name in names]
    assert made == [first.json()["keyid"], second.json()["keyid"]]
    assert sorted(http.get("keys/roles").json()["unused"]) == sorted(made)
    actor, because, evidence = audited(http, "make key")[0]
    assert (actor, because) == ("sec", f"a key for {role}, which signs nothing yet")
    assert evidence == {"role": role, "keyid": made[1]}
    assert "'keys'" in refusal(server.person("rae").post("keys/online", json={"role": role}))


def test_a_new_key_takes_no_name_that_is_taken(server: ServerInMemory, http: httpx.Client) -> None:
    make_signer(server.folder.online_keys / "policy-3.pem")  # two of the role: the third would be called so
    http.post("keys/online", json={"role": "policy"}).raise_for_status()
    assert sorted(path.stem for path in server.folder.online_keys.glob("policy*.pem")) == [
        "policy",
        "policy-3",
        "policy-4",
    ]


def test_keys_are_made_for_online_roles_and_so_many(
    server: ServerInMemory, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(http.post("keys/online", json={"role": "root"}), status=400)
    assert "role is 'root'; expected one of 'policy', 'snapshot', 'timestamp'" in said
    monkeypatch.setattr(limits, "KEYS_OF_A_FOLDER", 3)
    said = refusal(http.post("keys/online", json={"role": "policy"}))
    assert said == f"{server.folder.online_keys} holds 3 keys already; move old ones away first"


# --- changed ---
def renewed(server: ServerInMemory, role: str = roles.TARGETS) -> dict[str, str]:
    """The next version of a role, which says the same for longer, signed with the offline key."""
    with server.stores() as stores:
        metadata = read_metadata(stores.roles.role_bytes(role), what=role)
    metadata.signed.version += 1
    metadata.signatures.clear()
    add_signature(metadata, load_signer(server.folder.offline_keys / f"{role}.pem"))
    return {role: b64encode(metadata.to_bytes(SERIALIZER)).decode()}


def test_a_change_of_keys_is_taken_at_once_where_one_person_is_enough(
    server: ServerInMemory, http: httpx.Client
) -> None:
    body = {"documents": renewed(server), "because": "in time"}
    answer = server.person("sec", "security").post("keys/changes", json=body).raise_for_status().json()
    assert answer["proposal"] is None
    assert http.get("roles/targets").json()["signed"]["version"] == 3
    actor, because, evidence = audited(http, "change keys")[0]
    assert (actor, because, evidence) == ("sec", "in time", {"changes": answer["changes"], "roles": ["targets"]})
    refusal(http.post("keys/changes", json=body), status=409)
    wrong = {"documents": {"targets": b64encode(b"{}").decode()}}
    refusal(http.post("keys/changes", json=wrong), status=400)
    assert "because is 1001 characters long" in refusal(
        http.post("keys/changes", json=body | {"because": "x" * 1001}), status=400
    )


@pytest.fixture
def two(server: ServerInMemory) -> ServerInMemory:
    """The server, where a change of keys waits for a second person."""
    context = msgspec.structs.replace(server.repository.admin_context(), second_person_for_keys=True)
    server.admin = server.admin_over(context)
    return server


def test_where_two_are_asked_a_change_waits_for_another_person(two: ServerInMemory) -> None:
    ada, ben, http = two.person("ada", "security"), two.person("ben", "security"), two.people()
    body = {"documents": renewed(two), "because": "in time"}
    proposed = ada.post("keys/changes", json=body).raise_for_status().json()
    assert http.get("roles/targets").json()["signed"]["version"] == 2
    (waiting,) = http.get("keys/proposals").json()
    assert waiting == {
        "id": proposed["proposal"],
        "changes": proposed["changes"],
        "roles": ["targets"],
        "because": "in time",
        "proposed_by": "ada",
        "at": T0,
        "until": T0 + limits.KEY_PROPOSAL_S,
    }
    assert "waits already, handed in by ada" in refusal(ben.post("keys/changes", json=body), status=409)
    path = f"keys/proposals/{proposed['proposal']}"
    assert "needs the approval of another person" in refusal(ada.post(f"{path}/approve"))
    taken = ben.post(f"{path}/approve").raise_for_status().json()
    assert taken == {"changes": proposed["changes"], "proposal": None}
    assert http.get("roles/targets").json()["signed"]["version"] == 3
    assert http.get("keys/proposals").json() == []
    actor, because, evidence = audited(http, "change keys")[0]
    assert (actor, because) == ("ben", "handed in by ada: in time")
    assert (evidence["proposed_by"], evidence["approved_by"]) == ("ada", "ben")
    said = refusal(ben.post(f"{path}/approve"), status=404)
    assert said == f"no change of keys {proposed['proposal'][:12]!r} waits here; see: whimbrel keys proposals"


def test_a_machine_neither_proposes_nor_approves(two: ServerInMemory) -> None:
    robot, ada = two.machine("robot", "admin"), two.person("ada", "security")
    assert "robot is a machine's account, and here two people change keys" in refusal(
        robot.post("keys/changes", json={"documents": renewed(two)})
    )
    proposal = ada.post("keys/changes", json={"documents": renewed(two)}).json()["proposal"]
    assert "only people approve" in refusal(robot.post(f"keys/proposals/{proposal}/approve"))


def test_a_proposal_is_thrown_away_or_forgotten(two: ServerInMemory) -> None:
    ada, http = two.person("ada", "security"), two.people()
    proposal = ada.post("keys/changes", json={"documents": renewed(two)}).json()["proposal"]
    answer = ada.post(f"keys/proposals/{proposal}/reject", json={"because": "a slip"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert audited(http, "reject keys")[0][:2] == ("ada", "a slip")
    refusal(ada.post(f"keys/proposals/{proposal}/reject", json={}), status=404)
    ada.post("keys/changes", json={"documents": renewed(two)}).raise_for_status()
    two.clock.now = T0 + limits.KEY_PROPOSAL_S
    assert len(http.get("keys/proposals").json()) == 1
    two.clock.now = T0 + limits.KEY_PROPOSAL_S + 1
    assert http.get("keys/proposals").json() == []


def test_who_has_the_folder_waits_for_nobody(two: ServerInMemory) -> None:
    context = two.repository.admin_context(folder=folder_caller())
    app = two.admin_over(msgspec.structs.replace(context, second_person_for_keys=True))
    answer = two.people("", app=app).post("keys/changes", json={"documents": renewed(two)})
    assert answer.raise_for_status().json()["proposal"] is None
    by_token = two.people(app=app).post("keys/changes", json={"documents": renewed(two)})
    assert by_token.raise_for_status().json()["proposal"] is not None


# --- the keys of tokens and of sealed releases ---
@pytest.mark.parametrize(
    ("at_once", "words", "until"),
    [(False, "old tokens are good for an hour", 3600), (True, "tokens of the old key are refused at once", 0)],
)
def test_the_key_of_device_tokens_is_replaced(
    server: ServerInMemory, http: httpx.Client, at_once: bool, words: str, until: int
) -> None:
    device = server.device()
    body: dict[str, Any] = {"at_once": at_once, "because": "a leak"}
    answer = http.post("keys/device-tokens", json=body).raise_for_status().json()
    assert answer == {"old_until": T0 + until}
    assert audited(http, "replace token key")[0][:2] == ("admin", f"{words}: a leak")
    server.clock.now = T0 + 2
    status = device.post("/device/v1/check", json={"models": {"wake": None}}).status_code
    assert status == (401 if at_once else 200)
    http.post("keys/device-tokens", json={}).raise_for_status()
    assert audited(http, "replace token key")[0][1] == "old tokens are good for an hour"


def test_the_sealing_key_is_made_once_and_replaced(server: ServerInMemory, http: httpx.Client) -> None:
    assert http.get("keys/sealing").json() == {"recipient": None, "path": None}
    answer = server.person("sec", "security").post("keys/sealing")
    assert answer.status_code == 201
    made = answer.json()
    assert made["path"] == str(server.folder.sealing_key)
    assert made["recipient"].startswith("age1")
    assert http.get("keys/sealing").json() == {"recipient": made["recipient"], "path": None}
    assert audited(http, "make_sealing_key") == [
        ("sec", "a key that opens the keys of sealed releases", {"recipient": made["recipient"]})
    ]
    assert "there is a sealing key at" in refusal(http.post("keys/sealing"), status=409)
    replaced = http.post("keys/sealing/replace", json={"because": "a leak"}).raise_for_status().json()
    assert (replaced["sealed_anew"], replaced["unopened"]) == (0, 0)
    assert replaced["recipient"] != made["recipient"]
    assert audited(http, "replace_sealing_key")[0][:2] == (
        "admin",
        "0 release keys are sealed to it, 0 could not be opened: a leak",
    )
    server.folder.sealing_key.unlink()
    lost = http.post("keys/sealing/replace", json={"lost": True}).raise_for_status().json()
    assert http.get("keys/sealing").json()["recipient"] == lost["recipient"]
    assert audited(http, "replace_sealing_key")[0][1] == "the one before is lost"


# --- the audit log ---
def test_the_audit_log_is_listed_newest_first_and_by_what_it_is_about(
    server: ServerInMemory, http: httpx.Client
) -> None:
    server.clock.now = T0 + 3
    http.patch("models/wake", json={"refresh_s": 61}).raise_for_status()
    server.clock.now = T0 + 4
    http.post("tokens", json={"name": "ci", "roles": ["viewer"]}).raise_for_status()
    newest, before, *_ = http.get("audit").json()
    assert (newest["action"], newest["at"], before["action"], before["at"]) == (
        "create token",
        T0 + 4,
        "set model",
        T0 + 3,
    )
    assert newest["previous"] == before["hash"]
    assert newest["sequence"] == before["sequence"] + 1
    assert [each["action"] for each in http.get("audit", params={"limit": 1}).json()] == ["create token"]
    assert {each["model"] for each in http.get("audit", params={"model": "wake"}).json()} == {"wake"}
    assert http.get("audit", params={"model": "none"}).json() == []
    assert http.get("audit", params={"device": "none"}).json() == []
    assert http.get("audit", params={"rollout": "none"}).json() == []


def test_the_chain_is_exported_in_pages_and_checks(server: ServerInMemory, http: httpx.Client) -> None:
    for number in range(3):
        server.token(f"t-{number}", "viewer")
    whole = http.get("audit/chain").json()
    pages: list[dict[str, Any]] = []
    while page := http.get("audit/chain", params={"after": len(pages), "limit": 2}).json():
        assert len(page) <= 2
        pages += page
    assert pages == whole
    assert [each["sequence"] for each in whole] == list(range(1, len(whole) + 1))
    entries = [msgspec.convert(each, ChainedEntry) for each in whole]
    assert check_chain(entries) is not None
    anchor = http.get("audit/anchor").json()
    assert (anchor["sequence"], anchor["hash"]) == (whole[-1]["sequence"], whole[-1]["hash"])


# --- the whole namespace ---
def test_the_status_counts_what_there_is(server: ServerInMemory, http: httpx.Client) -> None:
    server.device().close()
    server.public().get("/metadata/1.root.json").raise_for_status()
    status = http.get("status").raise_for_status().json()
    assert {name: status[name] for name in status if name not in {"timestamp_version", "next_expiry"}} == {
        "version": __version__,
        "namespace": "default",
        "models": 1,
        "devices": 1,
        "live_rollouts": 0,
        "live_experiments": 0,
        "sent": {"artifact_bytes": 0, "document_bytes": 0},
    }
    served = server.public().get("/metadata/timestamp.json").json()["signed"]["version"]
    assert status["timestamp_version"] == served
    assert status["next_expiry"]["expires"] > T0


def test_receivers_and_alerts_that_are_none(http: httpx.Client) -> None:
    assert http.get("receivers").json() == []
    assert http.get("alerts").json() == []
    assert "none" in refusal(http.post("receivers/none/test"), status=404)


@pytest.mark.parametrize(("ok", "words"), [(True, "desk took it"), (False, "desk did not take it")])
def test_a_test_alert_is_answered_and_audited(
    server: ServerInMemory, http: httpx.Client, monkeypatch: pytest.MonkeyPatch, ok: bool, words: str
) -> None:
    async def send(namespace: str, name: str, *, actor: str) -> DeliveryResult:
        return DeliveryResult(ok, f"{actor} to {name} of {namespace}")

    monkeypatch.setattr(server.alerts, "test", send)
    answer = server.person("rae").post("receivers/desk/test").raise_for_status().json()
    assert answer == {"receiver": "desk", "ok": ok, "said": "rae to desk of default"}
    assert audited(http, "test_receiver")[0][:2] == ("rae", words)
    assert "'configure'" in refusal(server.machine("ci", "pipeline").post("receivers/desk/test"))


def test_receivers_are_listed_without_addresses_and_secrets(server: ServerInMemory, http: httpx.Client) -> None:
    hook = '[[receivers]]\nname = "desk"\nform = "generic"\nurl = "https://example.com/word"\non = ["audit_anchor"]\n'
    (server.folder.path / "whimbrel.toml").write_text(hook)
    assert http.get("receivers").json() == [{"name": "desk", "form": "generic", "on": ["audit_anchor"]}]
    (server.folder.path / "whimbrel.toml").write_text("not settings")
    assert "the receivers of before stay in use: desk" in refusal(http.get("receivers"), status=400)
