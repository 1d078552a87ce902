"""A listener's certificate is read again wholly or not at all, and no worse one takes the place of a good one."""

import os
import time
from pathlib import Path

import pytest

from support.tls import certificate
from whimbrel.errors import UntrustedInput
from whimbrel.server.tls import Certificate, TlsFiles


def opened(folder: Path, *, begins_h: float = -1.0, ends_h: float = 1.0) -> Certificate:
    cert, key = certificate(folder, name="127.0.0.1", begins_h=begins_h, ends_h=ends_h)
    return Certificate(TlsFiles(certificate=str(cert), key=str(key)), clock=time.time)


@pytest.mark.parametrize(("begins_h", "ends_h", "words"), [(-2, -1, "expired at"), (1, 2, "is not good before")])
def test_a_certificate_that_clients_refuse_does_not_take_the_place_of_a_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, begins_h: float, ends_h: float, words: str
) -> None:
    """SIGHUP took whatever was there: a script that copied an old file shut out every device."""
    used = opened(tmp_path)
    before = used.context
    certificate(tmp_path, name="127.0.0.1", begins_h=begins_h, ends_h=ends_h)
    assert not used.read_again()
    assert used.context is before
    assert words in caplog.text
    certificate(tmp_path, name="127.0.0.1")
    assert used.read_again()
    assert used.context is not before


def test_a_server_that_starts_takes_an_expired_certificate_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    used = opened(tmp_path, begins_h=-2, ends_h=-1)
    assert "expired at" in caplog.text
    certificate(tmp_path, name="127.0.0.1", begins_h=-3, ends_h=-2)
    assert used.read_again()  # nothing is lost: clients refuse both


def test_files_that_do_not_belong_together_change_nothing(tmp_path: Path) -> None:
    used = opened(tmp_path)
    (tmp_path / "other").mkdir()
    certificate(tmp_path / "other", name="127.0.0.1")
    (tmp_path / "server.key").write_bytes((tmp_path / "other" / "server.key").read_bytes())
    assert not used.read_again()


@pytest.mark.parametrize("name", ["server.pem", "server.key"])
def test_what_is_no_file_keeps_no_server_waiting(tmp_path: Path, name: str) -> None:
    """A named pipe in the place of the file: to open it waited for ever, and with it the whole server."""
    used = opened(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert not used.read_again()
    with pytest.raises(UntrustedInput, match="is no file of at most"):
        Certificate(TlsFiles(str(tmp_path / "server.pem"), str(tmp_path / "server.key")), clock=time.time)
