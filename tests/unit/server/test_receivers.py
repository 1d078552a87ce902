"""Receivers are understood wholly or refused, and secrets are read only where they are needed."""

from pathlib import Path

import pytest

from whimbrel.errors import UntrustedInput
from whimbrel.server.config import FILE, CurrentReceivers, Folder
from whimbrel.server.receivers import Receiver, reveal

GOOD = 'name = "team"\nform = "generic"\nurl = "https://hooks.example.com/x"\n'
MAIL = 'name = "m"\nform = "email"\nurl = "smtps://mx.example.com"\nsender = "a@b.c"\nto = ["d@e.f"]\n'


def opened(folder: Path, *tables: str) -> Folder:
    (folder / FILE).write_text("".join(f"[[receivers]]\n{table}" for table in tables))
    return Folder.open(folder)


def test_receivers_of_every_form_are_read(tmp_path: Path) -> None:
    found = opened(tmp_path, GOOD, MAIL).config.receivers
    assert [(each.name, each.form) for each in found] == [("team", "generic"), ("m", "email")]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (GOOD.replace("https://", "ftp://"), "expected http://host or https://host"),
        (GOOD.replace("https://hooks.example.com/x", "https://"), "its address is not understood"),
        (GOOD.replace('url = "https://hooks.example.com/x"\n', ""), "needs `url`, or `url_from`"),
        (GOOD.replace("generic", "pagerduty"), "needs `secret_from`: PagerDuty's routing key"),
        (MAIL.replace('to = ["d@e.f"]\n', ""), "needs `sender` and `to`"),
        (MAIL.replace("d@e.f", "d@e.f\\r\\nBcc: x@y.z"), "to 1 of receiver 1 is"),
        (GOOD + 'on = ["everything"]\n', "everything"),
        (GOOD + 'sekret = "x"\n', "sekret"),
        (GOOD + 'secret_from = "hunter2"\n', "secret_from"),
    ],
)
def test_a_receiver_that_is_not_understood_is_refused(tmp_path: Path, table: str, words: str) -> None:
    with pytest.raises(UntrustedInput, match="receiver") as caught:
        opened(tmp_path, table)
    assert words in str(caught.value)


def test_two_receivers_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UntrustedInput, match="two receivers share a name"):
        opened(tmp_path, GOOD, GOOD)


def test_a_secret_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(" s3cret \n")
    monkeypatch.setenv("HOOK", "https://hooks.example.com/y")
    known = reveal(Receiver(name="t", form="slack", url_from="env:HOOK", secret_from="file:key"), folder=tmp_path)
    assert (known.url, known.secret) == ("https://hooks.example.com/y", "s3cret")


@pytest.mark.parametrize("source", ["env:NOT_THERE", "file:not-there", "file:lines", "file:empty"])
def test_a_secret_that_is_not_there_is_said_without_saying_it(tmp_path: Path, source: str) -> None:
    (tmp_path / "lines").write_text("one\ntwo")
    (tmp_path / "empty").write_text("\n")
    receiver = Receiver(name="t", form="generic", url="http://127.0.0.1/x", secret_from=source)
    with pytest.raises(UntrustedInput, match="the secret of receiver t") as caught:
        reveal(receiver, folder=tmp_path)
    assert "two" not in str(caught.value)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """New receivers needed a restart."""
    current = CurrentReceivers(opened(tmp_path, GOOD))
    assert list(current.get()) == ["team"]
    opened(tmp_path, GOOD, MAIL)
    assert list(current.get()) == ["team", "m"]
    opened(tmp_path)
    assert current.get() == {}


def test_a_file_that_is_not_understood_leaves_the_receivers_of_before_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    current = CurrentReceivers(opened(tmp_path, GOOD))
    (tmp_path / FILE).write_text("[[receivers]\n")
    for _ in range(3):
        assert list(current.get()) == ["team"]
    assert len(caplog.records) == 1
    assert "is not TOML" in caplog.text
    assert "the receivers of before stay in use: team" in caplog.text
    assert current.problem is not None
    opened(tmp_path, MAIL)
    assert list(current.get()) == ["m"]
    assert current.problem is None


def test_a_file_that_is_gone_leaves_the_receivers_of_before(tmp_path: Path) -> None:
    current = CurrentReceivers(opened(tmp_path, GOOD))
    (tmp_path / FILE).unlink()
    assert list(current.get()) == ["team"]
    assert current.problem is not None


def test_another_setting_is_said_to_wait_for_the_next_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    current = CurrentReceivers(opened(tmp_path, GOOD))
    (tmp_path / FILE).write_text('inbox = "nats://u:hunter2@127.0.0.1:4222"\n')
    assert current.get() == {}
    assert "inbox of whimbrel.toml has changed, too, and is used from the next start on" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_answer_that_repeats_a_secret_is_kept_without_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret")
    (tmp_path / "url").write_text("https://hooks.example.com/T0/s3c")
    receiver = Receiver(name="t", form="slack", url_from="file:url", secret_from="file:key")
    said = reveal(receiver, folder=tmp_path).without_secrets("no s3cret at https://hooks.example.com/T0/s3c")
    assert said == "no *** at ***"
