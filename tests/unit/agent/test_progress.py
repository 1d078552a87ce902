"""A download tells how far it is: to the status, the log and the app, from its first second."""

import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec
import pytest

from support.agents import AllGood
from support.repository import Repository, Server, file_of
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.daemon import LogLines
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.progress import DownloadProgress, Expected, ProgressMeter, sentence, together
from whimbrel.agent.status import read_status

ONE = bytes(range(256)) * 8000  # 2 MB


class Uptime:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def metered() -> tuple[ProgressMeter, Uptime, list[DownloadProgress]]:
    uptime, told = Uptime(), list[DownloadProgress]()
    return ProgressMeter(told.append, monotonic=uptime), uptime, told


def downloading(meter: ProgressMeter, expected: Expected):
    return meter.downloading("digits", serial=2, version="2026.03.05.2", expected=expected)


def test_it_is_told_at_once_then_each_second_and_at_the_end() -> None:
    meter, uptime, told = metered()
    with downloading(meter, Expected("whole", 0, 4000)):
        assert [each.bytes_here for each in told] == [0]
        for position in range(250, 4001, 250):
            uptime.now += 0.25
            meter.at(position)
        meter.complete()
    assert [each.bytes_here for each in told] == [0, 1000, 2000, 3000, 4000, 4000]
    assert told[2].rate_bytes_per_s == pytest.approx(1000)
    assert told[2].left_s == pytest.approx(2)
    assert [each.ended for each in told] == [False] * 5 + [True]


def test_bytes_of_earlier_passes_count_and_a_break_is_a_pause() -> None:
    meter, _, told = metered()
    with downloading(meter, Expected("whole", 3000, 4000)):
        meter.at(3500)
    assert (told[0].bytes_here, told[-1].bytes_here, told[-1].bytes_total) == (3000, 3500, 4000)
    assert told[-1].ended
    assert sentence(told[-1]) == "3.5 kB of 4.0 kB (88%) as a whole file; paused"


def test_a_stall_makes_the_time_left_unknown() -> None:
    meter, uptime, told = metered()
    with downloading(meter, Expected("whole", 0, 4000)):
        uptime.now += 1
        meter.at(1000)
        uptime.now += limits.PROGRESS_RATE_S + 1
        meter.at(1000)
    assert told[1].left_s == pytest.approx(3)
    assert (told[2].rate_bytes_per_s, told[2].left_s) == (None, None)


def test_a_dearer_way_makes_the_total_grow_and_it_ends_at_all() -> None:
    meter, uptime, told = metered()
    with downloading(meter, Expected("delta", 0, 100)):
        meter.fetching("delta")
        meter.at(100)
        meter.fetched(100)
        meter.instead(4000)
        meter.fetching("whole")
        uptime.now += 1
        meter.at(2000)
        meter.at(4000)
        meter.complete()
    assert (told[1].way, told[1].bytes_here, told[1].bytes_total) == ("whole", 2100, 4100)
    assert told[-1].share == 1


def test_several_files_are_one_download() -> None:
    assert together([Expected("delta", 0, 10), Expected("whole", 50, 100)]) == Expected("whole", 50, 110)


def test_sentences_are_for_people() -> None:
    progress = DownloadProgress(
        model="m", serial=2, version="v", way="delta", bytes_here=1_200_000, bytes_total=5_800_000,
        rate_bytes_per_s=340_000.0, left_s=13.5,
    )  # fmt: skip
    assert sentence(progress) == "1.2 MB of 5.8 MB (21%) as a patch, 340.0 kB/s, 14 s left"
    slow = DownloadProgress(
        model="m", serial=2, version="v", way="whole", bytes_here=0, bytes_total=10**9, left_s=7200.0
    )
    assert sentence(slow) == "0 B of 1.0 GB (0%) as a whole file, 2 h left"


# --- through the agent ---


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    repository.release("detector", 1, ONE)
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


def options(server: Server, **more: object) -> AgentOptions:
    root = server.repository.root_bytes
    return AgentOptions(server=server.url, root=root, models=["detector"], probes=AllGood(), **more)


def test_the_first_download_is_in_the_status_while_it_runs(tmp_path: Path, server: Server) -> None:
    """A new device said that no agent ever ran in its folder until the whole first model was there."""
    statuses = []

    def look(progress: DownloadProgress) -> None:
        statuses.append(read_status(tmp_path)["models"]["detector"])

    with Agent.open(tmp_path, options(server, progress=look)) as agent:
        assert agent.cycle().models["detector"]["state"] == "on trial"
        assert statuses[0]["state"] == "downloading"
        assert statuses[0]["download"]["sentence"] == "0 B of 2.0 MB (0%) as a whole file"
        assert statuses[-1]["download"]["bytes_here"] == len(ONE)
        assert agent.status()["models"]["detector"]["download"] is None


def test_the_status_is_there_before_the_first_answer(tmp_path: Path, server: Server) -> None:
    seen = []

    def slow(handler: BaseHTTPRequestHandler) -> None:
        seen.append(json.loads((tmp_path / "status.json").read_bytes())["models"]["detector"])
        handler.close_connection = True

    server.faults["metadata/timestamp.json"] = slow
    with Agent.open(tmp_path, options(server)) as agent:
        agent.cycle()
    assert (seen[0]["state"], seen[0]["because"]) == ("idle", "no policy is known yet")


def test_a_hook_that_raises_stops_no_download(tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: DownloadProgress) -> None:
        raise ValueError("a bug of the app")

    with caplog.at_level(logging.ERROR), Agent.open(tmp_path, options(server, progress=broken)) as agent:
        result = agent.cycle()
    assert (result.models["detector"]["serial"], result.problems) == (1, ())
    assert "a bug of the app" in caplog.text


def test_a_download_that_goes_on_tells_what_came_before(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "incoming" / f"{file_of(ONE).sha256}.part"
    RealDisk().make_folder(path.parent)
    path.write_bytes(ONE[:500_000])
    told: list[DownloadProgress] = []
    with Agent.open(tmp_path, options(server, progress=told.append)) as agent:
        agent.cycle()
    assert (told[0].bytes_here, told[0].bytes_total, told[0].way) == (500_000, len(ONE), "whole")
    assert (told[-1].bytes_here, told[-1].ended) == (len(ONE), True)


def test_the_log_has_the_first_word_and_the_last_and_few_between(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LogLines()
    meter = ProgressMeter(lines.download, monotonic=Uptime())
    for _ in range(3):  # the network breaks again and again
        with downloading(meter, Expected("delta", 0, 8_400)):
            pass
    with downloading(meter, Expected("delta", 0, 8_400)):
        meter.at(8_400)
        meter.complete()
    first, last = capsys.readouterr().err.splitlines()
    assert first.endswith("digits: fetches 2026.03.05.2: 0 B of 8.4 kB (0%) as a patch")
    assert last.endswith("digits: fetches 2026.03.05.2: all 8.4 kB came as a patch")


def test_a_download_is_logged_often_in_its_first_minute_then_rarely_and_at_its_whole_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uptime, lines = Uptime(), LogLines()
    monkeypatch.setattr("time.monotonic", uptime)
    half = DownloadProgress(model="digits", serial=2, version="v2", way="whole", bytes_here=50, bytes_total=100)

    def logged(progress: DownloadProgress, at: float) -> bool:
        uptime.now = 100.0 + at
        lines.download(progress)
        return bool(capsys.readouterr().err)

    times = [0, 9.9, 10, 19.9, 20, 30, 40, 50, 59.9, 60, 69.9, 119.9, 120, 179, 180]
    assert [at for at in times if logged(half, at)] == [0, 10, 20, 30, 40, 50, 60, 120, 180]
    assert not logged(msgspec.structs.replace(half, ended=True), 181)  # a pause is told with the next line
    assert logged(msgspec.structs.replace(half, bytes_here=100, ended=True), 182)
    assert logged(msgspec.structs.replace(half, serial=3), 183)
