"""`whimbrel agent run|check|status` as real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.repository import Repository, Server, onnx_model, probe_of, signature_of, variant_of


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    content = onnx_model()
    variant = variant_of(content, probe=probe_of(), signature=signature_of())
    repository.release("detector", 1, content, variants=(variant,))
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


_COMMAND = """
import sys
from whimbrel.cli.agent import app
from whimbrel.errors import WhimbrelError
try:
    app()
except WhimbrelError as error:
    sys.stderr.write(f"whimbrel: {error}\\n")
    sys.exit(error.exit_code)
"""


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", _COMMAND, *map(str, arguments)]


def ran(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, check=False)


def first_check(tmp_path: Path, server: Server, *more: str) -> subprocess.CompletedProcess[str]:
    root = tmp_path / "root.json"
    root.write_bytes(server.repository.root_bytes)
    given = "--server", server.url, "--root", root, "--model", "detector"
    return ran("check", "--folder", tmp_path / "device", *given, *more)


def test_check_decides_and_says_why_and_the_folder_remembers(tmp_path: Path, server: Server) -> None:
    done = first_check(tmp_path, server, "--json", "--label", "region=NZ")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["models"]["detector"]
    assert (found["state"], found["serial"], found["because"]) == ("on trial", 1, "the baseline")
    again = ran("check", "--folder", tmp_path / "device")
    assert again.returncode == 0, again.stderr
    assert "the baseline" in again.stdout
    server.down = True
    status = ran("status", "--folder", tmp_path / "device", "--json")
    assert json.loads(status.stdout)["running"] is False
    assert json.loads(status.stdout)["models"]["detector"]["serial"] == 1
    offline = ran("check", "--folder", tmp_path / "device")
    assert offline.returncode == 3
    assert "cannot be reached" in offline.stderr


def resident_bytes(process: int) -> int:
    """Of a process and its children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident_bytes(int(child)) for child in children)


def test_daemon_runs_alone_and_ends_cleanly_on_sigterm(tmp_path: Path, server: Server) -> None:
    assert first_check(tmp_path, server).returncode == 0
    folder = tmp_path / "device"
    daemon = subprocess.Popen(command("run", "--folder", folder), stderr=subprocess.PIPE)
    try:
        assert daemon.stderr is not None
        assert b"on trial" in daemon.stderr.readline()
        second = ran("run", "--folder", folder)
        assert second.returncode == 4
        assert "in use by another agent" in second.stderr
        assert json.loads(ran("status", "--folder", folder, "--json").stdout)["running"] is True
        assert resident_bytes(daemon.pid) < 60_000_000  # no command line, no probe's runtimes, no codec
        asked = len(server.asked)
        while len(server.asked) == asked:
            time.sleep(0.02)
    finally:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=30) == 0
        assert daemon.stderr is not None
        daemon.stderr.close()


def test_daemon_tells_of_the_first_download_and_runs_a_command_when_the_version_is_active(
    tmp_path: Path, server: Server
) -> None:
    root, out = tmp_path / "root.json", tmp_path / "changes"
    root.write_bytes(server.repository.root_bytes)
    folder = tmp_path / "device"
    given = "--folder", folder, "--server", server.url, "--root", root, "--model", "detector"
    hook = f"sh -c 'echo $WHIMBREL_KIND $WHIMBREL_MODEL $WHIMBREL_SERIAL $WHIMBREL_PATH >> {out}'"
    daemon = subprocess.Popen(command("run", *given, "--on-change", hook), stderr=subprocess.PIPE, text=True)
    try:
        assert daemon.stderr is not None
        lines = [daemon.stderr.readline() for _ in range(4)]
    finally:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=30) == 0
        assert daemon.stderr is not None
        daemon.stderr.close()
    assert re.search(r"Z detector: fetches \S+: 0 B of .* \(0%\) as a whole file$", lines[0].strip())
    assert re.search(r"Z detector: fetches \S+: all .* came as a whole file", lines[1])
    assert any("--on-change ran in " in line for line in lines[2:])
    kind, model, serial, path = out.read_text().split()
    assert (kind, model, serial) == ("activated", "detector", "1")
    assert Path(path).read_bytes() == onnx_model()
    refused = ran("run", "--folder", folder, "--on-change", "no-such-program")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "no program that can be run here" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["check", "--folder", "new"], 4, "has no settings yet"),
        (["check", "--folder", "new", "--server", "ftp://x"], 2, "is not a server's address"),
        (["check", "--folder", "new", "--server", "http://127.0.0.1:9"], 4, "(missing: root, models)"),
        (
            ["check", "--folder", "new", "--server", "https://x", "--root", "none.json", "--model", "x"],
            2,
            "does not exist",
        ),
        (
            ["check", "--folder", "new", "--server", "http://x", "--root", "r.json", "--model", "x"],
            4,
            "http://x is asked without TLS",
        ),
        (
            ["check", "--folder", "new", "--server", "https://x", "--ca-file", "none.pem"],
            2,
            "the file of certificates none.pem: it does not exist",
        ),
        (
            ["check", "--folder", "new", "--server", "http://x", "--label", "x"],
            2,
            "--label 'x' has no value; write x=VALUE, such as x=NZ",
        ),
        (
            ["check", "--folder", "new", "--server", "https://x", "--root", "r.json", "--model", "A B"],
            2,
            "cannot be read",
        ),
        (["check", "--folder", "new", "--server", "http://x", "--enrol-token-file", "none"], 2, "cannot be read"),
        (["status", "--folder", "new"], 4, "is not an agent's folder"),
    ],
)
def test_bad_input_gets_one_sentence_and_a_status(
    tmp_path: Path, arguments: list[str], status: int, sentence: str
) -> None:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == status
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new" / "agent.json").exists()
