"""Play the world of one seed: first a phase with faults, and then one in which every device must converge.

1. The faults, the versions, the acts of people and all chance come from the seed: the same seed is the same world.
2. When the faults stop, people stop too. Rollouts go on to their end or wait, and devices follow.
3. A world that breaks a promise reports the promise, the injected faults, and the command that plays it again.

Called by `whimbrel simulate` and by tests.
"""

import functools
import gc
import hashlib
import multiprocessing
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.errors import WhimbrelError
from whimbrel.flows.experiments.advance import PersonAct
from whimbrel.flows.rollouts.move import PersonMove
from whimbrel.sim.backend import HARDWARE, Backend
from whimbrel.sim.checkers import Checkers, Violation
from whimbrel.sim.device import Device
from whimbrel.sim.faults import Faults
from whimbrel.sim.shared_verification import shared_verification
from whimbrel.sim.world import NAMESPACE, ROUND_S, T0, Timeline, seeded
from whimbrel.stores.transaction import transaction

SAFETY_S = 4500.0
QUIET_S = 4 * 3600.0  # within this time every device must converge
_LOOK_S = 300.0  # between two checks whether they have
_QUALITIES = ("good", "good", "good", "bad_probe", "crashes", "crashes", "sometimes_crashes", "drifts")


class WorldResult(msgspec.Struct, frozen=True):
    """The result of a world. `trace`: a digest of its end, which is the same for the same seed.

    `occurred`: counts of what happens in some worlds: updates by each way, trials in the shadow, arms of experiments.
    """

    seed: int
    devices: int
    injected: dict[str, int]
    violations: tuple[Violation, ...]
    rollouts: dict[str, int]
    occurred: dict[str, int]
    trace: str
    seconds: float

    @property
    def replay(self) -> str:
        """The command that plays this world again."""
        return f"whimbrel simulate --seed {self.seed} --devices {self.devices}"


class Simulation:
    """One world."""

    def __init__(self, seed: int, *, devices: int) -> None:
        self.timeline = Timeline(seed)
        self.checkers = Checkers(self.timeline)
        self.backend = Backend(self.timeline)
        self.faults = Faults.drawn(self.timeline.chance("faults"))
        self._chance: random.Random = self.timeline.chance("world")
        self._people: random.Random = self.timeline.chance("people")
        self._comparisons: random.Random = self.timeline.chance("comparisons")
        self.compares = self._comparisons.random() < 0.4
        self.devices = [
            Device(
                f"device-{number:04d}",
                HARDWARE[number % len(HARDWARE)],
                timeline=self.timeline,
                backend=self.backend,
                faults=self.faults,
                seen=self.checkers,
            )
            for number in range(1, devices + 1)
        ]

    def run(self) -> None:
        """Play both phases: with faults, and after them."""
        policy, _ = self.backend.documents()
        self.checkers.salt = policy.layers[0].salt
        self._check_server()
        for device in self.devices:
            device.start(self._chance.uniform(0, 600))
        self.timeline.after(0, self._round)
        self.timeline.after(self._people.uniform(300, 1200), self._person)
        self._schedule_fault("server away", self._take_server_away)
        self._schedule_fault("round broken off", lambda: setattr(self.backend.edge, "fails", True))
        self._schedule_fault("messages taken twice", lambda: setattr(self.backend.inbox, "forgets_done", True))
        self._schedule_fault("server restarted", self.backend.restart)
        if self.backend.patches:
            self._schedule_fault("patch damaged", functools.partial(self.backend.spoil_a_patch, lost=False))
            self._schedule_fault("patch lost", functools.partial(self.backend.spoil_a_patch, lost=True))
        self.timeline.run_until(T0 + SAFETY_S)
        self._stop_faults()
        while self.timeline.now < T0 + SAFETY_S + QUIET_S and not self._has_converged():
            self.timeline.run_until(self.timeline.now + _LOOK_S)
        policy, line = self.backend.documents()
        for device in self.devices:
            if wrong := self.checkers.difference(device.id, device.labels, policy, line):
                self.checkers.violated("converged", wrong)
            self.checkers.runs.kept(device.id, device.check_runs(), self._kept_runs(device.id))

    def _has_converged(self) -> bool:
        live = self.backend.live()
        if live is not None and live.state.value in {"advancing", "running", "soaking"}:
            return False
        policy, line = self.backend.documents()
        return not any(self.checkers.difference(each.id, each.labels, policy, line) for each in self.devices)

    def _kept_runs(self, device: str) -> dict[int, tuple[str, list[str]]]:
        with transaction(self.backend.database, NAMESPACE) as stores:
            rows = stores.run_histories.rows(device, first=1, last=limits.SEQUENCE_MAX)
            branches = stores.run_histories.branches(device)
        texts = {each.branch: [row.entry for row in rows if row.branch == each.branch] for each in branches}
        return {each.branch: (each.origin, texts[each.branch]) for each in branches}

    def close(self) -> None:
        """Release what the devices and the server hold."""
        for device in self.devices:
            device.close()
        self.backend.close()

    def trace(self) -> str:
        """A digest of how the world ended."""
        parts = [f"{d.id} {d.pointer()}" for d in self.devices]
        parts += [f"{r.id} {r.state} {r.stage} {r.shares} {r.ended_at}" for r in self.backend.rollouts()]
        parts += [f"{sorted(self.timeline.injected.items())}", f"{sorted(self.timeline.occurred.items())}"]
        parts.append(f"{self.checkers.violations}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    # --- the server's time ---

    def _round(self) -> None:
        self.timeline.after(ROUND_S, self._round)
        if not self.backend.up:
            return
        self.checkers.before_round(self.backend.rollouts())
        broken = False
        try:
            self.backend.round()
        except WhimbrelError:
            broken = True
        self.backend.inbox.forgets_done = self.backend.edge.fails = False
        self._check_server(tallies=not broken)

    def _check_server(self, *, tallies: bool = True) -> None:
        rollouts = self.backend.rollouts()
        self.checkers.rollouts(rollouts)
        self.checkers.policy(*self.backend.documents())
        self.checkers.releases = {serial: each.release for serial, each in self.backend.published.items()}
        self.checkers.leads_to = self.backend.leads_to
        for rollout in rollouts if tallies else ():
            if rollout.live:
                self.checkers.tallied(rollout.id, self.backend.cells(rollout.id))

    def _schedule_fault(self, kind: str, event: Callable[[], None]) -> None:
        rate = self.faults.rate(kind)
        if not rate:
            return

        def strike() -> None:
            if self.faults.on:
                self.timeline.injected[kind] += 1
                event()
                self._schedule_fault(kind, event)

        self.timeline.after(self._chance.expovariate(rate / 3600), strike)

    def _take_server_away(self) -> None:
        self.backend.up = False
        self.timeline.after(self._chance.uniform(60, 1500), lambda: setattr(self.backend, "up", True))

    def _stop_faults(self) -> None:
        self.faults.on = False
        self.backend.up, self.backend.edge.fails, self.backend.inbox.forgets_done = True, False, False
        live = self.backend.live()
        if live is not None and live.state.value == "paused":
            self.checkers.moved_by_person(live.id)
            self.backend.move(live.id, "resume")
        for device in self.devices:
            device.settle()

    # --- people ---

    def _person(self) -> None:
        if not self.faults.on:
            return
        self.timeline.after(self._people.uniform(300, 1200), self._person)
        live, chance = self.backend.live(), self._people
        experiment = self.backend.experiment() if self.compares else None
        if experiment is not None:
            if self._comparisons.random() < 0.3:
                acts: tuple[PersonAct, ...] = ("stop", "keep", "ship")
                self.backend.conclude(experiment.id, self._comparisons.choice(acts))
        elif live is None:
            serial = self.backend.publish(chance.choice(_QUALITIES))
            if self.compares and self._comparisons.random() < 0.5:
                self.backend.compare(serial)
            else:
                self.backend.start(serial)
        elif chance.random() < 0.25:
            paused = live.state.value == "paused"
            moves: tuple[PersonMove, ...] = ("resume", "abort") if paused else ("pause", "abort", "rollback")
            move = chance.choice(moves)
            self.checkers.moved_by_person(live.id)
            self.backend.move(live.id, move)
        elif chance.random() < 0.15:
            self._raise_floor()
        self.checkers.releases = {serial: each.release for serial, each in self.backend.published.items()}

    def _raise_floor(self) -> None:
        policy, line = self.backend.documents()
        serials = sorted(self.backend.published)
        if self._people.random() < 0.5 and policy.baseline is not None:
            self.backend.set_line(floor=max(line.minimum_serial, policy.baseline), revoked=line.revoked)
        else:
            revoked = {*line.revoked, self._people.choice(serials)}
            self.backend.set_line(floor=line.minimum_serial, revoked=tuple(sorted(revoked)))


def simulate(seed: int, *, devices: int, prepare: Callable[[Simulation], None] | None = None) -> WorldResult:
    """Play the world of `seed`. `prepare` may change the world before it begins, as tests do that plant defects."""
    began = time.perf_counter()
    with seeded(Timeline(seed).chance("secrets")), shared_verification():
        world = Simulation(seed, devices=devices)
        try:
            if prepare is not None:
                prepare(world)
            try:
                world.run()
            except Exception as error:  # noqa: BLE001 (whatever the product raises, the seed must be reported)
                world.checkers.violated("unbroken", _describe(error))
            trace = world.trace()
            states = Counter(rollout.state.value for rollout in world.backend.rollouts())
        finally:
            world.close()
    return WorldResult(
        seed=seed,
        devices=devices,
        injected=dict(sorted(world.timeline.injected.items())),
        violations=tuple(world.checkers.violations),
        rollouts=dict(sorted(states.items())),
        occurred=dict(sorted(world.timeline.occurred.items())),
        trace=trace,
        seconds=time.perf_counter() - began,
    )


def simulate_many(seeds: range, *, devices: int, jobs: int) -> Iterator[WorldResult]:
    """Play the worlds of many seeds; the results come in order. `jobs` worlds run at once, each in one process."""
    play = functools.partial(simulate, devices=devices)
    if jobs <= 1 or len(seeds) <= 1:
        yield from map(play, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(seeds)), _begin_process) as pool:
        yield from pool.imap(play, seeds)


def _begin_process() -> None:
    # Most objects of a world live until its end, so a collection every 700 objects would find nothing.
    gc.set_threshold(50_000, 20, 50)
    gc.freeze()


def _describe(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno} ({where.name}): {error}"
