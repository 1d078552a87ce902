"""How bytes come: mirrors that fail, servers that ask for patience, a day's budget, a cap, a proxy."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.repository import file_of
from whimbrel import limits
from whimbrel.agent.allowance import Allowance
from whimbrel.agent.backoff import Backoff, Busy
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.download import Download, Unfinished
from whimbrel.agent.mirrors import Mirrors
from whimbrel.agent.transport import Proxies
from whimbrel.device.ports import Answer
from whimbrel.errors import Unavailable

MIB = 1024 * 1024
CONTENT = bytes(range(256)) * (3 * MIB // 256)
FILE = file_of(CONTENT)


class Body:
    def __init__(self, status: int, headers: dict[str, str], pieces: Iterable[bytes], *, breaks: bool = False) -> None:
        self.status, self.headers, self._pieces, self._breaks = status, headers, pieces, breaks

    def chunks(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._breaks:
            raise Unavailable("the connection broke")


class Net:
    """A network of mirrors. `says`: base URL -> what it does: a status, "cut", "lie", "slow" (a quarter of a megabyte
    every 15 s), "no ranges" (slow too), "cut, no ranges", "cut lie", "all" (no ranges), "all lie", "wrong range",
    "short" (a quarter of a megabyte of the range, and no more), or (503, Retry-After). `etag`: of a whole answer.
    """

    def __init__(self, **says: object) -> None:
        self.says = {name: says.get(name, "good") for name in ("a", "b", "origin")}
        self.asked: list[tuple[str, str]] = []
        self.etag = '"{}"'
        self.uptime_s = 0.0
        self.answer_s = 0.0  # of a short one

    def slowly(self, pieces: list[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.uptime_s += 15
            yield piece

    def range_of(self, headers: dict[str, str]) -> tuple[int, int | None]:
        first, _, last = headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        return int(first), int(last) if last else None

    def ask(self, method: str, url: str, **_: object) -> Answer:
        raise NotImplementedError

    @contextmanager
    def stream(self, url: str, *, headers: dict[str, str]) -> Iterator[Body]:
        name = url.split("/")[2]
        self.asked.append((name, headers.get("Range", "")))
        said = self.says[name]
        first, last = self.range_of(headers)
        if ("If-Range" in headers and headers["If-Range"] != f'"{name}"') or "no ranges" in str(said):
            first, last = 0, None
        if str(said).startswith("all"):
            first, last = 0, None
        if said == "short" and first:
            self.uptime_s += self.answer_s
            last = first + MIB // 4 - 1
        rest = CONTENT[first:] if last is None else CONTENT[first : last + 1]
        pieces = [rest[place : place + MIB // 4] for place in range(0, len(rest), MIB // 4)]
        etag = {"etag": self.etag.format(name)}
        part = first or last is not None
        if part:
            etag["content-range"] = f"bytes {first}-{first + len(rest) - 1}/{len(CONTENT)}"
        if isinstance(said, int):
            yield Body(said, {}, [])
        elif isinstance(said, tuple):
            yield Body(said[0], {"retry-after": said[1]}, [])
        elif said in {"slow", "no ranges"}:
            yield Body(206 if first else 200, etag, self.slowly(pieces))
        elif said == "wrong range" and first:
            yield Body(206, etag | {"content-range": f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"}, pieces)
        elif said == "cut lie":
            yield Body(206 if first else 200, etag, [b"x" * len(piece) for piece in pieces[:4]], breaks=True)
        elif str(said).startswith("cut"):
            yield Body(206 if first else 200, etag, pieces[:4], breaks=True)
        elif said in {"lie", "all lie"}:
            yield Body(200, etag, [b"x" * len(piece) for piece in pieces])
        else:
            yield Body(206 if part else 200, etag, pieces)


class Clock:
    now = 86400.0 * 20_000

    def __call__(self) -> float:
        return self.now


def made(
    folder: Path, net: Net, *bases: str, clock: Clock | None = None, budget: int | None = None, speed: int | None = None
) -> tuple[Download, list[float]]:
    clock, waits, disk = clock or Clock(), [], RealDisk()
    allowance = Allowance(
        folder / "budget.json",
        disk=disk,
        now=clock,
        budget_bytes=lambda: budget,
        bytes_per_s=speed,
        pause=waits.append,
    )
    mirrors = Mirrors(tuple(f"http://{base}" for base in bases), now=clock, chance=random.Random(1))
    download = Download(
        folder / "incoming",
        disk=disk,
        network=net,
        mirrors=mirrors,
        allowance=allowance,
        stopped=lambda: False,
        now=clock,
        monotonic=lambda: net.uptime_s,
    )
    return download, waits


def names(net: Net) -> list[str]:
    return [name for name, _ in net.asked]


def test_mirrors_are_asked_in_order_and_the_server_last(tmp_path: Path) -> None:
    net = Net(a=500, b=404)
    download, _ = made(tmp_path, net, "a", "b", "origin")
    download.fetch(FILE)
    assert names(net) == ["a", "b", "origin"]
    assert download.path(FILE).read_bytes() == CONTENT
    assert download.moved == len(CONTENT)


def test_mirror_that_breaks_off_is_continued_by_the_next_one(tmp_path: Path) -> None:
    net = Net(a="cut")
    download, _ = made(tmp_path, net, "a", "b")
    download.fetch(FILE)
    assert net.asked == [("a", ""), ("b", f"bytes={MIB}-")]
    assert download.path(FILE).read_bytes() == CONTENT
    assert download.moved == len(CONTENT)


@pytest.mark.parametrize("etag", ["", 'W/"{}"', '"{}"'])
def test_download_goes_on_whatever_its_server_says_of_the_bytes(tmp_path: Path, etag: str) -> None:
    """Without a strong ETag it began anew at every break: a model of more than one pass never came."""
    net = Net(origin="slow")
    net.etag = etag
    for _ in range(2):
        download, _ = made(tmp_path, net, "origin")  # another process
        with pytest.raises(Unfinished):
            download.fetch(FILE)
    download.fetch(FILE)
    assert [asked for _, asked in net.asked] == ["", f"bytes={5 * MIB // 4}-", f"bytes={10 * MIB // 4}-"]
    assert download.path(FILE).read_bytes() == CONTENT


def test_server_without_ranges_gets_longer_passes_until_all_is_here(tmp_path: Path) -> None:
    """Each pass began anew and was as short as the one before: a model of more than one pass never came."""
    net, sizes = Net(origin="no ranges"), []
    for _ in range(2):
        download, _ = made(tmp_path, net, "origin")
        with pytest.raises(Unfinished):
            download.fetch(FILE)
        sizes.append(download.path(FILE).stat().st_size)
    download.fetch(FILE)
    assert sizes == [5 * MIB // 4, 9 * MIB // 4]
    assert download.path(FILE).read_bytes() == CONTENT


def test_pass_has_its_limit_however_often_a_server_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whimbrel.limits.DOWNLOAD_PASS_MOST_S", 60.0)
    download, _ = made(tmp_path, Net(origin="no ranges"), "origin")
    for _ in range(9):
        with pytest.raises(Unfinished):
            download.fetch(FILE)
    assert download.path(FILE).stat().st_size == 5 * MIB // 4


def test_body_that_ends_at_the_same_place_again_is_no_progress(tmp_path: Path) -> None:
    """It counted as some, so a device asked for it every second, and never for another way to the bytes."""
    download, _ = made(tmp_path, Net(origin="cut, no ranges"), "origin")
    with pytest.raises(Unfinished):
        download.fetch(FILE)
    with pytest.raises(Unavailable) as caught:
        download.fetch(FILE)
    assert not isinstance(caught.value, Unfinished)


def test_mirror_that_failed_is_left_alone_for_a_while(tmp_path: Path) -> None:
    net, clock = Net(a=500), Clock()
    download, _ = made(tmp_path, net, "a", "b", clock=clock)
    download.fetch(FILE)
    download.discard(FILE)
    download.fetch(FILE)
    assert names(net) == ["a", "b", "b"]
    clock.now += 3600
    net.says["a"] = "good"
    download.discard(FILE)
    download.fetch(FILE)
    assert names(net)[-1] == "a"


def test_mirror_that_lied_is_asked_after_the_others(tmp_path: Path) -> None:
    net = Net(a="lie")
    download, _ = made(tmp_path, net, "a", "origin")
    download.fetch(FILE)
    assert download.path(FILE).read_bytes() != CONTENT
    download.refuse(FILE)
    download.fetch(FILE)
    assert names(net) == ["a", "origin"]
    assert download.path(FILE).read_bytes() == CONTENT


def test_lone_server_that_asks_for_patience_gets_it(tmp_path: Path) -> None:
    net, clock = Net(origin=(503, "120")), Clock()
    download, _ = made(tmp_path, net, "origin", clock=clock)
    with pytest.raises(Busy) as caught:
        download.fetch(FILE)
    assert caught.value.after_s == 120
    with pytest.raises(Busy):
        download.fetch(FILE)
    assert len(net.asked) == 1
    clock.now += 125
    net.says["origin"] = "good"
    download.fetch(FILE)


def test_range_past_the_end_of_what_a_server_has_begins_anew(tmp_path: Path) -> None:
    net = Net(origin="cut")
    download, _ = made(tmp_path, net, "origin")
    with pytest.raises(Unfinished):
        download.fetch(FILE)
    net.says["origin"] = 416
    with pytest.raises(Unavailable, match="past its end"):
        download.fetch(FILE)
    net.says["origin"] = "good"
    download.fetch(FILE)
    assert [asked for _, asked in net.asked] == ["", f"bytes={MIB}-", ""]


def test_all_that_failed_raises_what_the_last_one_did(tmp_path: Path) -> None:
    download, _ = made(tmp_path, Net(a=500, origin=404), "a", "origin")
    with pytest.raises(Unavailable, match=r"origin.* answered 404"):
        download.fetch(FILE)


def test_day_s_budget_stops_a_download_and_tomorrow_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    net = Net()
    download, _ = made(tmp_path, net, "origin", clock=clock, budget=MIB)
    with pytest.raises(Unfinished, match="no more today"):
        download.fetch(FILE)
    assert net.asked == [("origin", f"bytes=0-{MIB - 1}")]
    assert download.moved == MIB
    assert download.left_today() == 0
    with pytest.raises(Unavailable, match="used up"):
        download.fetch(FILE)
    clock.now += 86400
    assert download.left_today() == MIB


def test_budget_that_ends_within_a_file_is_kept_to_the_byte_by_every_request(tmp_path: Path) -> None:
    """A request asked for all, and was cut when the budget was over: what was on its way then came over the budget."""
    clock, net = Clock(), Net()
    download, _ = made(tmp_path, net, "origin", clock=clock, budget=MIB + 12_345)
    for _ in range(2):
        with pytest.raises(Unfinished, match="no more today"):
            download.fetch(FILE)
        clock.now += 86400
    download.fetch(FILE)
    day = MIB + 12_345
    assert net.asked == [("origin", f"bytes={at}") for at in (f"0-{day - 1}", f"{day}-{2 * day - 1}", f"{2 * day}-")]
    assert download.moved == len(CONTENT)
    assert RealDisk().sha256(download.path(FILE)) == FILE.sha256


@pytest.mark.parametrize(
    ("answer_s", "answers"), [(0.0, 8), (limits.DOWNLOAD_PASS_S / 2, 3), (limits.DOWNLOAD_PASS_S, 2)]
)
def test_server_that_gives_less_than_was_asked_for_is_asked_again_until_the_pass_is_over(
    tmp_path: Path, answer_s: float, answers: int
) -> None:
    net = Net(origin="cut")
    download, _ = made(tmp_path, net, "origin")
    with pytest.raises(Unfinished):
        download.fetch(FILE)
    net.says["origin"], net.answer_s, net.asked = "short", answer_s, []
    if answers == 8:
        download.fetch(FILE)
        assert download.path(FILE).read_bytes() == CONTENT
    else:
        with pytest.raises(Unfinished) as caught:
            download.fetch(FILE)
        here = MIB + answers * MIB // 4
        assert str(caught.value) == f"{here} of {len(CONTENT)} bytes of http://origin/{FILE.sha256} are here"
    assert [asked for _, asked in net.asked] == [f"bytes={MIB + number * MIB // 4}-" for number in range(answers)]


def test_file_whose_last_byte_ends_the_budget_of_a_day_is_whole(tmp_path: Path) -> None:
    net = Net()
    download, _ = made(tmp_path, net, "origin", budget=len(CONTENT))
    download.fetch(FILE)
    assert net.asked == [("origin", "")]
    assert (download.moved, download.left_today()) == (len(CONTENT), 0)
    assert download.path(FILE).read_bytes() == CONTENT


def test_file_that_is_one_byte_longer_than_the_budget_of_a_day_comes_whole_on_the_next(tmp_path: Path) -> None:
    clock, net, size = Clock(), Net(), len(CONTENT)
    download, _ = made(tmp_path, net, "origin", clock=clock, budget=size - 1)
    with pytest.raises(Unfinished) as caught:
        download.fetch(FILE)
    here = f"{size - 1} of {size} bytes of http://origin/{FILE.sha256} are here"
    assert str(caught.value) == f"{here}; no more today, by the budget"
    with pytest.raises(Unavailable) as caught_again:
        download.fetch(FILE)
    assert str(caught_again.value) == "what may be fetched in a day on a metered network is used up"
    clock.now += 86400
    download.fetch(FILE)
    assert net.asked == [("origin", f"bytes=0-{size - 2}"), ("origin", f"bytes={size - 1}-")]
    assert download.left_today() == size - 2


def test_server_without_ranges_is_left_before_a_body_over_the_budget(tmp_path: Path) -> None:
    download, _ = made(tmp_path, Net(a="all", origin="good"), "a", "origin", budget=MIB)
    with pytest.raises(Unfinished, match="no more today"):
        download.fetch(FILE)
    assert download.moved == MIB
    alone, _ = made(tmp_path / "alone", Net(origin="all"), "origin", budget=MIB)
    with pytest.raises(Unavailable) as caught:
        alone.fetch(FILE)
    assert str(caught.value) == (
        f"http://origin/{FILE.sha256} sends all {len(CONTENT)} bytes or none, and the day's budget has {MIB} left"
    )
    assert (alone.moved, alone.left_today()) == (0, MIB)
    enough, _ = made(tmp_path / "enough", Net(origin="all"), "origin", budget=len(CONTENT))
    enough.fetch(FILE)
    assert enough.moved == len(CONTENT)


def test_budget_survives_a_restart_and_a_clock_that_went_back(tmp_path: Path) -> None:
    clock = Clock()
    download, _ = made(tmp_path, Net(), "origin", clock=clock, budget=MIB)
    with pytest.raises(Unfinished):
        download.fetch(FILE)
    clock.now -= 86400 * 3
    again, _ = made(tmp_path, Net(), "origin", clock=clock, budget=MIB)
    assert again.left_today() == 0


def test_clock_that_was_far_ahead_ends_no_budget_for_good(tmp_path: Path) -> None:
    clock = Clock()
    clock.now += 86400 * 3650
    download, _ = made(tmp_path, Net(), "origin", clock=clock, budget=MIB)
    with pytest.raises(Unfinished):
        download.fetch(FILE)
    clock.now -= 86400 * 3650
    assert download.left_today() == 0
    clock.now += 86400
    assert download.left_today() == MIB


def test_budget_is_on_the_disk_before_the_bytes_are(tmp_path: Path) -> None:
    download, _ = made(tmp_path, Net(a="cut"), "a", budget=100 * MIB)
    seen: list[int | None] = []

    class Looks(RealDisk):
        def append(self, path: Path, content: bytes) -> None:
            again, _ = made(tmp_path, Net(), "a", budget=100 * MIB)
            seen.append(again.left_today())
            super().append(path, content)

    download._disk = Looks()
    with pytest.raises(Unfinished):
        download.fetch(FILE)
    assert [100 * MIB - (left or 0) for left in seen[1:]] >= [MIB // 4 * number for number in range(1, len(seen))]
    assert download.left_today() == 99 * MIB  # what was only set aside is given back


def test_cap_on_the_bandwidth_makes_it_wait(tmp_path: Path) -> None:
    download, waits = made(tmp_path, Net(), "origin", speed=MIB)
    download.fetch(FILE)
    assert 2.5 < max(waits) <= 3.0  # three megabytes at one a second, and nothing really waited


def test_backoff_is_fully_jittered_grows_and_never_comes_before_what_was_asked_for() -> None:
    waits = []
    for seed in range(200):
        backoff = Backoff(random.Random(seed))
        for _ in range(4):
            backoff.failed(0.0, "x", cap_s=300.0)
        waits.append(backoff.until)
    assert 0 <= min(waits) < 0.5 < 7 < max(waits) <= 8
    backoff.failed(0.0, "x", cap_s=1.0, at_least_s=60.0)
    assert 60 <= backoff.until <= 61


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://models.example", ""),
        ({"HTTPS_PROXY": "http://p:1"}, "https://models.example", "http://p:1"),
        ({"https_proxy": "p:1"}, "https://models.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://models.example", ""),
        ({"ALL_PROXY": "http://p:1"}, "http://models.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x, .example"}, "https://models.example", ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ". *. [fd00::1"}, "https://models.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "[fd00::1"}, "https://[fd00::1]", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "[fd00::1]"}, "https://[fd00::1]", ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "ample"}, "https://models.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://models.example", ""),
        ({"HTTP_PROXY": "http://p:1"}, "http://127.0.0.1:80", ""),
        ({"HTTP_PROXY": "http://p:1"}, "http://[::1]:80", ""),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http://models.example", ""),
        *(
            (
                {"ALL_PROXY": "http://p:1", "NO_PROXY": f"other.example, {direct}"},
                url,
                "" if is_direct else "http://p:1",
            )
            for direct, url, is_direct in (
                ("10.0.0.0/8", "http://10.1.2.3:8080", True),
                ("10.0.0.0/8", "http://11.1.2.3:8080", False),
                ("10.0.0.0/8", "http://10.example", False),
                ("10.1.2.3", "http://10.1.2.3", True),
                ("10.1.2.3/8", "http://10.9.9.9", True),
                ("models.example:8443", "https://models.example:8443", True),
                ("models.example:8443", "https://models.example", False),
                ("models.example:443", "https://models.example", True),
                (".example:80", "http://models.example", True),
                ("10.0.0.0/8:80", "http://10.1.2.3", True),
                ("[fd00::1]", "http://[fd00::1]:8080", True),
                ("[fd00::1]:8080", "http://[FD00:0::1]:8080", True),
                ("[fd00::1]:8080", "http://[fd00::1]:8081", False),
                ("fd00::1", "http://[fd00::1]", True),
                ("fd00::/8", "http://[fd12::1]", True),
                ("[fd00::]/8", "http://[fd12::1]", True),
                ("fd00::/8", "http://[fe12::1]", False),
                ("10.0.0.0/8", "http://[::ffff:10.1.2.3]", True),
                ("models.example.", "http://models.example", True),
                ("models.example", "http://MODELS.example.", True),
                ("a.example b.example", "http://b.example", True),
                ("10.0.0.0/99", "http://10.1.2.3", False),
                (":80", "http://models.example", True),
            )
        ),
    ],
)
def test_proxy_of_the_environment(environment: dict[str, str], url: str, proxy: str) -> None:
    assert Proxies(environment=environment).of(url) == proxy


def test_proxy_that_was_given_stands_before_everything() -> None:
    assert Proxies("http://mine:1", environment={"NO_PROXY": "*"}).of("http://127.0.0.1") == "http://mine:1"


def test_wrong_length_is_refused_from_every_mirror(tmp_path: Path) -> None:
    import msgspec

    short = msgspec.structs.replace(FILE, size_bytes=MIB)
    download, _ = made(tmp_path, Net(), "a", "origin")
    with pytest.raises(Unavailable, match="longer than"):  # and so nothing that counts against the version
        download.fetch(short)
    assert not download.path(short).exists()


def test_other_bytes_from_the_beginning_do_not_take_the_place_of_what_is_here(tmp_path: Path) -> None:
    """What was here was thrown away as soon as somebody answered with 200."""
    net = Net(origin="cut")
    download, _ = made(tmp_path, net, "origin")
    with pytest.raises(Unfinished):
        download.fetch(FILE)
    net.says["origin"] = "all lie"
    for _ in range(3):
        with pytest.raises(Unavailable, match="other bytes"):
            download.fetch(FILE)
        assert download.path(FILE).read_bytes() == CONTENT[:MIB]
    assert sorted(each.suffix for each in (tmp_path / "incoming").iterdir()) == [".etag", ".part"]
    net.says["origin"], net.asked = "good", []
    download.fetch(FILE)
    assert net.asked == [("origin", f"bytes={MIB}-")]
    assert download.path(FILE).read_bytes() == CONTENT


def test_right_bytes_from_the_beginning_take_the_place_of_wrong_ones(tmp_path: Path) -> None:
    net, clock = Net(a="cut lie", origin="all"), Clock()
    download, _ = made(tmp_path, net, "a", "origin", clock=clock)
    with pytest.raises(Unavailable, match="other bytes"):
        download.fetch(FILE)
    clock.now += 3600
    net.says["a"] = 404
    download.fetch(FILE)
    assert download.path(FILE).read_bytes() == CONTENT
    assert not (tmp_path / "incoming" / f"{FILE.sha256}.other").exists()


def test_wrong_range_takes_nothing_away_and_the_whole_is_asked_for(tmp_path: Path) -> None:
    net = Net(origin="cut")
    download, _ = made(tmp_path, net, "origin")
    with pytest.raises(Unfinished):
        download.fetch(FILE)
    net.says["origin"] = "wrong range"
    with pytest.raises(Unavailable, match="another range"):
        download.fetch(FILE)
    assert download.path(FILE).stat().st_size == MIB
    download.fetch(FILE)
    assert [asked for _, asked in net.asked] == ["", f"bytes={MIB}-", ""]
    assert download.path(FILE).read_bytes() == CONTENT


def test_mirror_that_sent_a_wrong_part_is_blamed_and_not_the_server_that_sent_the_rest(tmp_path: Path) -> None:
    """Who sent the last bytes was blamed; after a restart nobody was."""
    net = Net(a="cut lie")
    download, _ = made(tmp_path, net, "a", "origin")
    download.fetch(FILE)
    assert net.asked == [("a", ""), ("origin", f"bytes={MIB}-")]
    again, _ = made(tmp_path, net, "a", "origin")
    again.refuse(FILE)
    again.fetch(FILE)
    assert names(net) == ["a", "origin", "origin"]
    assert again.path(FILE).read_bytes() == CONTENT
