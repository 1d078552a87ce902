"""Whatever a probe does, it is a failed probe and nothing else: attacks from within, in the real cage.

Each comes as the probe of another package, which runs where a model's runtime would.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from whimbrel.agent.probes import ProbeServer
from whimbrel.device.ports import ProbeRequest, ProbeResult

_ATTACKS = """
import ctypes, mmap, os, signal, socket, sys, threading, time
from pathlib import Path
from whimbrel.device.ports import ProbeResult

def attack(request):
    place = Path(request.path)
    globals()[place.read_text()](place.parent)
    return ProbeResult(passed=True, how="ran")

def good(folder):
    pass

def aborts(folder):
    os.abort()

def segfaults(folder):
    ctypes.string_at(0)

def exits(folder):
    os._exit(0)

def hangs(folder):
    time.sleep(1000)

def spins(folder):
    while True:
        pass

def stops_itself(folder):
    os.kill(os.getpid(), signal.SIGSTOP)

def closes_everything_and_hangs(folder):
    os.closerange(0, 1000)
    time.sleep(1000)

def allocates(folder):
    held = []
    while True:
        held.append(bytearray(8 << 20))

def maps(folder):
    held = []
    while True:
        held.append(mmap.mmap(-1, 64 << 20))

def forks(folder):
    while True:
        os.fork()

def spawns(folder):
    os.posix_spawn("/bin/true", ["true"], {})

def starts_threads(folder):
    while True:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()

def starts_a_thread(folder):
    done = []
    thread = threading.Thread(target=done.append, args=(1,))
    thread.start()
    thread.join()
    assert done

def writes(folder):
    with (folder / "huge").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))

def stretches(folder):
    os.truncate(folder / "port", 1 << 40)

def opens_files(folder):
    held = []
    while True:
        held.append((folder / "port").open())

def connects(folder):
    socket.create_connection(("127.0.0.1", int((folder / "port").read_text())), timeout=5)

def connects_by_name(folder):
    socket.create_connection(("localhost", int((folder / "port").read_text())), timeout=5)

def raises(folder):
    raise KeyError("x")

def leaves(folder):
    sys.exit(0)

def says_nonsense(folder):
    for number in range(3, 64):
        try:
            os.write(number, b"nonsense")
        except OSError:
            pass
    os._exit(0)

def says_much(folder):
    for number in range(3, 64):
        try:
            for _ in range(100):
                os.write(number, bytes(4096))
        except OSError:
            pass
"""
# What an old kernel leaves, and children that outlive the probe, also in sessions of their own: their ids are names of
# folders.
_UNFILTERED = """
from whimbrel.cage import kernel_filter, landlock
kernel_filter.install = lambda: False
landlock.restrict = lambda *_, **__: 0

def forks(folder):
    for _ in range(3):
        if (child := os.fork()) == 0:
            os.setsid()
            time.sleep(1000)
        (folder / f"child-{child}").mkdir()
    time.sleep(1000)
"""


def installed(folder: Path, code: str) -> None:
    """A package in `folder` that brings its own probe for ONNX."""
    info = folder / "attacks-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: attacks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[whimbrel.probes]\nonnx = attacks:attack\n")
    (folder / "attacks.py").write_text(code)


Attack = Callable[..., ProbeResult]


def attacks(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attack]:
    installed(folder / "site", code)
    monkeypatch.setenv("PYTHONPATH", str(folder / "site"))
    (folder / "port").write_text("0")
    servers = {wall_s: ProbeServer(wall_s=wall_s) for wall_s in (1.0, 60.0)}

    def run(name: str, *, wall_s: float = 60.0) -> ProbeResult:
        (folder / "model").write_text(name)
        request = ProbeRequest(path=str(folder / "model"), format="onnx", folder=str(folder))
        return servers[wall_s].probe(request)

    yield run
    for server in servers.values():
        server.close()


@pytest.fixture
def attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attack]:
    yield from attacks(tmp_path, _ATTACKS, monkeypatch)


_WALL = "it did not answer within 1 s"
_MEMORY = "it wants more memory than a probe may have"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("aborts", "the runtime was ended by SIGABRT while it tried this model"),
        ("segfaults", "the runtime was ended by SIGSEGV while it tried this model"),
        ("exits", "the probe's answer"),
        ("hangs", _WALL),
        ("spins", _WALL),
        ("stops_itself", _WALL),
        ("closes_everything_and_hangs", "the runtime was ended by SIGKILL while it tried this model"),
        ("allocates", _MEMORY),
        ("maps", "Cannot allocate memory"),
        ("forks", "Operation not permitted"),
        ("spawns", "Operation not permitted"),
        ("starts_threads", "can't start new thread"),
        ("writes", "Operation not permitted"),
        ("stretches", "Operation not permitted"),
        ("opens_files", "Too many open files"),
        ("connects", "Operation not permitted"),
        ("connects_by_name", "gaierror"),
        ("raises", "KeyError: 'x'"),
        ("leaves", "SystemExit: 0"),
        ("says_nonsense", "the probe's answer"),
        ("says_much", "the probe's answer has more than 65536 bytes"),
    ],
)
def test_probe_that_does_harm_is_a_failed_probe_and_the_next_one_passes(
    attack: Attack, tmp_path: Path, name: str, reason: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        (tmp_path / "port").write_text(str(listening.getsockname()[1]))
        result = attack(name, wall_s=1.0 if reason is _WALL else 60.0)
        with pytest.raises(TimeoutError):
            listening.accept()
    assert not result.passed
    assert reason in result.reason
    assert not (tmp_path / "huge").exists() or (tmp_path / "huge").stat().st_size == 0
    assert attack("good", wall_s=1.0 if reason is _WALL else 60.0).passed


def test_probe_may_start_threads_and_has_no_network(attack: Attack) -> None:
    result = attack("starts_a_thread")
    assert (result.passed, result.offline) == (True, True)


def test_children_of_a_probe_end_with_it_where_the_kernel_has_no_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attack in attacks(tmp_path, _ATTACKS + _UNFILTERED, monkeypatch):
        assert attack("forks", wall_s=1.0).reason == _WALL
        children = [int(path.name.removeprefix("child-")) for path in tmp_path.glob("child-*")]
        assert len(children) == 3
        until = time.monotonic() + 10
        while any(_lives(child) for child in children) and time.monotonic() < until:
            time.sleep(0.01)
        assert not any(_lives(child) for child in children)
        assert attack("good").passed


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


_SPINS = """
from whimbrel.cage import walls
walls.enter(walls.Bounds(memory_bytes=2**30, cpu_s=1))
while True:
    pass
"""


def test_a_probe_that_computes_for_ever_is_ended_by_its_processor_time() -> None:
    ended = subprocess.run([sys.executable, "-c", _SPINS], check=False, timeout=120).returncode
    assert -ended in {signal.SIGKILL, signal.SIGXCPU}
