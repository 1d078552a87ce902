"""Two models that change together, on a modelled disk, and the power that goes after they went back together."""

import random
from collections.abc import Iterable
from pathlib import Path

from support.agents import AllGood
from support.power_cut import SEED, must
from support.repository import Repository, Server
from support.wire import Wire
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.places import Places
from whimbrel.agent.session import Session
from whimbrel.model.release import Requirement
from whimbrel.sim.disk import ModelledDisk

PAIR = "encoder", "decoder"
FOLDER = Path("/agent")


def content(model: str, serial: int) -> bytes:
    return f"{model} {serial}\n".encode() * 40


def pair(disk: ModelledDisk) -> tuple[int, ...]:
    """What an app gets of each, with no agent; its bytes are that serial's."""
    found = []
    for model in PAIR:
        with Session(model, Places(FOLDER / "models" / model, disk=disk)) as session:
            must(disk.read(session.path) == content(model, session.serial), f"{model} is not whole")
            found.append(session.serial)
    return tuple(found)


def back_together(leave_out: Iterable[str] = ()) -> int:
    """A set goes on, and back by policy; then the power goes. How many states were looked at; raises `Broken`."""
    repository = Repository(PAIR)
    for model, other in (PAIR, PAIR[::-1]):
        for serial in (1, 2):
            requires = (Requirement(model=other, serial=serial),)
            repository.release(model, serial, content(model, serial), requires=requires)
        repository.policy(model, baseline=1)
    disk = ModelledDisk()
    disk.leave_out = frozenset(leave_out)
    server = Server(repository)
    now = [repository.now.timestamp() + 10]
    try:
        agent = Agent.open(
            FOLDER,
            AgentOptions(
                server="https://models.example.com",
                root=repository.root_bytes,
                models=PAIR,
                probes=AllGood(),
                pool=Wire(server),
                clock=lambda: now[0],
                chance=random.Random(1),
                disk=disk,
                device_id="dev-1",
            ),
        )
        for serial in (1, 2, 1):
            for model in PAIR:
                repository.policy(model, baseline=serial)
            for _ in range(3):
                now[0] += 61
                agent.cycle(now[0], force=True)
                if serial == 1 or pair(disk) != (2, 2):  # a trial of 2 is not over when it is taken back
                    for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
                        pair(disk)
            must(pair(disk) == (serial, serial), f"the set is at {pair(disk)} and should be at {serial}")
    finally:
        server.close()
    disk.let_go()
    count = 0
    for state in disk.states(most=200, chance=random.Random(SEED)):
        count += 1
        must(pair(state.copy()) == (1, 1), f"state {count}: {pair(state.copy())} run, and both were taken back")
    return count
