"""Each error's exit code, status and title, and the words of the system's errors: people and programs rely on them."""

import errno
import os

import pytest

from whimbrel import errors
from whimbrel.errors import reason_of


@pytest.mark.parametrize(
    ("name", "exit_code", "status", "title"),
    [
        ("WhimbrelError", 1, 500, "Whimbrel failed"),
        ("UntrustedInput", 2, 400, "The input cannot be accepted"),
        ("Unavailable", 3, 503, "Not available now"),
        ("DiskFull", 3, 507, "The disk is full"),
        ("TooMany", 3, 429, "Too many at once"),
        ("Refused", 4, 403, "Refused"),
        ("NotFound", 4, 404, "Not found"),
        ("Conflict", 4, 409, "Conflict"),
        ("NotAllowed", 4, 401, "Not allowed"),
        ("InvariantBroken", 70, 500, "Whimbrel has a bug"),
        ("IllegalTransition", 70, 409, "Conflict"),
    ],
)
def test_an_error_ends_a_command_and_answers_a_request_in_its_own_way(
    name: str, exit_code: int, status: int, title: str
) -> None:
    error = getattr(errors, name)
    assert (error.exit_code, error.status, error.title) == (exit_code, status, title)


@pytest.mark.parametrize(
    "code", [errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.ECONNREFUSED, errno.EROFS, errno.EXDEV]
)
def test_an_error_of_the_system_has_words_and_no_number(code: int) -> None:
    words = reason_of(OSError(code, os.strerror(code)))
    assert words != os.strerror(code)
    assert "Errno" not in words


def test_an_error_without_words_is_called_by_its_name_and_line_breaks_are_spaces() -> None:
    assert reason_of(OSError(9999, "")) == "OSError"
    assert reason_of(OSError(9999, "odd\n  thing")) == "odd thing"
    assert reason_of(ValueError("two\nlines")) == "two lines"
    assert reason_of(TimeoutError(errno.ETIMEDOUT, "timed out")) == "no answer came in time"
    assert reason_of(OSError("bare words")) == "bare words"
