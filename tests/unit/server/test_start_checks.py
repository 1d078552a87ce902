"""What stands round a server is checked when it starts, and said in one sentence each."""

from pathlib import Path

import pytest

from support.permissions import as_somebody_without_rights, reachable_folder
from whimbrel.errors import Unavailable
from whimbrel.server.config import FILE, Config, Folder
from whimbrel.server.start_checks import check_folders, exposed_admin, exposed_files, offline_keys_beside


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A repository's folder with its secrets, closed as `init` leaves them."""
    made = Folder.make(tmp_path, Config())
    for keys in (made.online_keys, made.offline_keys):
        keys.mkdir(parents=True)
        (keys / "policy.pem").touch(mode=0o600)
    made.admin_token.touch(mode=0o600)
    made.enrol_token.touch(mode=0o600)
    return made


def test_secrets_that_are_closed_are_no_matter(folder: Folder) -> None:
    assert exposed_files(folder) is None


@pytest.mark.parametrize("name", ["admin.token", "enrol.token", "keys/online/policy.pem", "keys/offline/policy.pem"])
@pytest.mark.parametrize("mode", [0o604, 0o602])
def test_a_secret_that_everybody_may_read_or_change_is_named_with_the_command_that_closes_it(
    folder: Folder, name: str, mode: int
) -> None:
    (folder.path / name).chmod(mode)
    said = exposed_files(folder)
    assert said is not None
    assert f"may read or change {name}," in said
    assert f"chmod o= {folder.path / name}" in said
    (folder.path / name).chmod(0o640)  # a group is a choice
    assert exposed_files(folder) is None


def test_offline_keys_beside_a_server_are_said_until_they_are_taken_away(folder: Folder, tmp_path: Path) -> None:
    said = offline_keys_beside(folder)
    assert said is not None
    assert "keys/offline lies beside this server (1 key)" in said
    (folder.offline_keys / "policy.pem").unlink()
    assert offline_keys_beside(folder) is None
    folder.offline_keys.rmdir()
    assert offline_keys_beside(folder) is None


def test_many_secrets_are_one_sentence(folder: Folder) -> None:
    for number in range(5):
        (folder.online_keys / f"{number}.pem").touch(mode=0o644)
    said = exposed_files(folder)
    assert said is not None
    assert "keys/online/0.pem, keys/online/1.pem, keys/online/2.pem and 2 more" in said
    assert "\n" not in said


def test_settings_are_a_secret_where_they_hold_a_password(tmp_path: Path) -> None:
    plain = Folder.make(tmp_path, Config())
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o644
    assert exposed_files(plain) is None
    secret = Folder.make(tmp_path, Config(database="postgresql://ota:hunter2@db/ota"))
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / FILE).chmod(0o644)
    said = exposed_files(secret)
    assert said is not None
    assert FILE in said
    assert "hunter2" not in said


def test_a_receivers_secret_is_a_secret(tmp_path: Path) -> None:
    (tmp_path / "pagerduty.key").touch(mode=0o644)
    (tmp_path / FILE).write_text(
        '[[receivers]]\nname = "p"\nform = "pagerduty"\nurl = "https://x.example"\nsecret_from = "file:pagerduty.key"\n'
    )
    assert "pagerduty.key" in str(exposed_files(Folder.open(tmp_path)))


@pytest.mark.parametrize(
    ("host", "reached"),
    [("127.0.0.1", False), ("127.9.9.9", False), ("::1", False), ("0.0.0.0", True), ("::", True), ("10.0.0.7", True)],
)
def test_an_admin_api_that_other_machines_reach_is_warned_of(host: str, reached: bool) -> None:
    said = exposed_admin(host, f"{host}:8471")
    assert (said is not None) == reached
    if said:
        assert "--admin-listen 127.0.0.1:8471" in said


@pytest.mark.parametrize("which", ["the database", "signed files and artifacts"])
def test_a_folder_that_cannot_be_written_is_refused_with_its_name(which: str) -> None:
    with reachable_folder() as path:
        folder = Folder.make(path, Config())
        closed, free = path / "closed", path / "free"
        closed.mkdir(mode=0o555)
        free.mkdir()
        free.chmod(0o777)
        (path / "files").symlink_to(closed if which != "the database" else free)
        with as_somebody_without_rights(), pytest.raises(Unavailable) as caught:
            check_folders(folder, database=closed if which == "the database" else free)
        assert f"writing {which} failed at {closed}: you have no permission for it" in str(caught.value)
        assert FILE in str(caught.value)
        assert list(free.iterdir()) == []


def test_what_is_kept_elsewhere_needs_no_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "not there", Config(database="postgresql://db/ota", artifacts="s3://bucket/x"))
    check_folders(folder, database=None)
    assert not folder.path.exists()
