"""What `doctor` finds out about the way to the server: which one it asks, how, and what it makes of the answer."""

import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from support.power_cut import World
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent import machine
from whimbrel.agent.machine import Finding, examine
from whimbrel.agent.transport import Proxies
from whimbrel.device.ports import Answer
from whimbrel.errors import Unavailable

NOW = 1_800_000_000.0


class Network:
    """Answers as told, and notes how it was made and what it was asked."""

    def __init__(self, answer: Answer | Exception) -> None:
        self.answer, self.asked, self.made = answer, list[str](), dict[str, Any]()
        self.closed = False

    def __call__(self, **made: Any) -> "Network":
        self.made = made
        return self

    def ask(self, method: str, url: str, *, bytes_max: int) -> Answer:
        assert (method, bytes_max) == ("GET", limits.DOCUMENT_BYTES)
        self.asked.append(url)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed = True


Looks = Callable[..., list[Finding]]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    for name in ("_cage", "_runtimes"):  # they start processes, and have tests of their own
        monkeypatch.setattr(machine, name, lambda: iter(()))
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("ALL_PROXY", raising=False)

    def look(network: Network, folder: Path | None = None, server: str | None = "https://s.example") -> list[Finding]:
        monkeypatch.setattr(machine, "HttpNetwork", network)
        found = examine(folder, server, now=lambda: NOW)
        return [each for each in found if "server" in each.checked]

    return look


def good(**headers: str) -> Network:
    return Network(Answer(200, headers))


def test_the_server_is_asked_for_its_timestamp_as_a_device_asks_it(looks: Looks) -> None:
    network = good()
    assert looks(network) == [Finding("server", "ok", "https://s.example answers")]
    assert network.asked == ["https://s.example/default/metadata/timestamp.json"]
    assert (network.made["ca_file"], network.closed) == ("", True)


def test_the_folders_server_is_asked_by_its_settings(looks: Looks, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    with World() as world:
        options = AgentOptions(
            server="https://own.example",
            root=world.repository.root_bytes,
            models=["detector"],
            namespace="team",
            proxy="http://proxy.example:1",
        )
        Agent.open(folder, options).close()
    network = good()
    assert looks(network, folder, None) == [Finding("server", "ok", "https://own.example answers")]
    assert network.asked == ["https://own.example/team/metadata/timestamp.json"]
    proxies = network.made["proxies"]
    assert isinstance(proxies, Proxies)
    assert proxies.of("https://own.example") == "http://proxy.example:1"
    assert looks(network, folder, "https://other.example")[0].found == "https://other.example answers"
    assert looks(network, None, None) == []


def test_a_server_that_is_not_reached_or_is_none_says_what_to_check(looks: Looks) -> None:
    means, to_do = (
        "no news reach this device; what is here runs on",
        "check the address, the network, the proxy and the CA",
    )
    network = Network(Unavailable("no route"))
    assert looks(network) == [Finding("server", "problem", "no route", means, to_do)]
    assert network.closed
    url = "https://s.example/default/metadata/timestamp.json"
    means = "it is no Whimbrel server, or has no such namespace"
    found = Finding("server", "problem", f"{url} answers 404", means, "check --server")
    assert looks(Network(Answer(404, {}))) == [found]


@pytest.mark.parametrize(
    ("ahead_s", "level", "words"),
    [
        (0, "ok", "0 s behind the server's"),
        (limits.DOCTOR_CLOCK_S, "ok", f"{limits.DOCTOR_CLOCK_S:.0f} s ahead of the server's"),
        (limits.DOCTOR_CLOCK_S + 1, "warning", f"{limits.DOCTOR_CLOCK_S + 1:.0f} s ahead of the server's"),
        (-limits.DOCTOR_CLOCK_S, "ok", f"{limits.DOCTOR_CLOCK_S:.0f} s behind the server's"),
        (-limits.DOCTOR_CLOCK_S - 1, "warning", f"{limits.DOCTOR_CLOCK_S + 1:.0f} s behind the server's"),
    ],
)
def test_a_clock_that_is_far_from_the_servers_is_a_warning(
    looks: Looks, ahead_s: float, level: str, words: str
) -> None:
    _, clock = looks(good(date=formatdate(NOW - ahead_s, usegmt=True)))
    assert (clock.checked, clock.level, clock.found) == ("clock against the server", level, words)


def test_without_a_date_nothing_is_said_of_the_servers_clock(looks: Looks) -> None:
    assert len(looks(good(date="today"))) == 1


def test_a_folder_that_is_not_there_or_is_a_file_is_said(tmp_path: Path, looks: Looks) -> None:
    assert callable(looks)

    def found(folder: Path) -> list[Finding]:
        return [each for each in examine(folder, None, now=time.time) if each.level != "ok"]

    missing = tmp_path / "nowhere" / "device"
    assert f"there is no folder {missing}" in [each.found for each in found(missing)]
    file = tmp_path / "file"
    file.touch()
    assert f"{file} is a file" in [each.found for each in found(file)]
    tmp_path.chmod(0o705)
    words = [each.found for each in found(tmp_path)]
    assert "mode 0705" in words
    assert f"no agent ran in {tmp_path}" in words
