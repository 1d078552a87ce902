"""Attack: somebody changes something, and the audit log does not say so; or floods it until nothing is found there.

Every route that can change something stands in `ACTS`, with the entry that it leaves, or in `ONLY_ASKS`. A route that
stands in neither fails the test, whoever adds it.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.accounts import person
from support.experiments import TEXT
from support.sealing import Asking
from support.server import Running, done, model_file, plan_file, repository, serving
from whimbrel import limits
from whimbrel.flows.audit_chain import check_chain
from whimbrel.server.bounded_acts import ENROL_DEVICE, FAIL_SIGN_IN, BoundedActs
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import transaction


class Stage:
    """A server with two versions of a model, devices, a receiver that does not answer, and what a person sends."""

    def __init__(self, running: Running, people: httpx.Client) -> None:
        self.running, self.people = running, people
        self.where = ["--server", running.admin, "--token-file", running.folder / "admin.token"]
        self.keys = [*self.where, "--keys", running.folder / "keys" / "offline"]
        self.rollout = self.experiment = ""

    def send(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        answer = self.people.request(method, path, json=body, **more)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.people.get("/audit", params={"limit": 1000}).json()
        return entries

    def publish(self) -> None:
        path = model_file(self.running.folder.parent, 3)
        done("publish", "-m", "wake", path, "--semantic-version", "3.0.0", *self.keys)

    def publish_and_make_patches(self) -> None:
        """The command asks for patches, too."""
        path = model_file(self.running.folder.parent, 5)
        done("publish", "-m", "wake", path, "--semantic-version", "5.0.0", *self.keys)

    def store_and_collect(self) -> None:
        self.send("POST", "/collect", params={"older_than_s": 0})

    def approve_as_another_person(self) -> None:
        proposal = self.send("GET", "/keys/proposals")[-1]["id"]
        with person(self.running, "ben", "security") as ben:
            ben.post(f"keys/proposals/{proposal}/approve").raise_for_status()

    def reject_what_waits(self) -> None:
        (waiting,) = self.send("GET", "/keys/proposals")
        self.send("POST", f"/keys/proposals/{waiting['id']}/reject", REASON)

    def hand_out_keys(self) -> None:
        done("model", "add", "secret", "--sealed", *self.keys)
        done("publish", "-m", "secret", model_file(self.running.folder.parent, 7), *self.keys)
        with httpx.Client(base_url=f"{self.running.devices}/default", trust_env=False) as http:
            enrol_token = (self.running.folder / "enrol.token").read_text().strip()
            Asking(http, "dev-sealed", enrol_token).ask().raise_for_status()
        self.send("POST", "/models/secret/release-keys", {"devices": ["dev-sealed"], "serials": [1]})

    def start_rollout(self) -> None:
        path = plan_file(self.running.folder.parent)
        self.rollout = done("rollout", "start", path, *self.where)["id"]

    def start_experiment(self) -> None:
        body = {"plan": TEXT, "file_name": "plan.yaml"}
        self.experiment = self.send("POST", "/experiments", body)["id"]


REASON = {"because": "a test"}
ONE = "models/{model}"
ACTS: dict[tuple[str, str], tuple[str, Callable[[Stage], object]]] = {
    ("post", "models"): ("add model", lambda s: done("model", "add", "sleep", *s.keys)),
    ("patch", ONE): ("set model", lambda s: s.send("PATCH", "/models/wake", {"refresh_s": 61})),
    ("put", f"{ONE}/aliases/{{alias}}"): (
        "set_alias",
        lambda s: s.send("PUT", "/models/wake/aliases/stable", {"version": "1"}),
    ),
    ("post", "keys/sealing"): ("make_sealing_key", lambda s: done("keys", "make-sealing-key", *s.where)),
    ("post", "keys/sealing/replace"): (
        "replace_sealing_key",
        lambda s: done("keys", "make-sealing-key", "--replace", *s.where),
    ),
    ("post", f"{ONE}/release-keys"): ("hand_out_release_keys", Stage.hand_out_keys),
    ("put", "artifacts/{sha256}"): ("store_artifact", Stage.publish),  # it sends the file first
    ("post", f"{ONE}/versions"): (
        "publish",
        lambda s: done(
            "publish", "-m", "wake", model_file(s.running.folder.parent, 4), "--semantic-version", "4.0.0", *s.keys
        ),
    ),
    ("post", f"{ONE}/deltas"): ("make_deltas", Stage.publish_and_make_patches),
    ("post", "experiments"): ("start experiment", Stage.start_experiment),
    ("post", "experiments/{identifier}/{act}"): (
        "experiment stop",
        lambda s: s.send("POST", f"/experiments/{s.experiment}/stop", REASON),
    ),
    ("post", "rollouts"): ("start", Stage.start_rollout),
    ("post", "rollouts/{identifier}/{move}"): (
        "finish",
        lambda s: s.send("POST", f"/rollouts/{s.rollout}/finish", REASON),
    ),
    ("post", f"{ONE}/rollback"): (
        "roll_back",
        lambda s: s.send("POST", "/models/wake/rollback", {"to": "1.0.0", **REASON}),
    ),
    ("post", f"{ONE}/versions/{{version}}/unquarantine"): (
        "unquarantine",
        lambda s: s.send("POST", "/models/wake/versions/2.0.0/unquarantine", REASON),
    ),
    ("post", f"{ONE}/versions/{{version}}/retire"): (
        "retire",
        lambda s: s.send("POST", "/models/wake/versions/4.0.0/retire", REASON),
    ),
    ("put", f"{ONE}/line"): (
        "set line",
        lambda s: done("version", "revoke", "4.0.0", "-m", "wake", "--because", "x", "--yes", *s.keys),
    ),
    ("post", "collect"): ("collect_artifact", Stage.store_and_collect),
    ("post", f"{ONE}/policies/{{sequence}}/restore"): (
        "restore_policy",
        lambda s: s.send("POST", "/models/wake/policies/2/restore", REASON),
    ),
    ("post", "devices/{device}/labels"): (
        "label_device",
        lambda s: s.send("POST", "/devices/dev-1/labels", {"labels": {"site": "lab"}, **REASON}),
    ),
    ("post", "devices/{device}/block"): ("block_device", lambda s: s.send("POST", "/devices/dev-1/block", REASON)),
    ("post", "devices/{device}/unblock"): (
        "unblock_device",
        lambda s: s.send("POST", "/devices/dev-1/unblock", REASON),
    ),
    ("post", "devices/{device}/remove"): ("remove_device", lambda s: s.send("POST", "/devices/dev-2/remove", REASON)),
    ("post", "user-reports"): (
        "file_tickets",
        lambda s: s.send(
            "POST", "/user-reports", {"reports": [{"ticket": "t-1", "model": "wake", "version": "1.0.0"}]}
        ),
    ),
    ("post", "receivers/{name}/test"): ("test_receiver", lambda s: s.send("POST", "/receivers/ops/test", timeout=60)),
    ("post", "devices/{device}/admit"): ("admit_device", lambda s: s.send("POST", "/devices/dev-1/admit", REASON)),
    ("post", "devices/{device}/allow-again"): (
        "allow_again",
        lambda s: s.send("POST", "/devices/dev-1/allow-again", REASON),
    ),
    ("post", "enrol-tokens"): ("create_enrol_token", lambda s: s.send("POST", "/enrol-tokens", {"name": "lot"})),
    ("post", "enrol-tokens/{name}/revoke"): (
        "revoke_enrol_token",
        lambda s: s.send("POST", "/enrol-tokens/lot/revoke", REASON),
    ),
    ("post", "tokens"): (
        "create token",
        lambda s: s.send("POST", "/tokens", {"name": "ci", "roles": ["pipeline"], "days": 9}),
    ),
    ("post", "tokens/{token}/rotate"): ("rotate token", lambda s: s.send("POST", "/tokens/ci/rotate", {})),
    ("post", "tokens/{token}/revoke"): ("revoke token", lambda s: s.send("POST", "/tokens/ci/revoke", REASON)),
    ("put", f"{ONE}/floor"): (
        "require floor",
        lambda s: done("floor", "require", "sleep", "--expires-days", "9", "--yes", *s.keys),
    ),
    ("post", f"{ONE}/floor/lift"): ("propose keys", lambda s: done("floor", "lift", "sleep", "--yes", *s.keys)),
    ("post", "keys/online"): ("make key", lambda s: s.send("POST", "/keys/online", {"role": "timestamp"})),
    ("post", "keys/changes"): ("propose keys", lambda s: done("keys", "rotate", "timestamp", "--yes", *s.keys)),
    ("post", "keys/proposals/{proposal}/approve"): ("change keys", Stage.approve_as_another_person),
    ("post", "keys/proposals/{proposal}/reject"): ("reject keys", Stage.reject_what_waits),
    ("post", "keys/device-tokens"): (
        "replace token key",
        lambda s: s.send("POST", "/keys/device-tokens", {"at_once": False}),
    ),
}
ONLY_ASKS = {
    ("post", f"{ONE}/fit"),
    ("post", "plans/check"),
    ("post", "experiments/check"),
    ("post", "sign-in/begin"),  # it only gives a nonce
    ("post", "sign-in"),  # by a provider alone: test_oidc_tokens
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = repository(tmp_path_factory.mktemp("acts") / "repo")
    with (folder / "whimbrel.toml").open("a") as file:
        file.write("second_person_for_keys = true\n")
        file.write('\n[[receivers]]\nname = "ops"\nform = "generic"\nurl = "http://127.0.0.1:9/nobody"\n')
    with serving(folder) as running, running.people() as people:
        for device in ("dev-1", "dev-2"):
            running.enrolled(device).close()
        yield Stage(running, people)


def routes(stage: Stage) -> set[tuple[str, str]]:
    """Every route of people that is asked by a method that can change something."""
    paths = httpx.get(f"{stage.running.admin}/schema", trust_env=False, follow_redirects=True).json()["paths"]
    return {
        (method, path.removeprefix("/{namespace}/admin/v1/"))
        for path, operations in paths.items()
        for method in operations
        if method not in {"get", "head"}
    }


def test_every_route_that_can_change_something_is_known_here(stage: Stage) -> None:
    assert routes(stage) - ONLY_ASKS == set(ACTS)
    assert routes(stage) >= ONLY_ASKS


def test_every_act_of_a_person_leaves_its_entry(stage: Stage) -> None:
    for route, (action, act) in ACTS.items():
        before = {entry["sequence"] for entry in stage.entries()}
        act(stage)
        new = [entry for entry in stage.entries() if entry["sequence"] not in before]
        assert action in {entry["action"] for entry in new}, f"{route} left {[entry['action'] for entry in new]}"
        assert all(entry["actor"] and entry["because"] for entry in new), new
    assert done("audit", "verify", *stage.where)["problem"] is None


def test_what_only_asks_leaves_none(stage: Stage) -> None:
    before = len(stage.entries())
    stage.send("POST", "/models/wake/fit", {"variants": [{"name": "cpu"}]})
    plan = plan_file(stage.running.folder.parent).read_text()
    stage.send("POST", "/plans/check", {"plan": plan, "file_name": "plan.yaml"})
    stage.send("POST", "/experiments/check", {"plan": TEXT, "file_name": "e.yaml"})
    stage.people.post("/models/wake/rollback", json={"dry_run": True, "to": "1.0.0"})
    stage.send("POST", "/collect", params={"older_than_s": 0, "dry_run": True})
    assert len(stage.entries()) == before


def test_devices_that_enrol_are_in_the_log(stage: Stage) -> None:
    (entry,) = stage.people.get("/audit", params={"device": "dev-2", "action": "enrol_device"}).json()
    assert (entry["actor"], entry["because"]) == ("dev-2", "with the enrolment token 'first'")


def test_a_sign_in_that_failed_is_in_the_log_soon(stage: Stage) -> None:
    with httpx.Client(base_url=stage.running.admin, trust_env=False) as stranger:
        for _ in range(3):
            assert stranger.get("/default/admin/v1/models", headers={"authorization": "Bearer x"}).status_code == 401
    with stage.running.public() as device:
        body = {"device_id": "dev-9", "enrol_token": "no such token at all", "labels": {}}
        assert device.post("/device/v1/enrol", json=body).status_code == 401
    for action in ("fail_sign_in", "fail_device_sign_in"):
        (entry,) = eventually(lambda action=action: stage.people.get("/audit", params={"action": action}).json())
        assert entry["actor"] == "anybody"
        assert entry["evidence"]["most_by"] == {"127.0.0.1": entry["evidence"]["count"]}


def eventually(ask: Callable[[], list[Any]]) -> list[Any]:
    import time

    for _ in range(200):
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise AssertionError("it did not come about")


# --- floods ---


class Flooded:
    """A database with a namespace, whose time stands still until it is moved."""

    def __init__(self, path: Path) -> None:
        self.folder = repository(path, versions=0)
        self.database = Database(f"sqlite:///{self.folder}/whimbrel.db")
        self.time = 1e9
        self.acts = BoundedActs(self.database, clock=lambda: self.time)

    def log(self, action: str) -> list[Any]:
        with transaction(self.database, "default") as stores:
            assert check_chain(stores.audit.after(0, limit=1000)).problem is None
            return list(reversed(stores.audit.newest(action=action, limit=1000)))


@pytest.fixture
def flooded(tmp_path: Path) -> Iterator[Flooded]:
    here = Flooded(tmp_path / "repo")
    yield here
    here.database.close()


def test_a_flood_of_sign_ins_leaves_one_entry_a_minute(flooded: Flooded) -> None:
    for second in range(120):
        for number in range(100):
            flooded.acts.count("default", FAIL_SIGN_IN, by=f"10.0.{number}.{second}")
        flooded.acts.write()
        flooded.time += 1
    flooded.acts.write(all_of_it=True)
    entries = flooded.log(FAIL_SIGN_IN)
    assert len(entries) == 3
    assert sum(entry.evidence["count"] for entry in entries) == 12_000
    assert all(len(json.dumps(entry.evidence)) < 1000 for entry in entries)


def test_a_flood_of_enrolments_has_some_entries_and_one_that_counts_the_rest(flooded: Flooded) -> None:
    own = 0
    for _ in range(5000):
        if flooded.acts.own_entry("default", ENROL_DEVICE):
            own += 1
        else:
            flooded.acts.count("default", ENROL_DEVICE, by="factory")
    flooded.acts.write()
    (entry,) = flooded.log(ENROL_DEVICE)
    assert own == limits.AUDIT_BOUNDED_OWN
    assert entry.because == f"{5000 - own:,} further devices enrolled, with the token factory"
    flooded.time += limits.AUDIT_BOUNDED_S
    assert flooded.acts.own_entry("default", ENROL_DEVICE)


def test_invented_namespaces_and_addresses_fill_neither_memory_nor_log(flooded: Flooded) -> None:
    for number in range(10_000):
        flooded.acts.count(f"invented-{number}", FAIL_SIGN_IN, by="10.0.0.1")
        flooded.acts.count("default", FAIL_SIGN_IN, by=f"10.0.0.{number}")
    assert len(flooded.acts._acts) <= limits.AUDIT_BOUNDED_KINDS + 1
    flooded.acts.write()
    (entry,) = flooded.log(FAIL_SIGN_IN)
    assert entry.evidence["count"] == 10_000
    assert len(entry.evidence["most_by"]) == limits.AUDIT_BOUNDED_TOLD
    assert len(flooded.acts._acts) == 1


def test_counts_wait_while_the_database_does_not_answer(flooded: Flooded) -> None:
    """They were dropped with the transaction that was rolled back."""
    flooded.acts.count("default", FAIL_SIGN_IN, by="10.0.0.1")
    with flooded.database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE audit RENAME TO away")
    with pytest.raises(Exception, match="audit"):
        flooded.acts.write()
    with flooded.database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO audit")
    flooded.acts.write()
    (entry,) = flooded.log(FAIL_SIGN_IN)
    assert entry.evidence["count"] == 1
