"""Real agents on a real server: what was active on a device is told, proven offline, and outlives the device."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.agents import AllGood
from support.server import Running, done, repository, serving, whimbrel
from whimbrel import Agent, AgentOptions, limits

pytestmark = pytest.mark.long

DAY = 86400.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(repository(tmp_path_factory.mktemp("served") / "repo")) as here:
        yield here


class Board:
    """A device whose clock is moved by hand. `hour`: since the test began."""

    def __init__(self, server: Running, folder: Path, *, device_id: str) -> None:
        self.server, self.folder, self.device_id = server, folder, device_id
        self.now = time.time()

    def open(self) -> Agent:
        token = (self.server.folder / "enrol.token").read_text()
        return Agent.open(
            self.folder,
            AgentOptions(
                server=self.server.devices,
                root=self.server.folder / "root.json",
                models=["wake"],
                device_id=self.device_id,
                probes=AllGood(),
                enrol_token=token,
                clock=lambda: self.now,
            ),
        )

    def use(self, *, sessions: int = limits.TRIAL_HEALTHY_SESSIONS) -> dict[str, Any]:
        """Take what is decided and try it; report what there is."""
        with self.open() as agent:
            agent.cycle(force=True)
            for _ in range(sessions):
                with agent.session("wake"):
                    pass
            for _ in range(2):
                self.now += 300.0
                result = agent.cycle(force=True)
            assert result.problems == ()
            return result.models["wake"]

    def history(self, *more: object) -> Any:
        return done("device", "history", self.device_id, "-R", self.server.folder, *more)


def within(seconds: float, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def states(shown: dict[str, Any]) -> list[tuple[int | None, str, str | None]]:
    return [(each["serial"], each["began"], each["ended_by"]) for each in shown["periods"]]


def test_what_ran_then_is_answered_and_proven_offline(server: Running, tmp_path: Path) -> None:
    board = Board(server, tmp_path / "device", device_id="board-1")
    began = board.now
    board.use()
    within(10, lambda: bool(board.history()["periods"]))
    then = _iso(began + limits.RUN_CLOCK_SLACK_S - 60)  # for the server, later times have not come yet
    board.now += 2 * limits.RUN_HEAD_S  # a head an hour is enough where nothing changes
    assert board.use(sessions=0)["serial"] == 1
    within(10, lambda: board.history("--at", then)["answers"][0]["known"])
    shown = board.history("--at", then)
    assert states(shown) == [(1, "trial", None)]
    (answer,) = shown["answers"]
    assert (answer["known"], answer["period"]["serial"], answer["period"]["committed_at"] is not None) == (
        True,
        1,
        True,
    )
    proof = tmp_path / "proof.json"
    key = done("agent", "status", "--folder", board.folder)["public_key"]
    board.history("--export", proof)
    offline = done("device", "history", "--proof", proof, "--key", key, "--at", then)
    assert offline["answers"][0]["period"]["version"] == answer["period"]["version"]
    before = done("device", "history", "--proof", proof, "--at", _iso(began - DAY))
    assert [each["known"] for each in before["answers"]] == [False]
    later = whimbrel("device", "history", "--proof", proof, "--at", _iso(board.now + DAY)).out
    assert "NOT KNOWN: the device signed nothing after this time" in later
    own = done("agent", "history", "--folder", board.folder)
    assert own["periods"][0]["artifact"] == shown["periods"][0]["artifact"]
    forged = tmp_path / "forged.json"
    forged.write_text(proof.read_text().replace('\\"serial\\":1', '\\"serial\\":2'))
    refused = whimbrel("device", "history", "--proof", forged)
    assert (refused.status, "were changed" in refused.err or "was changed" in refused.err) == (2, True)
    stranger = whimbrel("device", "history", "--proof", proof, "--key", "A" * 43)
    assert (stranger.status, "nothing in this history is signed with the key" in stranger.err) == (2, True)


def test_a_device_that_was_removed_and_comes_again_has_two_epochs(server: Running, tmp_path: Path) -> None:
    board = Board(server, tmp_path / "device", device_id="board-2")
    board.use()
    within(10, lambda: bool(board.history()["periods"]))
    done("device", "remove", board.device_id, "-R", server.folder, "--yes")
    assert states(board.history()) == [(1, "trial", None)]
    shutil.rmtree(board.folder)
    board.now += 3600
    board.use()
    within(10, lambda: len(board.history()["keys"]) == 2)
    assert [each["branch"] for each in board.history()["periods"]] == [1, 2]
    entries = done("audit", "-R", server.folder, "--device", board.device_id)
    assert "notice_run_history" in [entry["action"] for entry in entries]


def test_a_folder_that_was_restored_shows_as_a_fork(server: Running, tmp_path: Path) -> None:
    board = Board(server, tmp_path / "device", device_id="board-3")
    board.use()
    within(10, lambda: bool(board.history()["periods"]))
    shutil.copytree(board.folder, tmp_path / "backup")
    board.now += 7200
    board.use()
    shutil.rmtree(board.folder)
    shutil.copytree(tmp_path / "backup", board.folder)
    board.now += 60
    board.use()
    within(10, lambda: "FORK" in whimbrel("device", "history", board.device_id, "-R", server.folder).out)


def test_what_nobody_can_answer_is_said(server: Running, tmp_path: Path) -> None:
    unknown = whimbrel("device", "history", "nobody", "-R", server.folder)
    assert (unknown.status, "no device 'nobody' is enrolled" in unknown.err) == (4, True)
    with server.enrolled("board-4"):
        pass
    assert "has signed no history" in whimbrel("device", "history", "board-4", "-R", server.folder).out
    for words, sentence in (
        (["--at", "yesterday"], "is no time; expected one like"),
        (["--proof", str(tmp_path / "none.json")], "the proof cannot be read"),
    ):
        said = whimbrel("device", "history", *words, "-R", server.folder)
        assert (said.status, sentence in said.err) == (2, True)
    (tmp_path / "junk.json").write_text(json.dumps({"device_id": "x"}))
    junk = whimbrel("device", "history", "--proof", tmp_path / "junk.json")
    assert (junk.status, "is no proof of a run history" in junk.err) == (2, True)
    nothing = whimbrel("agent", "history", "--folder", tmp_path)
    assert (nothing.status, "is no agent's folder" in nothing.err) == (4, True)


def _iso(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
