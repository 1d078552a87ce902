"""A version that is bad on one hardware class of four: how soon is that class back, and does the rest go on?

A real server as a process, 500 real agents in this one, real HTTP between them, in four hardware classes. Each
rollout's version fails on 80% of the devices of one class and nowhere else. Measured, by the clock of this machine:

* from the close of the window that proves it to the signed policy that takes the slice back, as a device can fetch it;
* from that policy to the moment at which the last device of the class runs the version before again.

The first is compared with 5 s, the second with the refresh interval plus 5 s (devices poll; nothing wakes them up).
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import zlib
from pathlib import Path
from random import Random
from typing import Any

import httpx

from whimbrel.agent.app import Agent
from whimbrel.agent.probes import ProbeServer
from whimbrel.cli.connect import connect
from whimbrel.demo.deployment import LocalDeployment
from whimbrel.demo.digits import train
from whimbrel.demo.fleet import AgentFleet

MODEL = "digits"
CLASSES = ("board-a", "board-b", "board-c", "board-d")
BAD_SHARE = 0.8  # of the class's devices fail with the bad version
REFRESH_S, REPORT_S, USE_S, WINDOW_S = 10.0, 6.0, 5.0, 6.0
MIN_REPORTS = 40  # a busy machine makes devices late: no stage is left on the word of a few
POLL_S = 0.05
POLICY_LIMIT_S = 5.0
BACK_LIMIT_S = REFRESH_S + 5.0
PATIENCE_S = 400.0
PLAN = f"""\
rollout:
  model_version: "{MODEL}@%s"
  stages:
    - {{name: canary, target_percent: 20, duration_hours: 45}}
    - {{name: half, target_percent: 60, duration_hours: 20}}
    - {{name: all, target_percent: 100, duration_hours: 20}}
  min_reports: {MIN_REPORTS}
  rollback: {{health_check_interval_sec: {WINDOW_S:g}}}
"""


class App:
    """An app that uses the model. It fails with the serials that are bad on its device's class."""

    def __init__(self, bad: dict[int, str]) -> None:
        self.model = MODEL
        self.bad = bad

    def use(self, agent: Agent, chance: Random) -> tuple[int, bool]:
        """One session of three runs. Returns the serial, and whether all runs succeeded."""
        with agent.session(self.model) as session:
            settings = agent.settings
            fails = self.bad.get(session.serial) == settings.labels["hardware"] and _unlucky(settings.device_id)
            for _ in range(3):
                session.record(latency_ms=chance.lognormvariate(2.0, 0.2), ok=not fails)
            return session.serial, not fails


def _unlucky(device_id: str) -> bool:
    return zlib.crc32(device_id.encode()) % 1000 < 1000 * BAD_SHARE


class World:
    """The server, the fleet, and their observations."""

    def __init__(self, folder: Path, *, agents: int, seed: int) -> None:
        self.deployment = LocalDeployment(folder, echo=lambda text: print(text, file=sys.stderr))
        self.agents, self.seed = agents, seed
        self.bad: dict[int, str] = {}
        self.fleet: AgentFleet | None = None
        self.probes = ProbeServer()

    def open(self) -> None:
        """Bring a baseline to every device."""
        self.probes.start()  # before any thread: it forks
        deployment = self.deployment
        self.model = train(deployment.folder / "models").versions[0].path
        deployment.run("init", str(deployment.repository))
        deployment.serve()
        cadence = ["--refresh-s", f"{REFRESH_S:g}", "--report-s", f"{REPORT_S:g}"]
        deployment.run("model", "add", MODEL, *cadence, *deployment.keys())
        self.publish(1)
        agents = deployment.open_agents(self.agents, model=MODEL, probes=self.probes)
        self.fleet = AgentFleet(agents, App(self.bad), use_every_s=USE_S, seed=self.seed)
        self.fleet.start(spread_s=REFRESH_S)
        self.until(lambda: set(self.running().values()) == {1}, "every device runs the baseline")

    def publish(self, serial: int) -> str:
        """A version of its own bytes. Returns its calendar version."""
        import onnx

        loaded = onnx.load(str(self.model))
        loaded.doc_string = f"build {serial}"
        path = self.deployment.folder / f"v{serial}.onnx"
        onnx.save(loaded, str(path))
        printed = self.deployment.run("publish", "--model", MODEL, str(path), "--json", *self.deployment.keys())
        return str(json.loads(printed)["version"])

    def running(self) -> dict[str, int | None]:
        """The serial that each device runs, as far as it was observed."""
        return dict(self.fleet.observed.running) if self.fleet else {}

    def running_counts(self) -> dict[int | None, int]:
        """Devices by the serial they run."""
        return self.fleet.observed.devices_by_serial() if self.fleet else {}

    def until(self, holds: Any, what: str) -> None:
        """Wait until `holds` is true. Exits where it does not come true in time."""
        deadline = time.time() + PATIENCE_S
        while not holds():
            if time.time() > deadline:
                raise SystemExit(
                    f"after {PATIENCE_S:.0f} s it is not so that {what}; devices by serial: {self.running_counts()}"
                )
            time.sleep(POLL_S)

    def close(self) -> None:
        """End everything."""
        if self.fleet is not None:
            self.fleet.stop()
        self.probes.close()
        self.deployment.close()


def play(world: World, serial: int) -> dict[str, Any]:
    """One rollout of a version that is bad on one class. Returns its figures."""
    deployment, bad = world.deployment, CLASSES[serial % len(CLASSES)]
    version = world.publish(serial)
    world.bad[serial] = bad
    plan = deployment.folder / f"plan-{serial}.yaml"
    plan.write_text(PLAN % version)
    begun = json.loads(deployment.run("rollout", "start", str(plan), "--hour-s", "1", "--json"))
    token = deployment.repository / "admin.token"
    with (
        connect(repository=None, server=deployment.admin_url, token_file=token, namespace=None, keys=None) as client,
        httpx.Client() as web,
    ):
        timestamp = f"{deployment.server_url}/default/metadata/timestamp.json"
        signed: list[tuple[float, bytes]] = []
        deadline = time.time() + PATIENCE_S
        while time.time() < deadline:
            content = web.get(timestamp).content
            if not signed or signed[-1][1] != content:
                signed.append((time.time(), content))
            progress = client.get(f"rollouts/{begun['id']}")
            if progress["without"] or progress["ended_at"]:
                break
            time.sleep(POLL_S)
        entries = client.get("audit", rollout=begun["id"])
        verdict = next((each for each in entries if each["action"] == "slice_back"), None)
        if verdict is None:
            return {
                "serial": serial,
                "bad": bad,
                "found": False,
                "because": progress["because"],
                "state": progress["state"],
            }
        while not any(at > verdict["at"] for at, _ in signed):
            content = web.get(timestamp).content
            if content != signed[-1][1]:
                signed.append((time.time(), content))
            time.sleep(POLL_S / 5)
        policy_at = next(at for at, _ in signed if at > verdict["at"])
        closed_at = progress["created_at"] + (verdict["at"] - progress["created_at"]) // WINDOW_S * WINDOW_S
        world.until(lambda: not _on(world, serial, bad), f"the devices of {bad} left serial {serial}")
        back_at = world.fleet.observed.last_left_at.get(serial, policy_at) if world.fleet else policy_at
        deadline = time.time() + PATIENCE_S
        while not progress["ended_at"] and time.time() < deadline:
            progress = client.get(f"rollouts/{begun['id']}")
            time.sleep(10 * POLL_S)
    rest = {name for name in world.running() if _class_of(name) != bad}
    if progress["state"] == "completed":
        world.until(lambda: all(world.running()[name] == serial for name in rest), "the rest runs the new version")
    return {
        "serial": serial,
        "bad": bad,
        "found": progress["without"] == [bad],
        "state": progress["state"],
        "because": verdict["because"],
        "policy_s": round(policy_at - closed_at, 3),
        "back_s": round(max(0.0, back_at - policy_at), 3),
        "exposed": _ever(world, serial, bad),
        "slice_on_it": len(_on(world, serial, bad)),
    }


def _class_of(device_id: str) -> str:
    return f"board-{'abcd'[int(device_id.rpartition('-')[2]) % 4]}"


def _on(world: World, serial: int, bad: str) -> list[str]:
    return [name for name, runs in world.running().items() if runs == serial and _class_of(name) == bad]


def _ever(world: World, serial: int, bad: str) -> int:
    devices = world.fleet.observed.devices_ever_on.get(serial, set()) if world.fleet else set()
    return sum(_class_of(name) == bad for name in set(devices))


def main() -> None:
    """Play, print the table, write the raw figures; with --json the last line is one object."""
    arguments = _arguments()
    rollouts = arguments.rollouts or (1 if arguments.quick else 5)
    rows = []
    with tempfile.TemporaryDirectory(prefix="whimbrel-slice-") as folder:
        world = World(Path(folder), agents=arguments.agents, seed=arguments.seed)
        try:
            world.open()
            for serial in range(2, rollouts + 2):
                rows.append(play(world, serial))
                print(json.dumps(rows[-1], sort_keys=True), file=sys.stderr)
        finally:
            world.close()
    found = [row for row in rows if row["found"]]
    policy_s = statistics.median(row["policy_s"] for row in found) if found else None
    back_s = statistics.median(row["back_s"] for row in found) if found else None
    good = len(found) == len(rows) and all(row["state"] == "completed" and not row["slice_on_it"] for row in rows)
    summary = {
        "agents": arguments.agents,
        "rollouts": len(rows),
        "slices_found": len(found),
        "completed": sum(row["state"] == "completed" for row in rows),
        "policy_s_median": policy_s,
        "policy_limit_s": POLICY_LIMIT_S,
        "last_back_s_median": back_s,
        "last_back_limit_s": BACK_LIMIT_S,
        "refresh_s": REFRESH_S,
        "right": good,
        "seed": arguments.seed,
    }
    fast = policy_s is not None and back_s is not None and policy_s <= POLICY_LIMIT_S and back_s <= BACK_LIMIT_S
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "slice_rollback.json").write_text(json.dumps({"summary": summary, "rollouts": rows}, indent=1) + "\n")
    print(f"{len(found)} of {len(rows)} slices found, {summary['completed']} completed without them")
    print(f"window closed -> signed policy: median {policy_s} s (limit {POLICY_LIMIT_S:g})")
    print(f"signed policy -> last device back: median {back_s} s (limit {BACK_LIMIT_S:g}, refresh {REFRESH_S:g})")
    if arguments.json:
        print(json.dumps({"ok": good and fast, **summary}, sort_keys=True))
    sys.exit(0 if good and fast else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one rollout instead of five")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--agents", type=int, default=500)
    parser.add_argument("--rollouts", type=int)
    parser.add_argument("--seed", type=int, default=20261126)
    return parser.parse_args()


if __name__ == "__main__":
    main()
