"""A device says what it is only where it was asked: every byte that leaves it is read, on the wire."""

import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.agents import AllGood
from support.repository import Repository, Server, onnx_model, variant_of
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent import labels as labels_module
from whimbrel.model.selector import Selector

SEEN = {
    "os": "seen-system",
    "os_version": "90210.7",
    "arch": "seen-machine",
    "cpu": "Seen Processor",
    "ram_mb": "31337",
    "hardware": "seen-board",
    "runtime.onnxruntime": "90210.31.1",
}
GIVEN = {"region": "given-region", "tier": "given-tier", "owner": "given-owner", "serial-number": "given-4711"}
LABELS = SEEN | GIVEN


class WireTap:
    """Stands between an agent and its server, passes everything on, and keeps what the agent sent."""

    def __init__(self, port: int) -> None:
        self.sent = bytearray()
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def close(self) -> None:
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listening.accept()
                there = socket.create_connection(("127.0.0.1", self._port))
                self._open += [here, there]
                threading.Thread(target=self._pass_on, args=(here, there, self.sent), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(there, here, bytearray()), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        with suppress(OSError):
            while chunk := source.recv(65_536):
                kept += chunk
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    for serial in (1, 2):
        content = onnx_model(factor=1.0 + serial)
        mine = variant_of(content, name="seen-variant", selector=Selector(match_labels={"owner": "given-owner"}))
        other = variant_of(content, name="other")
        repository.release("detector", serial, content, variants=(mine, other))
    with Server(repository) as running:
        yield running


@pytest.fixture
def tap(server: Server) -> Iterator[WireTap]:
    made = WireTap(int(server.url.rpartition(":")[2]))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "seen_labels", lambda: dict(SEEN))


def whole_life(folder: Path, server: Server, tap: WireTap, **policy: Any) -> str:
    """A device enrols, installs, commits, updates, fails and reports. Returns all that it sent."""
    repository = server.repository
    repository.policy("detector", baseline=1, **policy)
    with Agent.open(
        folder,
        AgentOptions(
            server=tap.url,
            root=repository.root_bytes,
            device_id="dev-1",
            labels=GIVEN,
            enrol_token=server.enrol_token,
            probes=AllGood(),
            models=["detector"],
        ),
    ) as agent:
        for baseline in (1, 2):
            repository.policy("detector", baseline=baseline, **policy)
            agent.cycle(force=True)
            for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
                with agent.session("detector") as model:
                    model.record(latency_ms=1.0, ok=True, prediction=3, accuracy=0.5)
            agent.cycle(force=True)
        server.tokens.clear()  # as after a server that lost its memory: everything is proven, and said, again
        server.credentials.clear()
        with suppress(RuntimeError), agent.session("detector"):
            raise RuntimeError
        repository.policy("detector", baseline=1, **policy)  # something to say: the device goes back
        for _ in range(4):
            agent.cycle(force=True)
    sent = opened(bytes(tap.sent)).decode("latin-1")
    assert sent.count("/device/v1/enrol") >= 2
    assert all(f"POST /default/device/v1/{request}" in sent for request in ("token", "announce", "reports"))
    return sent


def opened(sent: bytes) -> bytes:
    """What was sent, with its packed bodies open, so that the words in them are seen."""
    plain, rest = b"", sent
    while (start := rest.find(b"\x1f\x8b\x08")) >= 0:  # how gzip begins
        unpacking = zlib.decompressobj(wbits=31)
        plain += rest[:start] + unpacking.decompress(rest[start:])
        assert unpacking.eof
        rest = unpacking.unused_data
    return plain + rest


def told(sent: str) -> set[str]:
    """The labels whose name or value is in what was sent."""
    return {name for name, value in LABELS.items() if value in sent or f'"{name}"' in sent}


def test_no_label_leaves_a_device_that_was_asked_for_none(tmp_path: Path, server: Server, tap: WireTap) -> None:
    """All labels were sent at enrolment, whatever the policies asked for."""
    sent = whole_life(tmp_path, server, tap, hardware_label="nothing")
    assert told(sent) == set()
    assert '"labels"' not in sent
    assert "seen-variant" not in sent  # it is the variant of a label


def test_only_labels_that_were_asked_for_leave_a_device(tmp_path: Path, server: Server, tap: WireTap) -> None:
    sent = whole_life(tmp_path, server, tap, hardware_label="nothing", report_labels=("tier", "runtime.onnxruntime"))
    assert told(sent) == {"tier", "runtime.onnxruntime"}


def test_windows_tell_the_hardware_class_and_slices_and_no_more(tmp_path: Path, server: Server, tap: WireTap) -> None:
    """The labels by which a policy asks for windows are asked for, too: they are told there, and not at enrolment."""
    sent = whole_life(tmp_path, server, tap, slice_labels=("os",))
    assert told(sent) == {"hardware", "os"}
    assert '"labels"' not in sent
