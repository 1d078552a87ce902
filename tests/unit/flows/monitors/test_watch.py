"""What monitors of a completed version do: an alert once an episode, a way back where the settings say so, an end."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.values import HOUR, T0, Town, line, quarantined, release, rollout, town
from whimbrel.flows.monitors.history import HourHistory
from whimbrel.flows.monitors.records import Episode
from whimbrel.flows.monitors.watch import Watched, watch
from whimbrel.flows.records import ModelSettings
from whimbrel.flows.rollouts.roll_back_model import roll_back_model
from whimbrel.health.device_hour import HourSums, Spread
from whimbrel.health.pairs import Pairs
from whimbrel.health.tally import Moments
from whimbrel.model.documents import encode
from whimbrel.model.release import Reference
from whimbrel.plan.objectives import Anomalies, read_objective
from whimbrel.stores import schema

HOUR0 = int(T0 // HOUR)
ERRORS = "error_rate < 5% hourly"


@contextmanager
def desk(*objectives: str, anomalies: Anomalies = "off", versions: int = 3) -> Iterator[Town]:
    """A model whose versions have all been good; the newest is the baseline."""
    with town(versions=versions) as here:
        for serial in range(1, versions + 1):
            here.registry.change_version("wake", serial, good=True)
        settings = ModelSettings(objectives=tuple(map(read_objective, objectives)), anomalies=anomalies)
        here.registry.change_model("wake", settings=settings, baseline=versions)
        yield here


def hour(devices: int = 100, *, errors: float = 0.01, crashes: float = 0.02, used: float = 1.0) -> HourSums:
    """An hour of devices that do not resemble themselves more than others."""
    n = devices
    pairs = {name: Pairs(pairs=10 * n, squares=100 * n) for name in ("crash", "error", "usage")}
    return HourSums(
        devices=n,
        used=round(used * n),
        crashed=round(crashes * n),
        errors=Spread(n=n, sum=errors * n, sumsq=errors * errors * n),
        pairs=pairs,
    )


def tell(here: Town, at: int, sums: HourSums, *, serial: int = 3) -> None:
    here.stores.health.add_hour("wake", serial, HOUR0 + at, {"pi": sums})


def look(here: Town, at: float, *, history: HourHistory | None = None) -> list[Watched]:
    """Look at the monitors `at` hours after T0."""
    now = T0 + at * HOUR
    kept = history or HourHistory("wake")
    kept.read(here.stores.health, hour=int(now // HOUR))

    def back(model: str, *, leaves: int, because: str, evidence: dict[str, object]) -> str:
        way = roll_back_model(
            here.registry,
            model,
            lines=lambda _: line(),
            leaves=leaves,
            because=because,
            actor="monitor",
            now=now,
            evidence=evidence,
        )
        return way.to.semantic_version

    model = here.registry.model("wake")
    return watch(here.registry, here.stores.health, model, kept, anomalies={}, roll_back=back, now=now)


def episodes(here: Town) -> list[Episode]:
    return here.stores.health.episodes("wake", since=0)


def actions(here: Town) -> list[str]:
    return [entry.action for entry in reversed(here.stores.audit.newest(limit=1000))]


def baseline(here: Town) -> int | None:
    return here.registry.model("wake").baseline


def test_half_of_all_answers_wrong_in_a_completed_version_is_told_once() -> None:
    with desk(ERRORS) as here:
        tell(here, 0, hour(errors=0.5))
        for _ in range(3):
            look(here, 0.5)
        (episode,) = episodes(here)
        assert (episode.serial, episode.monitor, episode.outcome) == (3, "error_rate <= 0.05 hour", "alert")
        assert "error_rate is 50% over the last hour (100 device-hours); it should be at most 5%" in episode.because
        assert actions(here) == ["break_objective"]
        assert baseline(here) == 3


def test_a_healthy_version_says_nothing() -> None:
    with desk(ERRORS, "crash_rate < 10% daily", anomalies="take_back") as here:
        for at in range(80):
            tell(here, at, hour())
            look(here, at + 0.5)
        assert episodes(here) == []
        (watched,) = look(here, 79.9)
        assert {reading.state for reading in watched.readings} == {"well", "nothing_told"}


def test_an_objective_takes_the_model_back_in_one_document() -> None:
    with desk(ERRORS + ", take back") as here:
        tell(here, 0, hour(errors=0.5))
        look(here, 0.5)
        (episode,) = episodes(here)
        assert (episode.outcome, baseline(here)) == ("taken_back", 2)
        assert episode.because.endswith("its devices go back to 2.0.0")
        assert [entry.serial for entry in here.registry.quarantines("wake")] == [3]
        assert sorted(actions(here)) == ["break_objective", "roll_back"]


def test_an_episode_of_a_version_that_was_taken_back_ends_when_nobody_runs_it() -> None:
    with desk(ERRORS + ", take back") as here:
        tell(here, 0, hour(errors=0.5))
        look(here, 0.5)
        tell(here, 1, hour(3, errors=0.5))
        look(here, 1.5)
        assert episodes(here)[0].ended_at is None
        look(here, 3.5)
        assert episodes(here)[0].ended_at == T0 + 3.5 * HOUR
        assert actions(here)[-1] == "recover"


def test_an_episode_ends_when_the_figure_is_back_and_begins_anew() -> None:
    with desk(ERRORS) as here:
        for at, errors in ((0, 0.5), (1, 0.02), (2, 0.5)):
            tell(here, at, hour(errors=errors))
            look(here, at + 0.9)
        first, second = episodes(here)
        assert (first.ended_at, second.ended_at) == (T0 + 1.9 * HOUR, None)
        assert actions(here) == ["break_objective", "recover", "break_objective"]


def test_too_few_devices_say_nothing_and_end_nothing() -> None:
    with desk(ERRORS + ", least 50") as here:
        tell(here, 0, hour(49, errors=0.9))
        (watched,) = look(here, 0.5)
        assert (watched.readings[0].state, episodes(here)) == ("too_few", [])
        tell(here, 0, hour(10, errors=0.9))
        look(here, 0.6)
        tell(here, 1, hour(5, errors=0.0))
        look(here, 1.1)
        assert [each.ended_at for each in episodes(here)] == [None]


def test_a_figure_beyond_its_bound_by_chance_alerts_nobody() -> None:
    with desk("crash_rate < 2% daily") as here:
        tell(here, 0, hour(100, crashes=0.03))
        (watched,) = look(here, 0.5)
        assert (watched.readings[0].state, episodes(here)) == ("beyond", [])
        assert "it is not proven yet" in watched.readings[0].because


def test_what_ails_every_version_is_no_fault_of_one() -> None:
    with desk(ERRORS + ", take back") as here:
        tell(here, 0, hour(errors=0.5))
        tell(here, 0, hour(errors=0.5), serial=2)
        look(here, 0.5)
        assert baseline(here) == 3
        of_baseline = next(each for each in episodes(here) if each.serial == 3)
        assert of_baseline.outcome == "not_taken_back"
        assert "2.0.0 beside it does the same" in of_baseline.because


def test_a_model_is_taken_back_once_a_day() -> None:
    with desk(ERRORS + ", take back") as here:
        tell(here, 0, hour(errors=0.5))
        look(here, 0.5)
        tell(here, 1, hour(errors=0.5), serial=2)
        look(here, 1.5)
        assert baseline(here) == 2
        assert "within a day" in episodes(here)[-1].because
        assert episodes(here)[-1].outcome == "not_taken_back"


def test_a_model_with_nowhere_to_go_says_so() -> None:
    with desk(ERRORS + ", take back", versions=1) as here:
        tell(here, 0, hour(errors=0.5), serial=1)
        look(here, 0.5)
        (episode,) = episodes(here)
        assert (episode.outcome, baseline(here)) == ("not_taken_back", 1)
        assert "has no earlier version" in episode.because
        assert here.registry.quarantines("wake") == []


def test_the_target_of_a_live_rollout_is_judged_by_its_gate() -> None:
    with desk(ERRORS + ", take back") as here:
        here.registry.change_model("wake", baseline=2)
        here.registry.add_rollout(rollout(baseline=2, target=3), plan_text="")
        tell(here, 0, hour(errors=0.5))
        tell(here, 0, hour(), serial=2)
        assert [each.version.serial for each in look(here, 0.5)] == [2]
        assert episodes(here) == []


def test_a_version_that_everybody_refuses_is_watched_no_more() -> None:
    with desk(ERRORS) as here:
        tell(here, 0, hour(errors=0.5))
        look(here, 0.5)
        here.registry.quarantine(quarantined(3))
        look(here, 0.6)
        assert [each.ended_at for each in episodes(here)] == [T0 + 0.6 * HOUR]


def test_a_completed_version_that_departs_from_its_past_is_an_anomaly() -> None:
    """Today 50% errors of a completed version raise nothing, also where nobody wrote an objective."""
    with desk(anomalies="take_back") as here:
        history = HourHistory("wake")
        for at in range(60):
            tell(here, at, hour(errors=0.5 if at >= 55 else 0.01))
            look(here, at + 0.9, history=history)
        (episode, *others) = episodes(here)
        assert (episode.monitor, episode.outcome, others) == ("error against its past", "taken_back", [])
        assert episode.since <= T0 + 56.9 * HOUR
        assert "error_rate is" in episode.because
        assert "in the same hours of the day before" in episode.because


def test_days_and_weeks_are_no_anomaly() -> None:
    """Crashes that come with the night, and twice as many on one day of the week."""
    with desk(anomalies="alert") as here:
        history = HourHistory("wake")
        for at in range(24 * 21):
            night, sunday = at % 24 < 6, at // 24 % 7 == 6
            crashes = 0.02 * (4 if night else 1) * (2 if sunday and at >= 24 * 6 else 1)
            tell(here, at, hour(1000, crashes=crashes, used=0.4 if night else 0.9))
            if at > 24 * 14 and at % 6 == 5:
                look(here, at + 0.9, history=history)
        assert episodes(here) == []


def test_a_version_that_is_worse_than_those_beside_it_is_an_anomaly() -> None:
    with desk(anomalies="alert") as here:
        for at in range(3):
            tell(here, at, hour(2000, crashes=0.02), serial=2)
            tell(here, at, hour(2000, crashes=0.08))
        look(here, 2.9)
        assert {each.monitor for each in episodes(here)} == {"crash against versions beside"}


def test_a_new_version_is_compared_with_the_past_of_its_model() -> None:
    with desk(anomalies="alert") as here:
        for at in range(48):
            tell(here, at, hour(1000), serial=2)
        for at in range(48, 51):
            tell(here, at, hour(1000, crashes=0.2))
        look(here, 50.9)
        assert {each.monitor for each in episodes(here)} == {"crash against its past"}


def test_a_fleet_that_stops_using_a_version_is_an_anomaly() -> None:
    with desk(anomalies="alert") as here:
        for at in range(54):
            tell(here, at, hour(1000, used=0.05 if at >= 50 else 0.9))
        look(here, 53.9)
        assert "usage against its past" in {each.monitor for each in episodes(here)}


def test_an_anomaly_ends_when_the_hours_are_like_before_and_does_not_return_by_itself() -> None:
    with desk(anomalies="alert") as here:
        history = HourHistory("wake")
        for at in range(72):
            tell(here, at, hour(errors=0.5 if 50 <= at < 53 else 0.01))
            look(here, at + 0.9, history=history)
        (episode,) = episodes(here)
        assert episode.ended_at is not None
        assert T0 + 55 * HOUR < episode.ended_at < T0 + 58 * HOUR


def test_anomalies_that_are_off_are_not_looked_for() -> None:
    with desk() as here:
        for at in range(60):
            tell(here, at, hour(errors=0.5 if at >= 55 else 0.01))
        (watched,) = look(here, 59.9)
        assert (watched.readings, episodes(here)) == ([], [])


@pytest.mark.parametrize(("shares", "fires"), [((0.5, 0.5), False), ((0.95, 0.05), True)])
def test_drift_is_watched_after_completion(shares: tuple[float, float], fires: bool) -> None:
    with desk() as here:
        document = release(3, reference=Reference(kind="classes", bins=("yes", "no"), shares=(0.5, 0.5)))
        here.stores.connection.execute(
            schema.versions.update().where(schema.versions.c.serial == 3).values(release=encode(document))
        )
        for at in range(24):
            predictions = {
                key: Moments(n=2000, sum=2000 * share, sumsq=2000 * (share * share + 0.01))
                for key, share in enumerate(shares)
            }
            tell(here, at, HourSums(devices=2000, prediction_units=2000, predictions=predictions))
        look(here, 23.9)
        assert [each.monitor for each in episodes(here)] == (["drift_psi <= 0.25 day"] if fires else [])
