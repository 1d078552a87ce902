"""What a monitor shows and what it leads to: each state with its whole sentence, its figures and its evidence."""

import math

import pytest

from support.values import HOUR, T0, Town, quarantined, rollout, town
from whimbrel import limits
from whimbrel.errors import Refused
from whimbrel.flows.monitors.fold_days import days_of, fold_days, forget_old
from whimbrel.flows.monitors.history import HourHistory
from whimbrel.flows.monitors.objective_warnings import objective_warnings
from whimbrel.flows.monitors.read_monitors import MonitorReading, anomaly_name, objectives_of, read_monitors
from whimbrel.flows.monitors.records import DAY_S, Episode, HealthRow
from whimbrel.flows.monitors.show_health import class_figures, told_metrics
from whimbrel.flows.monitors.watch import watch, watched_versions
from whimbrel.flows.records import ModelSettings
from whimbrel.health.device_hour import HourSums, Spread
from whimbrel.health.pairs import Pairs
from whimbrel.health.tally import Moments
from whimbrel.plan.objectives import DRIFT_OBJECTIVE, Anomalies, read_objective

HOUR0 = int(T0 // HOUR)
PAIRED = {name: Pairs(pairs=1000, squares=10_000) for name in ("crash", "error", "usage")}


def hour(devices: int = 100, *, errors: float = 0.01, crashed: int = 2) -> HourSums:
    return HourSums(
        devices=devices,
        used=devices,
        crashed=crashed,
        errors=Spread(n=devices, sum=errors * devices, sumsq=errors * errors * devices),
        pairs=PAIRED,
    )


def tell(here: Town, at: int, sums: HourSums, *, serial: int = 1, name: str = "pi") -> None:
    here.stores.health.add_hour("wake", serial, HOUR0 + at, {name: sums})


def settle(here: Town, *objectives: str, anomalies: Anomalies = "off", baseline: int = 1) -> None:
    settings = ModelSettings(objectives=tuple(map(read_objective, objectives)), anomalies=anomalies)
    here.registry.change_model("wake", settings=settings, baseline=baseline)


def history_of(here: Town, *, at: int = 0) -> HourHistory:
    history = HourHistory("wake")
    history.read(here.stores.health, hour=HOUR0 + at)
    return history


def read(here: Town, *, at: int = 0, episodes: tuple[Episode, ...] = ()) -> list[MonitorReading]:
    """The readings of version 1."""
    model, versions = here.registry.model("wake"), [here.registry.version("wake", 1)]
    (readings,) = read_monitors(
        here.registry, model, history_of(here, at=at), versions, episodes=episodes, anomalies={}, hour=HOUR0 + at
    )
    return readings


# --- the sentence of each state ---


@pytest.mark.parametrize(
    ("objective", "sums", "state", "over", "sentence"),
    [
        (
            "error_rate < 5% hourly",
            hour(errors=0.01),
            "well",
            True,
            "error_rate is 1% over the last hour (100 device-hours); it should be at most 5%",
        ),
        (
            "error_rate < 5% hourly, least 101",
            hour(errors=0.9),
            "too_few",
            False,
            "error_rate is 90% over the last hour (100 device-hours); it should be at most 5%; fewer than 101 say too "
            "little",
        ),
        (
            "recall >= 0.9 hourly",
            hour(),
            "nothing_told",
            False,
            "nothing was told of recall over the last hour",
        ),
    ],
)
def test_an_objective_says_its_figure_its_units_and_its_bound(
    objective: str, sums: HourSums, state: str, over: bool, sentence: str
) -> None:
    with town() as here:
        settle(here, objective)
        tell(here, 0, sums)
        (reading,) = read(here)
    assert (reading.kind, reading.state, reading.over, reading.because) == ("objective", state, over, sentence)
    assert (reading.action, reading.fires) == ("alert", False)


def test_a_breach_says_how_far_it_is_proven() -> None:
    with town() as here:
        settle(here, "error_rate < 5% hourly, take back", "crash_rate < 2% daily")
        tell(here, 0, hour(errors=0.5, crashed=3))
        broken, beyond = read(here)
        model = here.registry.model("wake")
    tests = 744 * 3  # an hour's start each, of two objectives and drift
    assert objectives_of(model)[-1] == DRIFT_OBJECTIVE
    assert broken.needed == pytest.approx(math.log(tests / (0.05 * 0.5)))
    assert (broken.state, broken.fires, broken.action, broken.over) == ("fires", True, "take_back", False)
    assert (broken.value, broken.units) == (0.5, 100)
    assert broken.because == (
        "error_rate is 50% over the last hour (100 device-hours); it should be at most 5% "
        f"(ln E {broken.log_e:.1f} of {broken.needed:.1f})"
    )
    assert broken.log_e >= broken.needed
    assert (beyond.state, beyond.fires) == ("beyond", False)
    assert beyond.because == (
        "crash_rate is 3% over the last day (100 device-hours); it should be at most 2%; it is not proven yet "
        f"(ln E {beyond.log_e:.1f} of {beyond.needed:.1f})"
    )


def test_more_versions_and_objectives_share_one_budget() -> None:
    with town() as here:
        settle(here, "error_rate < 5% hourly")
        for serial in (1, 2):
            tell(here, 0, hour(), serial=serial)
        model = here.registry.model("wake")
        versions = [here.registry.version("wake", serial) for serial in (1, 2)]
        history = history_of(here)
        one, two = (
            read_monitors(here.registry, model, history, some, episodes=(), anomalies={}, hour=HOUR0)[0][0].needed
            for some in (versions[:1], versions)
        )
    assert two - one == pytest.approx(math.log(2))


def test_a_figure_has_the_unit_of_its_measure() -> None:
    with town() as here:
        settle(here, "accuracy >= 84% hourly", "watch_time >= 7 hourly", "latency_p50_ms < 10 hourly")
        metrics = {
            "accuracy": Moments(n=100, sum=91.25, sumsq=84.0),
            "watch_time": Moments(n=100, sum=812.345, sumsq=6700.0),
        }
        tell(here, 0, HourSums(devices=100, used=100, metrics=metrics, latency={50: 100}, latency_units=100))
        accuracy, watch_time, latency = (each.because for each in read(here))
    assert accuracy == "accuracy is 91.2% over the last hour (100 device-hours); it should be at least 84%"
    assert watch_time == "watch_time is 8.123 over the last hour (100 device-hours); it should be at least 7"
    assert " ms over the last hour (100 device-hours); it should be at most 10 ms" in latency


def test_an_objective_is_read_over_its_own_window() -> None:
    with town() as here:
        settle(here, "error_rate < 5% hourly", "error_rate < 4% daily")
        for at, devices in ((0, 11), (1, 13), (23, 17), (24, 19)):
            tell(here, at, hour(devices))
        hourly, daily = read(here, at=24)
    assert (hourly.units, daily.units) == (19, 13 + 17 + 19)


# --- anomalies ---


def test_an_anomaly_says_both_figures_and_against_what() -> None:
    with town() as here:
        settle(here, anomalies="take_back")
        for at in range(60):
            tell(here, at, hour(errors=0.5 if at >= 55 else 0.01))
        told = {each.monitor: each for each in read(here, at=59)}
    fired = told["error against its past"]
    assert (fired.state, fired.action, fired.kind, fired.units) == ("fires", "take_back", "anomaly", 2400)
    assert fired.because.startswith("error_rate is 50%, and was 1% in the same hours of the day before (ln E ")
    assert fired.because.endswith(f" of {fired.needed:.1f})")
    assert told["error against versions beside"].because == (
        "nothing can be compared of error of the versions beside it in the same hours"
    )
    assert told["error against versions beside"].state == "nothing_told"
    assert told["crash against its past"].state == "well"


def test_anomalies_are_named_by_measure_and_side() -> None:
    assert anomaly_name("crash", "past") == "crash against its past"
    assert anomaly_name("crash", "beside") == "crash against versions beside"


def test_an_anomaly_that_ended_is_looked_for_in_later_hours_alone() -> None:
    with town() as here:
        settle(here, anomalies="alert")
        for at in range(60):
            tell(here, at, hour(errors=0.5 if 50 <= at < 56 else 0.01))
        ended = Episode(
            model="wake",
            serial=1,
            monitor="error against its past",
            since=T0 + 51 * HOUR,
            because="b",
            ended_at=T0 + 56 * HOUR - 1,
        )

        def error(*episodes: Episode) -> MonitorReading:
            return next(e for e in read(here, at=59, episodes=episodes) if e.monitor == "error against its past")

        assert (error().fires, error(ended).fires) == (True, False)
        assert error(ended).over  # the newest hours are like before


# --- what follows ---


def look(here: Town, *, at: float = 0.5, refuse: str = "") -> list[dict[str, object]]:
    """Look once; what the way back was asked for."""
    asked: list[dict[str, object]] = []

    def back(model: str, *, leaves: int, because: str, evidence: dict[str, object]) -> str:
        asked.append({"model": model, "leaves": leaves, "because": because, "evidence": evidence})
        if refuse:
            raise Refused(refuse)
        return "0.9.0"

    watch(
        here.registry,
        here.stores.health,
        here.registry.model("wake"),
        history_of(here, at=int(at)),
        anomalies={},
        roll_back=back,
        now=T0 + at * HOUR,
    )
    return asked


def test_the_entry_of_a_breach_has_all_of_its_figures() -> None:
    with town() as here:
        settle(here, "error_rate < 5% hourly")
        tell(here, 0, hour(errors=0.5))
        (reading,) = read(here)
        assert look(here) == []
        (entry,) = here.stores.audit.newest(limit=9)
        (episode,) = here.stores.health.episodes("wake", since=0)
    assert (entry.actor, entry.action, entry.because, entry.model) == (
        "monitor",
        "break_objective",
        reading.because,
        "wake",
    )
    assert entry.evidence == {
        "monitor": "error_rate <= 0.05 hour",
        "serial": 1,
        "version": "1.0.0",
        "value": 0.5,
        "device_hours": 100,
        "log_e": round(reading.log_e, 3),
        "log_e_needed": round(reading.needed, 3),
        "action": "alert",
        "outcome": "alert",
    }
    assert episode == Episode(
        model="wake", serial=1, monitor=reading.monitor, since=T0 + 0.5 * HOUR, because=reading.because
    )


@pytest.mark.parametrize(
    ("refuse", "outcome", "what"),
    [
        ("", "taken_back", "its devices go back to 0.9.0"),
        ("no way", "not_taken_back", "it could not be taken back: no way"),
    ],
)
def test_a_way_back_is_asked_for_with_the_reason_and_told(refuse: str, outcome: str, what: str) -> None:
    with town() as here:
        settle(here, "error_rate < 5% hourly, take back")
        tell(here, 0, hour(errors=0.5))
        (reading,) = read(here)
        (asked,) = look(here, refuse=refuse)
        (entry,) = here.stores.audit.newest(limit=9)
    assert (asked["model"], asked["leaves"], asked["because"]) == ("wake", 1, reading.because)
    assert entry.because == f"{reading.because}; {what}"
    assert entry.evidence["outcome"] == outcome
    assert asked["evidence"] == {name: value for name, value in entry.evidence.items() if name != "outcome"}


def test_why_it_is_not_taken_back_is_told() -> None:
    take_back = "error_rate < 5% hourly, take back"
    with town() as here:
        settle(here, take_back, baseline=2)
        tell(here, 0, hour(errors=0.5))
        assert look(here) == []
        (entry,) = here.stores.audit.newest(limit=9)
        assert entry.because.endswith("; it is not taken back: it is not the baseline")
    with town() as here:
        settle(here, take_back)
        for serial in (1, 2):
            tell(here, 0, hour(errors=0.5), serial=serial)
        assert look(here) == []
        of_first = next(e for e in here.stores.audit.newest(limit=9) if e.evidence["serial"] == 1)
        assert of_first.because.endswith(
            "; it is not taken back: 2.0.0 beside it does the same, so it is no fault of the version"
        )
    with town() as here:
        settle(here, take_back)
        before = Episode(
            model="wake",
            serial=2,
            monitor="x",
            since=T0 + 0.5 * HOUR - limits.TAKES_BACK_S,
            because="",
            outcome="taken_back",
        )
        here.stores.health.begin_episode(before)
        tell(here, 0, hour(errors=0.5))
        assert look(here) == []
        told = next(e for e in here.stores.audit.newest(limit=9) if e.action == "break_objective")
        assert told.because.endswith(
            "; it is not taken back: a monitor took this model back within a day, and what ails every version is no "
            "version's fault"
        )


@pytest.mark.parametrize(
    ("heard", "because"),
    [(False, "no device is heard that runs it"), (True, "it is watched no more")],
)
def test_the_end_of_an_episode_says_why(heard: bool, because: str) -> None:
    with town() as here:
        settle(here, "error_rate < 5% hourly")
        here.stores.health.begin_episode(Episode(model="wake", serial=2, monitor="m", since=T0, because="b"))
        if heard:
            tell(here, 4, hour(), serial=2)
            here.registry.quarantine(quarantined(2))
        look(here, at=5.5)
        (entry,) = here.stores.audit.newest(limit=9)
        assert (entry.action, entry.actor, entry.because) == ("recover", "monitor", because)
        assert entry.evidence == {"monitor": "m", "serial": 2, "version": "2.0.0", "since": T0}


def test_the_end_of_an_episode_of_a_version_that_is_gone_names_its_serial() -> None:
    with town() as here:
        here.stores.health.begin_episode(Episode(model="wake", serial=9, monitor="m", since=T0, because="b"))
        look(here)
        assert here.stores.audit.newest(limit=9)[0].evidence["version"] == "9"


def test_the_versions_that_most_devices_run_are_watched_the_baseline_first() -> None:
    with town(versions=9) as here:
        settle(here, baseline=3)
        for serial, devices in ((1, 50), (2, 60), (3, 1), (4, 70), (5, 70), (6, 80), (7, 90), (8, 5)):
            tell(here, 1, hour(devices), serial=serial)
        tell(here, -22, hour(1000), serial=8)  # a day ago to the hour
        tell(here, -23, hour(1000), serial=9)
        here.registry.quarantine(quarantined(7))
        here.registry.add_rollout(rollout(baseline=3, target=6), plan_text="")
        model = here.registry.model("wake")
        chosen = watched_versions(here.registry, model, history_of(here, at=1), hour=HOUR0 + 1)
    assert [each.serial for each in chosen] == [3, 8, 4, 5]
    assert len(chosen) == limits.MONITORED_VERSIONS


# --- days ---


def test_days_are_made_when_they_are_over_and_seven_at_once() -> None:
    with town() as here:
        health = here.stores.health
        for day in range(9):
            tell(here, 24 * day, hour(10))
            tell(here, 24 * day + 23, hour(5, crashed=1), name="phone")
        first = HOUR0 // 24
        assert fold_days(health, "wake", now=T0 + 1 * DAY_S - 1) is False  # the first day is not over
        assert health.newest_day("wake") is None
        assert fold_days(health, "wake", now=T0 + 1 * DAY_S) is False
        assert health.newest_day("wake") == first
        assert fold_days(health, "wake", now=T0 + 9 * DAY_S) is True  # of eight that are missing, seven
        assert health.newest_day("wake") == first + 7
        assert fold_days(health, "wake", now=T0 + 9 * DAY_S) is False
        days = health.days("wake", since=first, before=first + 99)
        assert [(each.start - first, each.hardware_class, each.sums.devices) for each in days[:4]] == [
            (0, "phone", 5),
            (0, "pi", 10),
            (1, "phone", 5),
            (1, "pi", 10),
        ]
        assert len(days) == 18


def test_hours_become_days_by_version_and_class() -> None:
    rows = [
        HealthRow(serial=serial, hardware_class=name, start=start, sums=HourSums(devices=n, crashed=n // 2))
        for serial, name, start, n in (
            (1, "pi", 23, 2),
            (1, "pi", 0, 4),
            (1, "pi", 24, 6),
            (2, "pi", 1, 8),
            (1, "x", 1, 10),
        )
    ]
    made = [(each.start, each.serial, each.hardware_class, each.sums.crashed) for each in days_of(rows)]
    assert made == [(0, 1, "pi", 3), (0, 1, "x", 5), (0, 2, "pi", 4), (1, 1, "pi", 3)]


def test_what_is_older_than_is_kept_is_forgotten_to_the_hour() -> None:
    with town() as here:
        health = here.stores.health
        today = HOUR0 // 24
        edge = today * 24 - limits.HEALTH_HOURS
        for start in (edge - 1, edge):
            health.add_hour("wake", 1, start, {"pi": hour()})
        day_edge = today - limits.HEALTH_DAYS
        health.save_days(
            "wake",
            [HealthRow(serial=1, hardware_class="pi", start=day, sums=hour()) for day in (day_edge - 1, day_edge)],
        )
        forget_old(health, now=T0 + 5)
        assert [each.start for each in health.hours("wake", since=0, before=HOUR0 + 1)] == [edge]
        assert [each.start for each in health.days("wake", since=0, before=today + 1)] == [day_edge]


# --- figures beside a candidate, and what was told lately ---


def test_figures_beside_a_candidate_are_of_its_rollout_and_the_baselines_week() -> None:
    with town() as here:
        week = 7 * 24
        for at, serial, crashed in ((-week, 1, 50), (1 - week, 1, 10), (0, 1, 30), (-1, 2, 50), (0, 2, 20)):
            tell(here, at, hour(100, crashed=crashed), serial=serial)
        tell(here, 0, hour(100, crashed=40), serial=2, name="phone")
        figures = class_figures(here.stores.health, "wake", baseline=1, candidate=2, since=T0, now=T0 + 5)
    assert [each.hardware_class for each in figures] == ["phone", "pi"]
    phone, pi = figures
    assert phone.baseline is None
    assert phone.candidate is not None
    assert phone.candidate.crash_rate == 0.4
    assert pi.baseline is not None
    assert pi.candidate is not None
    assert (pi.baseline.crash_rate, pi.candidate.crash_rate) == (0.2, 0.2)


def test_metrics_that_were_told_in_the_last_day_are_known() -> None:
    with town() as here:
        for at, name in ((-25, "older"), (-24, "day"), (0, "now"), (1, "later")):
            metrics = {name: Moments(n=1, sum=1, sumsq=1)}
            tell(here, at, HourSums(devices=1, metrics=metrics))
        assert told_metrics(here.stores.health, "wake", now=T0 + 5) == {"day", "now"}


def test_objectives_that_would_say_nothing_are_told_whole() -> None:
    objectives = [read_objective(each) for each in ("Accuracy >= 84%", "xyzzy > 3", "error_rate < 5% hourly, least 30")]
    misspelt, unknown, few = objective_warnings(objectives, told={"accuracy"}, devices=29)
    assert misspelt == (
        "no device told of 'Accuracy' in the last day: nothing is known of it until an app records that name. Did you "
        "mean accuracy?"
    )
    assert unknown == (
        "no device told of 'xyzzy' in the last day: nothing is known of it until an app records that name."
    )
    assert few == (
        f"{objectives[2].name} waits for 30 device-hours, and the known devices (29) make 29 in its window at most, so "
        f"it "
        "never says anything; write a longer window, or `least 29` or less. So few devices are protected by the crash "
        "loop, by local limits (--local-limit) and by rollouts"
    )
    assert objective_warnings([objectives[2]], told=(), devices=30) == []
