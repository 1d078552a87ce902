"""whimbrel.toml: what stands in it, what is refused, and which of it a running server reads again."""

import logging
import os
import shlex
from pathlib import Path

import pytest

from whimbrel import limits
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.server.config import Config, CurrentReceivers, Folder

HOOK = '[[receivers]]\nname = "{}"\nform = "generic"\nurl = "https://example.com/{}"\n'


def written(path: Path, text: str) -> Folder:
    (path / "whimbrel.toml").write_text(text)
    return Folder.open(path)


def test_every_setting_has_a_default(tmp_path: Path) -> None:
    folder = written(tmp_path, "")
    assert folder.config == Config()
    defaults = Config()
    assert (defaults.database, defaults.artifacts, defaults.inbox, defaults.inbox_stream, defaults.namespace) == (
        "sqlite:///whimbrel.db",
        "files",
        "table",
        "whimbrel-inbox",
        "default",
    )
    assert (defaults.evidence, defaults.second_person_for_keys, defaults.audit_anchor_hours) == ("proven", False, 24.0)
    assert (defaults.receivers, defaults.oidc, defaults.attestation, defaults.client_certificates) == (
        (),
        None,
        {},
        None,
    )


def test_a_folder_knows_its_paths(tmp_path: Path) -> None:
    folder = written(tmp_path, "")
    relative = {
        name: getattr(folder, name).relative_to(tmp_path.resolve()).as_posix()
        for name in ("offline_keys", "online_keys", "sealing_key", "admin_token", "enrol_token", "root")
        if name != "offline_keys" or tmp_path == tmp_path.resolve()
    }
    assert relative == {
        "offline_keys": "keys/offline",
        "online_keys": "keys/online",
        "sealing_key": "keys/online/sealing.key",
        "admin_token": "admin.token",
        "enrol_token": "enrol.token",
        "root": "root.json",
    }
    assert folder.artifacts_folder == tmp_path / "files"
    assert folder.database_url == f"sqlite:///{tmp_path}/whimbrel.db"


@pytest.mark.parametrize("url", ["sqlite:////var/lib/x.db", "sqlite:///:memory:", "postgresql://user@host/name"])
def test_a_database_elsewhere_is_where_it_says(tmp_path: Path, url: str) -> None:
    assert written(tmp_path, f'database = "{url}"').database_url == url


def test_artifacts_elsewhere_are_in_no_folder(tmp_path: Path) -> None:
    assert written(tmp_path, 'artifacts = "s3://bucket/prefix"').artifacts_folder is None
    assert written(tmp_path, 'artifacts = "/srv/files"').artifacts_folder == Path("/srv/files")


def test_no_repository_is_said_with_what_makes_one(tmp_path: Path) -> None:
    for path in (tmp_path / "my repo", tmp_path / "none"):
        with pytest.raises(NotFound) as caught:
            Folder.open(path)
        assert str(caught.value).startswith(f"{path} is no Whimbrel repository (no whimbrel.toml); make one with: ")
        assert str(caught.value).endswith(f"whimbrel init {shlex.quote(str(path))}")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotFound):
        Folder.open(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "is not TOML: "),
        ("colour = 1", "has no field 'colour'"),
        ('inbox = "kafka"', "inbox is 'kafka'; expected table, or a URL that begins with nats:// or tls://"),
        ('inbox_stream = "a b"', "inbox_stream is 'a b'; expected letters, digits, _ and -, at most 64"),
        ('namespace = "A"', "namespace is 'A'"),
        ('evidence = "some"', "evidence is 'some'"),
        ("audit_anchor_hours = 0.5", "audit_anchor_hours is 0.5"),
        (f"audit_anchor_hours = {limits.AUDIT_ANCHOR_HOURS + 1}", "audit_anchor_hours is"),
        ('database = ""', "database is"),
        (HOOK.format("a", 1) + HOOK.format("a", 2), "two receivers share a name: a, a"),
    ],
)
def test_settings_that_are_not_understood_name_the_file_and_what_is_wrong(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(UntrustedInput) as caught:
        written(tmp_path, text)
    assert str(tmp_path / "whimbrel.toml") in str(caught.value)
    assert words in str(caught.value)


def test_a_file_of_settings_is_short(tmp_path: Path) -> None:
    written(tmp_path, "#" * 64 * 1024)
    with pytest.raises(UntrustedInput, match="has 65537 bytes; expected a short file of settings"):
        written(tmp_path, "#" * (64 * 1024 + 1))


def test_a_new_file_holds_what_was_asked_and_is_closed_where_it_has_a_password(tmp_path: Path) -> None:
    config = Config(database='sqlite:///a "b"\\.db', namespace="cameras")
    assert Folder.make(tmp_path, config).config == config
    assert Folder.open(tmp_path).config == config
    assert (tmp_path / "whimbrel.toml").stat().st_mode & 0o777 == 0o644
    secret = Config(database="postgresql://user:word@host/name")
    Folder.make(tmp_path, secret)
    assert (tmp_path / "whimbrel.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("changes", "secret"),
    [
        ({}, False),
        ({"database": "postgresql://user@host/name"}, False),
        ({"database": "postgresql://user:word@host/name"}, True),
        ({"artifacts": "s3://key:word@bucket"}, True),
        ({"inbox": "nats://user:word@host"}, True),
        ({"inbox": "nats://host"}, False),
    ],
)
def test_a_password_makes_the_file_a_secret(changes: dict[str, str], secret: bool) -> None:
    assert Config(**changes).has_password is secret


# --- read again ---
def touched(path: Path, text: str, *, at: int) -> None:
    (path / "whimbrel.toml").write_text(text)
    os.utime(path / "whimbrel.toml", (at, at))


def test_receivers_are_read_again_when_the_file_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    receivers = CurrentReceivers(written(tmp_path, HOOK.format("a", 1)))
    assert list(receivers.get()) == ["a"]
    with caplog.at_level(logging.INFO):
        touched(tmp_path, HOOK.format("a", 1) + HOOK.format("b", 2), at=100)
        assert list(receivers.get()) == ["a", "b"]
        assert list(receivers.get()) == ["a", "b"]
        touched(tmp_path, 'namespace = "other"', at=200)
        assert list(receivers.get()) == []
    assert caplog.messages == [
        "whimbrel.toml has changed; its receivers are now: a, b",
        "whimbrel.toml has changed; its receivers are now: none",
        "namespace of whimbrel.toml has changed, too, and is used from the next start on",
    ]


def test_a_file_that_is_not_understood_changes_nothing_and_says_why(tmp_path: Path) -> None:
    receivers = CurrentReceivers(written(tmp_path, HOOK.format("a", 1)))
    touched(tmp_path, "x", at=100)
    assert list(receivers.get()) == ["a"]
    assert receivers.problem is not None
    assert receivers.problem.endswith("; the receivers of before stay in use: a")
    (tmp_path / "whimbrel.toml").unlink()
    assert list(receivers.get()) == ["a"]
    assert "is no Whimbrel repository" in receivers.problem
    touched(tmp_path, HOOK.format("b", 1), at=300)
    assert list(receivers.get()) == ["b"]
    assert receivers.problem is None


def test_receivers_of_an_event_are_those_that_ask_for_it(tmp_path: Path) -> None:
    asks = '[[receivers]]\nname = "b"\nform = "generic"\nurl = "https://example.com/b"\non = ["audit_anchor"]\n'
    receivers = CurrentReceivers(written(tmp_path, HOOK.format("a", 1) + asks))
    assert receivers.asking_for("audit_anchor") == ["b"]
    touched(tmp_path, "", at=100)
    assert receivers.asking_for("audit_anchor") == ["b"]
