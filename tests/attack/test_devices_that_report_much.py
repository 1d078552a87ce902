"""A device counts at most one bounded unit a window in every test, however much it tells and however often."""

import functools
from collections import Counter
from random import Random

import pytest

from support.values import (
    EPOCH,
    T0,
    Town,
    cohort,
    devices_in,
    plan,
    release,
    reports,
    rollout,
    seen,
    shadow_plan,
    stage,
    town,
    window,
)
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.reports.ingest import ingest
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import GateInput, Verdict
from whimbrel.health.report import Summary
from whimbrel.health.tally import Cell, add
from whimbrel.model.documents import encode
from whimbrel.model.release import Reference
from whimbrel.stores import schema

FIRST = devices_in(0, 50_000, 1)[0]
WINDOW_S = 300.0


def take(here: Town, *records: DeviceMessage, number: int = 1, second: float = 0.0) -> None:
    ingest(here.registry, here.fleet, records, now=T0 + WINDOW_S * number + second)


def whole(here: Town, role: str = "treated") -> Cell:
    """All of an arm's cells of one window as one."""
    return functools.reduce(add, (cell for cell in here.cells() if cell.role == role))


def latencies(here: Town, role: str) -> dict[int, int]:
    counts: dict[int, int] = {}
    for cell in here.cells():
        for key, count in cell.latency.items() if cell.role == role else ():
            counts[key] = counts.get(key, 0) + count
    return counts


def there(here: Town) -> None:
    """Both versions were released with a reference of two classes."""
    for serial in (1, 2):
        document = release(serial, reference=Reference(kind="classes", bins=(0, 1), shares=(0.5, 0.5)))
        here.registry.connection.execute(
            schema.versions.update().where(schema.versions.c.serial == serial).values(release=encode(document))
        )


# --- often ---


def test_a_device_that_reports_100_times_a_window_is_one_device() -> None:
    """It was 100 device-windows at risk, 50 crashes and 100 values of every mean."""
    with town(running=rollout()) as here:
        for n in range(1, 101):
            told = window(
                n,
                crashed=n % 2,
                inferences=10,
                errors=5 if n % 2 else 0,
                latency={100: 3},
                metrics={"accuracy": Summary.of(1.0 if n % 2 else 0.5)},
            )
            take(here, reports(FIRST, told), second=n)
        cell = whole(here)
        assert (cell.at_risk, cell.crashed, cell.error_units, cell.unused) == (1, 1, 1, 0)
        assert cell.error_share == pytest.approx(0.25)
        assert cell.error_squares == pytest.approx(0.0625)
        assert (cell.metrics["accuracy"].n, cell.metrics["accuracy"].sum) == (1, pytest.approx(0.75))
        assert cell.metrics["accuracy"].sumsq == pytest.approx(0.5625)
        assert (cell.latency, cell.pairs) == ({100: 1}, {})
        assert cell.sessions == 100  # what people see of it is whole


def test_a_device_that_says_that_it_changed_its_class_or_age_within_a_window_stays_where_it_was_counted() -> None:
    """Else its crash would stand in a cell where nobody is at risk."""
    with town(running=rollout()) as here:
        take(here, reports(FIRST, window(1, hardware_class="pi4")))
        take(here, reports(FIRST, window(2, hardware_class="pi5", crashed=1, cohorts=(cohort(age_s=9e4),))), second=9)
        (cell,) = here.cells()
        assert (cell.hardware_class, cell.age_bucket, cell.at_risk, cell.crashed) == ("pi4", 0, 1, 1)


def test_a_crash_that_is_told_later_in_the_window_is_not_lost() -> None:
    with town(running=rollout()) as here:
        take(here, reports(FIRST, window(1, sessions=0, inferences=0)))
        take(here, reports(FIRST, window(2, sessions=3, crashed=1, inferences=4, errors=1)), second=60)
        (cell,) = here.cells()
        assert (cell.at_risk, cell.unused, cell.crashed) == (1, 0, 1)
        assert (cell.error_units, cell.error_share) == (1, 0.25)


def test_a_device_in_the_shadow_that_reports_often_is_one_unit() -> None:
    running = rollout(plan=shadow_plan(), shares=(500_000, 50_000, 1_000_000))
    with town(running=running) as here:
        for n in range(1, 11):
            sums = seen(100, agreed=80.0 if n % 2 else 100.0, active={50: 100}, candidate={60: 100})
            take(here, reports(FIRST, window(n, serial=1, shadow=sums)), second=n)
        units = whole(here).shadow
        assert units is not None
        assert (units.windows, units.compared_windows, sum(units.ratios.values())) == (1, 1, 1)
        assert units.disagreed_share == pytest.approx(0.1)
        assert (sum(units.disagreed.values()), units.inputs) == (1, 1000)
        assert (units.active, units.candidate) == ({50: 1000}, {60: 1000})


def test_predictions_of_a_device_that_reports_often_are_one_unit() -> None:
    with town(running=rollout()) as here:
        there(here)
        for n in range(1, 11):
            take(here, reports(FIRST, window(n, predictions={n % 2: 5})), second=n)
        cell = whole(here)
        shares = {key: (moments.n, moments.sum) for key, moments in cell.predictions.items()}
        assert (cell.prediction_units, shares) == (1, {0: (1, 0.5), 1: (1, 0.5)})


def test_figures_that_a_device_adds_up_within_a_window_can_be_read_back() -> None:
    """Sums of reports are beyond the bounds of one report: a place that cannot be read would stop every verdict."""
    huge = {"sessions": 2**40, "inferences": 2**40, "errors": 2**40, "latency": {4000: 2**40}}
    with town(running=rollout(plan=shadow_plan(), shares=(500_000, 50_000, 1_000_000))) as here:
        for n in range(1, 31):
            sums = seen(2**40, agreed=2.0**40, active_ms=1e15, candidate_ms=1e15)
            metrics = {"fps": Summary(n=2**40, sum=1e15, sumsq=1e30)}
            take(here, reports(FIRST, window(n, serial=1, shadow=sums, metrics=metrics, **huge)), second=n)
        take(here, reports(FIRST, window(99)), number=2)
        first, second = here.cells()
        assert (first.at_risk, first.sessions, second.at_risk) == (1, 30 * 2**40, 1)


# --- at once ---


def test_a_device_that_was_out_of_reach_for_six_hours_is_one_device_when_it_tells_of_them() -> None:
    """72 windows in one batch were 72 device-windows in the one window that was open."""
    with town(running=rollout()) as here:
        late = [window(n, crashed=1 if n == 40 else 0, latency={100 + n: 1}) for n in range(1, 73)]
        take(here, reports(FIRST, *late), number=80)
        cell = whole(here)
        assert (cell.at_risk, cell.crashed, sum(cell.latency.values()), cell.sessions) == (1, 1, 1, 72)
        take(here, reports(FIRST, window(73)), number=81)
        assert here.cells()[-1].pairs["crash"].both == 0
        assert (here.cells()[-1].pairs["crash"].pairs, here.cells()[-1].pairs["crash"].then) == (1, 1.0)


# --- again ---


def test_a_device_that_replays_its_reports_changes_nothing() -> None:
    with town(running=rollout()) as here:
        said = reports(FIRST, *(window(n, crashed=1, latency={100: 9}) for n in range(1, 4)))
        take(here, said)
        once = here.cells(), here.fleet.participations(["r1"], [FIRST])
        for second in range(1, 20):
            take(here, said, second=second)
        assert (here.cells(), here.fleet.participations(["r1"], [FIRST])) == once


def test_a_device_that_replays_its_reports_under_new_epochs_stays_one_device() -> None:
    with town(running=rollout()) as here:
        for n in range(50):
            take(here, reports(FIRST, window(1, crashed=1, latency={100: 9}), epoch=f"{n:016x}"), second=n)
        cell = whole(here)
        assert (cell.at_risk, cell.crashed, cell.latency) == (1, 1, {100: 1})


def test_a_report_that_was_taken_in_again_draws_the_same_session() -> None:
    """What is drawn comes from device, epoch and number: a transaction that is tried again draws alike."""
    told = window(7, latency={100: 5, 200: 5, 300: 5})
    drawn = set()
    for _ in range(5):
        with town(running=rollout()) as here:
            take(here, reports(FIRST, told, epoch=EPOCH))
            drawn.add(tuple(whole(here).latency))
    assert len(drawn) == 1


# --- fast and slow ---

P99 = plan(stage(latency_increase_max=0.2), stage("all", 100), min_reports=6)
TREATED = devices_in(0, 50_000, 250)
CONTROLS = devices_in(50_000, 1_000_000, 500)
WINDOWS = 6


def judged(here: Town, *, one: dict[int, int], slower: int = 0) -> Verdict:
    """What the gate says of a morning. `one`: what the first treated device tells; the others draw ten sessions each.

    `slower`: by how many buckets the other treated devices are slower than the controls.
    """
    chance = Random(20261130)
    for number in range(WINDOWS):
        said = []
        for role, devices in (("treated", TREATED), ("control", CONTROLS)):
            for device in devices:
                shift = slower if role == "treated" else 0
                latency = Counter(round(chance.gauss(150, 25)) + shift for _ in range(10))
                told = window(
                    number + 1, latency=one if device == TREATED[0] else dict(latency), cohorts=(cohort(role),)
                )
                said.append(reports(device, told))
        take(here, *said, number=number)
    return judge(P99, GateInput(stage=0, soaked_s=60, counts={}, cells=here.cells()), Ledger(P99))


def test_one_fast_device_with_a_million_sessions_hides_no_slow_version() -> None:
    """With a p99 half as high again, the gate advanced: a million fast sessions were all that it saw of the treated."""
    with town(running=rollout(plan=P99)) as here:
        verdict = judged(here, one={10: 10**6}, slower=20)
        assert latencies(here, "treated")[10] == WINDOWS
        assert sum(latencies(here, "treated").values()) == WINDOWS * len(TREATED)
        assert verdict.move == "roll_back"
        assert "latency" in verdict.because


def test_one_slow_device_of_250_takes_no_good_version_back() -> None:
    """A single device with very many slow sessions was proof against the version for all others."""
    with town(running=rollout(plan=P99)) as here:
        verdict = judged(here, one={400: 10**6})
        assert latencies(here, "treated")[400] == WINDOWS
        assert verdict.move != "roll_back"
