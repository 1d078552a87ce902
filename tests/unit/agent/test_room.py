"""Room, budgets, mirrors and swaps, through a whole agent and a real server."""

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest

from support.agents import AllGood
from support.repository import Repository, Server, onnx_model
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.assembly import can_patch
from whimbrel.agent.disk import RealDisk
from whimbrel.device.conditions import Situation
from whimbrel.policy.policy import Conditions

CONTENTS = {serial: onnx_model(factor=float(serial), padding=300_000) for serial in (1, 2, 3)}


class Small(RealDisk):
    """A disk with so many bytes for everything below `folder`."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder, self.size_bytes = folder, size_bytes

    def free_bytes(self, folder: Path) -> int:
        return self.size_bytes - sum(each.stat().st_size for each in self.folder.rglob("*") if each.is_file())


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    for serial, content in CONTENTS.items():
        repository.release("detector", serial, content)
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


Opened = Callable[..., Agent]


@pytest.fixture
def opened(tmp_path: Path, server: Server) -> Iterator[Opened]:
    agents: list[Agent] = []

    def make(**changes: object) -> Agent:
        given: dict[str, object] = {
            "server": server.url,
            "root": server.repository.root_bytes,
            "models": ["detector"],
            "enrol_token": server.enrol_token,
            "probes": AllGood(),
            **changes,
        }
        agents.append(Agent.open(tmp_path / "device", AgentOptions(**given)))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


def look(agent: Agent) -> dict[str, object]:
    return agent.cycle(force=True).models["detector"]


def settle(agent: Agent) -> None:
    for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
        with agent.session("detector"):
            pass
    agent.cycle(force=True)


def take(agent: Agent, server: Server, serial: int, **changes: object) -> dict[str, object]:
    server.repository.policy("detector", baseline=serial, **changes)
    return look(agent)


def test_without_room_nothing_is_fetched_and_the_status_says_how_much_is_missing(
    opened: Opened, server: Server, tmp_path: Path
) -> None:
    disk = Small(tmp_path, limits.ROOM_BYTES + 100_000)
    agent = opened(disk=disk)
    found = look(agent)
    assert (found["state"], found["waits_for"]) == ("downloading", "room: 1 MiB more must be free for serial 1")
    assert server.ranges == []
    disk.size_bytes = limits.ROOM_BYTES + 1_000_000
    assert look(agent)["serial"] == 1


def test_old_version_makes_room_for_the_new_one_and_the_active_one_stays(
    opened: Opened, server: Server, tmp_path: Path
) -> None:
    disk = Small(tmp_path, 2**40)
    agent = opened(disk=disk)
    look(agent)
    settle(agent)
    take(agent, server, 2)
    settle(agent)
    slots = sorted((tmp_path / "device/models/detector").glob("[ab]/*"))
    assert len(slots) == 2
    disk.size_bytes = limits.ROOM_BYTES + 820_000  # two of three
    assert take(agent, server, 3)["serial"] == 3


def test_releases_that_are_in_no_slot_are_forgotten(opened: Opened, server: Server) -> None:
    agent = opened()
    look(agent)
    for serial in (2, 3):
        settle(agent)
        take(agent, server, serial)
    kept = [each.name for each in (agent.folder / "trust/documents").glob("models*[0-9].json")]
    assert sorted(kept) == ["models%2Fdetector%2F2.json", "models%2Fdetector%2F3.json"]


def test_what_was_being_written_when_the_power_went_is_removed(opened: Opened, tmp_path: Path) -> None:
    device = tmp_path / "device"
    look(opened())
    left = [
        device / place / ".journal.0a1b2c3d.tmp"
        for place in (".", "trust", "trust/metadata", "trust/documents", "models/detector/sessions")
    ]
    for each in left:
        each.parent.mkdir(exist_ok=True)
        each.write_bytes(b"half of i")
    agent = opened()
    look(agent)
    assert all(each.exists() for each in left)  # somebody may be writing it now
    look(agent)
    assert not any(each.exists() for each in left)


def test_version_that_a_session_still_reads_makes_no_room(opened: Opened, server: Server, tmp_path: Path) -> None:
    disk = Small(tmp_path, 2**40)
    agent = opened(disk=disk)
    look(agent)
    settle(agent)
    with agent.session("detector") as old:
        take(agent, server, 2)
        agent.swap_now("detector")
        assert look(agent)["serial"] == 2
        settle(agent)
        disk.size_bytes = limits.ROOM_BYTES + 820_000  # two of three
        assert str(take(agent, server, 3)["waits_for"]).startswith("room: 1 MiB more")
        assert old.path.read_bytes() == CONTENTS[1]
    assert look(agent)["serial"] == 3


def test_quota_bounds_the_folder_whatever_the_disk_has(opened: Opened, server: Server) -> None:
    agent = opened(quota_mib=1)
    look(agent)
    settle(agent)
    take(agent, server, 2)
    settle(agent)
    assert take(agent, server, 3)["serial"] == 3  # two slots at a time, never three
    settle(agent)
    server.repository.release("detector", 4, onnx_model(padding=900_000))
    found = take(agent, server, 4)
    assert found["serial"] == 3
    assert str(found["waits_for"]).startswith("room: 1 MiB more")


def test_metered_day_ends_and_the_status_says_tomorrow(opened: Opened, server: Server) -> None:
    situations = [Situation(unmetered=False)]
    server.repository.release("detector", 4, onnx_model(padding=2_500_000))
    agent = opened(situation=lambda: situations[-1])
    take(agent, server, 4, conditions=Conditions(metered_mib_a_day=1))
    found = look(agent)
    assert (found["state"], found["serial"]) == ("downloading", None)
    assert "budget" in str(found["waits_for"])
    situations.append(Situation(unmetered=True))
    agent.close()
    assert look(opened(situation=lambda: situations[-1]))["serial"] == 4


def test_clock_that_falls_back_at_every_boot_brings_no_new_budget(opened: Opened, server: Server) -> None:
    server.repository.release("detector", 4, onnx_model(padding=2_500_000))
    server.repository.policy("detector", baseline=4, conditions=Conditions(metered_mib_a_day=1))
    agent = opened(situation=lambda: Situation(unmetered=False))
    look(agent)
    (part,) = (agent.folder / "incoming").glob("*.part")
    came = part.stat().st_size
    agent.cycle(1000.0, force=True)
    assert str(look(agent)["waits_for"]).startswith("tomorrow")
    assert part.stat().st_size == came < 2_500_000


def test_conditions_that_end_stop_a_download(opened: Opened, server: Server) -> None:
    situations = [Situation(charging=True)]
    agent = opened(situation=lambda: situations[-1])
    server.repository.blobs.clear()
    take(agent, server, 1, conditions=Conditions(charging=True))
    situations.append(Situation(charging=False))
    for content in CONTENTS.values():
        server.repository.blob(content)
    agent.close()
    found = look(opened(situation=lambda: situations[-1]))
    assert (found["state"], found["waits_for"]) == ("downloading", "the policy asks for a charger")


def test_bytes_are_told_by_the_way_that_they_came(opened: Opened, server: Server) -> None:
    agent = opened()
    look(agent)
    settle(agent)
    said = next(each for each in server.announced if each["step"] == "committed")
    assert said["moved_by"] == {"whole": len(CONTENTS[1])}
    assert said["bytes_moved"] == len(CONTENTS[1])


def test_agent_takes_artifacts_from_a_mirror_first(opened: Opened, server: Server) -> None:
    other = Repository()
    other.blobs = dict(server.repository.blobs)
    with Server(other) as mirror:
        assert look(opened(mirrors=[f"{mirror.url}/default/artifacts"]))["serial"] == 1
        assert len(mirror.ranges) == 1
    assert server.ranges == []


def test_mirror_that_is_down_costs_nothing_but_time(opened: Opened, server: Server) -> None:
    agent = opened(mirrors=["http://127.0.0.1:9/artifacts"])
    assert look(agent)["serial"] == 1
    agent.close()
    assert opened().settings.mirrors == ("http://127.0.0.1:9/artifacts",)  # kept


class _Proxy(BaseHTTPRequestHandler):
    seen: list[str] = []

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        type(self).seen.append(self.path)
        with urlopen(self.path) as answer:
            body = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


def test_explicit_proxy_is_what_is_asked(tmp_path: Path) -> None:
    from whimbrel.agent.transport import HttpNetwork, Proxies

    with Server(Repository()) as server:
        proxy = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        network = HttpNetwork(proxies=Proxies(f"http://127.0.0.1:{proxy.server_address[1]}", environment={}))
        url = f"{server.url}/default/metadata/1.root.json"
        assert network.ask("GET", url, headers={"Accept-Encoding": "identity"}, bytes_max=2**20).status == 200
        assert _Proxy.seen == [url]
        network.close()
        proxy.shutdown()
        proxy.server_close()
        thread.join()


def test_swap_now_does_not_wait_and_open_sessions_keep_their_files(opened: Opened, server: Server) -> None:
    agent = opened()
    look(agent)
    settle(agent)
    assert not agent.swap_now("detector")
    with agent.session("detector") as old:
        assert take(agent, server, 2)["state"] == "ready"
        assert agent.swap_now("detector")
        assert look(agent)["serial"] == 2
        with agent.session("detector") as new:
            assert (new.serial, new.path.read_bytes()) == (2, CONTENTS[2])
        assert not agent.swap_now("detector")
        assert (old.serial, old.path.read_bytes()) == (1, CONTENTS[1])
        settle(agent)
        found = take(agent, server, 3)  # its slot is the one that the first session still reads
        assert (found["state"], found["waits_for"]) == ("verifying", "the end of the open sessions")
        assert old.path.read_bytes() == CONTENTS[1]
    assert look(agent)["serial"] == 3


@pytest.fixture
def without_codec(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process where it is not installed: a process looks once."""
    monkeypatch.setitem(sys.modules, "pcodec", None)
    can_patch.cache_clear()
    yield
    can_patch.cache_clear()


def test_status_says_that_patches_can_be_applied(opened: Opened) -> None:
    agent = opened()
    agent.cycle()
    assert agent.status()["patches"] is True


@pytest.mark.usefixtures("without_codec")
def test_status_says_that_patches_cannot_be_applied(opened: Opened) -> None:
    agent = opened()
    agent.cycle()
    assert agent.status()["patches"] is False


def test_status_is_written_when_it_changed_and_not_in_every_cycle(opened: Opened, server: Server) -> None:
    server.repository.policy("detector", baseline=1, refresh_s=3600)  # however long a cycle takes here
    agent = opened()
    for _ in range(3):
        agent.cycle()  # it fetches, tries and commits
    place = agent.folder / "status.json"
    before = place.stat().st_ino, place.stat().st_mtime_ns
    agent.cycle()
    assert (place.stat().st_ino, place.stat().st_mtime_ns) == before
    agent.cycle(force=True)
    assert (place.stat().st_ino, place.stat().st_mtime_ns) != before
