"""Whoever asked for it hears when another version is active, and is in nobody's way."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.agents import AllGood
from support.repository import Repository, Server, onnx_model
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.change_command import ChangeCommand, words_of
from whimbrel.agent.changes import VersionChange
from whimbrel.errors import UntrustedInput

CONTENTS = {serial: onnx_model(factor=float(serial)) for serial in (1, 2)}


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    for serial, content in CONTENTS.items():
        repository.release("detector", serial, content)
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


Opened = Callable[..., Agent]


@pytest.fixture
def opened(tmp_path: Path, server: Server) -> Iterator[Opened]:
    agents: list[Agent] = []

    def make(hook: Callable[[VersionChange], object] | None) -> Agent:
        for each in agents:
            each.close()
        root = server.repository.root_bytes
        options = AgentOptions(server=server.url, root=root, models=["detector"], probes=AllGood(), on_change=hook)
        agents.append(Agent.open(tmp_path, options))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


def use(agent: Agent, *, fails: bool = False) -> None:
    for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
        try:
            with agent.session("detector"):
                if fails:
                    raise ValueError("the model is broken")
        except ValueError:
            pass


def test_a_version_that_is_active_and_one_that_went_back_are_told(opened: Opened, server: Server) -> None:
    told: list[VersionChange] = []
    agent = opened(told.append)
    agent.cycle()
    assert [(each.kind, each.serial, each.serial_before) for each in told] == [("activated", 1, None)]
    assert told[0].path is not None
    assert told[0].path.read_bytes() == CONTENTS[1]
    use(agent)
    server.repository.policy("detector", baseline=2)
    agent.cycle(force=True)
    use(agent, fails=True)
    agent.cycle(force=True)
    assert [(each.kind, each.serial, each.serial_before) for each in told[1:]] == [
        ("activated", 2, 1),
        ("went_back", 1, 2),
    ]
    assert told[2].path is not None
    assert told[2].path.read_bytes() == CONTENTS[1]
    agent.cycle(force=True)
    assert len(told) == 3


def test_a_device_that_is_left_without_a_version_went_back_to_none(opened: Opened, server: Server) -> None:
    told: list[VersionChange] = []
    agent = opened(told.append)
    agent.cycle()
    use(agent, fails=True)
    agent.cycle(force=True)
    last = told[-1]
    assert (last.kind, last.serial, last.version, last.path, last.serial_before) == ("went_back", None, None, None, 1)


def test_what_was_swapped_while_nobody_listened_is_told_by_the_next_that_listens(
    opened: Opened, server: Server
) -> None:
    told: list[VersionChange] = []
    agent = opened(None)
    agent.cycle()
    use(agent)
    opened(told.append).cycle(force=True)
    assert told == []  # the first time a folder is listened to, what is active is no change
    server.repository.policy("detector", baseline=2)
    opened(None).cycle(force=True)
    agent = opened(told.append)
    agent.cycle(force=True)
    assert [(each.kind, each.serial, each.serial_before) for each in told] == [("activated", 2, 1)]


def test_a_hook_that_ends_its_process_is_not_called_again_for_the_same_change(opened: Opened) -> None:
    told: list[VersionChange] = []

    def ends(change: VersionChange) -> None:
        told.append(change)
        raise SystemExit

    with pytest.raises(SystemExit):
        opened(ends).cycle()
    opened(ends).cycle(force=True)
    assert len(told) == 1


def test_a_hook_that_raises_is_logged_and_the_version_stays(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: VersionChange) -> None:
        raise ValueError("a bug of the app")

    with caplog.at_level(logging.ERROR):
        result = opened(broken).cycle()
    assert (result.models["detector"]["serial"], result.problems) == (1, ())
    assert "a bug of the app" in caplog.text


def test_without_a_hook_nothing_is_written(opened: Opened, tmp_path: Path) -> None:
    opened(None).cycle()
    assert not (tmp_path / "told.json").exists()


# --- the command of the daemon ---

CHANGE = VersionChange(
    kind="activated",
    model="detector",
    serial=2,
    version="2026.03.05.2",
    path=Path("/models/a/detector.onnx"),
    serial_before=1,
    version_before="2026.03.05.1",
)


def python(code: str) -> str:
    return f"{sys.executable} -c '{code}'"


def ran(command: str, *changes: VersionChange, limit_s: float = 20.0) -> list[str]:
    lines: list[str] = []
    with ChangeCommand(command, write=lines.append, limit_s=limit_s) as hook:
        for change in changes or (CHANGE,):
            hook(change)
    return lines


def test_the_command_reads_its_facts_from_the_environment_and_not_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHIMBREL_ENROL_TOKEN", "secret")
    out = tmp_path / "out"
    monkeypatch.setenv("OUT", str(out))
    code = 'import json, os; json.dump(dict(os.environ), open(os.environ["OUT"], "w"))'
    assert ran(python(code))[0].startswith("detector: --on-change ran in ")
    facts = json.loads(out.read_text())
    assert "WHIMBREL_ENROL_TOKEN" not in facts
    named = {name.removeprefix("WHIMBREL_"): value for name, value in facts.items()}
    assert (
        named
        | {
            "KIND": "activated",
            "MODEL": "detector",
            "SERIAL": "2",
            "VERSION": "2026.03.05.2",
            "PATH": "/models/a/detector.onnx",
            "SERIAL_BEFORE": "1",
            "VERSION_BEFORE": "2026.03.05.1",
        }
        == named
    )


def test_changes_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    code = 'import os; open(os.environ["OUT"], "a").write(os.environ["WHIMBREL_KIND"] + " ")'
    gone = VersionChange(
        kind="went_back", model="m", serial=None, version=None, path=None, serial_before=2, version_before="v"
    )
    assert len(ran(python(code), CHANGE, gone, CHANGE)) == 3
    assert (tmp_path / "out").read_text() == "activated went_back activated "


def test_a_command_that_hangs_is_ended_with_what_it_started_and_nobody_waits_for_it(tmp_path: Path) -> None:
    begun = time.monotonic()
    lines: list[str] = []
    with ChangeCommand("sh -c 'sleep 60; sleep 60'", write=lines.append, limit_s=0.5) as hook:
        hook(CHANGE)
        assert time.monotonic() - begun < 0.4
        while not lines:
            time.sleep(0.01)
    assert lines == ["detector: --on-change was ended: it took longer than 0.5 s"]
    assert time.monotonic() - begun < 20


def test_a_command_that_fails_is_said(tmp_path: Path) -> None:
    assert ran(python("raise SystemExit(3)"))[0].startswith("detector: --on-change failed with status 3 in ")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [("", "is empty"), ("no-such-program now", "'no-such-program' is no program"), ("sh -c 'x", "cannot be read")],
)
def test_a_command_that_cannot_be_run_is_refused_at_the_start(command: str, sentence: str) -> None:
    with pytest.raises(UntrustedInput, match=sentence):
        words_of(command)
