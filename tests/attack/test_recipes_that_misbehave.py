"""A recipe is code of somebody else's: what it can do on the machine of whoever rebuilds a version."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import pytest

from whimbrel import limits
from whimbrel.cage import child
from whimbrel.cage.check import walls_here
from whimbrel.cage.command import Ran, Request, run
from whimbrel.cage.removal import remove_tree
from whimbrel.cli.rebuild import not_kept


def ran(place: Path, *command: str, time_s: float = 30.0, bytes_max: int = 100 * limits.MIB) -> tuple[Ran, str]:
    """Run a command in fresh folders; how it went, and what it printed."""
    folder, scratch = place / "work", place / "scratch"
    folder.mkdir(parents=True)
    scratch.mkdir()
    request = Request(command=command, folder=str(folder), scratch=str(scratch), time_s=time_s, bytes_max=bytes_max)
    answer = run(request, lambda _: None)
    output = scratch / "output"
    return answer, output.read_text() if output.exists() else ""


def alive(words: str) -> bool:
    """Whether a process runs whose command line has these words."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words in each.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                return True
        except OSError:
            continue
    return False


def test_a_command_works_in_its_folder(tmp_path: Path) -> None:
    answer, _ = ran(tmp_path, "sh", "-c", "echo made > made; mkdir -p deep/er; echo x > $TMPDIR/x; echo y > $HOME/y")
    assert (answer.status, answer.stopped, answer.problem) == (0, None, None)
    assert (tmp_path / "work" / "made").read_text() == "made\n"


def test_a_recipe_without_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    answer, _ = ran(tmp_path, "sh", "-c", "sleep 90017 & setsid sleep 90018 & sleep 90019", time_s=0.5)
    assert answer.stopped == "it took more than 0.5 s"
    assert not alive("sleep 9001")


def test_a_recipe_that_fills_the_disk_is_ended(tmp_path: Path) -> None:
    many = "i=0; while true; do head -c 1000000 /dev/zero | tr '\\0' x > f$i; i=$((i+1)); done"
    answer, _ = ran(tmp_path / "many", "sh", "-c", many, bytes_max=5 * limits.MIB)
    assert "it wrote more than" in str(answer.stopped)
    answer, _ = ran(tmp_path / "one", "head", "-c", "90000000", "/dev/zero", bytes_max=limits.MIB)
    assert answer.status != 0
    assert (tmp_path / "one" / "scratch" / "output").stat().st_size <= limits.MIB


def test_a_recipe_ends_where_nobody_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "s").mkdir()
    request = Request(
        command=("sh", "-c", "setsid sleep 90027 & sleep 90028"),
        folder=str(tmp_path / "w"),
        scratch=str(tmp_path / "s"),
        time_s=60.0,
        bytes_max=limits.MIB,
    )
    program = (
        "import sys, msgspec; from whimbrel.cage.command import Request, run;"
        "run(msgspec.json.decode(sys.argv[1].encode(), type=Request), lambda _: print('goes on', flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, msgspec.json.encode(request).decode()],
        stdout=subprocess.PIPE,
        env=dict(os.environ),
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"goes on\n"
        waiting.kill()
    until = time.monotonic() + 20
    while alive("sleep 9002") and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive("sleep 9002")


def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    answer, _ = ran(tmp_path, "no-such-program-here")
    assert answer.problem == "it did not start: there is no program 'no-such-program-here' here; is it installed?"


def test_a_recipe_reads_no_secrets_and_reaches_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_TOKEN", "secret-of-mine")
    (secret := tmp_path / "secret").write_text("secret-of-mine")
    script = (
        "import os, socket\n"
        "def attempt(act):\n"
        "    try: return str(act())\n"
        "    except OSError: return 'refused'\n"
        f"print(attempt(lambda: open({str(secret)!r}).read()))\n"
        f"print(attempt(lambda: open({str(tmp_path / 'written')!r}, 'w')))\n"
        f"print(attempt(lambda: os.rename({str(secret)!r}, 'mine')))\n"
        "print(attempt(lambda: socket.create_connection(('127.0.0.1', 5432), 2)))\n"
        "print(os.environ.get('WHIMBREL_TOKEN'))\n"
    )
    answer, output = ran(tmp_path / "run", sys.executable, "-c", script)
    tried = walls_here()
    reading, writing, moving, network, token = output.split()
    assert token == "None"
    assert (answer.landlock, answer.offline) == (bool(tried.landlock), tried.filtered or tried.namespaces)
    if tried.landlock:
        assert (reading, writing, moving) == ("refused", "refused", "refused")
    if answer.offline:
        assert network == "refused"


def test_what_it_may_know_is_a_short_list(tmp_path: Path) -> None:
    _, output = ran(tmp_path, "env")
    names = {line.partition("=")[0] for line in output.splitlines()} - {"PWD", "SHLVL", "_"}
    assert names <= set(child.environment()) | {"HOME", "TMPDIR"}


def test_a_recipe_opens_no_socket_of_somebody_else(tmp_path: Path) -> None:
    """An agent for keys or a container engine listens in a folder: by its socket, a process outside acted for it."""
    short = Path(tempfile.mkdtemp(prefix="w"))  # the name of a socket has at most 107 characters
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(short / "s"))
        engine.listen()
        script = (
            "import socket\n"
            "a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1).decode())\n"
            "try: s = socket.socket(socket.AF_UNIX); s.connect(" + repr(str(short / "s")) + "); print('connected')\n"
            "except OSError: print('refused')\n"
        )
        answer, output = ran(tmp_path, sys.executable, "-c", script)
    shutil.rmtree(short)
    assert answer.status == 0
    assert "connected" not in output or not walls_here().filtered
    assert output.split()[0] == "x"


def test_a_recipe_changes_no_mode_or_time_of_a_file_outside(tmp_path: Path) -> None:
    """Landlock does not say who may change a mode: a recipe made a private key readable for everybody."""
    (key := tmp_path / "key").write_text("secret")
    key.chmod(0o600)
    os.utime(key, (1, 1))
    script = (
        "import os\n"
        f"for act in (lambda: os.chmod({str(key)!r}, 0o666), lambda: os.utime({str(key)!r}),\n"
        f"            lambda: os.setxattr({str(key)!r}, 'user.x', b'1')):\n"
        "    try: act(); print('changed')\n"
        "    except OSError: print('refused')\n"
        "open('mine', 'w').close(); os.chmod('mine', 0o755); print('mine')\n"
    )
    answer, output = ran(tmp_path / "run", sys.executable, "-c", script)
    assert output.split()[-1] == "mine"
    if answer.read_only:
        assert output.split() == ["refused", "refused", "refused", "mine"]
        assert (key.stat().st_mode & 0o777, key.stat().st_mtime) == (0o600, 1)


def test_a_recipe_that_digs_deep_is_ended_and_removed(tmp_path: Path) -> None:
    """3,000 folders within each other ended the watching process, and could not be removed."""
    script = "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\nopen('x', 'w').close()"
    answer, _ = ran(tmp_path / "run", sys.executable, "-c", script)
    assert answer.stopped == f"it made folders within folders, more than {limits.REBUILD_DEPTH} deep"
    (tmp_path / "run" / "work" / "locked").mkdir(mode=0)
    (outside := tmp_path / "outside").mkdir()
    (outside / "file").touch()
    (tmp_path / "run" / "work" / "link").symlink_to(outside)
    os.mkfifo(tmp_path / "run" / "work" / "pipe")
    remove_tree(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert (outside / "file").exists()


def test_a_recipe_that_fails_has_made_nothing(tmp_path: Path) -> None:
    for number, (script, time_s) in enumerate((("exit 3", 30.0), ("sleep 90037", 0.3), ("kill -9 $$", 30.0))):
        answer, _ = ran(tmp_path / str(number), "sh", "-c", script, time_s=time_s)
        assert not answer.is_well
    assert ran(tmp_path / "well", "true")[0].is_well


def test_what_is_kept_lends_nobodys_rights(tmp_path: Path) -> None:
    """A rebuild by root kept a file of the recipe's with the set-user-ID bit: a program of root's for everybody."""
    (work := tmp_path / "work").mkdir()
    (work / "tool").write_text("#!/bin/sh\n")
    (work / "tool").chmod(0o6755)
    os.mkfifo(work / "pipe")
    assert not_kept(work, tmp_path / "kept") is None
    assert [each.name for each in (tmp_path / "kept").iterdir()] == ["tool"]
    assert stat.S_IMODE((tmp_path / "kept" / "tool").stat().st_mode) == 0o755
