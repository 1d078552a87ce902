"""Worlds of one device and a pair of models, of which only the lead requires: is the pair ever mixed?

The agent is the real one on a modelled disk. From its seed a world draws files that the server lacks for a while, a
charger that is pulled out, sessions that stay open, processes and power that end, and policies that go on and back.
After every whole cycle an app that opens both must get what belongs together; when the faults stop, what is decided.
"""

import random
from collections.abc import Callable

import pytest

from support.repository import Repository, Server
from support.set_cut import FOLDER, PAIR, AllGood, content
from support.wire import Wire
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.places import Places, read_pointer
from whimbrel.agent.session import Session
from whimbrel.device import swap_group
from whimbrel.device.conditions import Situation
from whimbrel.device.slots import Pointer
from whimbrel.model.documents import digest_of
from whimbrel.model.release import Requirement
from whimbrel.policy.policy import Conditions
from whimbrel.sim.disk import ModelledDisk

SEEDS = range(12)
STEPS, SERIALS = 40, tuple(range(1, 9))


class World:
    def __init__(self, seed: int) -> None:
        self.seed, self.chance = seed, random.Random(seed)
        self.models = PAIR if self.chance.random() < 0.5 else PAIR[::-1]
        self.repository = Repository(PAIR)
        for serial in SERIALS:
            requires = (Requirement(model="decoder", serial=serial),) if serial % 2 == 0 else ()
            self.repository.release("encoder", serial, content("encoder", serial), requires=requires)
            self.repository.release("decoder", serial, content("decoder", serial))
        self.all_blobs = dict(self.repository.blobs)
        self.server = Server(self.repository)
        self.disk = ModelledDisk()
        self.now = self.repository.now.timestamp() + 10
        self.charging, self.wanted = True, 1
        self.sessions: list[Session] = []
        self.want(self.chance.choice(SERIALS[:2]))
        self.agent = self.opened()

    def opened(self) -> Agent:
        options = AgentOptions(
            server="https://models.example.com",
            root=self.repository.root_bytes,
            models=self.models,
            probes=AllGood(),
            pool=Wire(self.server),
            clock=lambda: self.now,
            chance=self.chance,
            disk=self.disk,
            device_id="dev-1",
            situation=lambda: Situation(charging=self.charging),
        )
        return Agent.open(FOLDER, options)

    def want(self, serial: int) -> None:
        self.wanted = serial
        asks = self.chance.choice([None, *PAIR])
        for name in PAIR:
            self.repository.policy(name, baseline=serial, conditions=Conditions(charging=name == asks))

    def step(self) -> None:
        acts: list[Callable[[], None]] = [
            self.go_on,
            self.lose,
            self.bring_back,
            self.plug,
            self.use,
            self.end,
            self.cut,
        ]
        for act in self.chance.sample(acts, 2):
            act()
        self.cycle()

    def cycle(self) -> None:
        self.now += 400
        self.agent.cycle(self.now, force=True)
        one, other = self.serials()
        is_tied = any(serial is not None and serial % 2 == 0 for serial in (one, other))
        assert one == other or not is_tied, (
            f"seed {self.seed}: encoder {one} beside decoder {other}, while {self.wanted} is wanted"
        )

    def serials(self) -> tuple[int | None, int | None]:
        """What apps open of the encoder and of the decoder."""
        one, other = (pointer.serial if pointer else None for pointer in self.pointers())
        return one, other

    def pointers(self) -> list[Pointer | None]:
        return [read_pointer(Places(FOLDER / "models" / name, disk=self.disk)) for name in PAIR]

    # --- acts ---

    def go_on(self) -> None:
        self.want(min(self.wanted + self.chance.choice([1, 1, 2]), SERIALS[-1]))

    def go_back(self) -> None:
        """By policy, to the pair before, where both have it in the other slot or neither: a recall never waits."""
        before = self.wanted - 1
        fallbacks = {pointer.fallback.serial if pointer and pointer.fallback else None for pointer in self.pointers()}
        if (
            before > 0
            and self.serials() == (self.wanted, self.wanted)
            and (fallbacks == {before} or before not in fallbacks)
        ):
            self.want(before)

    def lose(self) -> None:
        name, serial = self.chance.choice(PAIR), self.chance.choice(SERIALS)
        self.repository.blobs.pop(digest_of(content(name, serial)), None)

    def bring_back(self) -> None:
        self.repository.blobs.update(self.all_blobs)

    def plug(self) -> None:
        self.charging = not self.charging

    def use(self) -> None:
        for name in PAIR:
            places = Places(FOLDER / "models" / name, disk=self.disk)
            pointer = read_pointer(places)
            if pointer is None or pointer.active is None:
                continue
            for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
                with Session(name, places):
                    pass
            if self.chance.random() < 0.3:
                session = Session(name, places)
                session.__enter__()
                self.sessions.append(session)

    def end(self) -> None:
        for session in self.sessions:
            session.__exit__(None, None, None)
        self.sessions.clear()

    def cut(self) -> None:
        """The process ends and another begins."""
        self.end()
        self.agent.close()
        self.agent = self.opened()


def play(seed: int) -> None:
    world = World(seed)
    try:
        for _ in range(STEPS):
            world.step()
        world.bring_back()
        world.charging = True
        for _ in range(6):
            world.end()
            world.use()
            world.end()
            world.cut()
            world.cycle()
        pointer = read_pointer(Places(FOLDER / "models" / "encoder", disk=world.disk))
        assert pointer is not None
        assert pointer.serial == world.wanted, f"seed {seed}: nothing hinders it any more"
    finally:
        world.end()
        world.agent.close()
        world.server.close()


def play_all() -> None:
    for seed in SEEDS:
        play(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_a_pair_is_never_mixed_and_ends_where_the_policies_say(seed: int) -> None:
    play(seed)


@pytest.mark.long
def test_a_planted_defect_mixes_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect: a model asks for its own requirements alone."""
    monkeypatch.setattr(swap_group, "_tied", lambda name, models: iter(()))
    with pytest.raises(AssertionError, match="beside"):
        play_all()
