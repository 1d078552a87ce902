"""The figures of standing monitors, each computed beside the code: looks, shares, means, and what is tolerated."""

import math

import pytest

from whimbrel.gate.drift import DriftFold
from whimbrel.gate.evidence import MeanFold, MeanWindow, mean_log_e, one_sample_log_e, one_sided_rho, rate_log_e
from whimbrel.gate.evidence import RateWindow as Rate
from whimbrel.gate.monitor import (
    Sample,
    crash_sample,
    design_effect,
    error_sample,
    figures_of,
    in_use,
    latency_at,
    latency_over,
    needed,
    spread_sample,
    summed,
    unpaired_sample,
    usage_sample,
)
from whimbrel.gate.monitor_anomalies import Compared, Departure, departures
from whimbrel.gate.monitor_objectives import Reading, judge_objective
from whimbrel.health.device_hour import HourSums, Spread
from whimbrel.health.pairs import Pairs
from whimbrel.health.sketch import GAMMA, key_of
from whimbrel.health.tally import Moments
from whimbrel.plan.objectives import read_objective

NEEDED = needed(tests=744, part=0.5)
PAIRED = Pairs(200, 250, 20.0, 30.0, 12.0)
LIKE = (12.0 - 20.0 * 30.0 / 200) / (200 - 250 / 200)  # covariance of two hours of a device, of PAIRED


def spread(mean: float, n: int, sd: float) -> Spread:
    return Spread(n=n, sum=mean * n, sumsq=n * mean * mean + (n - 1) * sd * sd)


def sharpest(difference: float) -> float:
    return one_sided_rho(v_opt=2 * math.log(20) / difference**2, alpha=0.05)


# --- looks ---


def test_a_look_is_as_many_hours_as_kish_says_of_the_most_alike_side() -> None:
    """1 + rho (r - 1): r hours a device, rho their correlation and one standard error."""
    one = Sample(240, 10, 0.25, PAIRED)
    rho = LIKE / 0.25 + 1 / math.sqrt(PAIRED.freedom)
    assert design_effect(one) == pytest.approx(1 + rho * 23)
    assert design_effect(one, Sample(500, 10, 0.25, Pairs(200, 250, 20.0, 30.0, 3.0))) == pytest.approx(1 + rho * 49)
    assert design_effect(Sample(0, 0, 0.25), one) == design_effect(one), "a side without units says nothing"
    assert design_effect(Sample(240, 0.5, 0.25, PAIRED)) == pytest.approx(1 + rho * 239)
    assert design_effect() == 1.0
    assert design_effect(Sample(0, 0, 0.25)) == 1.0


def test_what_is_not_told_of_likeness_is_taken_for_the_whole() -> None:
    assert design_effect(Sample(240, 10, 0.25, PAIRED, paired=False)) == pytest.approx(24)
    assert design_effect(Sample(240, 10, 0.25, Pairs.of(1.0, before=2, total=1.0))) == pytest.approx(24)
    assert design_effect(Sample(240, 10, 1e-9, PAIRED)) == pytest.approx(24), "a variance of nothing divides nothing"
    opposed = Sample(240, 10, 0.25, Pairs(200, 250, 20.0, 30.0, 0.0))
    assert design_effect(opposed) == pytest.approx(1 + 23 / math.sqrt(PAIRED.freedom))


DAY = HourSums(
    devices=200,
    used=120,
    crashed=30,
    errors=spread(0.1, 80, 0.2),
    metrics={"accuracy": spread(0.8, 50, 0.1)},
    latency_units=40,
    pairs={"crash": PAIRED, "usage": Pairs(1, 1), "error": Pairs(2, 2), "accuracy": Pairs(3, 3)},
    busiest=20,
)


def test_each_measure_is_a_sample_of_its_own_units() -> None:
    assert crash_sample(DAY) == Sample(120, 12.0, 0.25 * 0.75, PAIRED)
    assert usage_sample(DAY) == Sample(200, 20.0, 0.6 * 0.4, Pairs(1, 1))
    assert error_sample(DAY) == Sample(80, 8.0, pytest.approx(0.04), Pairs(2, 2))
    accuracy = spread_sample(DAY.metrics["accuracy"], DAY, "accuracy")
    assert accuracy == Sample(50, 5.0, pytest.approx(0.01), Pairs(3, 3))
    assert unpaired_sample(40, DAY) == Sample(40, 4.0, 0.0, paired=False)
    assert crash_sample(HourSums()) == Sample(0, 0.0, 0.0)
    assert unpaired_sample(900, DAY).busiest == 20.0


def test_hours_in_use_hold_those_that_crashed() -> None:
    assert in_use(DAY) == 120
    assert in_use(HourSums(devices=9, used=2, crashed=5)) == 5
    assert in_use(HourSums(devices=9, crashed=5)) == 9


def test_the_figures_of_a_version_are_over_device_hours() -> None:
    sums = HourSums(
        devices=200,
        used=120,
        crashed=30,
        errors=spread(0.1, 80, 0.2),
        metrics={"accuracy": spread(0.8, 50, 0.1), "none": Spread()},
        latency_units=2,
        latency={100: 12_000, 200: 7_500, 300: 500},
        peaks={"memory_mb": {100: 98, 120: 1, 200: 1}, "none": {}},
        busiest=20,
    )
    figures = figures_of(sums)
    assert (figures.device_hours, figures.devices, figures.usage, figures.crash_rate) == (200, 20, 0.6, 0.25)
    assert (figures.error_rate, figures.means) == (0.1, {"accuracy": 0.8})
    assert (figures.latency_p50_ms, figures.latency_p95_ms, figures.latency_p99_ms) == (
        round(GAMMA**100, 3),
        round(GAMMA**200, 3),
        round(GAMMA**300, 3),
    )
    assert figures.peaks == {"memory_mb": (round(GAMMA**120, 3), round(GAMMA**200, 3))}
    assert latency_at(sums, 0.6) == round(GAMMA**100, 3)
    assert [latency_over(sums, edge) for edge in (99, 100, 200, 300)] == [2.0, 0.8, 0.05, 0.0]
    assert figures_of(HourSums()).usage is None


def test_hours_are_added_up_and_know_the_busiest() -> None:
    one, two = HourSums(devices=4, busiest=3), HourSums(devices=9)
    assert summed([one]) is one
    assert (summed([one, two]).devices, summed([one, two]).busiest, summed([]).busiest) == (13, 9, 0)


# --- objectives ---


def read(text: str, *hours: HourSums, reference: tuple[float, ...] | None = None) -> Reading:
    return judge_objective(read_objective(text), hours, needed=NEEDED, reference=reference)


def test_a_share_is_one_sample_of_looks_against_its_bound() -> None:
    phi = design_effect(crash_sample(DAY))
    reading = read("crash_rate < 10%", DAY)
    log_e = one_sample_log_e(events=30 / phi, trials=120 / phi, limit=0.1)
    assert (reading.value, reading.units, reading.needed) == (0.25, 120, NEEDED)
    assert reading.log_e == pytest.approx(max(0.0, log_e))
    errors = read("error_rate < 5%", DAY)
    phi = design_effect(error_sample(DAY))
    assert (errors.value, errors.units) == (0.1, 80)
    assert errors.log_e == pytest.approx(max(0.0, one_sample_log_e(events=8 / phi, trials=80 / phi, limit=0.05)))
    usage = read("usage > 90%", DAY)
    phi = design_effect(usage_sample(DAY))
    assert (usage.value, usage.units) == (0.6, 200)
    assert usage.log_e == pytest.approx(one_sample_log_e(events=80 / phi, trials=200 / phi, limit=0.1))
    assert usage.log_e > 0
    assert read("usage > 10%", DAY).log_e == 0.0


def test_a_mean_is_tested_by_looks_from_thirty_on() -> None:
    pairs = Pairs(5000, 5000)
    sums = HourSums(devices=400, metrics={"watts": spread(5.2, 400, 0.5)}, pairs={"watts": pairs}, busiest=20)
    phi = 1 + 19 / math.sqrt(pairs.freedom)
    v = 400 / phi / 0.25
    reading = read("watts < 5", sums)
    by_hand = mean_log_e(precision=v, total=v * 0.2, rho=sharpest(0.25 * 0.5))
    assert (reading.value, reading.units, reading.log_e) == (5.2, 400, pytest.approx(by_hand))
    assert read("watts > 5", sums).log_e == 0.0
    assert read("watts > 5.4", sums).log_e == pytest.approx(by_hand)
    few = HourSums(devices=29, metrics={"watts": spread(50.0, 29, 0.5)})
    thirty = HourSums(devices=30, metrics={"watts": spread(50.0, 30, 0.5)})
    assert (read("watts < 5", few).log_e, read("watts < 5", few).state) == (0.0, "beyond")
    assert read("watts < 5", thirty).state == "broken"
    same = HourSums(devices=40, metrics={"watts": Spread(n=40, sum=400.0, sumsq=4000.0)})
    assert read("watts < 5", same).state == "broken", "a metric equal on every device divides by nothing"


def test_a_quantile_is_broken_by_more_above_it_than_its_share() -> None:
    over = HourSums(devices=100, latency_units=100, latency={key_of(5.0): 900_000, key_of(20.0): 100_000})
    for name, share, value in (("p50", 0.5, 5.0), ("p95", 0.05, 20.0), ("p99", 0.01, 20.0)):
        reading = read(f"latency_{name}_ms < 10", over)
        assert reading.log_e == pytest.approx(max(0.0, one_sample_log_e(events=10, trials=100, limit=share)))
        assert (reading.value, reading.units) == (round(GAMMA ** key_of(value), 3), 100)
        assert (reading.state == "kept") == (name == "p50")


def test_a_peak_is_broken_by_more_device_hours_above_it_than_one_in_a_hundred() -> None:
    sums = HourSums(devices=200, peaks={"memory_mb": {key_of(40.0): 196, key_of(60.0): 4}})
    reading = read("memory_mb < 50 peak", sums)
    assert reading.log_e == pytest.approx(one_sample_log_e(events=4, trials=200, limit=0.01))
    assert (reading.value, reading.units, reading.state) == (round(GAMMA ** key_of(60.0), 3), 200, "beyond")
    fewer = HourSums(devices=200, peaks={"memory_mb": {key_of(40.0): 198, key_of(60.0): 2}})
    assert read("memory_mb < 50 peak", fewer).state == "kept"


@pytest.mark.parametrize(("text", "kept"), [("watts < 5", True), ("watts > 5", True), ("watts < 4.999", False)])
def test_a_mean_on_its_very_bound_is_kept(text: str, kept: bool) -> None:
    assert (read(text, HourSums(devices=40, metrics={"watts": spread(5.0, 40, 0.0)})).state == "kept") == kept


def test_fewer_device_hours_than_the_objective_asks_for_say_nothing() -> None:
    sums = HourSums(devices=40, metrics={"watts": spread(50.0, 40, 1.0)})
    assert read("watts < 5, least 41", sums).state == "too_few"
    assert read("watts < 5, least 40", sums).state == "broken"
    assert read("watts < 5", HourSums(devices=19, metrics={"watts": spread(1.0, 19, 1.0)})).state == "too_few"
    assert read("watts < 5", HourSums(devices=20, metrics={"watts": spread(1.0, 20, 1.0)})).state == "kept"


@pytest.mark.parametrize("text", ["accuracy > 84%", "latency_p99_ms < 10", "memory_mb < 50 peak", "error_rate < 1%"])
def test_what_was_not_told_has_no_units_and_no_figure(text: str) -> None:
    assert read(text, HourSums(devices=9)) == Reading(state="nothing_told", value=None, units=0, needed=NEEDED)


EVEN = (0.25,) * 4


def predicted(shares: tuple[float, ...], units: int) -> HourSums:
    parts = {i: Moments(n=units, sum=p * units, sumsq=units * (p * p + 0.01)) for i, p in enumerate(shares)}
    return HourSums(devices=units, prediction_units=units, predictions=parts)


def test_drift_is_the_test_of_a_rollout_over_hours() -> None:
    far = predicted((0.02, 0.08, 0.2, 0.7), 100)
    reading = read("drift_psi < 0.25", *[far] * 6, reference=EVEN)
    fold = DriftFold(EVEN, limit=0.25)
    for _ in range(6):
        fold.add(100, far.predictions)
    assert reading.log_e == pytest.approx(fold.log_e(sharpest(0.1)))
    assert (reading.state, reading.units) == ("broken", 600)
    assert reading.value is not None
    assert reading.value == round(reading.value, 6) > 0.5
    assert read("drift_psi < 0.25", predicted(EVEN, 100), reference=EVEN).state == "kept"
    assert read("drift_psi < 0.25", predicted(EVEN, 1), reference=EVEN) == Reading(
        state="too_few", value=None, units=1, needed=NEEDED
    )
    for nothing in (read("drift_psi < 0.25", far), read("drift_psi < 0.25", HourSums(devices=9), reference=EVEN)):
        assert nothing == Reading(state="nothing_told", value=None, units=0, needed=NEEDED)


# --- anomalies ---


def departure(name: str, now: HourSums, other: HourSums, *, hours: int = 1, **more: list[Compared]) -> Departure:
    return next(each for each in departures([Compared(now, other)] * hours, **more) if each.measure == name)


def shares(devices: int, *, crashed: int, used: int | None = None) -> HourSums:
    return HourSums(devices=devices, used=devices if used is None else used, crashed=crashed)


def test_a_rate_that_departs_is_half_a_bet_on_its_ratio_and_half_on_its_points() -> None:
    """Two hours of one device are taken to be alike: 100 device-hours are 50 looks."""
    now, other = shares(50, crashed=20), shares(40, crashed=4)
    found = departure("crash", now, other, hours=2)
    looks_t, looks_c = 50, 40
    ratio = rate_log_e([Rate(20 / 2, 50 / 2, 4 / 2, 40 / 2)] * 2, ratio=1.5)
    noise = 0.4 * 0.6 / looks_t + 0.1 * 0.9 / looks_c
    points = mean_log_e(precision=1 / noise, total=(0.4 - 0.1 - 0.05) / noise, rho=sharpest(0.05))
    assert found.log_e == pytest.approx(math.log((math.exp(ratio) + math.exp(points)) / 2))
    assert (found.now, found.other, found.within) == (0.4, 0.1, False)


def test_use_departs_where_it_falls_and_its_arms_are_swapped() -> None:
    now, other = shares(50, crashed=0, used=10), shares(40, crashed=0, used=36)
    found = departure("usage", now, other)
    ratio = rate_log_e([Rate(36, 40, 10, 50)], ratio=1.5)
    noise = 0.2 * 0.8 / 50 + 0.9 * 0.1 / 40
    points = mean_log_e(precision=1 / noise, total=(0.9 - 0.2 - 0.25) / noise, rho=sharpest(0.25))
    assert found.log_e == pytest.approx(math.log((math.exp(ratio) + math.exp(points)) / 2))
    assert (found.now, found.other, found.within) == (0.2, 0.9, False)
    assert departure("usage", other, now).within


def test_points_are_bet_on_from_thirty_looks_a_side() -> None:
    other = shares(30, crashed=3)
    for devices in (29, 30):
        now = shares(devices, crashed=devices // 2)
        ratio = rate_log_e([Rate(devices // 2, devices, 3, 30)], ratio=1.5)
        alone = math.log((math.exp(ratio) + 1) / 2)
        assert (departure("crash", now, other).log_e > alone + 0.01) == (devices == 30)


def test_a_share_that_never_varied_divides_by_nothing() -> None:
    found = departure("crash", shares(50, crashed=50), shares(50, crashed=0))
    assert 100 < found.log_e < math.inf


@pytest.mark.parametrize(("crashed", "within"), [(15, True), (16, False)])
def test_half_as_much_again_of_crashes_is_within(crashed: int, within: bool) -> None:
    assert departure("crash", shares(100, crashed=crashed), shares(100, crashed=10)).within == within


def test_what_differed_before_is_tolerated_as_far_as_it_did_and_at_most_tenfold() -> None:
    def tolerated(before: tuple[int, int]) -> float:
        """The ratio at which the figures are just within."""
        earlier = [Compared(shares(1000, crashed=before[0]), shares(1000, crashed=before[1]))]
        other = shares(10_000, crashed=100)
        return max(
            crashed / 100
            for crashed in range(100, 2000, 10)
            if departure("crash", shares(10_000, crashed=crashed), other, before=earlier).within
        )

    assert tolerated((60, 20)) == pytest.approx(4.5)
    assert tolerated((20, 60)) == 1.5, "what was better before is not asked for"
    assert tolerated((60, 19)) == tolerated((19, 20)) == 1.5, "fewer than twenty are no measure"
    assert tolerated((900, 20)) == 15.0


def test_use_that_was_less_before_is_tolerated_as_far_as_it_was() -> None:
    earlier = [Compared(shares(1000, crashed=0, used=200), shares(1000, crashed=0, used=600))]
    other = shares(1000, crashed=0, used=900)
    for used, within in ((201, True), (199, False)):
        assert departure("usage", shares(1000, crashed=0, used=used), other, before=earlier).within == within


def timed(devices: int, *latency: tuple[float, int]) -> HourSums:
    parts = {key_of(ms): 10_000 * units for ms, units in latency}
    return HourSums(devices=devices, latency_units=devices, latency=parts)


def test_latency_departs_by_units_a_quarter_over_the_other_sides_quantile() -> None:
    now, other = timed(60, (10.0, 40), (14.0, 20)), timed(100, (10.0, 96), (30.0, 4))
    found = departure("latency_p95", now, other)
    assert found.log_e == pytest.approx(max(0.0, rate_log_e([Rate(20, 60, 4, 100)], ratio=1.0)))
    assert (found.now, found.other, found.within) == (
        round(GAMMA ** key_of(14.0), 3),
        round(GAMMA ** key_of(10.0), 3),
        False,
    )
    assert departure("latency_p95", timed(60, (12.4, 60)), other).within
    assert departure("latency_p95", timed(60, (12.4, 60)), other).log_e == 0.0
    assert departure("latency_p95", HourSums(devices=9), other) == Departure(
        measure="latency_p95", log_e=0.0, now=None, other=round(GAMMA ** key_of(10.0), 3), within=True
    )


def metric(name: str, mean: float, n: int, sd: float) -> HourSums:
    return HourSums(devices=n, metrics={name: spread(mean, n, sd)}, pairs={name: Pairs(10**6, 10**6)}, busiest=n)


@pytest.mark.parametrize(
    ("name", "fold", "size", "now", "other", "edge"),
    [
        ("accuracy", MeanFold.drop(0.03), 0.03, 0.8, 0.9, 0.87),
        ("feedback", MeanFold.drop(0.03), 0.03, 0.8, 0.9, 0.87),
        ("battery", MeanFold.growth(1.25), 1.0, 9.0, 4.0, 5.0),
        ("memory_mb", MeanFold.growth(1.25), 1.0, 9.0, 4.0, 5.0),
        ("temperature_c", MeanFold.rise(3.0), 3.0, 44.0, 40.0, 43.0),
    ],
)
def test_a_mean_departs_by_what_is_tolerated_of_it(
    name: str, fold: MeanFold, size: float, now: float, other: float, edge: float
) -> None:
    one, two = metric(name, now, 50, 0.2), metric(name, other, 80, 0.3)
    found = departure(name, one, two, hours=3)
    phi = 1 + 2 * (1 / math.sqrt(Pairs(3 * 10**6, 3 * 10**6).freedom))
    ours, theirs = one.metrics[name], two.metrics[name]
    looks = (*(v / phi for v in (50, ours.sum, ours.sumsq)), *(v / phi for v in (80, theirs.sum, theirs.sumsq)))
    for _ in range(3):
        fold.add([MeanWindow(*looks)])
    assert found.log_e == pytest.approx(fold.log_e(sharpest(size)), rel=1e-6)
    assert found.log_e > 0.9
    assert (found.now, found.other, found.within) == (pytest.approx(now), pytest.approx(other), False)
    assert departure(name, metric(name, edge, 50, 0.2), two).within


def test_a_version_that_is_cooler_or_drains_less_departs_nowhere() -> None:
    """A temperature was taken for a share: that it fell by a thirtieth of a degree was an anomaly, and no rise was."""
    for name, now, other in (("temperature_c", 30.0, 40.0), ("battery", 3.0, 4.0), ("accuracy", 0.95, 0.9)):
        found = departure(name, metric(name, now, 500, 0.2), metric(name, other, 800, 0.3), hours=6)
        assert (found.log_e, found.within) == (0.0, True)


def test_a_mean_that_one_side_did_not_tell_departs_nowhere() -> None:
    one = metric("accuracy", 0.5, 50, 0.2)
    assert departure("accuracy", one, HourSums()) == Departure(
        measure="accuracy", log_e=0.0, now=0.5, other=None, within=True
    )
    assert departure("accuracy", HourSums(), one).now is None
