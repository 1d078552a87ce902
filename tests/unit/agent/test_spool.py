"""Windows that wait: frozen once sent, numbered once, merged only before, bounded always."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

from whimbrel import limits
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.marks import Closed, Ended
from whimbrel.agent.spool import Spool, WindowPlace
from whimbrel.health.report import Cohort, Summary, Window
from whimbrel.health.shadow import ShadowSums


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.json"


def spool_at(path: Path) -> Spool:
    return Spool(path, disk=RealDisk())


def closed(name: str, serial: int = 1, **changes: object) -> Ended:
    return Ended(name, serial, Closed(serial=serial, **{"inferences": 2} | changes))


def cut(spool: Spool, model: str = "m", serial: int | None = 1, cohorts: tuple[Cohort, ...] = ()) -> None:
    spool.cut(model, serial=serial, place=WindowPlace(cohorts=cohorts, hardware_class="pi"))


def test_sessions_add_up_in_one_window(path: Path) -> None:
    spool = spool_at(path)
    ended = [closed("x", latency_key=5, metrics={"accuracy": Summary.of(1.0)}), closed("y", latency_key=5, errors=1)]
    spool.add("m", [*ended, Ended("z", 1), Ended("torn", None)], names=["x", "y", "z", "torn"])
    cut(spool)
    (window,) = spool.batch(windows_max=9)[1]
    assert (window.sessions, window.inferences, window.errors, window.crashed) == (3, 4, 1, 1)
    assert window.latency == {5: 2}
    assert window.metrics["accuracy"].n == 1


def test_two_crashes_in_a_window_are_one(path: Path) -> None:
    spool = spool_at(path)
    spool.add("m", [Ended("x", 1), Ended("y", 1)], names=["x", "y"])
    cut(spool)
    assert spool.batch(windows_max=9)[1][0].crashed == 1


def test_a_window_that_was_sent_is_sent_again_as_it_was(path: Path) -> None:
    spool = spool_at(path)
    cut(spool)
    first = spool.batch(windows_max=9)
    spool.add("m", [closed("x")], names=["x"])
    cut(spool)
    again = spool_at(path).batch(windows_max=1)
    assert again == (first[0], first[1][:1])


def test_what_was_sent_is_sent_under_the_same_number_after_a_power_cut(path: Path) -> None:
    class Volatile(RealDisk):
        def replace(self, path: Path, content: bytes) -> None:
            """Nothing of it reaches the disk."""

    spool = Spool(path, disk=Volatile())
    cut(spool)
    sent = spool.batch(windows_max=9)
    assert spool_at(path).batch(windows_max=9) == sent


def test_an_acknowledged_window_is_forgotten_and_its_number_never_used_again(path: Path) -> None:
    spool = spool_at(path)
    cut(spool)
    epoch, windows = spool.batch(windows_max=9)
    spool.acknowledged(epoch, windows)
    assert spool.waiting == 0
    cut(spool)
    assert [each.first for each in spool.batch(windows_max=9)[1]] == [2]


def test_sessions_of_another_serial_get_a_window_of_their_own(path: Path) -> None:
    spool = spool_at(path)
    spool.add("m", [closed("x", 1), closed("y", 2)], names=["x", "y"])
    cut(spool, serial=2)
    assert [each.serial for each in spool.batch(windows_max=9)[1]] == [1, 2]


def test_a_window_that_sessions_of_another_serial_close_counts_as_it_would_if_it_were_cut(path: Path) -> None:
    """It counted in no cohort: what a device saw before it left a version by itself was told of nobody."""
    spool = spool_at(path)
    place = WindowPlace((Cohort(rollout="r", stage=0, role="treated", age_s=9.0),), "pi", {"os": "x"})
    spool.add("m", [closed("a", 2)], names=["a"])
    mixed = [closed("b", 1), closed("c", 2), closed("d", 3), Ended("e", None), closed("f", 1), Ended("g", 2)]
    spool.add("m", mixed, names=list("bcdefg"), place=place)
    told = [(each.serial, each.sessions, each.crashed) for each in spool.batch(windows_max=9)[1]]
    assert told == [(2, 3, 1), (1, 2, 0)]  # one a serial, that of the open window first
    assert [WindowPlace(each.cohorts, each.hardware_class, each.slices) for each in spool.batch(windows_max=9)[1]] == [
        place,
        place,
    ]
    cut(spool, serial=3)
    assert [(each.serial, each.sessions) for each in spool.batch(windows_max=9)[1]] == [(2, 3), (1, 2), (3, 1)]


def test_a_session_whose_file_was_left_behind_counts_once(path: Path) -> None:
    spool = spool_at(path)
    spool.add("m", [closed("x")], names=["x"])
    assert [each.name for each in spool_at(path).new_of([closed("x"), closed("y")])] == ["y"]


@pytest.mark.long
def test_years_without_a_network_fit_and_lose_no_session(path: Path) -> None:
    spool = spool_at(path)
    for number in range(limits.SPOOL_WINDOWS + 20):
        spool.add("m", [closed(f"s{number}")], names=[f"s{number}"])
        cut(spool, cohorts=(Cohort(rollout="r", stage=0, role="treated", age_s=number),))
    assert spool.waiting == limits.SPOOL_WINDOWS
    windows = spool.batch(windows_max=limits.SPOOL_WINDOWS)[1]
    assert sum(each.sessions for each in windows) == limits.SPOOL_WINDOWS + 20
    assert windows[0].first == 1
    assert all(one.last + 1 == other.first for one, other in itertools.pairwise(windows))
    assert windows[-1].last == limits.SPOOL_WINDOWS + 20


def test_a_sent_window_is_never_merged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPOOL_WINDOWS", 30)
    spool = spool_at(path)
    cut(spool)
    sent = spool.batch(windows_max=1)[1][0]
    for _ in range(limits.SPOOL_WINDOWS + 5):
        cut(spool)
    assert spool.batch(windows_max=1)[1][0] == sent


def test_after_a_boot_a_new_epoch_begins_and_the_old_windows_keep_theirs(path: Path) -> None:
    spool = spool_at(path)
    cut(spool)
    epoch, windows = spool.batch(windows_max=9)
    cut(spool)

    class Rebooted(RealDisk):
        def boot(self) -> str:
            return "the next one"

    later = Spool(path, disk=Rebooted())
    assert later.batch(windows_max=9) == (epoch, windows)
    later.acknowledged(epoch, windows)
    other, fresh = later.batch(windows_max=9)
    assert other != epoch
    assert [each.first for each in fresh] == [1]


def test_a_copy_of_the_folder_counts_for_itself(tmp_path: Path) -> None:
    """A container's image, started twice on one machine: the second one's windows were taken for the first one's."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "agent.json").write_text("{}")
    spool = spool_at(first / "spool.json")
    cut(spool)
    spool.acknowledged(*spool.batch(windows_max=9))
    shutil.copytree(first, second)
    clone, again = spool_at(second / "spool.json"), spool_at(first / "spool.json")
    for each in (clone, again):
        cut(each)
    assert clone.batch(windows_max=9)[0] != again.batch(windows_max=9)[0] == spool.batch(windows_max=9)[0]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"format":"whimbrel-spool-2"}'])
def test_a_spool_that_cannot_be_read_begins_anew(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    spool = spool_at(path)
    cut(spool)
    assert spool.waiting == 1


def test_windows_are_bounded_in_bytes_and_can_be_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPOOL_BYTES", 50_000)
    spool = spool_at(path)
    for number in range(20):
        names = [f"{number}-{key}" for key in range(500)]
        spool.add("m", [closed(name, latency_key=key) for key, name in enumerate(names)], names=names)
        spool.cut("m", serial=1, place=WindowPlace(hardware_class=f"class {number}"))  # none merges with another
    assert path.stat().st_size <= limits.SPOOL_BYTES
    kept = [window.hardware_class for window in spool_at(path).batch(windows_max=100)[1]]
    assert kept[-1] == "class 19"  # the oldest are those that go
    assert 3 < len(kept) < 20


def test_merged_window_carries_the_numbers_of_all_that_it_stands_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SPOOL_WINDOWS", 6)
    spool = spool_at(path)
    for _ in range(9):
        cut(spool)
    windows = spool.batch(windows_max=9)[1]
    assert [(window.first, window.last) for window in windows] == [(1, 4), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9)]


def test_the_mean_of_every_metric_over_the_windows_until_now_is_kept(path: Path) -> None:
    spool = spool_at(path)
    for name, value in (("x", 1.0), ("y", 3.0), ("z", 8.0)):
        spool.add("m", [closed(name, metrics={"watch_time": Summary.of(value)}, errors=1)], names=[name])
        assert spool.before("m").get("watch_time", 0.0) != value  # an open window is not past yet
        cut(spool)
    cut(spool)  # a window in which nothing happened tells nothing
    assert spool_at(path).before("m") == {"watch_time": 4.0, "error_rate": 0.5}
    assert spool.before("another") == {}


def test_old_windows_fade_from_what_was_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BEFORE_WINDOWS", 4)
    spool = spool_at(path)
    for turn in range(40):
        value = 0.0 if turn < 20 else 1.0
        spool.add("m", [closed(f"s{turn}", metrics={"watch_time": Summary.of(value)})], names=[f"s{turn}"])
        cut(spool)
        spool.acknowledged(*spool.batch(windows_max=9))
    assert spool.before("m")["watch_time"] == pytest.approx(1.0, abs=0.01)


# --- windows that are merged ---


def full(name: str, serial: int = 1, *, tried: int = 3, **changes: object) -> Ended:
    values: dict[str, object] = {
        "errors": 1,
        "latency_key": 5,
        "metrics": {"watch_time": Summary.of(2.0)},
        "shadow": ShadowSums(serial=tried, inputs=4, compared=2, agreed=1.0, errors=2),
        "predictions": {0: 1, 2: 5},
    }
    return closed(name, serial, **values | changes)


def test_merged_windows_say_what_both_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPOOL_WINDOWS", 1)
    spool = spool_at(path)
    spool.add("m", [full("a"), Ended("b", 1)], names=["a", "b"])
    cut(spool, cohorts=(Cohort(rollout="r", stage=0, role="treated", age_s=10.0),))
    spool.add("m", [full("c", latency_key=9, predictions={2: 1}), full("d", errors=2), Ended("e", 1)], names=["c"])
    cut(spool, cohorts=(Cohort(rollout="r", stage=0, role="treated", age_s=70.0),))
    assert spool.batch(windows_max=9)[1] == (
        Window(
            model="m",
            serial=1,
            first=1,
            last=2,
            hardware_class="pi",
            cohorts=(Cohort(rollout="r", stage=0, role="treated", age_s=70.0),),
            sessions=5,
            crashed=1,
            inferences=6,
            errors=4,
            metrics={"watch_time": Summary(n=3, sum=6.0, sumsq=12.0, most=2.0)},
            latency={5: 2, 9: 1},
            shadow=ShadowSums(serial=3, inputs=12, compared=6, agreed=3.0, errors=6),
            predictions={0: 2, 2: 11},
        ),
    )


PLACE = WindowPlace((Cohort(rollout="r", stage=0, role="treated", age_s=1.0),), "pi", {"os": "x"})


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "n"},
        {"serial": 2},
        {"tried": 4},
        {"place": WindowPlace(PLACE.cohorts, "phone", PLACE.slices)},
        {"place": WindowPlace(PLACE.cohorts, "pi", {"os": "y"})},
        {"place": WindowPlace((), "pi", PLACE.slices)},
        {"place": WindowPlace((Cohort(rollout="s", stage=0, role="treated", age_s=1.0),), "pi", PLACE.slices)},
        {"place": WindowPlace((Cohort(rollout="r", stage=1, role="treated", age_s=1.0),), "pi", PLACE.slices)},
        {"place": WindowPlace((Cohort(rollout="r", stage=0, role="control", age_s=1.0),), "pi", PLACE.slices)},
    ],
)
def test_windows_of_two_kinds_are_not_merged_and_the_oldest_goes(
    path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(limits, "SPOOL_WINDOWS", 1)
    spool = spool_at(path)
    for name, words in (("a", {}), ("b", changes)):
        model, serial = words.get("model", "m"), words.get("serial", 1)
        spool.add(model, [full(name, serial, tried=words.get("tried", 3), inferences=ord(name))], names=[name])
        spool.cut(model, serial=serial, place=words.get("place", PLACE))
    assert [(each.inferences, each.first, each.last) for each in spool.batch(windows_max=9)[1]] == [(ord("b"), 1, 1)]


def test_sessions_beside_which_two_versions_were_tried_are_in_two_windows(path: Path) -> None:
    spool = spool_at(path)
    tried = [full("a", tried=3), full("b", tried=4), closed("c"), full("d", tried=4)]
    spool.add("m", tried, names=["a"], place=PLACE)
    spool.cut("m", serial=1, place=PLACE)
    told = [(each.shadow and each.shadow.serial, each.sessions) for each in spool.batch(windows_max=9)[1]]
    assert told == [(3, 1), (4, 3)]
    assert all(each.cohorts == PLACE.cohorts for each in spool.batch(windows_max=9)[1])


def test_a_window_takes_so_many_metrics_and_latencies_and_what_it_has_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSION_METRICS", 2)
    monkeypatch.setattr("whimbrel.agent.spool._LATENCY_KEYS", 2)
    spool = spool_at(path)
    for name, keys in (("a", "xy"), ("b", "yz")):
        metrics = {key: Summary.of(1.0) for key in keys}
        spool.add("m", [closed(name + key, metrics=metrics, latency_key=ord(key)) for key in keys], names=[name])
    cut(spool)
    (window,) = spool.batch(windows_max=9)[1]
    assert {name: metric.n for name, metric in window.metrics.items()} == {"x": 2, "y": 4}
    assert window.latency == {ord("x"): 1, ord("y"): 2}
    assert spool.before("m") == {"error_rate": 0.0, "x": 1.0}
