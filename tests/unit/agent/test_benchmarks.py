"""What a probe measured decides which variant is taken, for a month."""

from pathlib import Path

from support.repository import Repository, variant_of
from whimbrel.agent.benchmarks import Benchmarks
from whimbrel.agent.disk import RealDisk
from whimbrel.device.ports import ProbeResult
from whimbrel.limits import BENCHMARK_AGE_S
from whimbrel.model.choose import Capacity
from whimbrel.model.release import Probe

BIG, SMALL = variant_of(b"large", name="big"), variant_of(b"small", name="small")
RELEASE = Repository().release("detector", 1, variants=(BIG, SMALL))
OVER = ProbeResult(passed=False, over_budget=True, reason="it is too slow")


def chosen(benchmarks: Benchmarks, now: float) -> str:
    variant = benchmarks.choose(RELEASE, {}, now=now)
    assert variant is not None
    return variant.name


def test_variant_that_was_too_slow_is_tried_again_after_a_month(tmp_path: Path) -> None:
    benchmarks = Benchmarks(tmp_path / "benchmarks", disk=RealDisk())
    assert chosen(benchmarks, 0) == "big"
    benchmarks.keep(BIG, OVER, now=0)
    assert chosen(benchmarks, BENCHMARK_AGE_S - 1) == "small"
    assert chosen(benchmarks, BENCHMARK_AGE_S) == "big"


def test_where_all_were_too_slow_the_smallest_is_tried_again(tmp_path: Path) -> None:
    benchmarks = Benchmarks(tmp_path / "benchmarks", disk=RealDisk())
    benchmarks.keep(BIG, OVER, now=0)
    benchmarks.keep(SMALL, OVER, now=0)
    assert chosen(benchmarks, 1) == "small"


def test_a_variant_that_the_device_cannot_hold_is_not_fetched_to_find_that_out(tmp_path: Path) -> None:
    """A board of 512 MiB fetched the build for 4 GiB first, and its probe said so."""
    hungry = variant_of(b"large", name="big", probe=Probe(memory_mib_max=2000))
    release = Repository().release("detector", 1, variants=(hungry, SMALL))
    benchmarks = Benchmarks(tmp_path / "benchmarks", disk=RealDisk())

    def taken(**capacity: int) -> str:
        variant = benchmarks.choose(release, {}, now=0, capacity=lambda: Capacity(**capacity))
        assert variant is not None
        return variant.name

    assert taken() == taken(memory_mib=2000) == taken(room_bytes=hungry.size_bytes) == "big"
    assert taken(memory_mib=1999) == "small"
    assert taken(room_bytes=hungry.size_bytes - 1) == "small"  # nothing fits: the smallest says what is missing
