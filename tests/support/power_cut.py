"""The power goes at every operation of a path: what is found afterwards, and whether the device goes on.

path = Path of a device from a start to an end; `cut_everywhere(path)` raises `Broken` for the first state in which a
promise does not hold. Needs no socket, no thread, no real file.
"""

import ast
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from support.repository import Repository, Server, onnx_model
from support.wire import Wire
from whimbrel import Agent, AgentOptions, durable, limits
from whimbrel.agent import app, settings
from whimbrel.agent.marks import harvest
from whimbrel.agent.places import Places
from whimbrel.device.journal import Journal, unseal
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model import documents
from whimbrel.sim.disk import ModelledDisk

SEED = int(os.environ.get("WHIMBREL_CRASH_SEED", "20260305"))
CONTENTS = {serial: onnx_model(factor=float(serial + 1), padding=300) for serial in (1, 2, 3)}
FOLDER = Path("/data/device")
MODEL = FOLDER / "models" / "detector"


class Broken(Exception):
    """A promise does not hold."""


def must(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


class WholeFiles:
    """A probe that passes what is whole; a folder passes when its one file is."""

    def probe(self, request: ProbeRequest) -> ProbeResult:
        place = Path(request.path)
        content = (place / "weights.bin").read_bytes() if place.is_dir() else place.read_bytes()
        return ProbeResult(passed=content in CONTENTS.values(), reason="it is not whole")


class World:
    """A server, and a device that is opened on any disk."""

    def __init__(self) -> None:
        self.repository = Repository()
        for serial, content in CONTENTS.items():
            self.repository.release("detector", serial, content)
        self.server = Server(self.repository)
        self.wire = Wire(self.server)
        self.now = self.repository.now.timestamp() + 10
        self.wanted = 0
        self.options: dict[str, Any] = {}  # of the agents, besides those below
        self.want(1)

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def want(self, serial: int, **changes: Any) -> None:
        self.wanted = serial
        self.repository.policy("detector", baseline=serial, **changes)

    def opened(self, disk: ModelledDisk) -> Agent:
        return Agent.open(
            FOLDER,
            AgentOptions(
                **{
                    "server": "https://models.example.com",
                    "root": self.repository.root_bytes,
                    "device_id": "dev-1",
                    "enrol_token": self.server.enrol_token,
                    "probes": WholeFiles(),
                    "pool": self.wire,
                    "clock": lambda: self.now,
                    "chance": random.Random(1),
                    "disk": disk,
                    "models": ["detector"],
                    **self.options,
                }
            ),
        )

    def cycle(self, agent: Agent) -> dict[str, Any]:
        self.now += 61
        return agent.cycle(self.now, force=True).models["detector"]


class Known(NamedTuple):
    """What the outside saw before the power went."""

    used: int | None = None  # the serial an app was given last
    inside: int | None = None  # the serial of a session that is open
    may_be: frozenset[int | None] = frozenset()  # what may be active afterwards, beside `used`
    sequence: int = 0  # of the newest policy that a cycle has taken
    batches: int = 0
    refused: tuple[str, ...] = ()
    root: int = 1
    told: frozenset[str] = frozenset()  # names of sessions that a finished cycle has counted and forgotten


class Device:
    """A device on one disk, whose surroundings remember what they saw."""

    def __init__(self, world: World, disk: ModelledDisk) -> None:
        self.world = world
        self.disk = disk
        self.known = Known()
        self.agent = world.opened(disk)

    def restart(self) -> None:
        self.disk.let_go()
        self.agent = self.world.opened(self.disk)

    def cycle(self) -> dict[str, Any]:
        self.know(may_be=self.known.may_be | {self.world.wanted})
        ended = self._sessions()
        found = self.world.cycle(self.agent)
        self.know(told=self.known.told | (ended - self._sessions()))
        self.know(sequence=found["sequence"] or 0, batches=len(self.world.server.batches))
        self.know(refused=tuple(found["refused"]))
        if found["state"] in {"committed", "idle"}:
            self.know(may_be=frozenset({found["serial"]}), used=found["serial"])
        return found

    def _sessions(self) -> frozenset[str]:
        return frozenset(name for folder in ("marks", "sessions") for name in self.disk.names(MODEL / folder))

    def know(self, **changes: Any) -> None:
        self.known = self.known._replace(**changes)

    def use(self, times: int = limits.TRIAL_HEALTHY_SESSIONS) -> None:
        for _ in range(times):
            with self.agent.session("detector") as model:
                self.know(used=model.serial, inside=model.serial)
                self.look("in a session")
                model.record(latency_ms=1.0)
                self.know(inside=None)

    def crash_in_a_session(self) -> None:
        """The app's process dies within a session."""
        session = self.agent.session("detector")
        session.__enter__()
        self.know(used=session.serial, inside=session.serial)
        self.look("after a crash")
        self.disk.let_go()

    def look(self, what: str) -> None:
        """A moment to cut the power at in which nothing is written."""
        if self.disk.before is not None:
            self.disk.before(what, FOLDER)

    def settle(self, serial: int) -> None:
        self.world.want(serial)
        for _ in range(4):
            found = self.cycle()
            if (found["state"], found["serial"]) == ("committed", serial):
                return
            self.use()
        raise Broken(f"it does not settle on {serial}: {found}")


class Way(NamedTuple):
    """`start` brings a device to where the cuts begin, `go` is what is cut. `end`: what it must come to afterwards."""

    name: str
    start: Callable[[Device], None]
    go: Callable[[Device], None]
    end: tuple[str, int | None] = ("committed", 2)
    or_end: tuple[str, int | None] | None = None
    refused: tuple[str, ...] = ()


class Found(NamedTuple):
    """What a run looked at."""

    operations: int
    states: int
    recovered: int


def cut_everywhere(way: Way, *, states: int, recoveries: int, leave_out: Iterable[str] = (), seed: int = SEED) -> Found:
    """Cut at every operation of `way`: at most `states` states for each, and `recoveries` of all go on to the end.

    Raises `Broken` with the seed, the operation and the state's number.
    """
    with World() as world:
        return _cut_everywhere(world, way, states=states, recoveries=recoveries, leave_out=leave_out, seed=seed)


def _cut_everywhere(
    world: World, way: Way, *, states: int, recoveries: int, leave_out: Iterable[str], seed: int
) -> Found:
    chance = random.Random(f"{seed} {way.name}")
    disk = ModelledDisk()
    disk.leave_out = frozenset(leave_out)
    device = Device(world, disk)
    way.start(device)
    moments: list[tuple[str, ModelledDisk, Known]] = []

    def before(what: str, path: Path) -> None:
        if what != "hold":
            moments.append((f"{what} {path.relative_to('/')}", disk.copy(), device.known))

    disk.before = before
    way.go(device)
    before("the end", FOLDER)
    disk.before = None
    seen: dict[str, tuple[str, ModelledDisk, Known]] = {}
    count = 0
    looked: set[tuple[str, Known]] = set()
    for number, (what, moment, known) in enumerate(moments):
        for state in moment.states(most=states, chance=chance):
            count += 1
            if (state.fingerprint(), known) in looked:
                continue
            looked.add((state.fingerprint(), known))
            where = f"{way.name}, operation {number} ({what}), state {count}, WHIMBREL_CRASH_SEED={seed}"
            try:
                boots(world, state, known)
            except (Broken, UntrustedInput, OSError, ValueError, StopIteration) as error:
                raise Broken(f"{where}: {error}") from error
            seen.setdefault(state.fingerprint(), (where, state, known))
    chosen = list(seen.values())
    if not recoveries:
        return Found(len(moments), count, 0)
    if len(chosen) > recoveries:
        chosen = [chosen[0], chosen[-1], *chance.sample(chosen[1:-1], recoveries - 2)]
    for where, state, known in chosen:
        try:
            goes_on(world, way, state, known)
        except (Broken, UntrustedInput, Unavailable, OSError) as error:
            raise Broken(f"{where}: {error}") from error
    return Found(len(moments), count, len(chosen))


def boots(world: World, state: ModelledDisk, known: Known) -> None:
    """An app that starts first, with no agent and no network; then what the agent must not have forgotten."""
    disk = state.copy()
    places = Places(MODEL, disk=disk)
    ended = harvest(places)
    again = sorted({each.name for each in ended} & known.told)
    must(not again, f"sessions {again} were counted, and will be again")
    crashed = [each.serial for each in ended if each.crashed]
    if known.inside is not None:
        must(known.inside in crashed, f"a session of {known.inside} was cut, and {crashed} are counted as crashed")
    serial = whole(disk)
    must(serial == known.used or serial in known.may_be, f"{serial} runs; an app had {known.used}, {known.may_be} may")
    kept = settings.kept(FOLDER, disk=disk)
    must(kept is not None and kept.device_id == "dev-1", "the device has forgotten its name")
    must(disk.read(FOLDER / "root.json") == world.repository.root_bytes, "the trust root is lost")
    if known.batches:
        must(disk.size(FOLDER / "credential.json") not in {0, None}, "the credential is lost")
    if known.refused:
        refused = {str(each.serial) for each in unseal(Journal, disk.read(MODEL / "journal") or b"", what="it").refused}
        must(refused >= set(known.refused), f"{known.refused} failed here, and {refused} is remembered")
    if known.root > 1:
        must(root_of(disk) == known.root, f"root {known.root} was taken, and {root_of(disk)} is remembered")
    content = disk.read(FOLDER / "trust" / "memory.json")
    if known.sequence:
        must(content is not None, "what was seen of the policies is forgotten")
        seen = documents.parse(dict[str, Any], content or b"", what="memory")["seen"]["detector"]["policy"]
        must(seen >= known.sequence, f"policy {known.sequence} was taken and {seen} is remembered")


def root_of(disk: ModelledDisk) -> int:
    folder = FOLDER / "trust" / "metadata"
    name = next(name for name in disk.names(folder) if name.startswith("root-"))
    version: int = json.loads(disk.read(folder / name) or b"")["signed"]["version"]
    return version


def whole(disk: ModelledDisk) -> int | None:
    """The serial that an app gets; its bytes are that serial's, always."""
    from whimbrel.agent.session import Session

    try:
        with Session("detector", Places(MODEL, disk=disk)) as model:
            place = model.path / "weights.bin" if disk.is_folder(model.path) else model.path
            must(disk.read(place) == CONTENTS[model.serial], f"what an app opens is not the file of {model.serial}")
            return model.serial
    except Unavailable:
        return None


def goes_on(world: World, way: Way, state: ModelledDisk, known: Known) -> None:
    """The agent starts again, and ends where it should, with nothing lost, nothing double and nothing left over."""
    disk = state.copy()
    server = world.server
    heard = server.batches[: known.batches]
    told, server.batches[:] = list(server.batches), heard
    announced = len(server.announced)
    found: dict[str, Any] = {}
    try:
        for _ in range(2):  # the second start finds everything in order
            device = Device(world, disk)
            for _ in range(6):
                found = device.cycle()
                serial = whole(disk)
                must(serial == found["serial"], f"the agent says {found['serial']}, an app gets {serial}")
                if serial is not None:
                    device.use()
            found = device.cycle()
            must(
                (found["state"], found["serial"]) in {way.end, way.or_end},
                f"it comes to {found['state']} {found['serial']}",
            )
            must(set(found["refused"]) <= set(way.refused), f"it refuses {found['refused']}")
            disk.let_go()
        left = [name for name in disk.files_below(FOLDER) if durable.is_temporary(Path(name).name)]
        must(not left, f"{left} are left over")
        must(not disk.names(FOLDER / "incoming"), f"{disk.names(FOLDER / 'incoming')} are left of downloads")
        counted: dict[tuple[str, int], Any] = {}
        for batch in server.batches:
            for window in batch["windows"]:
                before = counted.setdefault((batch["epoch"], window["first"]), window)
                must(before == window, "one number stands for two windows")
    finally:
        server.batches[:] = told
        del server.announced[announced:]


_KEEPS_NOTHING = {"try_to_write"}  # it asks a server's disk for room, and removes what it wrote


def sync_sites() -> Iterator[str]:
    """Every call of `sync` in what a device runs, as `ModelledDisk.leave_out` names it."""
    files = [Path(durable.__file__), *sorted(Path(app.__file__).parent.rglob("*.py"))]
    for file in files:
        for outer in ast.walk(ast.parse(file.read_text())):
            if not isinstance(outer, ast.FunctionDef) or outer.name in _KEEPS_NOTHING:
                continue
            for call in ast.walk(outer):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "sync":
                    yield f"{file.name}:{outer.name}:{call.lineno}"
