"""From the outside: tokens by the command line, and a person who signs in with a real provider in a browser."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest

from support.oidc import CLIENT, Provider, provider
from support.server import Running, done, repository, serving, whimbrel

# The provider runs in this process, and its library warns whoever uses what will be renamed.
pytestmark = pytest.mark.filterwarnings("ignore:get_jwt_config:DeprecationWarning")


@pytest.fixture(scope="module")
def theirs() -> Iterator[Provider]:
    with provider() as running:
        running.knows("s-ada", email="ada@example.com", email_verified=True, groups=["ml-release"])
        running.knows("s-eve", email="eve@example.com", email_verified=True, groups=["sales"])
        yield running


@pytest.fixture(scope="module")
def here(theirs: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = repository(tmp_path_factory.mktemp("people") / "repo")
    with (folder / "whimbrel.toml").open("a") as settings:
        settings.write(
            f'[oidc]\nissuer = "{theirs.issuer}"\nclient_id = "{CLIENT}"\nsession_hours = 8\n'
            '[[oidc.roles]]\nclaim = "groups"\nvalue = "ml-release"\nroles = ["releaser"]\n'
        )
    with serving(folder) as running:
        yield running


def where(here: Running, token: Path | None = None) -> tuple[str, ...]:
    return ("--server", here.admin, "--token-file", str(token or here.folder / "admin.token"))


class Login:
    """`whimbrel login` in a process of its own: what it asks a person to open, and what it says in the end."""

    def __init__(self, here: Running, config: Path, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "whimbrel.cli", "login", "--server", here.admin, "--json", *options],
            env=os.environ | {"WHIMBREL_CONFIG": str(config)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: Queue[str] = Queue()
        self._errors = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors += line
            self._lines.put(line)

    def url(self) -> str:
        while not (line := self._lines.get(timeout=60)).startswith("http"):
            pass
        return line.strip()

    def ended(self, pasted: str | None = None) -> tuple[int, str, str]:
        """Its exit status, standard output and standard error, after `pasted` was typed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if pasted is not None:
            self._process.stdin.write(pasted + "\n")
        self._process.stdin.close()
        out = self._process.stdout.read()
        self._process.stdout.close()
        self._process.wait(60)
        assert self._process.stderr is not None
        self._reader.join(10)
        self._process.stderr.close()
        return self._process.returncode, out, self._errors


def acts(config: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WHIMBREL_CONFIG", str(config))
    return done(*words)


def test_a_person_signs_in_with_the_browser_and_out_again(
    here: Running, theirs: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.json"
    login = Login(here, config, "--no-browser")
    back = theirs.sign_in(login.url(), "s-ada")
    assert back.startswith("http://127.0.0.1:")
    stray = back.split("?")[0].removesuffix("callback") + "favicon.ico"
    assert httpx.get(stray, trust_env=False).status_code == 404  # a browser asks for that, too
    assert "go back to the terminal" in httpx.get(back, trust_env=False).text
    status, out, _ = login.ended()
    session = json.loads(out)
    assert (status, session["account"], session["roles"], session["context"]) == (
        0,
        "ada@example.com",
        ["releaser"],
        "127-0-0-1",
    )
    assert session["expires_at"] - session["created_at"] == 8 * 3600
    assert "token" not in session
    kept = tmp_path / "tokens" / "127-0-0-1.token"
    assert kept.stat().st_mode & 0o777 == 0o600
    who = acts(config, "token", "whoami", monkeypatch=monkeypatch)
    assert (who["account"], who["kind"], "release" in who["permissions"]) == ("ada@example.com", "person", True)
    assert acts(config, "logout", monkeypatch=monkeypatch)["account"] == "ada@example.com"
    assert not kept.exists()
    said = whimbrel("token", "whoami")
    assert said.status == 4
    entries = done("audit", *where(here))
    assert [(each["actor"], each["action"]) for each in entries[:2]] == [
        ("ada@example.com", "revoke token"),
        ("ada@example.com", "sign in"),
    ]


def test_a_browser_on_another_machine_and_a_person_without_a_role(
    here: Running, theirs: Provider, tmp_path: Path
) -> None:
    login = Login(here, tmp_path / "config.json", "--paste")
    back = theirs.sign_in(login.url(), "s-ada")
    status, out, _ = login.ended(back)
    assert (status, json.loads(out)["account"]) == (0, "ada@example.com")
    other = Login(here, tmp_path / "config.json", "--paste")
    status, _, error = other.ended(theirs.sign_in(other.url(), "s-eve"))
    assert status == 4
    assert "the provider knows eve@example.com, and its claims give no role here" in error
    foreign = Login(here, tmp_path / "config.json", "--paste")
    foreign.url()
    status, _, error = foreign.ended(back)  # the answer of the first sign-in
    assert status == 2
    assert "the answer is of another sign-in" in error


def test_a_pipelines_token_from_its_making_to_its_end(here: Running, tmp_path: Path) -> None:
    file = tmp_path / "ci.token"
    made = done("token", "create", "ci", "--role", "pipeline", "--for", "12h", "-o", file, *where(here))
    assert (made["token"], made["account"], made["kind"]) == (None, "ci", "machine")
    assert made["expires_at"] - made["created_at"] == 12 * 3600
    assert file.stat().st_mode & 0o777 == 0o600
    who = done("token", "whoami", *where(here, file))
    assert who["permissions"] == ["read", "publish", "draft"]
    refused = whimbrel("token", "list", *where(here, file))
    assert refused.status == 4
    assert "the token of ci is a pipeline's, and this needs the permission 'tokens'" in refused.err
    before = file.read_text()
    done("token", "rotate", "-o", file, *where(here, file))
    assert file.read_text() != before
    assert done("token", "whoami", *where(here, file))["account"] == "ci"
    listed = whimbrel("token", "list", *where(here)).out
    assert "ci (machine)" in listed
    asked = whimbrel("token", "revoke", "ci", *where(here))
    assert (asked.status, "give --yes to do it" in asked.err) == (4, True)
    assert done("token", "revoke", "ci", "--yes", *where(here))["good"] is False
    over = whimbrel("token", "whoami", *where(here, file))
    assert (over.status, "this token is not known here, was revoked, or is over" in over.err) == (4, True)
