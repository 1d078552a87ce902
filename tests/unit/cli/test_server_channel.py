"""Who may hear a person's token on the way, and who vouches for a server."""

from pathlib import Path

import httpx
import pytest

from support.tls import certificate
from whimbrel.cli.connect import connect
from whimbrel.cli.server_channel import authorities, check_channel, no_answer, provider_authorities
from whimbrel.errors import Refused, UntrustedInput


@pytest.mark.parametrize("url", ["http://models.example.com:8471", "http://10.0.0.7:8471", "http://127.0.0.1.evil.com"])
def test_a_token_is_not_shown_over_plain_http_to_another_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent refused it, and the command line, whose token may do more, did not."""
    monkeypatch.setenv("WHIMBREL_TOKEN", "secret")
    with pytest.raises(Refused, match="who listens on the way would have your token"), connect(server=url):
        pass
    monkeypatch.setenv("WHIMBREL_INSECURE_HTTP", "1")
    check_channel(url)


@pytest.mark.parametrize(
    "url", ["https://models.example.com", "http://127.0.0.1:8471", "http://localhost", "http://[::1]:1"]
)
def test_https_and_this_machine_are_taken(url: str) -> None:
    check_channel(url)


@pytest.mark.parametrize("url", ["ftp://models", "models:8471", "", "https://"])
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(UntrustedInput, match="is no address of a server"):
        check_channel(url)


def test_an_authority_of_ones_own_is_trusted_for_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`login` did not read WHIMBREL_CA_FILE: nobody could sign in to a server with a certificate of his own."""
    place, _ = certificate(tmp_path, name="127.0.0.1")
    monkeypatch.setenv("WHIMBREL_CA_FILE", str(place))
    alone, beside = authorities(), provider_authorities()
    assert not isinstance(alone, bool)
    assert len(alone.get_ca_certs()) == 1 < len(beside.get_ca_certs())
    monkeypatch.setenv("WHIMBREL_CA_FILE", str(tmp_path / "server.key"))
    for read in (authorities, provider_authorities):
        with pytest.raises(UntrustedInput, match="holds no certificates"):
            read()


def test_a_certificate_that_is_not_trusted_is_said_to_be_one() -> None:
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")
    assert "name its file: WHIMBREL_CA_FILE=ca.pem" in str(no_answer("https://x", error))
    assert "is it running?" in str(no_answer("https://x", httpx.ConnectError("refused")))
