"""How a server starts, stops, and says what is wrong: real `whimbrel serve` processes, as a new user runs them."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import POSTGRESQL
from support.old_database import make_newer, make_older, schema_of
from support.permissions import NOBODY, can_mount, mounted, reachable_folder
from support.serve_process import served
from support.server import Said, done, repository, whimbrel
from support.values import EPOCH, window
from whimbrel.model.documents import encode
from whimbrel.version import __version__

pytestmark = pytest.mark.long

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
_OFFLINE = "keys/offline lies beside this server"  # `init` leaves them there, and these tests publish
READING = (("version", "list", "-m", "wake"), ("audit",), ("alert", "receivers"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("template") / "repo", versions=1)


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "repo")


def refused(*command: str, status: int) -> str:
    """A command that must be refused, in one sentence. `serve` is a process; the others run in this one."""
    if command[0] == "serve":
        given = [sys.executable, "-m", "whimbrel.cli", *command]
        ended = subprocess.run(given, capture_output=True, text=True, check=False, timeout=120)
        said = Said(ended.returncode, ended.stdout, ended.stderr)
    else:
        said = whimbrel(*command)
    assert (said.status, said.out, said.err.count("\n")) == (status, "", 1), said
    return said.err


def test_a_servers_log_is_one_object_a_line_from_its_start_to_its_stop(folder: Path) -> None:
    with served(folder, "--log-format", "json") as server:
        listening = server.listening()
        with listening.enrolled() as device:
            assert device.post("/device/v1/reports", content=b"rubbish").status_code == 400
        lines = [json.loads(line) for line in server.stop()]
    for line in lines:
        assert re.fullmatch(TIME, line["time"])
        assert line["level"] in {"info", "warning"}
    started, stopped = (next(line for line in lines if line["message"] == word) for word in ("started", "stopped"))
    assert started["version"] == stopped["version"] == __version__
    assert (started["devices"], started["admin"]) == (listening.devices, listening.admin)
    assert (started["database"], started["artifacts"], started["inbox"]) == ("SQLite", "folder", "table")
    assert started["pid"] == server.process.pid
    assert [line["role"] for line in lines if "role" in line] == ["leader"]
    assert lines[-1] is stopped
    assert "stopping: SIGTERM came" in {line["message"] for line in lines}


def test_a_log_for_people_has_the_same_lines_and_no_secret(folder: Path) -> None:
    with served(folder, "-v") as server:
        listening = server.listening()
        with listening.enrolled(), listening.people() as people:
            people.get("status").raise_for_status()
        lines = server.stop(signal.SIGINT)
    assert lines
    for line in lines:
        assert re.match(rf"{TIME} (DEBUG|INFO|WARNING) [a-z0-9_.]+: ", line), line
    assert any(f"started version={__version__} folder={folder} " in line for line in lines)
    assert any("stopping: SIGINT came" in line for line in lines)
    text = "\n".join(lines)
    for secret in ("admin.token", "enrol.token"):
        assert (folder / secret).read_text().strip() not in text
    assert "PRIVATE KEY" not in text


def test_a_start_that_fails_is_a_line_of_the_log_where_machines_read_it(folder: Path) -> None:
    make_newer(folder / "whimbrel.db")
    line = json.loads(refused("serve", str(folder), "--log-format", "json", status=4))
    assert (line["level"], line["exit_status"]) == ("error", 4)
    assert "which a newer Whimbrel made" in line["message"]


@pytest.mark.parametrize("command", [("serve", "{}"), ("migrate", "{}"), *((*each, "-R", "{}") for each in READING)])
def test_a_database_of_a_newer_program_is_refused_in_one_sentence(folder: Path, command: tuple[str, ...]) -> None:
    """It was a traceback of alembic: Can't locate revision identified by '9999'."""
    make_newer(folder / "whimbrel.db")
    said = refused(*(word.format(folder) for word in command), status=4)
    assert re.match(r"whimbrel: the database has the schema 9999, which a newer Whimbrel made: ", said)


def test_a_database_is_not_brought_up_where_an_older_server_still_has_the_port(folder: Path) -> None:
    """The start failed after a migration that nobody can take back, and the older server went on with the database."""
    older = make_older(folder / "whimbrel.db")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refused("serve", str(folder), "--listen", address, "--admin-listen", "127.0.0.1:0", status=3)
    assert f"cannot listen on {address}" in said
    assert schema_of(folder / "whimbrel.db") == older


def test_a_command_that_reads_never_migrates_and_says_what_does(folder: Path) -> None:
    """`whimbrel version list` on a copy of a repository migrated it, and the server of before could not start."""
    older = make_older(folder / "whimbrel.db")
    for command in READING:
        said = refused(*command, "-R", str(folder), status=4)
        assert f"has the schema {older}, and this program needs" in said
        assert "`whimbrel serve` or `whimbrel migrate` brings it up" in said
    assert schema_of(folder / "whimbrel.db") == older


def test_migrate_brings_it_up_once_and_loses_nothing(folder: Path) -> None:
    newest = schema_of(folder / "whimbrel.db")
    older = make_older(folder / "whimbrel.db")

    assert whimbrel("migrate", folder).out == f"brought the database from the schema {older} to {newest}\n"
    assert f"has the schema {newest} already" in whimbrel("migrate", folder).out
    assert done("migrate", folder) == {"before": newest, "after": newest}
    assert "1.0.0" in whimbrel("version", "list", "-m", "wake", "-R", folder).out


def test_two_servers_that_start_at_once_migrate_once_and_one_leads(folder: Path) -> None:
    newest = schema_of(folder / "whimbrel.db")
    older = make_older(folder / "whimbrel.db")
    with ExitStack() as stack:
        servers = [stack.enter_context(served(folder, "--log-format", "json", name=name)) for name in ("a", "b")]
        with servers[0].listening().people() as people, servers[1].listening().people() as others:
            assert people.get("models").json() == others.get("models").json() != []
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and not all('"role"' in "".join(each.log) for each in servers):
                time.sleep(0.1)
        lines = [json.loads(line) for each in servers for line in each.stop()]
    assert schema_of(folder / "whimbrel.db") == newest
    brought = [line["message"] for line in lines if "was brought" in line["message"]]
    assert brought == [f"the database was brought from the schema {older} to {newest}"]
    assert {line["role"] for line in lines if "role" in line} == {"leader", "follower"}
    assert not [line for line in lines if line["level"] == "error"]


@pytest.mark.postgresql
def test_two_servers_that_start_at_once_on_postgresql_migrate_once(fresh_schema: str, tmp_path: Path) -> None:
    """Without a lock two of four that began together failed: the table of versions was made twice."""
    import psycopg

    done("init", tmp_path / "repo", "--database", fresh_schema)
    name = fresh_schema.rpartition("search_path%3D")[2]
    with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {name} CASCADE")
        connection.execute(f"CREATE SCHEMA {name}")
    with ExitStack() as stack:
        servers = [stack.enter_context(served(tmp_path / "repo", "--log-format", "json", name=n)) for n in ("a", "b")]
        for server in servers:
            server.listening()
        lines = [json.loads(line) for server in servers for line in server.stop()]
    assert len([line for line in lines if "was brought from the schema none to" in line["message"]]) == 1
    assert [line["database"] for line in lines if line["message"] == "started"] == ["PostgreSQL", "PostgreSQL"]
    assert not [line for line in lines if line["level"] != "info" and _OFFLINE not in line["message"]]


_AS_NOBODY = """
import os, sys, uvloop, whimbrel.cli.app, whimbrel.cli.repository
if os.getuid() == 0:
    os.setgroups([]), os.setgid({id}), os.setuid({id})
whimbrel.cli.app.main()
"""


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(template: Path) -> None:
    """It said "attempt to write a readonly database", and where artifacts could not be written, nothing at all."""
    with reachable_folder() as place:
        folder = shutil.copytree(template, place / "repo")
        folder.chmod(0o555)
        ended = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY.format(id=NOBODY), "serve", str(folder)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        folder.chmod(0o755)
    assert ended.returncode == 3, ended
    assert ended.stderr == (
        f"whimbrel: writing the database failed at {folder}: you have no permission for it; a server writes there: "
        "start it as a user who may, or name another place in whimbrel.toml\n"
    )


def test_secrets_that_everybody_may_read_are_said_at_start_and_the_server_serves(folder: Path) -> None:
    for name in ("admin.token", "keys/online/policy.pem"):
        (folder / name).chmod(0o644)
    with served(folder) as server:
        server.listening()
        (warning,) = [line for line in server.stop() if " WARNING " in line and _OFFLINE not in line]
    assert "every user of this machine may read or change admin.token, keys/online/policy.pem," in warning
    command = re.search(r"run: (chmod o= [^;]+);", warning)
    assert command
    subprocess.run(command[1], shell=True, check=True)
    with served(folder) as server:
        server.listening()
        assert not [line for line in server.stop() if " WARNING " in line and _OFFLINE not in line]


def test_an_admin_api_that_other_machines_reach_is_said_at_start(folder: Path) -> None:
    with served(folder, "--admin-listen", "0.0.0.0:0") as server:
        server.listening()
        (warning,) = [line for line in server.stop() if " WARNING " in line and _OFFLINE not in line]
    assert "other machines reach the admin API on 0.0.0.0:" in warning


# --- a real disk that is full; `unit/test_disks_that_are_full.py` has the same without one ---


def fill(folder: Path) -> None:
    """Leave no byte."""
    with (folder / "fill").open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def is_full(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (507, "application/problem+json"), answer.text
    assert answer.json()["title"] == "The disk is full"
    assert "the disk is full" in answer.json()["detail"]
    assert answer.headers["retry-after"]


@pytest.mark.long
def test_a_full_disk_is_called_one_by_server_and_commands_and_passes(template: Path, tmp_path: Path) -> None:
    """Both said "disk I/O error"."""
    with mounted(tmp_path, size="6m") as disk:
        folder = shutil.copytree(template, disk / "repo")
        with served(folder) as server:
            listening = server.listening()
            with listening.enrolled() as device, listening.people() as people:
                report: dict[str, Any] = {"epoch": EPOCH, "windows": [window(1, cohorts=(), serial=1)]}
                assert device.post("/device/v1/reports", content=encode(report)).status_code == 204
                fill(disk)
                for number in range(2, 2000):  # the write-ahead log has pages to spare
                    report = {"epoch": EPOCH, "windows": [window(number, cohorts=(), serial=1)]}
                    answer = device.post("/device/v1/reports", content=encode(report))
                    if answer.status_code != 204:
                        break
                is_full(answer)
                is_full(people.put("artifacts/" + "a" * 64, content=bytes(200_000)))
                with listening.public() as public:
                    assert public.get("/metadata/timestamp.json").status_code == 200
            log = "\n".join(server.stop())
            assert "the disk is full" in log
            assert "Traceback" not in log
        fill(disk)  # the write-ahead log is gone
        said = refused("audit", "-R", str(folder), status=3)
        assert said == (
            f"whimbrel: writing the database failed: the disk is full at {folder}; free some space and try again\n"
        )
        assert "the disk is full" in refused("serve", str(folder), status=3)
        assert "the disk is full" in refused("model", "add", "other", "-R", str(folder), status=3)
        assert "the disk is full" in refused("init", str(disk / "another"), status=3)
        assert not (disk / "another").exists()
        (disk / "fill").unlink()
        with served(folder, name="again") as server, server.listening().enrolled("dev-2") as device:
            report = {"epoch": EPOCH, "windows": [window(1, cohorts=(), serial=1)]}
            assert device.post("/device/v1/reports", content=encode(report)).status_code == 204


def test_a_read_only_file_system_is_called_one(template: Path, tmp_path: Path) -> None:
    with mounted(tmp_path, size="6m") as disk:
        folder = shutil.copytree(template, disk / "repo")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)
        said = refused("serve", str(folder), status=3)
        assert "the file system is read-only" in said
        said = refused("version", "list", "-m", "wake", "-R", str(folder), status=3)
        assert "the file system is read-only" in said
        assert "--server" in said


if not (os.name == "posix" and can_mount()):  # a skip would be a failure: in a container they are not there
    del test_a_full_disk_is_called_one_by_server_and_commands_and_passes
    del test_a_read_only_file_system_is_called_one
