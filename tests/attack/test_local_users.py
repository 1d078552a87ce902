"""Another user of the device: holds locks, reads secrets, owns the folder."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.permissions import as_somebody_without_rights, reachable_folder
from whimbrel import limits
from whimbrel.agent import folder as agent_folder
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.folder import claim, owner_problem
from whimbrel.agent.locks import held_alone, holder, locked, take_hold
from whimbrel.errors import Conflict, Refused, Unavailable

_HOLDS = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A lock that another process holds and never lets go, and that process's id."""
    path = tmp_path / "swap.lock"
    path.touch()
    attacker = subprocess.Popen([sys.executable, "-c", _HOLDS, str(path)], stdout=subprocess.PIPE)
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == b"held\n"
        yield path, attacker.pid
    finally:
        attacker.kill()
        attacker.communicate()


def test_a_lock_that_is_held_for_ever_ends_in_a_sentence_that_names_the_holder(
    held: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every session of the device waited without end, and nobody could see for whom."""
    path, attacker = held
    monkeypatch.setattr(limits, "LOCK_WAIT_S", 0.2)
    words = rf"held for more than 0.2 s by process {attacker} \(python"
    with pytest.raises(Unavailable, match=words), locked(path, disk=RealDisk()):
        pytest.fail("the lock was held twice")
    with pytest.raises(Conflict, match=f"process {attacker}"), held_alone(path, disk=RealDisk(), what="x", wait_s=0):
        pytest.fail("the lock was held twice")


def test_a_lock_that_is_let_go_is_had(tmp_path: Path) -> None:
    path = tmp_path / "swap.lock"
    first = take_hold(path, make=True, wait=False)
    assert first is not None
    assert holder(path).startswith(f"process {os.getpid()} (")
    threading.Timer(0.1, first.release).start()
    begin = time.monotonic()
    with locked(path, disk=RealDisk()):
        assert time.monotonic() - begin >= 0.05
    assert holder(path) == ""


def test_another_user_cannot_hold_a_lock_of_the_agent() -> None:
    """A file that everybody reads is a lock that everybody holds: flock asks for no right to write."""
    with reachable_folder() as folder:
        by_old_agent = folder / "old.lock"
        by_old_agent.touch(mode=0o644)
        by_old_agent.chmod(0o644)
        with as_somebody_without_rights():
            if os.geteuid() != by_old_agent.stat().st_uid:  # as root: the attack works on what an older agent left
                os.close(_held_by_reading(by_old_agent))
        for path in (by_old_agent, folder / "new.lock"):
            hold = take_hold(path, make=True, wait=False)
            assert hold is not None
            hold.release()
            assert path.stat().st_mode & 0o777 == 0o600
            with as_somebody_without_rights():
                if os.geteuid() != path.stat().st_uid:
                    with pytest.raises(PermissionError):
                        _held_by_reading(path)


def _held_by_reading(path: Path) -> int:
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def test_a_folder_that_a_group_shares_has_locks_that_the_group_can_take(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    hold = take_hold(tmp_path / "lock", make=True, wait=False)
    assert hold is not None
    hold.release()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o660


def test_the_folder_is_private_and_files_with_secrets_are_closed(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "models"
    claim(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "agent.json").touch()
    (folder / "agent.json").chmod(0o644)  # as older agents left it, with the proxy's password in it
    claim(folder)
    assert (folder / "agent.json").stat().st_mode & 0o777 == 0o600


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path.stat().st_uid
    if mine == 0:
        os.chown(tmp_path, 4711, -1)
        mine = 4711
    monkeypatch.setattr(agent_folder.os, "geteuid", lambda: mine + 1)
    with pytest.raises(Refused, match=f"belongs to user {mine}, and this process runs as user {mine + 1}"):
        claim(tmp_path)
    monkeypatch.setattr(agent_folder.os, "geteuid", lambda: mine)
    claim(tmp_path)


@pytest.mark.parametrize(
    ("owner", "user", "refused"), [(1000, 1000, False), (1000, 1001, True), (0, 1001, False), (1000, 0, False)]
)
def test_root_decides(owner: int, user: int, refused: bool) -> None:
    assert bool(owner_problem(Path("/models"), owner=owner, user=user)) is refused
