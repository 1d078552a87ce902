"""The command line as a whole: its version, its help, errors for people and for scripts, and completion by shells."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.server import whimbrel
from whimbrel.cli import app as cli
from whimbrel.version import __version__


def test_the_version_is_printed() -> None:
    assert whimbrel("--version").out == f"whimbrel {__version__}\n"


def test_the_help_lists_every_command_whatever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device it listed `agent` alone, so nobody could learn from it that there was more to install."""
    monkeypatch.setitem(cli._MARKS, "server", "a_package_that_is_not_here")
    said = whimbrel("--help")
    assert said.status == 0
    listed = [line.split()[1] for line in said.out.splitlines() if line.startswith("│ ") and line[2].isalpha()]
    assert listed == list(cli._BY_NAME)
    words = " ".join(said.out.replace("│", " ").split())
    assert "Publish a version: sign it, store it, and say what it is. (needs the extra server)" in words
    assert "Keep the models of this device as their policies say. agent" not in words


def test_help_and_completion_of_the_whole_import_no_command() -> None:
    code = (
        "import sys; from whimbrel.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: print([name for name in sys.modules if name.startswith('whimbrel.cli.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert done.stderr == "['whimbrel.cli.app']\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("nope",), "no such command 'nope'; see: whimbrel --help"),
        (("version", "lst"), "no such command 'lst'. Did you mean 'list'? See: whimbrel version --help"),
        (("version", "list"), "missing option '--model' / '-m'; see: whimbrel version list --help"),
        (("version", "list", "wake", "-m", "wake"), "got unexpected extra argument"),
        (("collect", "--older-than-hours", "x"), "invalid value for '--older-than-hours'"),
        (("agent", "status", "--fodler", "x"), "no such option: --fodler"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(command: Sequence[str], words: str) -> None:
    said = whimbrel(*command)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("whimbrel: ")
    assert words in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ("model", "rollback", "wake", "--selector", "", "--yes"),
        ("model", "rollback", "wake", "--selector=", "--yes"),
        ("model", "rollback", "wake", "-l", " ", "--yes"),
        ("model", "rollback", "wake", "--to", ""),
        ("model", "rollback", "wake", "--because", ""),
        ("model", "show", ""),
        ("device", "list", "--selector", ""),
        ("version", "list", "--model", ""),
        ("agent", "run", "--folder", ""),
    ],
)
def test_an_empty_value_is_refused_by_every_command(command: Sequence[str]) -> None:
    """`model rollback --selector "$CLASS"` with the variable unset took back the whole fleet."""
    said = whimbrel(*command)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("whimbrel: an empty value came after ")


@pytest.mark.parametrize("option", [("--proxy", ""), ("--proxy=",), ("--ca-file", ""), ("--server", "")])
def test_an_empty_value_takes_a_setting_of_an_agent_away(option: Sequence[str], tmp_path: Path) -> None:
    """Its help says so: these alone are not refused for being empty."""
    said = whimbrel("agent", "check", "--folder", tmp_path / "new", *option)
    assert (said.status, "has no settings yet" in said.err) == (4, True)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "command",
    [
        ("model", "set", "wake", "--rollout-refresh-s"),
        ("model", "add", "wake", "--battery-min"),
        ("rollout", "start", "plan.yaml", "--hour-s"),
        ("experiment", "start", "plan.yaml", "--hour-s"),
        ("gate", "replay", "w.jsonl", "--plan", "plan.yaml", "--hour-s"),
        ("collect", "--older-than-hours"),
    ],
)
def test_a_number_that_is_none_is_refused_by_every_command(command: Sequence[str], number: str) -> None:
    """`model set --rollout-refresh-s nan` was a traceback."""
    said = whimbrel(*command, number)
    assert (said.status, said.out) == (2, "")
    assert f"invalid value for '{command[-1]}'" in said.err


@pytest.mark.parametrize(
    ("command", "kind", "status"),
    [
        (("model", "list", "-R", "/nowhere"), "NotFound", 4),
        (("model", "list", "--server", "http://127.0.0.1:1"), "NotAllowed", 4),
        (("model", "list", "-R", "/nowhere", "--context", "x"), "UntrustedInput", 2),
        (("version", "list"), "Usage", 2),
        (("agent", "status", "--folder", "/nowhere"), "NotFound", 4),
    ],
)
def test_an_error_is_an_object_for_scripts(command: Sequence[str], kind: str, status: int) -> None:
    plain, said = whimbrel(*command), whimbrel(*command, "--json")
    assert (said.status, said.out, plain.status) == (status, "", status)
    problem = json.loads(said.err)
    assert problem == {"kind": kind, "detail": problem["detail"], "exit_code": status}
    assert plain.err == f"whimbrel: {problem['detail']}\n"


def test_a_bug_is_told_with_its_place_and_a_status_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cli, "app", broken)
    said = whimbrel("model", "list")
    assert said.status == 70
    assert said.err == "whimbrel: this is a bug of Whimbrel (ZeroDivisionError: a bug); please report it\n"


# --- completion, in the protocol of each shell ---


def offered(shell: str, line: str) -> list[str]:
    """What `shell` is offered for a command line that ends where the cursor is."""
    words = line.split(" ")
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    done = subprocess.run(
        [sys.executable, "-m", "whimbrel.cli"],
        env={**os.environ, "_WHIMBREL_COMPLETE": f"complete_{shell}", **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    if shell == "zsh":
        return re.findall(r'^(?:_arguments .*\(\()?"([^"]+)"', done.stdout, re.M)
    return [offer.partition("\t")[0] for offer in done.stdout.splitlines()]


@pytest.mark.long
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_sub_commands_and_options(shell: str) -> None:
    assert offered(shell, "whimbrel ver") == ["version"]
    assert {"list", "show", "retire", "revoke"} <= set(offered(shell, "whimbrel version "))
    assert offered(shell, "whimbrel rollout pl") == ["plan"]
    assert {"check", "new", "schema"} <= set(offered(shell, "whimbrel rollout plan "))
    assert {"--model", "--server", "--context"} <= set(offered(shell, "whimbrel publish --"))
    assert {"--folder", "--json"} <= set(offered(shell, "whimbrel agent status --"))


def test_bash_itself_completes(tmp_path: Path) -> None:
    """The script that `whimbrel --install-completion` installs, in a real bash."""
    command = tmp_path / "whimbrel"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m whimbrel.cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    environment = {**os.environ, "_WHIMBREL_COMPLETE": "source_bash"}
    script = subprocess.run([command], env=environment, capture_output=True, text=True, check=True).stdout
    assert "complete -o default -F _whimbrel_completion whimbrel" in script
    asks = 'COMP_WORDS=(whimbrel rollout wa); COMP_CWORD=2; _whimbrel_completion whimbrel; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{asks}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(done.stdout.split()) == ["wait", "watch"]


def test_the_names_of_contexts_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_CONFIG", str(tmp_path / "config.json"))
    for name in ("desk", "production"):
        assert whimbrel("context", "add", name, "--server", "http://127.0.0.1:1").status == 0
    assert offered("bash", "whimbrel context use p") == ["production"]
