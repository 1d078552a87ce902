"""One `whimbrel serve` is two processes with two certificates: what each does when the other, or a file, is gone."""

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from support.agents import AllGood, settled
from support.serve_process import Server, served
from support.server import repository, whimbrel
from support.tls import certificate
from whimbrel import Agent, AgentOptions
from whimbrel.errors import Unavailable
from whimbrel.server.addresses import bind

pytestmark = pytest.mark.long

PATIENCE_S = 30.0


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def child_of(server: Server) -> int:
    return int(Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()[0])


def is_free(url: str) -> bool:
    """Whether somebody can listen there. Another test of the machine may have the port for a moment."""
    try:
        bind(url.removeprefix("http://")).close()
    except Unavailable:
        return False
    return True


def answers(url: str, *, verify: ssl.SSLContext | bool = True) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False, timeout=PATIENCE_S, verify=verify).status_code == 200
    except httpx.TransportError:
        return False


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_device_process_is_started_again_and_devices_only_wait(tmp_path: Path) -> None:
    with served(repository(tmp_path / "repo", versions=0), start_new_session=True) as server:
        listening = server.listening()
        before = child_of(server)
        os.kill(before, signal.SIGKILL)
        assert answers(listening.devices)  # the socket stayed open: the request waited
        child = child_of(server)
        assert child != before
        os.kill(child, signal.SIGTERM)  # only the first process decides when it is over
        with listening.enrolled() as device, listening.people() as people:
            body = {"epoch": "e" * 16, "models": ["wake"], "windows": []}
            assert device.post("/device/v1/reports", json=body).status_code == 204
            size = len(device.get("/metadata/timestamp.json").content)
            until(lambda: people.get("/status").json()["sent"]["document_bytes"] >= size // 2, "bytes are told")
        os.killpg(server.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
        assert server.process.wait(PATIENCE_S) == 0
        assert not is_alive(child)
        assert [line for line in server.log if "Traceback" in line] == []
        assert [line for line in server.log if " ERROR " in line and "is started again" not in line] == []


def test_where_the_first_process_is_killed_the_other_one_ends_and_the_port_is_free(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo", versions=0)
    with served(folder) as server:
        listening = server.listening()
        child = child_of(server)
        server.process.kill()
        server.process.wait()
        until(lambda: not is_alive(child), "the device process goes on alone")
    until(lambda: is_free(listening.devices), "the port of devices stays taken")


# --- TLS ---
def trusting(place: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(place))


def serial_of(url: str) -> int:
    """Of the certificate that a new connection gets."""
    from cryptography import x509

    port = int(url.rpartition(":")[2])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as connection:
        content = connection.getpeercert(binary_form=True)
        assert content is not None
        assert connection.version() == "TLSv1.3"
        return x509.load_der_x509_certificate(content).serial_number


def test_an_agent_and_a_person_speak_tls_with_a_private_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository(tmp_path / "repo", versions=1)
    place, key = certificate(tmp_path, name="127.0.0.1")
    tls = ["--tls-cert", str(place), "--tls-key", str(key), "--admin-tls-cert", str(place), "--admin-tls-key", str(key)]
    with served(folder, *tls) as server:
        listening = server.listening()
        assert listening.devices.startswith("https://")
        options = AgentOptions(
            server=listening.devices,
            root=folder / "root.json",
            models=["wake"],
            device_id="dev-1",
            enrol_token=(folder / "enrol.token").read_text().strip(),
            ca_file=str(place),
            probes=AllGood(),
        )
        with Agent.open(tmp_path / "device", options) as agent:
            settled(agent, "wake")
        here = ("--server", listening.admin, "--token-file", folder / "admin.token")
        assert whimbrel("version", "list", "-m", "wake", *here).status == 3  # who vouches for it is not known
        monkeypatch.setenv("WHIMBREL_CA_FILE", str(place))
        assert whimbrel("device", "show", "dev-1", *here).status == 0

        older = trusting(place)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        assert not answers(listening.devices, verify=older)
        assert not answers(listening.devices.replace("https", "http"))
        assert answers(listening.devices, verify=trusting(place))


def test_sighup_takes_a_new_certificate_and_refuses_a_bad_one(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo", versions=0)
    place, key = certificate(tmp_path, name="127.0.0.1")
    with served(folder, "--tls-cert", str(place), "--tls-key", str(key)) as server:
        url = server.listening().devices
        first = serial_of(url)
        with httpx.Client(verify=trusting(place), trust_env=False, timeout=PATIENCE_S) as kept:
            assert kept.get(f"{url}/healthz").status_code == 200
            certificate(tmp_path, name="127.0.0.1")
            assert serial_of(url) == first
            server.process.send_signal(signal.SIGHUP)
            until(lambda: serial_of(url) != first, "the new certificate is used")
            second = serial_of(url)
            assert kept.get(f"{url}/healthz").status_code == 200  # on the connection of before

            place.write_text("rubbish")
            server.process.send_signal(signal.SIGHUP)
            until(lambda: any("stays in use" in line for line in server.log), "it is said")
            assert serial_of(url) == second
        assert server.process.poll() is None


def test_a_certificate_that_cannot_be_used_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo", versions=0)
    place, key = certificate(tmp_path, name="127.0.0.1")
    (tmp_path / "other").mkdir()
    _, other_key = certificate(tmp_path / "other", name="127.0.0.1")
    encrypted = tmp_path / "encrypted.key"
    command = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", encrypted]
    subprocess.run(command, check=True)
    for arguments, words in (
        (["--tls-cert", place], "go together"),
        (["--tls-cert", place, "--tls-key", tmp_path / "none"], "none: it does not exist"),
        (["--tls-cert", place, "--tls-key", other_key], "cannot be used together"),
        (["--tls-cert", key, "--tls-key", key], "no certificate in PEM form"),
        (["--tls-cert", place, "--tls-key", encrypted], "is encrypted"),
        (["--trusted-proxy", "proxy.example.com"], "expected an address"),
    ):
        said = whimbrel("serve", folder, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", *arguments)
        assert said.status in {1, 2, 3}, said
        assert words in said.err, said
