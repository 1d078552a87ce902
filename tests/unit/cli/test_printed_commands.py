"""A command that a person is told to run can be pasted into a shell, also where a path has a space."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from whimbrel.agent.status import read_status
from whimbrel.errors import NotFound
from whimbrel.server.config import Folder
from whimbrel.stores.database import Database
from whimbrel.stores.registry import Registry


def _words_after(begin: str, text: str) -> list[str]:
    return shlex.split(begin + text.partition(begin)[2].partition("`")[0].partition(";")[0])


def test_init_prints_a_folder_with_a_space_as_one_word(tmp_path: Path) -> None:
    folder = tmp_path / "my models"
    command = [sys.executable, "-m", "whimbrel.cli", "init", str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert _words_after("export ", said) == ["export", f"WHIMBREL_REPOSITORY={folder}"]


def test_a_missing_repository_is_made_by_the_command_that_the_error_names(tmp_path: Path) -> None:
    folder = tmp_path / "my models"
    with pytest.raises(NotFound) as caught:
        Folder.open(folder)
    assert _words_after("whimbrel init ", str(caught.value)) == ["whimbrel", "init", str(folder)]


def test_a_status_that_is_not_there_names_the_command_that_writes_it(tmp_path: Path) -> None:
    folder = tmp_path / "my device"
    folder.mkdir()
    (folder / "agent.json").write_text("{}")
    with pytest.raises(NotFound) as caught:
        read_status(folder)
    words = _words_after("whimbrel agent ", str(caught.value))
    assert words == ["whimbrel", "agent", "check", "--folder", str(folder)]


def test_an_unknown_model_is_added_under_its_whole_name(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'whimbrel.db'}")
    try:
        database.migrate()
        with database.transaction() as connection, pytest.raises(NotFound) as caught:
            Registry(connection, "default").model("wake word; rm")
    finally:
        database.close()
    words = shlex.split("whimbrel model add " + str(caught.value).partition("whimbrel model add ")[2])
    assert words == ["whimbrel", "model", "add", "wake word; rm"]
