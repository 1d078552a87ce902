"""From the outside, with a real server: drafts and approvals, freezes, the queue, a schedule, ranges, the way back.

And from the inside: a controller that is killed after any of its transactions leaves what the next one finishes.
"""

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from support.accounts import token_of
from support.server import Running, done, repository, serving, whimbrel
from support.values import EPOCH, cell, cohort, devices_in, window
from whimbrel.model.documents import encode
from whimbrel.server.app import Repository, open_repository
from whimbrel.server.config import Folder
from whimbrel.server.controllers import Controllers
from whimbrel.stores.transaction import transaction

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("buckets_by_name")]
WAIT_S = 60.0  # on a busy machine


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("template") / "repo", versions=3)


@pytest.fixture
def server(template: Path, tmp_path: Path) -> Iterator[Running]:
    """Three versions of a model; the first is the baseline."""
    with serving(shutil.copytree(template, tmp_path / "repo")) as here:
        yield here


def where(here: Running) -> tuple[str, ...]:
    return ("--server", here.admin, "--token-file", str(here.folder / "admin.token"))


def as_person(here: Running, name: str, folder: Path) -> tuple[str, ...]:
    """The server, with a token of a person's own."""
    file = folder / f"{name}.token"
    file.write_text(token_of(here, name, "releaser", person=name))
    return ("--server", here.admin, "--token-file", str(file))


def plan_file(folder: Path, *, version: str = "wake@2.0.0", approval: str = "", more: str = "") -> Path:
    path = folder / f"plan-{version}.yaml"
    path.write_text(
        f'rollout:\n  model_version: "{version}"\n  stages:\n'
        "    - {name: canary, target_percent: 5, duration_hours: 1}\n"
        f"    - {{name: all, target_percent: 100, duration_hours: 1000{approval}}}\n"
        f"  rollback: {{health_check_interval_sec: 0.5}}\n{more}"
    )
    return path


def start(here: Running, path: Path, *more: str) -> dict[str, Any]:
    """An hour of the plan lasts a second."""
    begun: dict[str, Any] = done("rollout", "start", path, "--hour-s", 1, *more, *where(here))
    return begun


def status(here: Running, identifier: str) -> dict[str, Any]:
    answer: dict[str, Any] = done("rollout", "status", identifier, *where(here))
    return answer


def until(here: Running, identifier: str, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while not right(rollout := status(here, identifier)):
        assert time.monotonic() < deadline, rollout
        time.sleep(0.1)
    return rollout


def report(here: Running, device: str, rollout: str, *, serial: int, first: int = 1, treated: bool = True) -> None:
    """A device activates a version (unless it is a control), and reports one window."""
    with here.enrolled(device) as client:
        cohorts: tuple[Any, ...] = ()
        if treated:
            announcement = {"model": "wake", "step": "activating", "serial": serial, "rollout": rollout}
            client.post("/device/v1/announce", json=announcement).raise_for_status()
            cohorts = (cohort(rollout=rollout),)
        batch = {"epoch": EPOCH, "windows": (window(first, serial=serial, cohorts=cohorts),)}
        client.post("/device/v1/reports", content=encode(batch)).raise_for_status()


def test_a_stage_waits_for_two_people(server: Running, tmp_path: Path) -> None:
    begun = start(server, plan_file(tmp_path, approval=", approval: {count: 2, note: look at the errors}"))
    assert begun["state"] == "running"
    (device,) = devices_in(0, 50_000, 1)
    report(server, device, begun["id"], serial=2)
    held = until(server, begun["id"], lambda rollout: rollout["state"] == "waiting_for_approval")
    assert held["approval"] == {
        "stage": "all",
        "wanted": 2,
        "missing": 2,
        "by": [],
        "note": "look at the errors",
        "frozen_until": None,
    }
    ada, bob = as_person(server, "ada", tmp_path), as_person(server, "bob", tmp_path)
    first = done("rollout", "approve", begun["id"], "--note", "fine", *ada)
    assert (first["state"], first["approval"]["by"]) == ("waiting_for_approval", ["ada"])
    again = whimbrel("rollout", "approve", begun["id"], *ada)
    assert again.status == 4
    assert "ada approved it already; 1 more must" in again.err
    last = done("rollout", "approve", begun["id"], *bob)
    assert (last["state"], last["stage_name"], last["because"]) == ("running", "all", "approved by ada, bob")
    acts = [(entry["actor"], entry["action"]) for entry in done("audit", "--rollout", begun["id"], *where(server))]
    assert acts[:3] == [("bob", "advance"), ("bob", "approve"), ("ada", "approve")]


def test_a_draft_begins_when_it_is_approved_and_one_that_is_rejected_never(server: Running, tmp_path: Path) -> None:
    draft = start(server, plan_file(tmp_path), "--draft")
    assert draft["state"] == "draft"
    (device,) = devices_in(0, 50_000, 1)
    assert runs(server, device) == 1
    assert done("rollout", "approve", draft["id"], *where(server))["state"] == "running"
    assert runs(server, device) == 2
    done("rollout", "abort", draft["id"], *where(server))
    other = start(server, plan_file(tmp_path), "--draft")
    assert done("rollout", "reject", other["id"], *where(server))["state"] == "aborted"


def runs(here: Running, device: str) -> int:
    """What the server decides for a device that asks."""
    with here.enrolled(device) as client:
        answer = client.post("/device/v1/check", json={"models": {"wake": None}}).raise_for_status()
        return int(answer.json()["models"]["wake"]["serial"])


def test_nothing_begins_or_ends_in_a_freeze_but_it_goes_back(server: Running, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    freeze = f"  freeze: [{{from: {now - timedelta(days=1):%Y-%m-%d}, to: {now + timedelta(days=2):%Y-%m-%d}}}]\n"
    waits = start(server, plan_file(tmp_path, more=freeze))
    assert waits["state"] == "scheduled"
    assert "a freeze holds until" in waits["because"]
    done("rollout", "abort", waits["id"], *where(server))
    # One that began before a freeze: nobody finishes it, and it goes back.
    at = datetime.now(UTC) + timedelta(minutes=1)
    freeze = f"  freeze: [{{from: {at:%Y-%m-%dT%H:%M}, to: {at + timedelta(hours=1):%Y-%m-%dT%H:%M}}}]\n"
    begun = start(server, plan_file(tmp_path, more=freeze))
    assert begun["state"] == "running"
    time.sleep(max(0.0, at.replace(second=0, microsecond=0).timestamp() - time.time() + 0.1))
    refused = whimbrel("rollout", "finish", begun["id"], *where(server))
    assert (refused.status, "a freeze holds until" in refused.err) == (4, True)
    assert done("rollout", "rollback", begun["id"], *where(server))["state"] == "rolled_back"


def test_a_rollout_queues_and_begins_by_itself(server: Running, tmp_path: Path) -> None:
    first = start(server, plan_file(tmp_path))
    refused = whimbrel("rollout", "start", plan_file(tmp_path, version="wake@3.0.0"), *where(server))
    assert refused.status == 4
    assert "or let this one wait for it (on_running: queue)" in refused.err
    second = start(server, plan_file(tmp_path, version="wake@3.0.0", more="  on_running: queue\n"))
    assert second["state"] == "queued"
    done("rollout", "abort", first["id"], *where(server))
    # Its stage lasts a second: whoever looks later finds it beyond `running`.
    assert until(server, second["id"], lambda rollout: rollout["state"] != "queued")["target"].endswith("(3.0.0)")


def test_a_scheduled_rollout_begins_at_its_second(server: Running, tmp_path: Path) -> None:
    at = datetime.now(UTC) + timedelta(seconds=4)
    one = start(server, plan_file(tmp_path, more=f"  schedule: {{start_at: {at:%Y-%m-%dT%H:%M:%S}Z}}\n"))
    assert one["state"] == "scheduled"
    begun = until(server, one["id"], lambda rollout: rollout["state"] == "running")
    entry = next(e for e in done("audit", "--rollout", one["id"], *where(server)) if e["action"] == "start")
    assert entry["actor"] == "controller"
    assert int(at.timestamp()) <= entry["at"] < at.timestamp() + WAIT_S
    assert begun["stage_since"] == entry["at"]


def test_two_rollouts_of_one_model_serve_their_own_ranges(server: Running, tmp_path: Path) -> None:
    start(server, plan_file(tmp_path, more="  range_percent: [0, 50]\n"))
    start(server, plan_file(tmp_path, version="wake@3.0.0", more="  range_percent: [50, 100]\n"))
    # 5% of each half; the devices enrol while both run.
    for begin, end, serial in ((0, 25_000, 2), (25_000, 500_000, 1), (500_000, 525_000, 3), (525_000, 1_000_000, 1)):
        (device,) = devices_in(begin, end, 1)
        assert runs(server, device) == serial


def test_it_is_rolling_back_until_the_devices_are_off_it(server: Running, tmp_path: Path) -> None:
    begun = start(server, plan_file(tmp_path))
    (device,) = devices_in(0, 50_000, 1)
    report(server, device, begun["id"], serial=2)
    until(server, begun["id"], lambda rollout: rollout["counts"].get("0", {}).get("activated_t") == 1)
    going = done("rollout", "rollback", begun["id"], "--because", "no", *where(server))
    assert (going["state"], going["devices_left"], going["ended"]) == ("rolling_back", 1, False)
    assert runs(server, device) == 1
    report(server, device, begun["id"], serial=1, first=2, treated=False)
    gone = until(server, begun["id"], lambda rollout: rollout["ended"])
    assert gone["state"] == "rolled_back"
    assert "every device that was heard from is off it" in gone["because"]


def test_a_plan_is_explained_by_the_server(server: Running, tmp_path: Path) -> None:
    with server.enrolled("dev-1", region="NZ"):
        pass
    explained = done("rollout", "plan", "check", plan_file(tmp_path), "--devices", 1000, *where(server))
    assert [stage["devices"] for stage in explained["stages"]] == [50, 900]
    printed = whimbrel("rollout", "plan", "check", plan_file(tmp_path), *where(server))
    assert printed.status == 0
    assert "1 device\n" in printed.out
    bad = tmp_path / "bad.yaml"
    bad.write_text("rollout: {stages: []}")
    refused = whimbrel("rollout", "plan", "check", bad, *where(server))
    assert (refused.status, "bad.yaml:1" in refused.err) == (2, True)
    schema = json.loads(whimbrel("rollout", "plan", "schema").out)
    assert schema["title"] == "Whimbrel rollout plan"


# --- killed anywhere ---


class _KilledError(BaseException):
    """The process ends here; nobody catches it."""


class _Dying:
    """A database whose process dies right after its n-th transaction."""

    def __init__(self, opened: Repository, after: int) -> None:
        self.opened, self.left = opened, after

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self.opened.database.transaction() as connection:
            yield connection
        self.left -= 1
        if not self.left:
            raise _KilledError


@contextmanager
def eventful(template: Path, folder: Path) -> Iterator[Repository]:
    """A live rollout that harms, one that queues behind it, a draft, and one whose time comes."""
    repo = shutil.copytree(template, folder)
    plans = folder.parent
    low, high = "  range_percent: [0, 50]\n", "  range_percent: [50, 100]\n"
    first = done("rollout", "start", plan_file(plans, more=low), "-R", repo)
    done("rollout", "start", plan_file(plans, version="wake@3.0.0", more=f"{low}  on_running: queue\n"), "-R", repo)
    later = f"{high}  schedule: {{start_at: 2100-01-01}}\n"
    done("rollout", "start", plan_file(plans, version="wake@3.0.0", more=later), "-R", repo)
    done("rollout", "start", plan_file(plans, version="wake@3.0.0", more=high), "-R", repo, "--draft")
    with open_repository(Folder.open(repo)) as opened:
        with transaction(opened.database, "default") as stores:
            harm = [
                cell(role, w, n=n, crashed=bad)
                for w in range(6)
                for role, n, bad in (("treated", 100, 30), ("control", 1900, 19))
            ]
            stores.fleet.tally(first["id"], harm)
        yield opened


NOW = datetime(2100, 6, 1, tzinfo=UTC).timestamp()


def rounds(opened: Repository, *, killed_after: int | None) -> bool:
    """Rounds until nothing changes any more, first by a process that is killed; whether it was."""
    killed = False
    if killed_after is not None:
        asyncio.run(opened.controllers.resign())
        dying: Any = _Dying(opened, killed_after)
        doomed = Controllers(dying, opened.blobs, opened.inbox, opened.signers, clock=lambda: NOW)
        try:
            asyncio.run(doomed.round())
        except _KilledError:
            killed = True
    with opened.database.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM lease")  # it ran out
    heir = Controllers(opened.database, opened.blobs, opened.inbox, opened.signers, clock=lambda: NOW)
    for _ in range(3):
        asyncio.run(heir.round())
    return killed


def outcome(opened: Repository) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """The outcome: the rollouts, the audit log, and what the signed policy says."""
    with transaction(opened.database, "default") as stores:
        registry, roles = stores.registry, stores.roles
        names = {each.id: f"{place}" for place, each in enumerate(registry.rollouts())}
        ended = [(each.state.value, each.stage, each.shares, each.baseline) for each in registry.rollouts()]
        log = [(e.actor, e.action, names.get(e.rollout or "")) for e in reversed(registry.audit_log())]
        held = json.loads(roles.current_target("policy-wake", "policy/wake.json") or b"{}")
    for layer in held["layers"]:
        for entry in layer["entries"]:
            entry["rollout"] = names[entry["rollout"]]
    held.pop("sequence")  # how many documents it took: two changes may be signed in one
    return ended, log, held


def test_a_controller_killed_after_any_transaction_changes_nothing(template: Path, tmp_path: Path) -> None:
    with eventful(template, tmp_path / "whole" / "repo") as opened:
        rounds(opened, killed_after=None)
        expected = outcome(opened)
    assert [state for state, *_ in expected[0]] == ["rolled_back", "running", "running", "draft"]
    tried = 0
    for number in range(1, 200):
        with eventful(template, tmp_path / f"{number}" / "repo") as opened:
            killed = rounds(opened, killed_after=number)
            assert outcome(opened) == expected, number
        shutil.rmtree(tmp_path / f"{number}")
        if not killed:
            break
        tried += 1
    assert tried >= 10
