"""A simulated device: it boots the product's agent on its folder, an app uses the model, and faults happen to it.

The agent is the product's own, and so are the sessions. Modelled: the disk under it, the network, the clock, the cage
of the probe (it reads from the version's bytes what a runtime would find), and the app.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import urllib3

from whimbrel import limits
from whimbrel.agent.app import Agent
from whimbrel.agent.marks import Closed
from whimbrel.agent.options import AgentOptions
from whimbrel.agent.places import Places, read_pointer
from whimbrel.agent.session import Session
from whimbrel.agent.shadow.order import read_order
from whimbrel.device.conditions import Situation
from whimbrel.device.journal import Journal, unseal
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.device.slots import Pointer
from whimbrel.errors import Unavailable, UntrustedInput, WhimbrelError
from whimbrel.health.shadow import ShadowSums
from whimbrel.health.sketch import key_of
from whimbrel.model.documents import encode
from whimbrel.sim.backend import ENROL_TOKEN, Backend
from whimbrel.sim.checkers import Checkers
from whimbrel.sim.disk import PowerCut
from whimbrel.sim.faults import Faults
from whimbrel.sim.network import HOST, Link
from whimbrel.sim.power import DeviceDisk
from whimbrel.sim.world import MODEL, REFRESH_S, ROUND_S, Timeline

CRASH_CHANCE = {"good": 0.003, "crashes": 0.7, "sometimes_crashes": 0.15, "drifts": 0.003}
FOLDER = Path("/agent")
_EARLIEST_S = 30.0  # between two cycles: what a real agent does every second while it waits is played less often
_WATCH_S = 150.0  # between two cycles of a device that waits for a session to end, or for a charger, and none comes
_BETWEEN_SESSIONS_S = 360.0
_SESSION_S = 60.0
_CALLS, _TAKES_MS = 3, 10.0  # of the model in a session
_JUMPS_S = (-400 * 86400.0, -7200.0, -600.0, 0.0, 900.0, 3 * 86400.0, 800 * 86400.0)


class Cage:
    """The `Prober` port: a version's bytes say whether it works."""

    def __init__(self, device: "Device") -> None:
        self._device = device

    def probe(self, request: ProbeRequest) -> ProbeResult:
        device = self._device
        if device.meets("probe unavailable", 0.3):
            raise Unavailable("no process can be started")
        if device.meets("power cut while probing", 0.3):
            device.disk.switch_off()
            raise PowerCut
        content = device.disk.read(Path(request.path)) or b""
        passed = not content.startswith(b"bad_probe\n")
        device.seen.probed(device.id, content, passed=passed)
        return ProbeResult(passed=passed, reason="" if passed else "its answers are not the golden ones", how="ran")


class Device:
    """One device, from its first boot."""

    def __init__(
        self,
        device_id: str,
        hardware: str,
        *,
        timeline: Timeline,
        backend: Backend,
        faults: Faults,
        seen: Checkers,
    ) -> None:
        self.id = device_id
        self.labels = {"hardware": hardware}
        self.seen = seen
        self.agent: Agent | None = None
        self._timeline = timeline
        self._backend = backend
        self._faults = faults
        self._chance: random.Random = timeline.chance(f"device/{device_id}")
        self.disk = DeviceDisk(timeline.chance(f"disk/{device_id}"), lambda: timeline.now)
        self.link = Link(device_id, timeline, backend, faults, seen)
        self._places = Places(FOLDER / "models" / MODEL, disk=self.disk)
        self._clock_off_s = 0.0
        self._charging = self._chance.random() < 0.5
        self._life = 0  # events of a life that is over do nothing
        self._awaited = 0  # the newest cycle that was asked for: earlier ones do not come any more
        self._watches = False
        self._whole_cycle_at = 0.0  # by its clock
        self._journal: bytes | None = None  # as it was seen last
        self._sessions: list[Session] = []

    # --- the clock ---

    def clock(self) -> float:
        """What the device takes for the time."""
        return self._timeline.now + self._clock_off_s + self.link.lag_s

    def monotonic(self) -> float:
        """Seconds that pass by themselves, whatever the clock says."""
        return self._timeline.now + self.link.lag_s

    # --- life ---

    def start(self, delay_s: float) -> None:
        """Boot after `delay_s`, and live."""
        self._later(delay_s, self._boot)
        for kind, event in self._suffering().items():
            self._sometimes(kind, event)
        self._timeline.after(self._chance.uniform(300, 5400), self._plug)

    def settle(self) -> None:
        """The faults have stopped: network and charger are there, the clock is right, the disk has room."""
        self._charging = True
        self._something_to_see(limits.WAIT_FOR_CONDITIONS_S)
        self.link.down = self.link.lacks_policy = self.disk.full = False
        self.disk.changes_left = None
        if self._clock_off_s:
            self._clock_off_s = 0.0
            self.seen.runs.jumped(self.id)

    def pointer(self) -> Pointer | None:
        """What is active, as anybody can read it; None where it is torn."""
        try:
            return read_pointer(self._places) or Pointer(model=MODEL)
        except UntrustedInput:
            return None

    def check_runs(self) -> bytes | None:
        """Compare the run history with what apps opened; its bytes."""
        content = self.disk.read(FOLDER / "runs.log")
        pointer = self.pointer()
        active = pointer.serial if pointer is not None else None
        self.seen.runs.log(self.id, content, active=active, until=self._whole_cycle_at)
        return content

    def close(self) -> None:
        """Let go of what is open."""
        self._drop_sessions()

    def meets(self, kind: str, chance: float) -> bool:
        """Whether a fault of this kind, in a world that has it, strikes now."""
        if self._faults.rate(kind) and self._chance.random() < chance:
            self._timeline.injected[kind] += 1
            return True
        return False

    def _plug(self) -> None:
        if self._faults.on:
            self._charging = not self._charging
            self._something_to_see(limits.WAIT_FOR_CONDITIONS_S)
            self._timeline.after(self._chance.uniform(300, 5400), self._plug)

    def _later(self, delay_s: float, event: Callable[[], None]) -> None:
        life = self._life
        self._timeline.after(delay_s, lambda: event() if life == self._life else None)

    def _boot(self) -> None:
        self._start_agent()
        self._later(self._chance.uniform(5, _BETWEEN_SESSIONS_S), self._use)

    def _start_agent(self) -> None:
        self.disk.begin()
        self.seen.restarted(self.id)
        try:
            self.agent = Agent.open(
                FOLDER,
                AgentOptions(
                    server=HOST,
                    root=self._backend.root,
                    models=[MODEL],
                    device_id=self.id,
                    labels=self.labels,
                    enrol_token=ENROL_TOKEN,
                    clock=self.clock,
                    monotonic=self.monotonic,
                    probes=Cage(self),
                    pool=cast("urllib3.PoolManager", self.link),
                    situation=lambda: Situation(charging=self._charging),
                    self_measures=False,
                    refresh_min_s=ROUND_S,  # between two rounds there is nothing new to see
                    chance=self._chance,
                    disk=self.disk,
                ),
            )
        except (WhimbrelError, PowerCut):
            self.agent = None
        self._watches = False
        self._turn_in(0.0)

    def _turn(self) -> None:
        self.link.lag_s = 0.0
        self.disk.pass_time()
        if self.agent is None:
            self._later(REFRESH_S, self._start_agent)
            return
        began = self.clock()
        try:
            result = self.agent.cycle()
        except PowerCut:
            if self._chance.random() < 0.7:
                self._power_off(self._chance.uniform(10, 600))
            else:
                self._kill()
            self._looked()
            return
        self._looked()
        if not any("cannot be used" in problem for problem in result.problems):
            self._whole_cycle_at = began
        status = result.models[MODEL]
        self._watches = status["state"] == "on trial" or "charger" in (status["waits_for"] or "")
        self.seen.runs.lagged(self.id, self.link.lag_s)
        wait_s = max(_WATCH_S if self._watches else _EARLIEST_S, min(result.next_s, REFRESH_S))
        self._turn_in(wait_s + self.link.lag_s)
        self.link.lag_s = 0.0

    def _turn_in(self, delay_s: float) -> None:
        self._awaited = number = self._awaited + 1
        self._later(delay_s, lambda: self._turn() if number == self._awaited else None)

    def _something_to_see(self, within_s: float) -> None:
        # An agent that waits looks every few seconds; it is played where there is something to see, and now and then.
        if self._watches:
            self._turn_in(self._chance.uniform(0, within_s))

    def _looked(self) -> None:
        pointer = self.pointer()
        self.seen.pointer(self.id, pointer)
        content = self.disk.read(self._places.journal)
        if content is None or content == self._journal:
            return
        self._journal = content
        with suppress(UntrustedInput):
            journal = unseal(Journal, content, what="the journal")
            self.seen.journal(self.id, journal, pointer, charging=self._charging)

    # --- the app ---

    def _use(self) -> None:
        self._later(self._chance.uniform(0.5, 1.5) * _BETWEEN_SESSIONS_S, self._use)
        if self.agent is None:
            return
        session = self.agent.session(MODEL)
        self.seen.session_begins(self.id)
        try:
            session.__enter__()
        except PowerCut:
            self._power_off(self._chance.uniform(10, 600))
            return
        except Unavailable:
            self.seen.without_version(self.id)
            return
        except UntrustedInput:
            self.seen.pointer(self.id, None)
            return
        slot = session.path.parent
        contents = {name: self.disk.read(slot / name) or b"" for name in self.disk.files_below(slot)}
        self.seen.session(self.id, session.serial, session.path.name, contents)
        self.seen.runs.opened(self.id, session.serial, clock=self.clock())
        self._sessions.append(session)
        quality = contents.get(session.path.name, b"").split(b"\n")[0].decode("latin-1")
        crashes = self._chance.random() < CRASH_CHANCE.get(quality, 0.0)
        self._later(self._chance.uniform(0.3, 1.7) * _SESSION_S, lambda: self._end(session, quality, crashes=crashes))

    def _end(self, session: Session, quality: str, *, crashes: bool) -> None:
        if session not in self._sessions:
            return
        self._sessions.remove(session)
        if crashes:
            _die(session)
            self._something_to_see(limits.TRIAL_LOOK_S)
            return
        for _ in range(_CALLS):
            session.record(latency_ms=_TAKES_MS, ok=quality != "drifts" or self._chance.random() < 0.6)
        try:
            self._shadow(session)
            session.__exit__(None, None, None)
        except PowerCut:
            self._power_off(self._chance.uniform(10, 600))
        else:
            self._something_to_see(limits.TRIAL_LOOK_S)

    def _shadow(self, session: Session) -> None:
        """What the app's worker would have seen of a version that is tried beside this one, and written down."""
        pointer = self.pointer()
        order = read_order(self._places, pointer.active if pointer else None)
        if order is None or order.beside != session.serial:
            return
        content = self.disk.read(Path(order.candidate_path)) or b""
        quality = content.split(b"\n")[0].decode("latin-1")
        crashed = int(self._chance.random() < CRASH_CHANCE.get(quality, 0.0))
        compared = _CALLS - crashed
        took = {key_of(_TAKES_MS): compared}
        tried = ShadowSums(
            serial=order.serial,
            inputs=_CALLS,
            compared=compared,
            agreed=compared * (0.6 if quality == "drifts" else 1.0),
            crashed=crashed,
            active_ms=compared * _TAKES_MS,
            candidate_ms=compared * _TAKES_MS,
            active=took,
            candidate=took,
        )
        self._timeline.occurred["session beside a shadow"] += 1
        name = self._places.summaries / f"1-shadow-{self._chance.randbytes(8).hex()}"
        with suppress(OSError):
            self.disk.replace(name, encode(Closed(serial=order.beside, session=False, shadow=tried)))

    def _drop_sessions(self) -> None:
        for session in self._sessions:
            _die(session)
        if self._sessions:
            self._something_to_see(limits.TRIAL_LOOK_S)
        self._sessions.clear()

    # --- what it suffers ---

    def _suffering(self) -> dict[str, Callable[[], None]]:
        return {
            "power cut": self._cut_soon,
            "process killed": self._kill,
            "off for long": lambda: self._power_off(self._chance.uniform(1800, 7200)),
            "clock jump": self._jump,
            "disk full": lambda: self._for_a_while(self.disk, "full"),
            "partition": lambda: self._for_a_while(self.link, "down"),
            "policy missing": lambda: self._for_a_while(self.link, "lacks_policy"),
            "app killed": self._drop_sessions,
        }

    def _sometimes(self, kind: str, event: Callable[[], None]) -> None:
        rate = self._faults.rate(kind)
        if not rate:
            return

        def strike() -> None:
            if self._faults.on:
                self._timeline.injected[kind] += 1
                event()
                self._sometimes(kind, event)

        self._timeline.after(self._chance.expovariate(rate / 3600), strike)

    def _cut_soon(self) -> None:
        # At a change of the disk, which is where it matters; most are in the cycles that do something.
        self.disk.changes_left = self._chance.choice([0, 1, 2, 3, 5, 8, 13, 21])

    def _kill(self) -> None:
        # The kernel keeps what was written: only the process is gone.
        self.agent = None
        self._life += 1
        self._drop_sessions()
        self._later(self._chance.uniform(1, 60), self._start_agent)
        self._later(self._chance.uniform(60, _BETWEEN_SESSIONS_S), self._use)

    def _power_off(self, off_s: float) -> None:
        self.agent = None
        self._life += 1
        self._drop_sessions()
        self.disk.lose_power()
        self._later(off_s, self._boot)

    def _jump(self) -> None:
        self._clock_off_s = self._chance.choice(_JUMPS_S)
        self.seen.misled(self.id)
        self.seen.runs.jumped(self.id)

    def _for_a_while(self, what: Any, name: str) -> None:
        setattr(what, name, True)
        self._timeline.after(self._chance.uniform(60, 3600), lambda: setattr(what, name, False))


def _die(session: Session) -> None:
    """As when the app's process dies: the kernel lets the mark's lock go, and nothing else is written."""
    hold, session._hold, session._is_open = session._hold, None, False
    if hold is not None:
        hold.release()
