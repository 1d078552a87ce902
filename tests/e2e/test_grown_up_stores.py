"""The same journey where one machine is outgrown: PostgreSQL for the registry, NATS JetStream for the reports."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from conftest import NATS, POSTGRESQL
from support.repository import onnx_model
from support.server import Running, done, serving
from whimbrel import Agent, AgentOptions
from whimbrel.agent.probes import ProbeServer
from whimbrel.errors import Unavailable

pytestmark = [pytest.mark.postgresql, pytest.mark.nats]

DEVICES = 8
PLAN = """
rollout:
  model_version: "wake@2.0.0"
  stages:
    - {name: canary, target_percent: 50, duration_hours: 1, success_criteria: {error_rate_max: 0.2}}
    - {name: all, target_percent: 100, duration_hours: 1}
  rollback: {auto_rollback: true, health_check_interval_sec: 0.5}
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    name = f"whimbrel_{os.urandom(6).hex()}"
    folder = tmp_path / "repository"
    with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    try:
        separator = "&" if "?" in POSTGRESQL else "?"
        url = f"{POSTGRESQL}{separator}options=-csearch_path%3D{name}"
        done("init", folder, "--database", url, "--inbox", NATS, "--inbox-stream", name)
        done("model", "add", "wake", "-R", folder, "--salt", 42, "--refresh-s", 0.2, "--report-s", 0.2)
        for number in (1, 2):
            path = tmp_path / f"wake-{number}.onnx"
            path.write_bytes(onnx_model(factor=float(number)))
            done("publish", "-m", "wake", path, "-R", folder, "--semantic-version", f"{number}.0.0")
        with serving(folder) as server:
            yield server
    finally:
        with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {name} CASCADE")
        asyncio.run(_drop_stream(name))


async def _drop_stream(name: str) -> None:
    import nats

    connection = await nats.connect(NATS)
    await connection.jetstream().delete_stream(name)
    await connection.close()


def until(holds: Callable[[], bool], agents: list[Agent], *, tries: int = 200) -> None:
    for _ in range(tries):
        for agent in agents:
            agent.cycle(force=True)
            with suppress(Unavailable), agent.session("wake") as model:
                model.record(latency_ms=1.0, accuracy=1.0)
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come about")


@pytest.mark.long
def test_rollout_goes_through_on_postgresql_and_nats(running: Running, tmp_path: Path) -> None:
    probes = ProbeServer()
    token = (running.folder / "enrol.token").read_text().strip()
    agents = [
        Agent.open(
            tmp_path / f"device-{number}",
            AgentOptions(
                server=running.devices,
                root=running.folder / "root.json",
                models=["wake"],
                device_id=f"dev-{number}",
                enrol_token=token,
                probes=probes,
            ),
        )
        for number in range(DEVICES)
    ]
    try:
        with running.people() as people:
            until(lambda: people.get("/models/wake").json()["devices"].get("none", 0) == 0, agents, tries=5)
            started = people.post("/rollouts", json={"plan": PLAN, "hour_s": 0.5}).raise_for_status().json()
            path = f"/rollouts/{started['id']}"
            until(lambda: people.get(path).json()["state"] == "completed", agents)
            seen = people.get(path).json()
            actions = [entry["action"] for entry in people.get("/audit", params={"rollout": started["id"]}).json()]
            assert (actions[0], actions.count("advance"), actions[-1]) == ("finish", 1, "start")
            assert seen["counts"]["0"]["reported_t"] >= 1
            until(lambda: all(agent.status()["models"]["wake"]["serial"] == 2 for agent in agents), agents)
    finally:
        for agent in agents:
            agent.close()
        probes.close()
