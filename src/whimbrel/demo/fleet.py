"""The fleet of the demo: hundreds of real agents in one process, each with its own folder, over real HTTP.

1. The agents are the product's own. Only the app that uses the model belongs to the demo: at every turn it opens a
   session, runs real images through the active version, and records the results.
2. A few worker threads serve all agents. The agent that is due next is served next.
3. `Observations` keeps what happened: which device ran which version, and when each version first failed.

Called by demo/story.py, by benchmarks and by tests of the whole system.
"""

import heapq
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from whimbrel.agent.app import Agent
from whimbrel.agent.session import Session
from whimbrel.errors import Unavailable, WhimbrelError

_IMAGES_A_SESSION = 6
_WORKERS = 16  # most of a turn waits for the disk or the network


class App(Protocol):
    """What uses the model on a device."""

    model: str

    def use(self, agent: Agent, chance: random.Random) -> tuple[int, bool]:
        """One session. Returns the serial that ran, and whether all runs succeeded."""


class Classifier:
    """An app that reads digits. It keeps one loaded model for each version, as an app would."""

    def __init__(self, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], *, model: str) -> None:
        self.model = model
        self._images, self._labels = images, labels
        self._loaded: dict[int, Any] = {}
        self._guard = threading.Lock()

    def use(self, agent: Agent, chance: random.Random) -> tuple[int, bool]:
        """One session. Returns the serial that ran, and whether all runs succeeded.

        Raises `Unavailable` where the device has no version yet.
        """
        with agent.session(self.model) as session:
            runtime = self._load(session)
            succeeded = True
            for index in chance.sample(range(len(self._labels)), _IMAGES_A_SESSION):
                succeeded &= self._classify(session, runtime, index)
            return session.serial, succeeded

    def _classify(self, session: Session, runtime: Any, index: int) -> bool:
        began = time.perf_counter()
        try:
            outputs = runtime.run(["label"], {"image": self._images[index : index + 1]})
        except Exception:  # noqa: BLE001 (the app goes on whatever the model's runtime raises, and says so)
            session.record(ok=False, accuracy=0.0)
            return False
        latency_ms = 1000 * (time.perf_counter() - began)
        session.record(latency_ms=latency_ms, ok=True, accuracy=float(outputs[0][0] == self._labels[index]))
        return True

    def _load(self, session: Session) -> Any:
        with self._guard:
            if session.serial not in self._loaded:
                import onnxruntime

                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = options.inter_op_num_threads = 1
                options.log_severity_level = 4  # what fails is recorded, and 300 devices would fill a screen
                self._loaded[session.serial] = onnxruntime.InferenceSession(session.path.read_bytes(), options)
            return self._loaded[session.serial]


class Observations(msgspec.Struct):
    """What was observed so far, by device id and by serial. Times are POSIX seconds."""

    running: dict[str, int | None] = msgspec.field(default_factory=dict)  # device -> its active serial
    devices_ever_on: dict[int, set[str]] = msgspec.field(default_factory=dict)
    last_left_at: dict[int, float] = msgspec.field(default_factory=dict)  # serial -> when the last device left it
    changed_at: dict[str, float] = msgspec.field(default_factory=dict)  # device -> when its active serial changed last
    first_failure_at: dict[int, float] = msgspec.field(default_factory=dict)  # serial -> its first failed run anywhere
    problems: Counter[str] = msgspec.field(default_factory=Counter)

    def note_running(self, device: str, serial: int | None, *, at: float) -> None:
        """Write down which serial is active on a device."""
        before = self.running.get(device)
        if before == serial:
            return
        if before is not None:
            self.last_left_at[before] = at
        self.running[device] = serial
        self.changed_at[device] = at
        if serial is not None:
            self.devices_ever_on.setdefault(serial, set()).add(device)

    def devices_by_serial(self) -> dict[int | None, int]:
        """How many devices run each serial; None stands for no version."""
        return dict(Counter(self.running.values()))


class AgentFleet:
    """Agents that take turns in a few threads, from `start` to `stop`."""

    def __init__(self, agents: Sequence[Agent], app: App, *, use_every_s: float, seed: int) -> None:
        self._app = app
        self._agents = {agent.settings.device_id: agent for agent in agents}
        self._use_every_s = use_every_s
        self._chance = {name: random.Random(f"{seed}-{name}") for name in self._agents}  # noqa: S311 (a simulation, no secret)
        self._turns: list[tuple[float, str, bool]] = []  # (due, device, whether it is the app's turn)
        self._guard = threading.Condition()
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self.observed = Observations(running=dict.fromkeys(self._agents))

    def start(self, *, spread_s: float) -> None:
        """Start the threads. The first turns are spread over `spread_s` seconds."""
        now = time.time()
        for name, chance in self._chance.items():
            first = now + chance.uniform(0, spread_s)
            heapq.heappush(self._turns, (first, name, False))
            heapq.heappush(self._turns, (first + self._use_every_s, name, True))
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(_WORKERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all turns and close the agents."""
        with self._guard:
            self._stopped = True
            self._guard.notify_all()
        for thread in self._threads:
            thread.join()
        for agent in self._agents.values():
            agent.close()

    def _work(self) -> None:
        while True:
            with self._guard:
                while not self._stopped and (not self._turns or self._turns[0][0] > time.time()):
                    due = self._turns[0][0] - time.time() if self._turns else None
                    self._guard.wait(None if due is None else max(0.001, due))
                if self._stopped:
                    return
                _, name, uses = heapq.heappop(self._turns)
            again_s = (self._use if uses else self._cycle)(name)
            with self._guard:
                heapq.heappush(self._turns, (time.time() + again_s, name, uses))
                self._guard.notify()

    def _cycle(self, name: str) -> float:
        try:
            result = self._agents[name].cycle()
        except WhimbrelError as error:
            with self._guard:
                self.observed.problems[str(error)] += 1
            return 1.0
        with self._guard:
            for problem in result.problems:
                self.observed.problems[problem] += 1
            self.observed.note_running(name, result.models[self._app.model]["serial"], at=time.time())
        return max(0.05, result.next_s)

    def _use(self, name: str) -> float:
        chance = self._chance[name]
        try:
            serial, succeeded = self._app.use(self._agents[name], chance)
        except Unavailable:
            return self._use_every_s
        if not succeeded:
            with self._guard:
                self.observed.first_failure_at.setdefault(serial, time.time())
        return self._use_every_s * chance.uniform(0.8, 1.2)


def open_fleet(folder: Path, *, devices: int, open_one: Callable[[Path, str, dict[str, str]], Agent]) -> list[Agent]:
    """Open agents `device-0001` ... in folders of their own, in four hardware classes."""
    agents = []
    for number in range(1, devices + 1):
        name = f"device-{number:04d}"
        agents.append(open_one(folder / name, name, {"hardware": f"board-{'abcd'[number % 4]}"}))
    return agents
