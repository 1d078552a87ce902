"""Arms that follow a person, with real agents of a real server: devices agree, and nobody hears whose they are."""

import gzip
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from support.experiments import TEXT
from support.server import Running, done, repository, serving
from support.set_cut import AllGood
from whimbrel import Agent, AgentOptions
from whimbrel.policy.bucket import bucket, label_key

PEOPLE = [f"{name}@example.com" for name in ("ann", "bob", "cem", "dee", "eli", "fay", "gus", "hal", "ida", "jon")]
FILE = TEXT.replace("id: e1", "id: e1\n  bucket_by: label:user_id").replace(
    "duration_days: 0.5", "duration_days: 0.5\n  check_interval_sec: 1"
)


class Wire(urllib3.PoolManager):
    """A pool of connections that keeps the bytes of every request."""

    def __init__(self) -> None:
        super().__init__(maxsize=8)
        self.requests: list[bytes] = []

    def request(self, method: str, url: str, *rest: Any, **more: Any) -> Any:
        body = more.get("body") or b""
        body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        self.requests.append(f"{method} {url} {more.get('headers')}\n".encode() + body)
        return super().request(method, url, *rest, **more)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    folder = repository(tmp_path / "repo")
    done("model", "set", "wake", "--refresh-s", 1, "--report-s", 1, "--report-label", "region", "-R", folder)
    with serving(folder) as running:
        yield running


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def agents(server: Running, wire: Wire, tmp_path: Path) -> Iterator[dict[str, Agent]]:
    """Of each person a phone and a tablet, and two boards that belong to nobody."""
    opened: dict[str, Agent] = {}
    people = {f"{kind}-{number}": person for number, person in enumerate(PEOPLE) for kind in ("phone", "tablet")}
    for device, person in {**people, "board-1": "", "board-2": ""}.items():
        labels = {"region": "NZ"} | ({"user_id": person} if person else {})
        opened[device] = Agent.open(
            tmp_path / device,
            AgentOptions(
                server=server.devices,
                root=server.folder / "root.json",
                models=("wake",),
                device_id=device,
                labels=labels,
                enrol_token=(server.folder / "enrol.token").read_text().strip(),
                probes=AllGood(),
                pool=wire,
                durable_sessions=False,
            ),
        )
    yield opened
    for agent in opened.values():
        agent.close()


def turn(agents: dict[str, Agent]) -> dict[str, int]:
    """A pass and a session of each; the serials that ran."""
    serials = {}
    for device, agent in agents.items():
        agent.cycle(force=True)
        with agent.session("wake") as session:
            session.record(latency_ms=1.0, ok=True, watch_time=10.0)
            serials[device] = session.serial
    return serials


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_devices_of_one_person_agree_and_the_person_is_in_no_request(
    server: Running, wire: Wire, agents: dict[str, Agent], tmp_path: Path
) -> None:
    here = ("--server", server.admin, "--token-file", server.folder / "admin.token")
    assert set(turn(agents).values()) == {1}
    (tmp_path / "e.yaml").write_text(FILE)
    said = " ".join(done("experiment", "check", tmp_path / "e.yaml", *here)["sentences"])
    assert "by their user_id, whose value stays on them" in said
    begun = done("experiment", "start", tmp_path / "e.yaml", *here)
    assert (begun["bucket_by"], begun["devices_per_value"]) == ("label:user_id", 2.0)

    expected = {person: 1 if bucket(label_key(person), salt=42) < 500_000 else 2 for person in PEOPLE}
    assert set(expected.values()) == {1, 2}
    for _ in range(4):
        serials = turn(agents)
    for number, person in enumerate(PEOPLE):
        assert (serials[f"phone-{number}"], serials[f"tablet-{number}"]) == (expected[person],) * 2
    assert (serials["board-1"], serials["board-2"]) == (1, 1)

    treated = 2 * list(expected.values()).count(2)
    deadline = time.monotonic() + 60
    while True:
        time.sleep(1.2)
        turn(agents)
        arms = {arm["id"]: arm for arm in done("experiment", "status", "e1", *here)["arms"]}
        if (arms["control"]["reported"], arms["large"]["reported"]) == (20 - treated, treated):
            break
        assert time.monotonic() < deadline, arms
    assert done("experiment", "replay", "e1", *here)["same"]

    stored = b"".join(file.read_bytes() for file in server.folder.rglob("*") if file.is_file())
    sent = b"\n".join(wire.requests)
    assert b'"region":"NZ"' in sent  # bodies are readable, so what is looked for would be found
    assert b"phone-3" in stored
    for person in PEOPLE:
        key = label_key(person)
        secrets = [person, str(key), f"{key:x}", str(bucket(key, salt=42)), person.split("@")[0] + "%40"]
        for secret in secrets:
            assert secret.encode() not in sent, secret
        for secret in secrets[:3]:
            assert secret.encode() not in stored, secret
