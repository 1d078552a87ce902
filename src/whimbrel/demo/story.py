"""The story that the demo tells: the whole journey on one machine, with everything real but the hours.

1. Three versions of a small classifier are trained; a server and two agents run as processes, hundreds of agents in
   this one.
2. v2 goes through its stages to every device. v3 has a valid file, and its probe passes. In its canary the gate sees
   from the devices' reports that it is bad, and takes it back.
3. Every claim is checked against the server and the fleet. `Facts.failed` lists the claims that did not hold.

Called by `whimbrel demo`, which brings the client of the admin API and the screen.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from whimbrel.agent.probes import ProbeServer
from whimbrel.agent.status import read_status
from whimbrel.demo.deployment import LocalDeployment
from whimbrel.demo.digits import Digits, DigitsVersion, train
from whimbrel.demo.fleet import AgentFleet, Classifier
from whimbrel.errors import Refused, Unavailable, WhimbrelError
from whimbrel.model.documents import encode, parse
from whimbrel.plan.rollout_states import State
from whimbrel.server.admin.views.repository import AuditEntry, StatusView
from whimbrel.server.admin.views.rollouts import RolloutView

T = TypeVar("T")

MODEL = "digits"
SALT = 42  # with the fixed device ids: the same devices are the canary in every demo
PROCESSES = 2  # agents that run as processes of their own
_REFRESH_S, _REPORT_S, _USE_S = 2.5, 2.0, 2.0
_HOUR_S = 1.0  # an hour of the plans, played as a second
_PATIENCE_S = 240.0  # for one chapter, on a busy machine
_LOOK_S = 0.5  # between two looks at the server and the fleet
_SEED = 7
_PLAN = """\
rollout:
  model_version: "digits-v{version}"
  stages:
    - name: canary
      target_percent: 5
      duration_hours: 10
      success_criteria: {{accuracy_drop_max: 0.02, error_rate_max: 0.02}}
    - name: early_adopters
      target_percent: 25
      duration_hours: 10
    - name: general
      target_percent: 100
      duration_hours: 10
  rollback: {{auto_rollback: true, health_check_interval_sec: 1}}
"""


class AdminClient(Protocol):
    """The part of the admin API's client that the story needs."""

    def get(self, path: str, *, as_: type[T], **query: Any) -> T:
        """GET below `/{ns}/admin/v1`, decoded as the view `as_` (or a list of them)."""


class Scene(msgspec.Struct, frozen=True):
    """The state of the story at one moment. `rollout` is None while no rollout is watched."""

    second: float
    chapter: str
    devices_by_serial: dict[int | None, int]
    rollout: RolloutView | None


class Screen(Protocol):
    """Where the story is told."""

    def print_line(self, text: str) -> None:
        """Add a line below the lines before."""

    def show(self, scene: Scene) -> None:
        """Replace the picture of the scene before."""


class Facts(msgspec.Struct):
    """What the demo claims. `failed`: claims that did not hold."""

    devices: int = 0
    promoted: bool = False
    rolled_back: bool = False
    devices_exposed_to_bad_version: int = 0
    seconds_to_verdict: float | None = None
    seconds_to_last_device_back: float | None = None
    bytes_moved: int = 0
    bytes_of_good_version: int = 0  # what v2 cost, as a delta
    bytes_of_good_version_whole: int = 0  # what it would have cost as whole files
    seconds: float = 0.0
    failed: list[str] = msgspec.field(default_factory=list)

    def check(self, held: object, claim: str) -> None:
        """Write down a claim that does not hold."""
        if not held:
            self.failed.append(claim)


class Story:
    """The story with its server, its fleet and the facts that were observed. Call `prepare`, then `tell`."""

    def __init__(self, folder: Path, *, devices: int, screen: Screen) -> None:
        self.folder = folder
        self.deployment = LocalDeployment(folder, echo=screen.print_line)
        self.facts = Facts(devices=devices)
        self.timeline: list[tuple[float, dict[int | None, int]]] = []  # (second, devices by serial)
        self._began = time.time()
        self._fleet: AgentFleet | None = None
        self._process_folders = [folder / "devices" / f"process-{number + 1}" for number in range(PROCESSES)]
        self._probes = ProbeServer()
        self._screen = screen
        self._last_reason = ""

    # --- the plot ---

    def prepare(self) -> None:
        """Train the versions, start the server, publish v1 and start the fleet."""
        self._probes.start()  # before any thread exists: it forks
        self._screen.print_line("training three versions of a classifier of handwritten digits")
        self._digits = train(self.folder / "models")
        for version in self._digits.versions:
            self._screen.print_line(f"  {version.name}: accuracy {version.accuracy:.3f} by its publisher's measure")
        self.deployment.run("init", str(self.deployment.repository))
        self.deployment.serve()
        cadence = ["--refresh-s", str(_REFRESH_S), "--report-s", str(_REPORT_S), "--salt", str(SALT)]
        self.deployment.run("model", "add", MODEL, *cadence, *self.deployment.keys())
        self._publish(self._digits.v1)
        self._start_fleet(self._digits)

    def tell(self, client: AdminClient) -> None:
        """Promote v2, catch v3, and check every fact meanwhile."""
        self._watch("every device takes v1, the baseline", until=lambda: self._all_on(1))
        self._good_version(client, self._digits.v2)
        self._bad_version(client, self._digits.v3)
        self.facts.bytes_moved = _sent_bytes(client)
        self.facts.seconds = round(time.time() - self._began, 1)

    def _good_version(self, client: AdminClient, version: DigitsVersion) -> None:
        self._publish(version)
        before = _sent_bytes(client)
        rollout_id = self._start_rollout(version)
        rollout = self._watch_rollout(client, "v2 goes out in stages", rollout_id, until=_ended)
        completed = rollout.state is State.COMPLETED
        self.facts.check(completed, f"v2 was promoted (it is {_outcome(rollout)})")
        entries = client.get("audit", as_=list[AuditEntry], rollout=rollout_id)
        judged = [entry for entry in entries if entry.action in {"advance", "finish"}]
        self.facts.check(len(judged) == len(rollout.stages), "every stage was judged before the next one began")
        self._watch("the holdback follows: v2 is the baseline", until=lambda: self._all_on(2))
        self.facts.bytes_of_good_version = _sent_bytes(client) - before
        self.facts.bytes_of_good_version_whole = self.facts.devices * version.path.stat().st_size
        self.facts.check(
            0 < self.facts.bytes_of_good_version < self.facts.bytes_of_good_version_whole / 5,
            "v2 travelled as a delta",
        )
        self.facts.promoted = completed and self._all_on(2)
        self.facts.check(self._all_on(2), "every device ended on v2")

    def _bad_version(self, client: AdminClient, version: DigitsVersion) -> None:
        self._publish(version)
        rollout_id = self._start_rollout(version)
        rollout = self._watch_rollout(client, "v3 is tried on its canary", rollout_id, until=_ended)
        self.facts.rolled_back = rollout.state is State.ROLLED_BACK
        self.facts.check(self.facts.rolled_back, f"v3 was taken back (it is {_outcome(rollout)})")
        self._watch_rollout(client, "devices return to v2", rollout_id, until=lambda _: self._all_on(2))
        self.facts.check(self._all_on(2), "every device went back to v2")
        observed = self._running_fleet().observed
        exposed = observed.devices_ever_on.get(3, set())
        self.facts.devices_exposed_to_bad_version = len(exposed)
        self.facts.check(exposed, "v3 ran on devices at all")
        self.facts.check(len(exposed) <= max(10, 0.15 * self.facts.devices), "v3 never left its canary")
        entries = client.get("audit", as_=list[AuditEntry], rollout=rollout_id)
        verdict = next((entry for entry in entries if entry.action == "roll_back"), None)
        self.facts.check(verdict and verdict.actor == "gate", "the gate pulled the cord, not a person")
        first_failure = observed.first_failure_at.get(3)
        if verdict and first_failure is not None and 3 in observed.last_left_at:
            self.facts.seconds_to_verdict = round(verdict.at - first_failure, 1)
            self.facts.seconds_to_last_device_back = round(observed.last_left_at[3] - first_failure, 1)
        self.facts.check(self.facts.seconds_to_verdict is not None, "the time to the verdict was seen")
        try:
            self._start_rollout(version)
            self.facts.check(False, "v3 is refused from now on")
        except Refused as error:
            self._screen.print_line(f"starting v3 again is refused: {error}")

    # --- what a person would do ---

    def _publish(self, version: DigitsVersion) -> None:
        card = version.path.with_suffix(".card.json")
        card.write_bytes(encode(version.card))
        signed_with = self.deployment.keys()
        self.deployment.run("publish", "--model", MODEL, str(version.path), "--card", str(card), *signed_with)

    def _start_rollout(self, version: DigitsVersion) -> str:
        """Start a rollout of `version`. Returns its id."""
        plan = self.folder / f"{version.name}.yaml"
        plan.write_text(_PLAN.format(version=version.semantic_version))
        printed = self.deployment.run("rollout", "start", str(plan), "--hour-s", str(_HOUR_S), "--json")
        started = parse(RolloutView, printed.encode(), what="the rollout that was started")
        self._screen.print_line(f"    started {started.id}: {started.baseline} -> {started.target}")
        return started.id

    def _start_fleet(self, digits: Digits) -> None:
        for folder in self._process_folders:
            self._start_process(folder)
        inside = self.facts.devices - PROCESSES
        self._screen.print_line(f"{inside} agents in this process, each with a folder of its own")
        agents = self.deployment.open_agents(inside, model=MODEL, probes=self._probes)
        app = Classifier(digits.images, digits.labels, model=MODEL)
        self._fleet = AgentFleet(agents, app, use_every_s=_USE_S, seed=_SEED)
        self._fleet.start(spread_s=_REFRESH_S)

    def _start_process(self, folder: Path) -> None:
        """Start an agent as a process, and an app as another process beside it."""
        deployment = self.deployment
        self._screen.print_line(
            f"$ whimbrel agent run --folder ./devices/{folder.name} ...      (and an app beside it)"
        )
        deployment.spawn(
            "whimbrel.cli",
            "agent",
            "run",
            "--folder",
            str(folder),
            "--server",
            deployment.server_url,
            "--root",
            str(deployment.repository / "root.json"),
            "--model",
            MODEL,
            "--device-id",
            folder.name,
            environment={"WHIMBREL_ENROL_TOKEN": deployment.enrol_token},
        )
        deployment.spawn("whimbrel.demo.app_process", str(folder), MODEL, str(_USE_S))

    # --- watching ---

    def _running_fleet(self) -> AgentFleet:
        if self._fleet is None:
            raise Unavailable("the fleet was not started")
        return self._fleet

    def _all_on(self, serial: int) -> bool:
        running = self._running_fleet().observed.running
        return len(running) == self.facts.devices and set(running.values()) == {serial}

    def _watch(self, chapter: str, *, until: Callable[[], bool]) -> None:
        """Look every half second until `until` holds. After `_PATIENCE_S` it gives up, and the facts then say so."""
        self._screen.print_line(chapter)
        deadline = time.time() + _PATIENCE_S
        while True:
            self._look(chapter, None)
            if until() or time.time() > deadline:
                return
            time.sleep(_LOOK_S)

    def _watch_rollout(
        self, client: AdminClient, chapter: str, rollout_id: str, *, until: Callable[[RolloutView], bool]
    ) -> RolloutView:
        """The same with a rollout, whose reason is printed when it is new. Returns the rollout's last view."""
        self._screen.print_line(chapter)
        deadline = time.time() + _PATIENCE_S
        while True:
            rollout = client.get(f"rollouts/{rollout_id}", as_=RolloutView)
            self._look(chapter, rollout)
            if until(rollout) or time.time() > deadline:
                if rollout.because != self._last_reason:
                    self._last_reason = rollout.because
                    self._screen.print_line(f"  {_outcome(rollout)}")
                return rollout
            time.sleep(_LOOK_S)

    def _look(self, chapter: str, rollout: RolloutView | None) -> None:
        """Observe the fleet once, and show it."""
        self._observe_processes()
        second, counts = time.time() - self._began, self._running_fleet().observed.devices_by_serial()
        self.timeline.append((second, counts))
        self._screen.show(Scene(second, chapter, counts, rollout))

    def _observe_processes(self) -> None:
        for folder in self._process_folders:
            with contextlib.suppress(WhimbrelError):
                serial = read_status(folder)["models"][MODEL]["serial"]
                self._running_fleet().observed.note_running(folder.name, serial, at=time.time())

    def close(self) -> None:
        """End everything that was started here."""
        if self._fleet is not None:
            self._fleet.stop()
            self._fleet = None
        self._probes.close()
        self.deployment.close()


def _sent_bytes(client: AdminClient) -> int:
    """Artifact bytes that the server has sent so far."""
    return client.get("status", as_=StatusView).sent.artifact_bytes


def _ended(rollout: RolloutView) -> bool:
    return rollout.ended


def _outcome(rollout: RolloutView) -> str:
    return f"{rollout.state.value}: {rollout.because}"
