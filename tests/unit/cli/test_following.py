"""Waiting for an end: it is over then, or when the time is up, or when a server stays away; a restart ends nothing."""

from collections.abc import Callable, Iterator

import pytest

from whimbrel.cli import following
from whimbrel.cli.following import follow, wait_until
from whimbrel.errors import NotFound, Unavailable

Look = Callable[[], int]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only sleeping moves."""
    now = [1000.0]
    monkeypatch.setattr(following.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(following.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


def answers(*values: int | Exception) -> Look:
    """Each of `values` in turn, and the last for ever; exceptions are raised."""
    left: Iterator[int | Exception] = iter(values)
    last: list[int | Exception] = [values[-1]]

    def look() -> int:
        value = next(left, last[0])
        if isinstance(value, Exception):
            raise value
        return value

    return look


def test_waiting_ends_with_what_is_waited_for() -> None:
    assert wait_until(answers(1, 2, 3), over=lambda n: n == 3, timeout_s=None, what="x") == (3, True)


def test_waiting_ends_with_the_time() -> None:
    assert wait_until(answers(1), over=lambda n: n == 3, timeout_s=5.0, what="x") == (1, False)
    assert wait_until(answers(3), over=lambda n: n == 3, timeout_s=0.0, what="x") == (3, True)


def test_a_server_that_is_started_again_ends_no_waiting() -> None:
    away = [Unavailable("away")] * 200
    assert wait_until(answers(1, *away, 3), over=lambda n: n == 3, timeout_s=None, what="x") == (3, True)


def test_a_server_that_stays_away_ends_it_and_so_does_one_that_was_never_there() -> None:
    with pytest.raises(Unavailable):
        wait_until(answers(1, Unavailable("away")), over=lambda n: n == 3, timeout_s=None, what="x")
    with pytest.raises(Unavailable):
        wait_until(answers(Unavailable("away"), 3), over=lambda n: n == 3, timeout_s=None, what="x")
    with pytest.raises(NotFound):
        wait_until(answers(1, NotFound("gone")), over=lambda n: n == 3, timeout_s=None, what="x")


def test_people_read_a_line_again_only_where_it_is_another_one(capsys: pytest.CaptureFixture[str]) -> None:
    """`rollout watch` printed the same line each time a device reported: what had changed was not in it."""
    follow(
        answers(10, 11, 19, 20), over=lambda n: n == 20, picture=str, line=lambda n: f"{n // 10}", news=str, json=False
    )
    assert capsys.readouterr().out == "1\n2\n"


def test_following_prints_changes_and_gives_the_last_view(capsys: pytest.CaptureFixture[str]) -> None:
    last = follow(
        answers(1, 1, Unavailable("away"), 2, 3),
        over=lambda n: n == 3,
        picture=str,
        line=str,
        news=lambda n: n,
        json=True,
    )
    assert last == 3
    assert capsys.readouterr().out == "1\n2\n3\n"
