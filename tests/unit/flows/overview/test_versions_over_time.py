"""Versions over time: what is closed is read once, and no device counts twice at one point."""

from whimbrel.flows.overview.versions_over_time import VersionHours, adoption_of, fullest, serials_of

HOUR = 3600.0


class Health:
    """Hours in a dictionary; `asked` is what was read."""

    def __init__(self) -> None:
        self.hours = {hour: {1: 10} for hour in range(100)}
        self.asked: list[tuple[int, int]] = []

    def devices_by_hour(self, model: str, *, since: int, before: int) -> dict[int, dict[int, int]]:
        self.asked.append((since, before))
        return {hour: dict(self.hours[hour]) for hour in range(since, before) if hour in self.hours}


def test_closed_hours_are_read_once_and_the_open_one_again() -> None:
    health, kept = Health(), VersionHours(hours=24, models=2)
    assert sorted(kept.of(health, "wake", now=50.5 * HOUR)) == list(range(27, 51))
    health.hours[50] = {1: 12}
    assert kept.of(health, "wake", now=50.9 * HOUR)[50] == {1: 12}
    health.hours[49] = {1: 99}  # it is closed: nothing changes it
    later = kept.of(health, "wake", now=52.1 * HOUR)
    assert (sorted(later)[0], sorted(later)[-1], later[49]) == (29, 52, {1: 10})
    assert health.asked == [(27, 51), (50, 51), (50, 53)]


def test_a_model_too_many_is_read_again() -> None:
    health, kept = Health(), VersionHours(hours=24, models=1)
    for model in ("wake", "sleep", "wake"):
        kept.of(health, model, now=50.5 * HOUR)
    assert health.asked == [(27, 51)] * 3


def test_of_several_hours_the_fullest_is_told_and_never_their_sum() -> None:
    hours = {0: {1: 100}, 1: {1: 60, 2: 30}, 2: {2: 101}, 4: {2: 7}}
    assert fullest(hours, first=0, last=4, step=3) == [(0, {2: 101}), (3, {2: 7})]
    assert fullest(hours, first=3, last=3, step=2) == [(3, {})]
    assert serials_of(fullest(hours, first=0, last=4, step=1)) == [1, 2]


def test_adoption_is_of_all_that_follow_the_model() -> None:
    reached = adoption_of(2, {1: 30, 2: 60, None: 10})
    assert (reached.devices, reached.of, reached.percent) == (60, 100, 60.0)
    assert adoption_of(2, {}).percent == 0.0
