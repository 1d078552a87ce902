"""Does the product keep its promises in this world? One seed: a safety phase with faults, then every device converges.

1. The faults, the versions, what people do and all chance come from the seed: the same seed is the same world.
2. When the faults stop, so do people; rollouts go on to their end or wait, and devices follow.
3. A world that breaks a promise says which, what was injected, and how to play it again.
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

from whimbrel.errors import WhimbrelError
from whimbrel.flows.experiments.advance import PersonAct
from whimbrel.flows.rollouts.move import PersonMove
from whimbrel.sim.backend import HARDWARE, Backend
from whimbrel.sim.checkers import Checkers, Violation
from whimbrel.sim.device import Device
from whimbrel.sim.faults import Faults
from whimbrel.sim.shared_verification import shared_verification
from whimbrel.sim.world import T0, Timeline, seeded

SAFETY_S = 4500.0
QUIET_S = 4 * 3600.0  # the bound within which all must have converged
_LOOK_S = 300.0  # how often it is asked whether they have
_ROUND_S = 180.0
_QUALITIES = ("good", "good", "good", "bad_probe", "crashes", "crashes", "sometimes_crashes", "drifts")


class Outcome(msgspec.Struct, frozen=True):
    """What became of a world. `trace`: a digest of its end; the same for the same seed.

    `occurred`: what a world may have and need not: updates by each way, trials in the shadow, arms of experiments.
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
        """The command that plays it again."""
        return f"whimbrel simulate --seed {self.seed} --devices {self.devices}"


class Simulation:
    """One world."""

    def __init__(self, seed: int, *, devices: int) -> None:
        self.timeline = Timeline(seed)
        self.seen = Checkers(self.timeline)
        self.backend = Backend(self.timeline)
        self.faults = Faults.drawn(self.timeline.chance("faults"))
        self._chance: random.Random = self.timeline.chance("world")
        self._people: random.Random = self.timeline.chance("people")
        self._asks: random.Random = self.timeline.chance("comparisons")
        self.compares = self._asks.random() < 0.4
        self.devices = [
            Device(
                f"device-{number:04d}",
                HARDWARE[number % len(HARDWARE)],
                timeline=self.timeline,
                backend=self.backend,
                faults=self.faults,
                seen=self.seen,
            )
            for number in range(1, devices + 1)
        ]

    def run(self) -> None:
        """Both phases."""
        policy, _ = self.backend.documents()
        self.seen.salt = policy.layers[0].salt
        self._look()
        for device in self.devices:
            device.start(self._chance.uniform(0, 600))
        self.timeline.after(0, self._round)
        self.timeline.after(self._people.uniform(300, 1200), self._person)
        self._suffers("server away", self._go_away)
        self._suffers("round broken off", lambda: setattr(self.backend.edge, "fails", True))
        self._suffers("messages taken twice", lambda: setattr(self.backend.inbox, "forgets_done", True))
        self._suffers("server restarted", self.backend.restart)
        if self.backend.patches:
            self._suffers("patch damaged", functools.partial(self.backend.spoil_a_patch, lost=False))
            self._suffers("patch lost", functools.partial(self.backend.spoil_a_patch, lost=True))
        self.timeline.run_until(T0 + SAFETY_S)
        self._calm()
        while self.timeline.now < T0 + SAFETY_S + QUIET_S and not self._at_rest():
            self.timeline.run_until(self.timeline.now + _LOOK_S)
        policy, line = self.backend.documents()
        for device in self.devices:
            if wrong := self.seen.unlike(device.id, device.labels, policy, line):
                self.seen.violated("converged", wrong)

    def _at_rest(self) -> bool:
        live = self.backend.live()
        if live is not None and live.state.value in {"advancing", "running", "soaking"}:
            return False
        policy, line = self.backend.documents()
        return not any(self.seen.unlike(each.id, each.labels, policy, line) for each in self.devices)

    def close(self) -> None:
        """Let go."""
        for device in self.devices:
            device.close()
        self.backend.close()

    def trace(self) -> str:
        """A digest of how the world ended."""
        parts = [f"{d.id} {d.pointer()}" for d in self.devices]
        parts += [f"{r.id} {r.state} {r.stage} {r.shares} {r.ended_at}" for r in self.backend.rollouts()]
        parts += [f"{sorted(self.timeline.injected.items())}", f"{sorted(self.timeline.occurred.items())}"]
        parts.append(f"{self.seen.violations}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    # --- the server's time ---

    def _round(self) -> None:
        self.timeline.after(_ROUND_S, self._round)
        if not self.backend.up:
            return
        self.seen.before_round(self.backend.rollouts())
        broken = False
        try:
            self.backend.round()
        except WhimbrelError:
            broken = True
        self.backend.inbox.forgets_done = self.backend.edge.fails = False
        self._look(tallies=not broken)

    def _look(self, *, tallies: bool = True) -> None:
        rollouts = self.backend.rollouts()
        self.seen.rollouts(rollouts)
        self.seen.policy(*self.backend.documents())
        self.seen.releases = {serial: each.release for serial, each in self.backend.published.items()}
        self.seen.leads_to = self.backend.leads_to
        for rollout in rollouts if tallies else ():
            if rollout.live:
                self.seen.tallied(rollout.id, self.backend.cells(rollout.id))

    def _suffers(self, kind: str, event: Callable[[], None]) -> None:
        rate = self.faults.rate(kind)
        if not rate:
            return

        def strike() -> None:
            if self.faults.on:
                self.timeline.injected[kind] += 1
                event()
                self._suffers(kind, event)

        self.timeline.after(self._chance.expovariate(rate / 3600), strike)

    def _go_away(self) -> None:
        self.backend.up = False
        self.timeline.after(self._chance.uniform(60, 1500), lambda: setattr(self.backend, "up", True))

    def _calm(self) -> None:
        self.faults.on = False
        self.backend.up, self.backend.edge.fails, self.backend.inbox.forgets_done = True, False, False
        live = self.backend.live()
        if live is not None and live.state.value == "paused":
            self.seen.moved_by_person(live.id)
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
            if self._asks.random() < 0.3:
                acts: tuple[PersonAct, ...] = ("stop", "keep", "ship")
                self.backend.conclude(experiment.id, self._asks.choice(acts))
        elif live is None:
            serial = self.backend.publish(chance.choice(_QUALITIES))
            if self.compares and self._asks.random() < 0.5:
                self.backend.compare(serial)
            else:
                self.backend.start(serial)
        elif chance.random() < 0.25:
            paused = live.state.value == "paused"
            moves: tuple[PersonMove, ...] = ("resume", "abort") if paused else ("pause", "abort", "rollback")
            move = chance.choice(moves)
            self.seen.moved_by_person(live.id)
            self.backend.move(live.id, move)
        elif chance.random() < 0.15:
            self._raise_floor()
        self.seen.releases = {serial: each.release for serial, each in self.backend.published.items()}

    def _raise_floor(self) -> None:
        policy, line = self.backend.documents()
        serials = sorted(self.backend.published)
        if self._people.random() < 0.5 and policy.baseline is not None:
            self.backend.set_line(floor=max(line.minimum_serial, policy.baseline), revoked=line.revoked)
        else:
            revoked = {*line.revoked, self._people.choice(serials)}
            self.backend.set_line(floor=line.minimum_serial, revoked=tuple(sorted(revoked)))


def simulate(seed: int, *, devices: int, prepare: Callable[[Simulation], None] | None = None) -> Outcome:
    """Play the world of `seed`. `prepare` may change it before it begins: that is how tests plant defects."""
    begun = time.perf_counter()
    with seeded(Timeline(seed).chance("secrets")), shared_verification():
        world = Simulation(seed, devices=devices)
        try:
            if prepare is not None:
                prepare(world)
            try:
                world.run()
            except Exception as error:  # noqa: BLE001 (whatever the product raises, the seed must be said)
                world.seen.violated("unbroken", _said_of(error))
            trace = world.trace()
            states = Counter(rollout.state.value for rollout in world.backend.rollouts())
        finally:
            world.close()
    return Outcome(
        seed=seed,
        devices=devices,
        injected=dict(sorted(world.timeline.injected.items())),
        violations=tuple(world.seen.violations),
        rollouts=dict(sorted(states.items())),
        occurred=dict(sorted(world.timeline.occurred.items())),
        trace=trace,
        seconds=time.perf_counter() - begun,
    )


def simulate_many(seeds: range, *, devices: int, jobs: int) -> Iterator[Outcome]:
    """Worlds of many seeds, in order; `jobs` are played at once, each from its beginning to its end in one process."""
    play = functools.partial(simulate, devices=devices)
    if jobs <= 1 or len(seeds) <= 1:
        yield from map(play, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(seeds)), _begin_process) as pool:
        yield from pool.imap(play, seeds)


def _begin_process() -> None:
    # What a world makes is mostly alive until its end: looking for garbage every 700 objects finds none.
    gc.set_threshold(50_000, 20, 50)
    gc.freeze()


def _said_of(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno} ({where.name}): {error}"
