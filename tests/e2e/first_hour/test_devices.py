"""`whimbrel device` against a real server with real agents: who runs what and waits, who is shut out, who is twice."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conftest import POSTGRESQL
from support.receivers import Listening, receivers
from support.server import Running, done, model_file, serving, whimbrel
from whimbrel import Agent
from whimbrel.agent.options import AgentOptions
from whimbrel.agent.probes import ProbeServer
from whimbrel.device.conditions import Situation
from whimbrel.errors import Unavailable

pytestmark = pytest.mark.long

WAIT_S = 30.0


@contextmanager
def database_url(engine: str) -> Iterator[list[str]]:
    """The options of `init` for a database of its own."""
    if engine == "sqlite":
        yield []
        return
    name = f"whimbrel_{os.urandom(6).hex()}"
    with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    try:
        separator = "&" if "?" in POSTGRESQL else "?"
        yield ["--database", f"{POSTGRESQL}{separator}options=-csearch_path%3D{name}"]
    finally:
        with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {name} CASCADE")


class Fleet:
    """Real agents of one server, each cycled by hand."""

    def __init__(self, server: Running, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.agents: dict[str, Agent] = {}
        self._probes = ProbeServer()

    def open(self, name: str, *, device_id: str | None = None, **more: Any) -> Agent:
        self.agents[name] = Agent.open(
            self.folder / name,
            AgentOptions(
                server=self.server.devices,
                root=self.server.folder / "root.json",
                models=["wake"],
                device_id=device_id or name,
                enrol_token=(self.server.folder / "enrol.token").read_text().strip(),
                probes=self._probes,
                **more,
            ),
        )
        return self.agents[name]

    def until(self, holds: Callable[[], bool]) -> None:
        """Use and cycle every agent until it holds."""
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, [agent.status()["models"] for agent in self.agents.values()]
            for agent in self.agents.values():
                agent.cycle(force=True)
                with suppress(Unavailable), agent.session("wake") as model:
                    model.record(latency_ms=1.0)
            time.sleep(0.05)

    def close(self) -> None:
        for agent in self.agents.values():
            agent.close()
        self._probes.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "repository"
    with database_url(request.param) as options:
        done("init", folder, *options)
        cadence = ("--refresh-s", 0.2, "--report-s", 0.2, "--report-label", "region")
        done("model", "add", "wake", "-R", folder, "--salt", 42, *cadence)
        done("publish", "--model", "wake", model_file(tmp_path, 1), "-R", folder, "--semantic-version", "1.0.0")
        with serving(folder) as server:
            opened = Fleet(server, tmp_path)
            try:
                yield opened
            finally:
                opened.close()


def at(server: Running) -> tuple[object, ...]:
    return "--server", server.admin, "--token-file", server.folder / "admin.token"


def asked(fleet: Fleet, *words: object) -> Any:
    return done("device", *words, *at(fleet.server))


def shown(fleet: Fleet, device: str) -> Any:
    with fleet.server.people() as people:
        return people.get(f"devices/{device}").raise_for_status().json()


def waits(fleet: Fleet, device: str) -> str | None:
    (model,) = shown(fleet, device)["models"]
    return str(model["waits_for"]) if model["waits_for"] is not None else None


def listed(fleet: Fleet, *words: object) -> list[str]:
    return [device["device_id"] for device in asked(fleet, "list", *words)["devices"]]


def runs(fleet: Fleet, serial: int | None, *devices: str) -> bool:
    with fleet.server.people() as people:
        page = people.get("devices").raise_for_status().json()
    held = {each["device_id"]: each["models"] for each in page["devices"]}
    return all(held.get(device) and held[device][0]["serial"] == serial for device in devices)


def is_heard(fleet: Fleet, device: str) -> None:
    """Wait until a device is heard once more."""
    before = shown(fleet, device)["heard_at"]
    fleet.until(lambda: shown(fleet, device)["heard_at"] > before)


def test_the_inventory_says_who_runs_what_and_why_a_device_waits(fleet: Fleet, tmp_path: Path) -> None:
    charging = [False]
    labels = {"region": "NZ", "owner": "secret"}
    fleet.open("board-1", labels=labels, situation=lambda: Situation(charging=charging[0]))
    fleet.open("board-2", labels={"region": "FR"})
    fleet.until(lambda: runs(fleet, 1, "board-1", "board-2"))
    fleet.until(lambda: asked(fleet, "show", "board-1")["labels"] == {"region": "NZ"})
    assert waits(fleet, "board-1") is None
    assert "secret" not in str(asked(fleet, "list"))

    folder = fleet.server.folder
    done("publish", "--model", "wake", model_file(tmp_path, 2), "-R", folder, "--semantic-version", "2.0.0")
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        'rollout:\n  model_version: "wake@2.0.0"\n  stages:\n'
        "    - {name: all, target_percent: 100, duration_hours: 1, conditions: {charging: true}}\n"
        "  holdback_percent: 0\n"
    )
    done("rollout", "start", plan, "-R", folder)
    fleet.until(lambda: waits(fleet, "board-1") == "the policy asks for a charger")
    charging[0] = True
    fleet.until(lambda: runs(fleet, 2, "board-1") and waits(fleet, "board-1") is None)
    detail = shown(fleet, "board-1")
    assert [(each["role"], each["stage"]) for each in detail["cohorts"]] == [("treated", 0)]
    assert detail["models"][0]["since"] > detail["enrolled_at"]


def test_filters_labels_and_pages(fleet: Fleet) -> None:
    fleet.open("board-1", labels={"region": "NZ"})
    fleet.open("board-2", labels={"region": "FR"})
    fleet.until(lambda: runs(fleet, 1, "board-1", "board-2"))
    fleet.until(lambda: listed(fleet, "-l", "region=FR") == ["board-2"])
    assert listed(fleet) == ["board-1", "board-2"]
    assert listed(fleet, "--model", "wake", "--version", "1.0.0") == ["board-1", "board-2"]
    assert listed(fleet, "--model", "wake", "--version", "none") == []
    assert listed(fleet, "--limit", 1) == ["board-1"]
    assert listed(fleet, "--after", "board-1") == ["board-2"]
    asked(fleet, "label", "board-1", "site=lab", "owner=ana")
    assert listed(fleet, "-l", "site=lab,region in (NZ,FR)") == ["board-1"]
    assert asked(fleet, "label", "board-1", "owner-")["operator_labels"] == {"site": "lab"}
    fleet.agents.pop("board-2").close()
    time.sleep(2.0)
    fleet.until(lambda: listed(fleet, "--silent-for", "2s") == ["board-2"])
    text = whimbrel("device", "list", *at(fleet.server)).out
    assert "region=NZ, site=lab" in text
    wrong = whimbrel("device", "list", *at(fleet.server), "--silent-for", "soon")
    assert (wrong.status, wrong.err.count("\n")) == (2, 1)
    assert whimbrel("device", "list", *at(fleet.server), "--model", "nosuch").status == 4


def test_a_blocked_device_is_refused_and_comes_back_and_a_removed_one_enrols_again(fleet: Fleet) -> None:
    agent = fleet.open("board-1")
    fleet.until(lambda: runs(fleet, 1, "board-1"))
    assert asked(fleet, "block", "board-1", "--because", "lost")["blocked"]["because"] == "lost"

    def is_refused() -> bool:
        return "blocked this device" in str(agent.status()["last_error"])

    fleet.until(is_refused)
    assert agent.status()["models"]["wake"]["serial"] == 1  # it goes on with what it has
    assert listed(fleet, "--blocked") == ["board-1"]
    unasked = whimbrel("device", "remove", "board-1", *at(fleet.server))
    assert (unasked.status, "give --yes to do it" in unasked.err) == (4, True)
    assert whimbrel("device", "remove", "board-1", "--yes", *at(fleet.server)).status == 4  # it would be let in again
    asked(fleet, "unblock", "board-1")
    is_heard(fleet, "board-1")

    enrolled = shown(fleet, "board-1")["enrolled_at"]
    assert asked(fleet, "remove", "board-1", "--yes", "--because", "scrapped") == {"cohorts": 0, "device_id": "board-1"}
    assert whimbrel("device", "show", "board-1", *at(fleet.server)).status == 4
    fleet.until(lambda: listed(fleet) == ["board-1"])
    assert shown(fleet, "board-1")["enrolled_at"] > enrolled
    actions = [entry["action"] for entry in done("audit", *at(fleet.server), "--device", "board-1")]
    assert actions == ["enrol_device", "remove_device", "unblock_device", "block_device", "enrol_device"]


def test_a_copied_card_is_noticed_and_told_once(fleet: Fleet) -> None:
    """Two boards whose cards are copies report in turns, each from an installation of its own."""
    fleet.open("board-1")
    fleet.until(lambda: runs(fleet, 1, "board-1"))
    for _ in range(3):  # an agent that is started again is the same installation, and one that rebooted comes alone
        fleet.agents.pop("board-1").close()
        fleet.open("board-1")
        is_heard(fleet, "board-1")
    assert shown(fleet, "board-1")["duplicate"] is None
    shutil.copytree(fleet.folder / "board-1", fleet.folder / "copy")
    fleet.open("copy", device_id="board-1")
    fleet.until(lambda: shown(fleet, "board-1")["duplicate"] is not None)
    assert listed(fleet, "--duplicate") == ["board-1"]
    text = whimbrel("device", "show", "board-1", *at(fleet.server)).out
    assert "TWO INSTALLATIONS report with this id" in text
    signs = shown(fleet, "board-1")["duplicate"]["signs"]
    fleet.until(lambda: shown(fleet, "board-1")["duplicate"]["signs"] > signs + 2)
    entries = done("audit", *at(fleet.server), "--device", "board-1")
    actions = [entry["action"] for entry in entries if entry["action"] != "notice_run_history"]
    assert actions == ["notice_duplicate", "enrol_device"]
    assert len(entries) - len(actions) <= 1  # the two histories part, and that is told once, too


def test_a_receiver_that_asks_is_told_of_a_copied_card(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    done("init", folder)
    done("model", "add", "wake", "-R", folder, "--refresh-s", 0.2, "--report-s", 0.2)
    done("publish", "--model", "wake", model_file(tmp_path, 1), "-R", folder, "--semantic-version", "1.0.0")
    with Listening().open() as generic, Listening().open() as other:
        told = 'name = "own"\nform = "generic"\nurl = "{}"\non = ["duplicate_identity"]'
        chat = told.replace("own", "chat").replace("generic", "slack")
        receivers(folder, told.format(generic.url), chat.format(other.url))
        with serving(folder) as server:
            fleet = Fleet(server, tmp_path)
            try:
                fleet.open("board-1")
                fleet.until(lambda: runs(fleet, 1, "board-1"))
                shutil.copytree(tmp_path / "board-1", tmp_path / "copy")
                fleet.open("copy", device_id="board-1")
                fleet.until(lambda: bool(generic.taken and other.taken))
                rows = done("alert", "list", "-R", folder)
            finally:
                fleet.close()
    body = generic.taken[0].json
    assert (body["moment"], body["device"], body["severity"]) == ("duplicate_identity", "board-1", "warning")
    assert body["title"] == "device board-1: two installations report with this id"
    assert "rollout" not in body
    assert {(row["device"], row["rollout"], row["state"]) for row in rows} == {("board-1", "", "sent")}
    assert len(generic.taken) == len(other.taken) == 1


def test_each_command_says_in_words_what_it_did(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    done("init", folder)
    with serving(folder) as server, server.enrolled("board-1", region="NZ"):
        for words, expected in (
            (["list"], "board-1"),
            (["show", "board-1"], "last heard"),
            (["label", "board-1", "site=lab"], "board-1 has labels of operators: site=lab"),
            (["block", "board-1"], "whimbrel device unblock board-1"),
            (["unblock", "board-1"], "board-1 is not blocked any more"),
            (
                ["remove", "board-1", "--yes"],
                "board-1 is removed. Where it still has an enrolment token it enrols again",
            ),
            (["list"], "devices: none"),
        ):
            answer = whimbrel("device", *words, *at(server))
            assert (answer.status, answer.err) == (0, "")
            assert expected in answer.out
