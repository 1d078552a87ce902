"""How soon is a fleet back on the version before, long after its rollout was complete?

A real server as a process, some tens of real agents in this one, real HTTP between them. A version is rolled out to all
of them and completed; then `whimbrel model rollback` takes it back. Measured, by the clock of this machine:

* from the command to the server's decision, which is mostly the start of a Python process that asks first;
* from that decision to the moment at which each device runs the version before again.

The model refreshes every 300 s by its settings, and every 30 s (`rollout_refresh_s`) in the day after a rollout.
Devices poll, and nothing wakes them up: so about half of that period is the median, and the whole of it the 99th
percentile. What comes on top of the second is the signing and the device's own turn: the limits bound it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from whimbrel.agent.app import Agent
from whimbrel.agent.probes import ProbeServer
from whimbrel.demo.deployment import LocalDeployment
from whimbrel.demo.digits import train
from whimbrel.demo.fleet import AgentFleet

MODEL = "digits"
REFRESH_S, USE_S, POLL_S, PATIENCE_S = 300.0, 20.0, 0.1, 400.0
OVER_S = 10.0  # the signature and the devices' turns, on a busy machine
PLAN = """\
rollout:
  model_version: "%s@%s"
  stages: [{name: all, target_percent: 100}]
  holdback_percent: 0
"""


class App:
    """An app that uses the model for a moment."""

    model = MODEL

    def use(self, agent: Agent, chance: Random) -> tuple[int, bool]:
        """One session of a run. Returns the serial."""
        with agent.session(self.model) as session:
            session.record(latency_ms=chance.lognormvariate(2.0, 0.2), ok=True)
            return session.serial, True


class World:
    """The server and the fleet."""

    def __init__(self, folder: Path, *, agents: int, often_s: float, seed: int) -> None:
        self.deployment = LocalDeployment(folder, echo=lambda text: print(text, file=sys.stderr))
        self.agents, self.often_s, self.seed = agents, often_s, seed
        self.probes = ProbeServer()
        self.fleet: AgentFleet | None = None
        self.versions: list[str] = []

    def open(self) -> None:
        """Bring the first version to every device, and publish the second one."""
        self.probes.start()  # before any thread: it forks
        deployment = self.deployment
        model = train(deployment.folder / "models").versions[0].path
        deployment.run("init", str(deployment.repository))
        deployment.serve()
        cadence = [f"{self.often_s:g}", "--rollout-refresh-s", f"{self.often_s:g}"]
        deployment.run("model", "add", MODEL, "--refresh-s", *cadence, *deployment.keys())
        self.publish(model, 1)
        agents = deployment.open_agents(self.agents, model=MODEL, probes=self.probes)
        self.fleet = AgentFleet(agents, App(), use_every_s=USE_S, seed=self.seed)
        self.fleet.start(spread_s=self.often_s)  # their looks stay spread over the period from here on
        self.publish(model, 2)
        self.until_all_run(1)

    def publish(self, model: Path, serial: int) -> None:
        """A version of its own bytes."""
        import onnx

        loaded = onnx.load(str(model))
        loaded.doc_string = f"build {serial}"
        path = self.deployment.folder / f"v{serial}.onnx"
        onnx.save(loaded, str(path))
        printed = self.deployment.run("publish", "--model", MODEL, str(path), "--json", *self.deployment.keys())
        self.versions.append(str(json.loads(printed)["version"]))

    def complete(self) -> None:
        """Roll the second version out, complete it, and let the devices look as seldom as a completed model's do."""
        plan = self.deployment.folder / "plan.yaml"
        plan.write_text(PLAN % (MODEL, self.versions[1]))
        run = self.deployment.run
        begun = json.loads(run("rollout", "start", str(plan), "--override", "the next round", "--json"))
        run("rollout", "finish", begun["id"])
        self.until_all_run(2)
        run("model", "set", MODEL, "--refresh-s", f"{REFRESH_S:g}")
        time.sleep(self.often_s)  # every device has heard of it

    def roll_back(self) -> dict[str, Any]:
        """Take it back. Returns the seconds from the command to the decision, and from that to each device's return."""
        fleet = self.fleet
        if fleet is None:
            raise SystemExit("the fleet was not opened")
        typed_at = time.time()
        said = self.deployment.run("model", "rollback", MODEL, "--because", "a benchmark", "--yes", "--json")
        self.until_all_run(1)
        log = json.loads(self.deployment.run("audit", "--model", MODEL, "--json"))
        decided_at = next(entry["at"] for entry in log if entry["action"] == "roll_back")
        delays_s = sorted(at - decided_at for at in fleet.observed.changed_at.values())
        return {
            "command_s": decided_at - typed_at,
            "refresh_s": json.loads(said)["refresh_s"],
            "delays_s": delays_s,
        }

    def until_all_run(self, serial: int) -> None:
        """Wait. Exits where it does not come true in time."""
        deadline = time.time() + PATIENCE_S
        while self.fleet is None or set(self.fleet.observed.running.values()) != {serial}:
            if time.time() > deadline:
                counts = self.fleet.observed.devices_by_serial() if self.fleet else {}
                raise SystemExit(f"after {PATIENCE_S:.0f} s not every device runs serial {serial}: {counts}")
            time.sleep(POLL_S)

    def close(self) -> None:
        """End everything."""
        if self.fleet is not None:
            self.fleet.stop()
        self.probes.close()
        self.deployment.close()


def main() -> None:
    """Play, print the table, write the raw figures; with --json the last line is one object."""
    arguments = _arguments()
    chance, rounds = Random(arguments.seed), []
    with tempfile.TemporaryDirectory(prefix="whimbrel-back-") as folder:
        world = World(Path(folder), agents=arguments.agents, often_s=arguments.refresh_s, seed=arguments.seed)
        try:
            world.open()
            for _ in range(arguments.rounds or (1 if arguments.quick else 5)):
                world.complete()
                time.sleep(chance.uniform(0, arguments.refresh_s))
                rounds.append(world.roll_back())
        finally:
            world.close()
    delays_s = sorted(delay for each in rounds for delay in each["delays_s"])
    median_s, p99_s = statistics.median(delays_s), statistics.quantiles(delays_s, n=100, method="inclusive")[98]
    summary = {
        "agents": arguments.agents,
        "rounds": len(rounds),
        "refresh_s": arguments.refresh_s,
        "signed_every_s": sorted({each["refresh_s"] for each in rounds}),
        "command_s_median": round(statistics.median(each["command_s"] for each in rounds), 2),
        "back_s_median": round(median_s, 2),
        "back_s_p99": round(p99_s, 2),
        "back_s_last": round(delays_s[-1], 2),
        "median_limit_s": arguments.refresh_s / 2 + OVER_S,
        "p99_limit_s": arguments.refresh_s + OVER_S,
        "seed": arguments.seed,
    }
    good = median_s <= summary["median_limit_s"] and p99_s <= summary["p99_limit_s"]
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "rollback_delay.json").write_text(json.dumps({"summary": summary, "rounds": rounds}, indent=1) + "\n")
    print(f"{len(rounds)} times {arguments.agents} agents, which look for news every {arguments.refresh_s:g} s")
    print(f"command -> decision:   median {summary['command_s_median']} s")
    print(f"decision -> device back: median {summary['back_s_median']} s (limit {summary['median_limit_s']:g})")
    print(f"                99th percentile {summary['back_s_p99']} s (limit {summary['p99_limit_s']:g})")
    if arguments.json:
        print(json.dumps({"ok": good, **summary}, sort_keys=True))
    sys.exit(0 if good else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--refresh-s", type=float, default=30.0, help="rollout_refresh_s; 30 is the default of a model")
    parser.add_argument("--seed", type=int, default=20261130)
    return parser.parse_args()


if __name__ == "__main__":
    main()
