"""`whimbrel doctor`: every line says what was looked at; the exit status is for scripts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from whimbrel.agent.machine import examine
from whimbrel.cage import check


def doctor(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "whimbrel.cli", "doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_doctor_says_which_walls_hold_and_what_to_do_about_a_server_that_is_not_there(tmp_path: Path) -> None:
    answer = doctor("--json", "--folder", str(tmp_path), "--server", "http://127.0.0.1:9")
    assert answer.returncode == 1
    document = json.loads(answer.stdout)
    by_name = {each["checked"]: each for each in document["findings"]}
    assert not document["fit"]
    assert {f"cage: {wall.name}" for wall in check.report()} <= set(by_name)
    assert by_name["server"]["level"] == "problem"
    assert all(each["means"] and each["to_do"] for each in document["findings"] if each["level"] != "ok")


def test_a_wall_that_is_open_is_a_warning_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    old_kernel = check.Tried(
        filtered=True, landlock=0, namespaces=False, worked={wall.name: wall.name == "files" for wall in check.report()}
    )
    monkeypatch.setattr(check, "walls_here", lambda: old_kernel)
    (files,) = [each for each in examine(None, None) if each.level != "ok" and each.checked.startswith("cage")]
    assert files.checked == "cage: files"
    assert files.means == "a model can read every file that this user may read"
    assert "Linux 5.13" in files.to_do


def test_a_clock_of_1970_is_a_warning() -> None:
    (clock,) = [each for each in examine(None, None, now=lambda: 1000.0) if each.checked == "clock"]
    assert (clock.level, clock.found) == ("warning", "1970-01-01 00:16:40 UTC, before this program was made")


def test_a_secret_that_others_can_read_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "credential.json").touch()
    (tmp_path / "credential.json").chmod(0o644)
    (folder,) = [each for each in examine(tmp_path, None) if each.checked == "folder"]
    assert (folder.level, folder.found) == ("warning", "credential.json can be read by others")
    os.chmod(tmp_path / "credential.json", 0o600)
    (folder,) = [each for each in examine(tmp_path, None) if each.checked == "folder"]
    assert folder.level == "ok"
