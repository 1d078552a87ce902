"""A device that keeps a sealed model sealed: its disk has no block of it, and a session opens it in memory alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import onnxruntime
import pytest

from support.sealing import CONTENTS, lies_in_memory, opened, options, sealed_repository, token_for
from support.server import Running, serving
from whimbrel import Agent
from whimbrel.agent.probes import ProbeServer
from whimbrel.errors import Unavailable

pytestmark = pytest.mark.long

BLOCK = 24


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(sealed_repository(tmp_path_factory.mktemp("sealed") / "repo")) as made:
        yield made


@pytest.fixture(scope="module")
def token(running: Running) -> str:
    return token_for(running, "entitled", "tier=pro")


def plain_files(folder: Path) -> list[Path]:
    """Files below `folder` in which a block of the model lies."""
    blocks = [CONTENTS[1][place : place + BLOCK] for place in range(1000, len(CONTENTS[1]) - BLOCK, 997)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(block in path.read_bytes() for block in blocks)]


def test_no_block_lies_on_the_disk_and_a_session_opens_it_in_memory(
    running: Running, token: str, tmp_path: Path
) -> None:
    """With the real probe, which runs it in the cage."""
    folder = tmp_path / "device"
    with (
        closing(ProbeServer()) as probes,
        Agent.open(folder, options(running, "dev-rest", token, sealed_at_rest=True, probes=probes)) as agent,
    ):
        status = agent.cycle(force=True).models["secret"]
        assert (status["serial"], status["sealed"]) == (1, "at rest"), status
        assert plain_files(folder) == []
        with agent.session("secret") as model:
            path = model.path
            assert path.read_bytes() == CONTENTS[1]
            onnxruntime.InferenceSession(path)
            with pytest.raises(Unavailable, match="is open in memory alone: use path"):
                model.folder  # noqa: B018
            assert model.runner().run({"x": [[1.0, 2.0, 3.0, 4.0]]})["y"][0][1] == 4.0
            assert plain_files(folder) == []
        assert not path.exists() or path.read_bytes() != CONTENTS[1]
        assert lies_in_memory(folder / "models" / "secret") == set()
    with Agent.open(folder) as later:  # an app beside it, after a restart, with no network
        assert opened(later) == CONTENTS[1]


def test_session_without_the_key_says_so_and_the_next_cycle_brings_it(
    running: Running, token: str, tmp_path: Path
) -> None:
    folder = tmp_path / "device"
    with Agent.open(folder, options(running, "dev-lost", token, sealed_at_rest=True)) as agent:
        agent.cycle(force=True)
        (kept,) = (folder / "release-keys").iterdir()
        assert kept.stat().st_mode & 0o777 == 0o600
        kept.unlink()
        with pytest.raises(Unavailable, match="its key is not here; the agent gets it in its next cycle"):
            opened(agent)
        assert list((folder / "models" / "secret" / "marks").iterdir()) == []
        agent.cycle(force=True)
        assert opened(agent) == CONTENTS[1]


def test_slot_that_was_changed_is_not_opened(running: Running, token: str, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    with Agent.open(folder, options(running, "dev-changed", token, sealed_at_rest=True)) as agent:
        agent.cycle(force=True)
        (file,) = (folder / "models" / "secret").glob("[ab]/*.onnx")
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(Unavailable, match="are not those that were verified"):
            opened(agent)


def test_without_memory_for_it_the_version_is_not_taken_and_why_is_said(
    running: Running, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with Agent.open(tmp_path / "device", options(running, "dev-old", token, sealed_at_rest=True)) as agent:
        status = agent.cycle(force=True).models["secret"]
        assert (status["serial"], status["refused"]) == (None, {})
        assert "turn the option off to keep them open on the disk" in status["waits_for"]


DIES_IN_THE_PROBE = """
import os, signal, sys
from whimbrel import Agent, AgentOptions

class Dies:
    def probe(self, request):
        os.kill(os.getpid(), signal.SIGKILL)

folder, server, root, token = sys.argv[1:]
options = AgentOptions(
    server=server, root=root, models=["secret"], device_id="dev-killed", enrol_token=token, probes=Dies(),
    sealed_at_rest=True,
)
Agent.open(folder, options).cycle(force=True)
"""


def test_agent_that_is_killed_in_a_probe_leaves_nothing_open_behind(
    running: Running, token: str, tmp_path: Path
) -> None:
    """The model lay in /dev/shm, open, until the machine was started anew: SIGKILL removes no folder."""
    folder = tmp_path / "device"
    model_folder = folder / "models" / "secret"
    given = [folder, running.devices, running.folder / "root.json", token]
    done = subprocess.run([sys.executable, "-c", DIES_IN_THE_PROBE, *map(str, given)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(lies_in_memory(model_folder)) == 1
    with Agent.open(folder, options(running, "dev-killed", token, sealed_at_rest=True)) as agent:
        assert agent.cycle(force=True).models["secret"]["serial"] == 1
    assert lies_in_memory(model_folder) == set()
