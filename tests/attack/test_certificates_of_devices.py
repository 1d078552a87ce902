"""The header with a device's certificate counts from the proxy alone, and for its own device alone."""

from pathlib import Path

import pytest

from support.enrolling import KeyedDevice
from support.server import repository, serving
from whimbrel.errors import NotAllowed, UntrustedInput
from whimbrel.model.documents import convert
from whimbrel.server.client_certificates import ClientCertificates
from whimbrel.server.config import Config

PROXY, OTHER = ("10.0.0.5", 4711), ("10.0.0.6", 4711)
TRUSTING = ClientCertificates(header="X-Client-Subject", proxies=("10.0.0.5/32", "fd00::/64"))
SUBJECT = b"CN=board-1,O=Example"


def scope(*values: bytes, peer: tuple[str, int] | None = PROXY) -> dict[str, object]:
    return {"headers": [(b"x-client-subject", value) for value in values], "client": peer}


def test_the_certificate_that_a_proxy_verified_names_the_device() -> None:
    assert TRUSTING.device_of(scope(SUBJECT)) == "board-1"
    assert TRUSTING.device_of(scope(SUBJECT, peer=("fd00::7", 1))) == "board-1"
    assert TRUSTING.device_of(scope()) is None
    plain = ClientCertificates(header="X-Client-Subject", proxies=("10.0.0.5/32",), form="id")
    assert plain.device_of(scope(b"board-1")) == "board-1"


@pytest.mark.parametrize("peer", [OTHER, None, ("", 0), ("10.0.0.55", 1), ("::ffff:10.0.0.5", 1)])
def test_a_header_from_elsewhere_is_refused(peer: tuple[str, int] | None) -> None:
    with pytest.raises(NotAllowed, match="from the proxies of this server alone"):
        TRUSTING.device_of(scope(SUBJECT, peer=peer))


@pytest.mark.parametrize(
    "values",
    [
        (SUBJECT, SUBJECT),
        (b"",),
        (b"O=Example",),
        (b"CN=a,CN=board-1",),
        (b"\xff",),
        (b"CN=",),
        (b"CN=" + b"x" * 5000,),
    ],
)
def test_a_header_that_names_no_single_device_is_refused(values: tuple[bytes, ...]) -> None:
    with pytest.raises(NotAllowed):
        TRUSTING.device_of(scope(*values))


def test_where_a_certificate_is_required_nobody_comes_without() -> None:
    strict = ClientCertificates(header="X-Client-Subject", proxies=("10.0.0.5/32",), required=True)
    with pytest.raises(NotAllowed, match="with a TLS certificate alone"):
        strict.device_of(scope())


def test_settings_that_name_no_network_are_refused() -> None:
    with pytest.raises(UntrustedInput, match=r"10\.0\.0"):
        convert(Config, {"client_certificates": {"header": "X-A", "proxies": ["10.0.0"]}}, what="whimbrel.toml")


def test_a_certificate_enrols_its_own_device_without_a_token_and_no_other(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo", versions=0)
    with (folder / "whimbrel.toml").open("a") as file:
        file.write('\n[client_certificates]\nheader = "X-Client-Subject"\nproxies = ["127.0.0.1/32"]\n')
    with serving(folder) as server, server.public() as http:
        http.headers["x-client-subject"] = "CN=board-1,O=Example"
        http.headers["x-forwarded-for"] = "203.0.113.9"  # the peer's own address counts, and not what it says
        board = KeyedDevice(http, "board-1")
        held = board.enrol().json()["credential"]
        bearer = board.bearer(held)
        assert http.post("/device/v1/check", headers=bearer, json={"models": {}}).status_code == 200
        refused = KeyedDevice(http, "board-2").enrol()
        assert (refused.status_code, "is that of board-1" in refused.json()["detail"]) == (401, True)
        stolen = {**bearer, "x-client-subject": "CN=board-2"}
        assert http.post("/device/v1/check", headers=stolen, json={"models": {}}).status_code == 401
        again = KeyedDevice(http, "board-1").enrol()  # a wiped board: the certificate proves it
        assert again.status_code == 201
        with server.people() as people:
            assert people.get("devices/board-1").json()["admission"] == "attested"
