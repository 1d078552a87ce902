"""The agent's process ends at any disk operation: the next one finds a verified and probed version, and goes on.

(What a power cut does to data that was not synced needs a model of the disk; here the kernel keeps what was written.)
"""

import errno
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from support.repository import Repository, Server, onnx_model
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.disk import RealDisk
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.errors import Unavailable

CONTENTS = {1: onnx_model(factor=2.0), 2: onnx_model(factor=3.0)}
CHANGES = "write", "replace", "append", "move", "remove"


class Ended(BaseException):
    """The process is gone."""


class EndsAt(RealDisk):
    """A disk whose process ends before its `last`-th change; with `half`, an append ends in its middle."""

    def __init__(self, last: int) -> None:
        self._left = last

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in CHANGES:
            return found

        def change(*given: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                if name == "append":
                    found(given[0], given[1][: len(given[1]) // 2])
                raise Ended
            return found(*given, **named)

        return change


class FullFrom(EndsAt):
    """A disk that has no room after `last` changes."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in CHANGES:
            return found

        def change(*given: Any, **named: Any) -> Any:
            try:
                return found(*given, **named)
            except Ended:
                raise OSError(errno.ENOSPC, "No space left on device") from None

        return change


class AllGood:
    """Passes what is whole."""

    def probe(self, request: ProbeRequest) -> ProbeResult:
        return ProbeResult(passed=Path(request.path).read_bytes() in CONTENTS.values())


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    for serial, content in CONTENTS.items():
        repository.release("detector", serial, content)
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


def opened(folder: Path, server: Server, disk: RealDisk) -> Agent:
    return Agent.open(
        folder,
        AgentOptions(
            server=server.url,
            root=server.repository.root_bytes,
            device_id="dev-1",
            enrol_token=server.enrol_token,
            probes=AllGood(),
            durable_sessions=False,
            disk=disk,
            models=["detector"],
        ),
    )


def runs(agent: Agent) -> int | None:
    """The serial that an app gets; its bytes are that serial's, always."""
    try:
        with agent.session("detector") as model:
            assert model.path.read_bytes() == CONTENTS[model.serial]
            return model.serial
    except Unavailable:
        return None


def until_committed(folder: Path, server: Server, serial: int) -> None:
    with opened(folder, server, RealDisk()) as agent:
        for _ in range(6):
            agent.cycle(force=True)
            for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
                runs(agent)
        found = agent.cycle(force=True).models["detector"]
        assert (found["state"], found["serial"], found["refused"]) == ("committed", serial, {})


@pytest.mark.long
@pytest.mark.parametrize("back", [False, True])
def test_process_that_ends_at_any_change_of_the_disk_is_taken_up_where_it_was(
    tmp_path: Path, server: Server, back: bool
) -> None:
    """`back`: the way from 2 to 1 by the policy; else from 1 to 2."""
    if back:
        server.repository.policy("detector", baseline=2)
    for last in count():
        folder = tmp_path / str(last)
        server.repository.policy("detector", baseline=1)
        until_committed(folder, server, 1)
        if back:
            server.repository.policy("detector", baseline=2)
            until_committed(folder, server, 2)
        wanted = 1 if back else 2
        server.repository.policy("detector", baseline=wanted)
        agent = opened(folder, server, EndsAt(last))
        try:
            agent.cycle(force=True)
            for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
                assert runs(agent) in CONTENTS
            agent.cycle(force=True)
        except Ended:
            agent.close()
            with opened(folder, server, RealDisk()) as next_one:
                assert runs(next_one) in CONTENTS
            until_committed(folder, server, wanted)
        else:
            agent.close()
            assert last > 10
            break


@pytest.mark.parametrize("last", range(0, 40, 3))
def test_full_disk_is_said_keeps_what_is_here_and_goes_on_when_there_is_room(
    tmp_path: Path, server: Server, last: int
) -> None:
    until_committed(tmp_path, server, 1)
    server.repository.policy("detector", baseline=2)
    disk = FullFrom(last)
    agent = opened(tmp_path, server, disk)
    result = agent.cycle(force=True)
    assert runs(agent) in CONTENTS
    if result.models["detector"]["serial"] == 1:
        assert any("the disk is full" in problem for problem in result.problems)
        assert result.next_s >= 0
    agent.close()
    until_committed(tmp_path, server, 2)
