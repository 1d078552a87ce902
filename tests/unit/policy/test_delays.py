"""The treated devices' delay: an estimate that waits for the slow ones, and a draw for each control."""

import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel import limits
from whimbrel.model.documents import encode, parse
from whimbrel.policy.delays import (
    ActivationWait,
    DelayTables,
    delay_at,
    differ,
    estimate_by_class,
    estimate_delays,
    longest_wait_s,
)
from whimbrel.policy.policy import Entry

HOUR = 3600.0
seconds = st.floats(-10, 1e7)
rows = st.lists(st.builds(ActivationWait, seconds, st.booleans()), max_size=60)


@settings(max_examples=150, deadline=None)
@given(waited=rows, share=st.floats(0, 1, exclude_max=True), other=st.floats(0, 1, exclude_max=True))
def test_any_sample_gives_quantiles_that_a_policy_may_hold(
    waited: list[ActivationWait], share: float, other: float
) -> None:
    table = estimate_delays(waited, longest_s=3 * HOUR)
    assert list(table) == sorted(table)
    assert len(table) in {1, limits.DELAYS}
    assert table[0] >= 0
    assert table[-1] <= limits.DELAY_S
    low, high = sorted((share, other))
    assert table[0] <= delay_at(table, low) <= delay_at(table, high) <= table[-1]


@settings(max_examples=100, deadline=None)
@given(waited=rows)
def test_the_order_of_the_devices_does_not_matter(waited: list[ActivationWait]) -> None:
    assert estimate_delays(reversed(waited), longest_s=9.0) == estimate_delays(waited, longest_s=9.0)


def test_where_nobody_activated_yet_a_control_waits_the_longest() -> None:
    assert estimate_delays([], longest_s=9.0) == (9.0,)
    assert estimate_delays([ActivationWait(70.0, activated=False)], longest_s=9.0) == (9.0,)
    assert delay_at((9.0,), 0.3) == 9.0


def test_without_a_table_nobody_waits() -> None:
    assert delay_at((), 0.5) == 0.0


def test_busy_devices_are_not_taken_for_fast_ones() -> None:
    """Of ten that began, two are through after a minute: the others take longer than that, not as long."""
    waited = [ActivationWait(60.0, activated=True)] * 2 + [ActivationWait(61.0, activated=False)] * 8
    table = estimate_delays(waited, longest_s=3 * HOUR)
    assert table[:3] == (60.0,) * 3
    assert set(table[3:]) == {3 * HOUR}


def test_devices_that_began_just_now_say_nothing_of_slow_ones() -> None:
    old = [ActivationWait(600.0, activated=True)] * 50
    assert estimate_delays(old + [ActivationWait(1.0, activated=False)] * 500, longest_s=9.0) == estimate_delays(
        old, longest_s=9.0
    )


def test_a_tail_that_is_not_known_is_no_shorter_than_what_is_known() -> None:
    waited = [ActivationWait(5 * HOUR, activated=True), ActivationWait(6 * HOUR, activated=False)]
    assert set(estimate_delays(waited, longest_s=3 * HOUR)) == {5 * HOUR}


def test_draws_have_the_distribution_that_was_seen() -> None:
    chance = random.Random(5)
    truth = [chance.lognormvariate(5, 0.8) for _ in range(4000)]
    table = estimate_delays([ActivationWait(one, activated=True) for one in truth], longest_s=HOUR)
    draws = [delay_at(table, chance.random()) for _ in range(4000)]
    for one, other in zip(statistics.quantiles(truth, n=10), statistics.quantiles(draws, n=10), strict=True):
        assert other == pytest.approx(one, rel=0.12)


def activated(*seconds: float) -> list[ActivationWait]:
    return [ActivationWait(each, activated=True) for each in seconds]


def test_of_as_many_devices_as_quantiles_each_is_one() -> None:
    assert estimate_delays(activated(*range(100, 1700, 100)), longest_s=9.0) == tuple(map(float, range(100, 1700, 100)))


def test_a_device_that_is_busy_moves_those_after_it_to_later_quantiles() -> None:
    """16 devices: two activate, seven are busy still, and the last seven stand for themselves and for the busy ones."""
    waited = [
        *activated(10.0, 20.0),
        *[ActivationWait(25.0, activated=False)] * 7,
        *activated(30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0),
    ]
    assert estimate_delays(waited, longest_s=9.0) == (
        *(10.0, 20.0, 30.0, 30.0, 40.0, 40.0, 50.0, 50.0),
        *(60.0, 60.0, 70.0, 70.0, 80.0, 80.0, 90.0, 90.0),
    )


def test_who_activates_in_the_second_in_which_another_is_last_heard_of_was_one_of_two_then() -> None:
    tie = [ActivationWait(5.0, activated=False), ActivationWait(5.0, activated=True)]
    assert estimate_delays(tie, longest_s=9.0) == (5.0,) * 8 + (9.0,) * 8


def test_quantiles_have_three_digits_and_lie_within_the_limit_of_a_policy() -> None:
    assert estimate_delays(activated(1234.5), longest_s=1.0) == (1230.0,) * 16
    assert estimate_delays(activated(-5.0), longest_s=1.0) == (0.0,) * 16
    assert estimate_delays(activated(limits.DELAY_S + 1), longest_s=1.0) == (2_590_000.0,) * 16


@pytest.mark.parametrize(
    ("share", "delay"),
    [
        *((-1.0, 10.0), (0.0, 10.0), (0.124, 10.0), (0.125, 10.0), (0.25, 15.0), (0.375, 20.0)),
        *((0.5, 30.0), (0.75, 50.0), (0.875, 60.0), (0.9, 60.0), (0.999, 60.0)),
    ],
)
def test_a_delay_lies_on_the_line_between_two_quantiles(share: float, delay: float) -> None:
    """Four quantiles stand at 1/8, 3/8, 5/8 and 7/8 of the devices; before the first and after the last it is flat."""
    assert delay_at((10.0, 20.0, 40.0, 60.0), share) == pytest.approx(delay)


@pytest.mark.parametrize(
    ("before", "hour_s", "worth"),
    [(1000.0, HOUR, 250.0), (720.0, HOUR, 180.0), (100.0, HOUR, 180.0), (100.0, 1000.0, 50.0), (2.0, 10.0, 1.0)],
)
def test_a_delay_is_news_from_a_quarter_of_it_a_twentieth_of_an_hour_and_a_second_on(
    before: float, hour_s: float, worth: float
) -> None:
    """The greatest of the three counts; a wait is compared with what was told before."""
    for moved_s, news in ((worth, False), (1.001 * worth, True), (-worth, False), (-1.001 * worth, True)):
        tables = DelayTables((1.0, before)), DelayTables((1.0, before + moved_s))
        assert differ(*tables, hour_s=hour_s) is news


def test_of_classes_alike_in_size_those_first_in_the_alphabet_have_tables() -> None:
    boards = [f"board-{n:02}" for n in range(limits.DELAY_CLASSES + 2)]
    learned = tables(waits("many", 60, 1000), *(waits(name, 5 * HOUR, 10) for name in reversed(boards)))
    assert list(learned.by_class) == [*boards[: limits.DELAY_CLASSES - 1], "many"]


def test_devices_of_no_class_have_no_table_of_their_own() -> None:
    assert set(tables(waits("", 5 * HOUR, 100), waits("fast", 60, 400)).by_class) == {"fast"}


def test_small_moves_are_no_new_document() -> None:
    told = (60.0, 600.0, 6000.0)
    assert not moved(told, (100.0, 700.0, 7000.0))
    assert not moved(told, (200.0, 600.0, 6000.0))  # two minutes, among hours
    assert moved(told, (60.0, 600.0, 9000.0))
    assert moved((3.0,), (3.0,) * 16)


def moved(before: tuple[float, ...], after: tuple[float, ...]) -> bool:
    return differ(DelayTables(before), DelayTables(after), hour_s=HOUR)


def test_an_unknown_delay_is_waited_for_by_the_plans_hours() -> None:
    assert longest_wait_s(HOUR) == 3 * HOUR
    assert longest_wait_s(1e9) == limits.DELAY_S


def waits(hardware_class: str, seconds: float, count: int) -> list[ActivationWait]:
    return [ActivationWait(seconds + n, activated=True, hardware_class=hardware_class) for n in range(count)]


def tables(*each: list[ActivationWait]) -> DelayTables:
    return estimate_by_class([wait for group in each for wait in group], longest_s=3 * HOUR, hour_s=HOUR)


def test_a_class_that_takes_its_own_time_has_a_table_of_its_own() -> None:
    """A slow board took its placebo after the fast ones' half an hour, and was compared with none of its kind."""
    learned = tables(waits("fast", 1800, 100), waits("slow", 5 * HOUR, 100))
    assert set(learned.by_class) == {"fast", "slow"}
    assert max(learned.of("fast")) < 2000 < 5 * HOUR <= min(learned.of("slow"))
    assert learned.of("another") == learned.pooled


def test_classes_that_take_as_long_as_all_have_no_table() -> None:
    assert tables(waits("a", 1800, 100), waits("b", 1801, 100), waits("", 1802, 100)).by_class == {}


def test_a_class_of_few_devices_has_the_table_of_all() -> None:
    few = limits.DELAY_CLASS_DEVICES - 1
    assert "few" not in tables(waits("many", 1800, 100), waits("few", 5 * HOUR, few)).by_class
    assert "few" in tables(waits("many", 1800, 100), waits("few", 5 * HOUR, few + 1)).by_class


def test_the_largest_classes_have_tables_and_a_policy_stays_small() -> None:
    groups = [waits(f"board-{n:02}", 1000.0 * 2 ** (n % 8) + n, 20 + n) for n in range(40)]
    learned = tables(*groups)
    assert set(learned.by_class) <= {f"board-{n:02}" for n in range(40)}
    assert len(learned.by_class) == limits.DELAY_CLASSES
    assert "board-39" in learned.by_class
    entry = Entry(rollout="r1", arms=(), delays_s=learned.pooled, delays_by_class=dict(learned.by_class))
    assert len(encode(entry)) < 4096
    assert parse(Entry, encode(entry), what="an entry") == entry


def test_a_table_of_a_class_that_comes_or_goes_is_news_only_where_it_matters() -> None:
    pooled = (600.0,) * 16
    near, far = DelayTables(pooled, {"slow": (700.0,) * 16}), DelayTables(pooled, {"slow": (7000.0,) * 16})
    assert not differ(DelayTables(pooled), near, hour_s=HOUR)
    assert differ(DelayTables(pooled), far, hour_s=HOUR)
    assert differ(far, DelayTables(pooled), hour_s=HOUR)
