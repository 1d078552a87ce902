"""What cannot be undone asks a person, and is refused where there is none."""

import io

import pytest
import typer

from whimbrel.cli.confirmation import confirm
from whimbrel.errors import Refused


class Terminal(io.StringIO):
    """A person who types."""

    def isatty(self) -> bool:
        return True


def ask(*, yes: bool = False) -> None:
    confirm("to revoke wake 2.0.0", consequence="no device may ever run it again", yes=yes)


def test_without_a_terminal_it_is_refused_unless_it_is_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(Refused, match=r"to revoke wake 2.0.0 cannot be undone, .*give --yes"):
        ask()
    ask(yes=True)


def test_a_person_is_told_what_follows_and_may_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    ask()
    printed = capsys.readouterr()
    assert "To revoke wake 2.0.0 cannot be undone: no device may ever run it again. Go on? [y/N]" in printed.err
    assert printed.out.strip() == ""


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_a_person_who_does_not_say_yes_ends_it(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with pytest.raises(typer.Exit) as ended:
        ask()
    assert ended.value.exit_code == 1
