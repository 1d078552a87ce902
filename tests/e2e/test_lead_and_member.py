"""A set in which only the lead requires: the member never runs beside the lead's version before, not for a moment.

Each test looks at what apps would open after every write of the agent, and not only after its cycles.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.repository import Repository, Server, onnx_model
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.places import Places, read_pointer
from whimbrel.device import swap_group
from whimbrel.device.conditions import Situation
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.model.documents import digest_of
from whimbrel.model.release import Requirement
from whimbrel.model.selector import Selector
from whimbrel.policy.policy import Conditions, Quarantine, SetLead

ORDERS = [("encoder", "decoder"), ("decoder", "encoder")]
Pair = tuple[int | None, int | None]


def content(model: str, serial: int) -> bytes:
    return onnx_model(factor=float(serial), padding=1 if model == "encoder" else 2)


class Ended(BaseException):
    """The process is gone."""


class Watching(RealDisk):
    """A disk that notes what apps open, encoder and decoder, whenever a pointer or the record of a set was changed."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.pairs: list[Pair] = []
        self.left: int | None = None  # so many changes, and the process ends

    def _count(self, path: Path) -> None:
        if self.left is not None and path.name in {"pointer", "journal", ".set"}:
            self.left -= 1
            if self.left < 0:
                raise Ended

    def write(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        self._count(path)
        super().write(path, content, mode=mode)
        self.look(path)

    def remove(self, path: Path) -> None:
        self._count(path)
        super().remove(path)
        self.look(path)

    def look(self, path: Path) -> None:
        if self.folder is None or path.name not in {"pointer", ".set"}:
            return
        now = self.now()
        if not self.pairs or self.pairs[-1] != now:
            self.pairs.append(now)

    def now(self) -> Pair:
        assert self.folder is not None
        there = [read_pointer(Places(self.folder / "models" / name, disk=RealDisk())) for name in ORDERS[0]]
        return there[0].serial if there[0] else None, there[1].serial if there[1] else None


class Probes:
    def __init__(self) -> None:
        self.bad: set[bytes] = set()

    def probe(self, request: ProbeRequest) -> ProbeResult:
        return ProbeResult(passed=Path(request.path).read_bytes() not in self.bad, reason="bad", latency_ms=1.0)


class Device:
    """One device that follows both, and its server. Serial 2 of the encoder requires serial 2 of the decoder."""

    def __init__(self, server: Server, folder: Path, models: tuple[str, ...]) -> None:
        self.server, self.repository = server, server.repository
        self.disk, self.probes, self.charging = Watching(), Probes(), True
        self.folder = self.disk.folder = folder
        self.models = models
        self.told: list[Pair] = []
        self.ahead_s = 0.0
        self.agent = self.opened()

    def opened(self) -> Agent:
        return Agent.open(
            self.folder,
            AgentOptions(
                server=self.server.url,
                root=self.repository.root_bytes,
                models=self.models,
                probes=self.probes,
                disk=self.disk,
                durable_sessions=False,
                clock=lambda: time.time() + self.ahead_s,
                situation=lambda: Situation(charging=self.charging),
                on_change=lambda change: self.told.append(self.disk.now()),
            ),
        )

    def cycle(self, times: int = 1) -> dict[str, Any]:
        for _ in range(times):
            result = self.agent.cycle(force=True)
            self.disk.look(Path(".set"))
        self.next_s = result.next_s
        return result.models

    def use(self) -> None:
        """Commit what is on trial."""
        for name in self.models:
            for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
                with self.agent.session(name):
                    pass
        self.cycle()

    def settle(self) -> None:
        for _ in range(3):
            self.cycle()
            self.use()

    def want(self, serial: int) -> None:
        for name in ("encoder", "decoder"):
            self.repository.policy(name, baseline=serial)

    def want_the_set(self) -> None:
        """Serial 2 of both is the baseline, and came in a set that the encoder led."""
        lead = SetLead(serial=2, model="encoder", lead_serial=2)
        self.repository.policy("encoder", baseline=2, known_good=(2, 1))
        self.repository.policy("decoder", baseline=2, known_good=(2, 1), set_leads=(lead,))

    def lose(self, model: str, serial: int) -> Callable[[], None]:
        """The server has this artifact no more; returns what brings it back."""
        digest = digest_of(content(model, serial))
        kept = self.repository.blobs.pop(digest)
        return lambda: self.repository.blobs.__setitem__(digest, kept)


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository(ORDERS[0])
    for serial in (1, 2):
        requires = (Requirement(model="decoder", serial=serial),) if serial == 2 else ()
        repository.release("encoder", serial, content("encoder", serial), requires=requires)
        repository.release("decoder", serial, content("decoder", serial))
    for name in ORDERS[0]:
        repository.policy(name, baseline=1)
    with Server(repository) as running:
        yield running


@pytest.fixture(params=ORDERS, ids="-".join)
def device(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Device]:
    made = Device(server, tmp_path / "device", request.param)
    yield made
    made.agent.close()


def test_a_pair_is_never_mixed_on_its_way_there(device: Device) -> None:
    """Every device of a canary ran the old encoder and the new decoder for a cycle: the decoder requires nothing."""
    device.settle()
    device.disk.pairs.clear()
    device.want(2)
    device.cycle(2)
    assert device.disk.pairs in ([(1, 1), (2, 2)], [(2, 2)])


def test_a_lead_whose_file_is_missing_keeps_its_member_where_it_is(device: Device) -> None:
    """The new decoder ran, and was committed, beside the old encoder as long as the server lacked the new encoder."""
    device.settle()
    device.disk.pairs.clear()
    bring_back = device.lose("encoder", 2)
    device.want(2)
    for _ in range(3):
        models = device.cycle()
        assert device.disk.now() == (1, 1)
    assert models["decoder"]["state"] == "ready"
    assert "encoder to be ready at serial 2: both change together" in models["decoder"]["waits_for"]
    device.agent.close()
    device.agent = device.opened()  # and after a restart
    device.cycle(2)
    assert device.disk.now() == (1, 1)
    bring_back()
    device.agent.close()
    device.agent = device.opened()  # its back-off begins anew
    device.cycle(2)
    assert device.disk.now() == (2, 2)
    assert set(device.disk.pairs) <= {(1, 1), (2, 2)}


def test_a_fresh_device_takes_both_or_none(device: Device) -> None:
    bring_back = device.lose("encoder", 2)
    device.want(2)
    device.cycle(3)
    assert set(device.disk.pairs) <= {(None, None)}
    bring_back()
    device.agent.close()
    device.agent = device.opened()
    device.cycle(2)
    assert device.disk.pairs[-1] == (2, 2)
    assert set(device.disk.pairs) <= {(None, None), (2, 2)}


def test_a_member_waits_for_the_charger_of_its_lead_and_says_so(device: Device) -> None:
    device.settle()
    device.charging = False
    device.repository.policy("encoder", baseline=2, conditions=Conditions(charging=True))
    device.repository.policy("decoder", baseline=2)
    models = device.cycle(3)
    assert device.disk.now() == (1, 1)
    assert models["decoder"]["state"] == "ready"
    assert "charger" in models["decoder"]["waits_for"]
    device.charging = True
    device.cycle(2)
    assert device.disk.now() == (2, 2)


def test_a_lead_that_fails_its_probe_holds_its_member_no_longer(device: Device) -> None:
    """Both came by policies of their own, not in a set: the decoder requires nothing, and is the baseline."""
    device.settle()
    device.probes.bad.add(content("encoder", 2))
    bring_back = device.lose("encoder", 2)
    device.want(2)
    device.cycle()
    assert device.disk.now() == (1, 1)
    bring_back()
    device.agent.close()
    device.agent = device.opened()
    models = device.cycle()
    assert models["encoder"]["state"] == "quarantined"
    assert device.disk.now() == (1, 2)


def test_a_set_whose_lead_fails_its_probe_goes_nowhere(device: Device) -> None:
    """The decoder, which requires nothing, ran beside the old encoder on every device on which the new one failed."""
    device.settle()
    device.disk.pairs.clear()
    device.probes.bad.add(content("encoder", 2))
    device.want_the_set()
    models = device.cycle(4)
    assert models["encoder"]["state"] == "quarantined"
    assert set(device.disk.pairs) <= {(1, 1)}
    assert device.disk.now() == (1, 1)


def test_a_member_leaves_with_the_lead_that_fails_in_use(device: Device) -> None:
    device.settle()
    device.want_the_set()
    device.cycle(2)
    assert device.disk.now() == (2, 2)
    device.use()
    device.disk.pairs.clear()
    device.agent.go_back("encoder", "it hears nothing")
    device.cycle(3)
    assert device.disk.now() == (1, 1)
    assert device.disk.pairs[-1] == (1, 1)


def test_a_lead_that_is_quarantined_or_unfit_holds_its_member_no_longer(device: Device) -> None:
    device.settle()
    device.lose("encoder", 2)
    device.want(2)
    device.cycle()
    assert device.disk.now() == (1, 1)
    quarantine = (Quarantine(serial=2, selector=Selector()),)
    device.repository.policy("encoder", baseline=1, quarantine=quarantine)
    device.cycle(2)
    assert device.disk.now() == (1, 2)


def test_a_lead_that_this_device_does_not_follow_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    device = Device(server, tmp_path / "device", ("decoder",))
    device.settle()
    device.want(2)
    device.cycle(2)
    assert device.disk.now() == (None, 2)
    device.agent.close()


def test_a_member_that_its_own_policy_alone_wants_goes_alone(device: Device) -> None:
    device.settle()
    device.lose("encoder", 2)
    device.repository.policy("decoder", baseline=2)
    device.cycle(2)
    assert device.disk.now() == (1, 2)


def test_a_member_whose_version_is_revoked_waits_for_nobody(device: Device) -> None:
    """What is taken back is off a device that hears of it; a lead that cannot come does not keep it there."""
    device.settle()
    device.lose("encoder", 2)
    device.want(2)
    device.cycle(2)
    assert device.disk.now() == (1, 1)
    device.repository.line("decoder", revoked=(1,))
    device.cycle(2)
    assert device.disk.now() == (1, 2)


def test_a_pair_goes_back_at_one_moment_where_the_policies_say_so(device: Device) -> None:
    device.settle()
    device.want(2)
    device.cycle(2)
    device.use()
    assert device.disk.now() == (2, 2)
    device.told.clear()
    device.want(1)
    device.cycle()
    assert device.disk.now() == (1, 1)
    assert set(device.told) == {(1, 1)}  # as it was told after the first of them


def test_a_pair_that_must_be_fetched_to_go_back_is_not_mixed_either(device: Device) -> None:
    """Nothing requires anything in the versions that they go back to."""
    device.want(2)
    device.settle()  # a fresh device: it has nothing to go back to
    assert device.disk.now() == (2, 2)
    device.disk.pairs.clear()
    bring_back = device.lose("decoder", 1)
    device.want(1)
    models = device.cycle(2)
    assert device.disk.now() == (2, 2)
    assert "decoder to be ready at serial 1" in models["encoder"]["waits_for"]
    bring_back()
    device.agent.close()
    device.agent = device.opened()
    device.cycle(2)
    assert device.disk.now() == (1, 1)
    assert set(device.disk.pairs) <= {(2, 2), (1, 1)}


def test_a_lead_whose_release_cannot_be_read_is_waited_for_an_hour(device: Device) -> None:
    """Nobody knows then whether it requires this version: it may, and it may have nothing to do with it."""
    device.settle()
    files = device.repository.files
    path = next(path for path in files if path.startswith("targets/models/encoder/") and path.endswith(".2.json"))
    kept = files.pop(path)
    device.want(2)
    models = device.cycle(2)
    assert device.disk.now() == (1, 1)
    assert "the release of encoder at serial 2" in models["decoder"]["waits_for"]
    device.ahead_s = limits.UNREAD_RELEASE_S + 60
    device.cycle()
    assert device.disk.now() == (1, 2)
    files[path] = kept
    device.cycle()


@pytest.mark.long
def test_a_process_that_ends_within_the_first_swap_leaves_both_or_none(server: Server, tmp_path: Path) -> None:
    """The record of the swap was not believed for a model that had no pointer yet: apps got the encoder alone."""
    for name in ORDERS[0]:
        server.repository.policy(name, baseline=2)
    for last in range(60):
        device = Device(server, tmp_path / str(last), ORDERS[0])
        device.disk.left = last
        try:
            device.cycle()
        except Ended:
            assert device.disk.now() in {(None, None), (2, 2)}
            device.agent.close()
            device.disk.left = None
            device.agent = device.opened()
            device.cycle(2)
            assert device.disk.now() == (2, 2)
            device.agent.close()
        else:
            device.agent.close()
            assert last > 15
            return
    raise AssertionError("it never came to an end")


def test_the_watching_disk_sees_a_pair_that_is_mixed(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect, planted: a model asks for its own requirements alone."""
    monkeypatch.setattr(swap_group, "_tied", lambda name, models: iter(()))
    device.settle()
    device.lose("encoder", 2)
    device.want(2)
    device.cycle(2)
    assert (1, 2) in device.disk.pairs
