"""Which repository a command is about: an option, else the environment, else the current context, and nothing mixed."""

from pathlib import Path
from typing import Any

import pytest

from whimbrel.cli.place import Place, find_place
from whimbrel.cli.user_config import Context, UserConfig, write_config
from whimbrel.errors import NotFound, UntrustedInput

PRODUCTION = Context(server="http://models:8471", token_file="/kept/token", namespace="team", keys="/kept/keys")
DESK = Context(repository="/srv/models")


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_CONFIG", str(tmp_path / "mine" / "config.json"))
    for name in ("WHIMBREL_REPOSITORY", "WHIMBREL_SERVER", "WHIMBREL_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def contexts(current: str | None) -> None:
    write_config(UserConfig(current=current, contexts={"production": PRODUCTION, "desk": DESK}))


def place(**given: Any) -> Place:
    nothing = dict.fromkeys(("repository", "server", "context", "token_file", "namespace", "keys"))
    return find_place(**{**nothing, **given})


def test_an_explicit_server_wins_over_a_variable_that_was_left_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--server` and WHIMBREL_REPOSITORY together were refused, so a variable of the shell had to be unset first."""
    monkeypatch.setenv("WHIMBREL_REPOSITORY", "/srv/left")
    assert place(server="http://other") == Place(server="http://other")
    monkeypatch.setenv("WHIMBREL_SERVER", "http://left")
    assert place(repository=Path("/srv/own")) == Place(repository=Path("/srv/own"))
    contexts("desk")
    assert place(context="production").server == "http://models:8471"


def test_the_environment_wins_over_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts("production")
    monkeypatch.setenv("WHIMBREL_REPOSITORY", "/srv/left")
    assert place() == Place(repository=Path("/srv/left"))
    monkeypatch.setenv("WHIMBREL_REPOSITORY", "")
    monkeypatch.setenv("WHIMBREL_SERVER", "http://left")
    assert place(namespace="mine") == Place(server="http://left", namespace="mine")


def test_the_current_context_is_used_with_all_that_goes_with_it() -> None:
    contexts("production")
    kept = Place(None, "http://models:8471", Path("/kept/token"), "team", Path("/kept/keys"))
    assert place() == kept
    assert place(namespace="other", keys=Path("/own")) == kept._replace(namespace="other", keys=Path("/own"))
    contexts("desk")
    assert place() == Place(repository=Path("/srv/models"))


def test_a_contexts_token_goes_to_no_other_server() -> None:
    contexts("production")
    assert place(server="http://other").token_file is None


def test_two_places_are_refused_and_none_is_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UntrustedInput, match="--server and --context each name a repository"):
        place(server="http://other", context="desk")
    with pytest.raises(UntrustedInput, match=r"name either a folder .*whimbrel context add"):
        place()
    with pytest.raises(NotFound, match=r"no context 'staging' \(contexts: none\)"):
        place(context="staging")
    contexts(None)
    with pytest.raises(UntrustedInput, match="name either a folder"):
        place()
    monkeypatch.setenv("WHIMBREL_SERVER", "http://left")
    monkeypatch.setenv("WHIMBREL_REPOSITORY", "/srv/left")
    with pytest.raises(UntrustedInput, match="both name a repository; unset one"):
        place()
