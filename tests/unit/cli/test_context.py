"""`whimbrel context`: names for servers and folders, kept in a file of the user's, with tokens for its owner alone."""

import io
import json
from pathlib import Path

import pytest

from support.server import Said, done, whimbrel


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings" / "config.json"
    monkeypatch.setenv("WHIMBREL_CONFIG", str(path))
    return path


def refused(said: Said, words: str, status: int) -> None:
    assert (said.status, said.out) == (status, "")
    assert words in said.err


def test_contexts_are_added_used_listed_shown_and_removed(tmp_path: Path, settings: Path) -> None:
    assert whimbrel("context", "list").out == "contexts: none\n"
    first = done("context", "add", "desk", "-R", tmp_path)
    assert (first["current"], first["repository"]) == (True, str(tmp_path))
    second = done("context", "add", "production", "--server", "https://m.example:8471", "--token-file", "admin.token")
    assert second["current"] is False
    assert second["token_file"] == str(Path("admin.token").absolute())
    assert done("context", "use", "production")["current"] is True
    assert [(each["name"], each["current"]) for each in done("context", "list")] == [
        ("desk", False),
        ("production", True),
    ]
    assert "> " in whimbrel("context", "list").out
    assert done("context", "show")["server"] == "https://m.example:8471"
    assert done("context", "show", "desk")["server"] is None
    assert done("context", "remove", "production") == {"removed": "production", "current": None}
    refused(whimbrel("context", "show"), "no context is current", 4)
    assert list(json.loads(settings.read_text())["contexts"]) == ["desk"]


def test_a_token_that_is_handed_in_is_kept_for_its_owner_alone(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("secret-token\n"))
    said = whimbrel("context", "add", "production", "--server", "https://m.example", "--with-token")
    assert "secret-token" not in said.out + said.err + settings.read_text()
    token = settings.parent / "tokens" / "production.token"
    assert token.read_text() == "secret-token\n"
    assert {path.stat().st_mode & 0o777 for path in (token, settings)} == {0o600}
    assert done("context", "show")["token_file"] == str(token)
    done("context", "remove", "production")
    assert not token.exists()


def test_a_context_that_says_too_little_or_too_much_is_refused(
    tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    server = ("--server", "https://m.example")
    for arguments, words in (
        (("x",), "either a folder (--repository DIR) or a server (--server URL)"),
        (("x", "-R", tmp_path, *server), "either a folder (--repository DIR) or a server (--server URL)"),
        (("x", "-R", tmp_path / "no"), "there is no folder"),
        (("x", "--server", "m.example"), "server"),
        (("Bad Name", *server), "is not a context name"),
        (("x", *server, "--with-token"), "no token came over standard input"),
        (("x", *server, "--with-token", "--token-file", "t"), "keep one of them"),
    ):
        refused(whimbrel("context", "add", *arguments), words, 2)
    assert not settings.exists()
    done("context", "add", "x", *server)
    refused(whimbrel("context", "add", "x", *server), "remove it first: whimbrel context remove x", 4)
    refused(whimbrel("context", "use", "y"), "there is no context 'y' (contexts: x)", 4)


def test_settings_that_cannot_be_read_are_one_sentence(settings: Path) -> None:
    settings.parent.mkdir()
    settings.write_text('{"current": 7}')
    refused(whimbrel("context", "list"), f"your settings {settings}", 2)
