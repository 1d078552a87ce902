"""Devices that were heard and are heard no more: each is one event, and comes back only with a report of later."""

from support.values import T0, Town, announce, cohort, devices_in, reports, rollout, town, window
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.judge_silence import judge_silence
from whimbrel.policy.bucket import BUCKETS

CANARY, SECOND = devices_in(0, 50_000, 2)
REST = devices_in(50_000, BUCKETS, 1)[0]
PERIOD_S = 300.0


def take(here: Town, *records: DeviceMessage, now: float) -> None:
    ingest(here.registry, here.fleet, records, now=now)


def look(here: Town, after_s: float) -> None:
    judge_silence(here.fleet, rollout(), report_s=PERIOD_S, now=T0 + after_s)


def totals(here: Town, *, role: str = "treated") -> tuple[int, int]:
    cells = [cell for cell in here.cells() if cell.role == role]
    return sum(cell.due for cell in cells), sum(cell.overdue for cell in cells)


def heard(here: Town, device: str, number: int, after_s: float, **more: object) -> None:
    """A report comes in and is read at once."""
    take(here, reports(device, window(number, **more), at=T0 + after_s), now=T0 + after_s)


def activated(here: Town, *devices: str) -> None:
    take(here, *(announce(device, "activating") for device in devices), now=T0)
    for device in devices:
        heard(here, device, 1, 100)
    look(here, 1000)  # at which the first report was due


def test_a_device_that_is_heard_is_due_at_every_look() -> None:
    with town(running=rollout()) as here:
        activated(here, CANARY)
        for each in range(2, 6):
            heard(here, CANARY, each, 300 * each)
            look(here, 300 * each + 600)
        assert totals(here) == (5, 0)


def test_a_device_that_dies_is_one_event_however_long_it_is_dead() -> None:
    with town(running=rollout()) as here:
        activated(here, CANARY, SECOND)
        for each in range(2, 40):
            heard(here, SECOND, each, 300 * each + 500)
            look(here, 300 * each + 700)
        due, overdue = totals(here)
        assert overdue == 1
        assert due == 2 + 38 + 1
        assert here.fleet.counts("r1")[0].silent_t == 1


def test_a_device_that_comes_back_is_due_again_and_its_habit_is_known() -> None:
    with town(running=rollout()) as here:
        activated(here, CANARY)
        look(here, 1300)  # missed
        heard(here, CANARY, 2, 4000)
        assert here.fleet.counts("r1")[0].silent_t == 0
        look(here, 4100)
        look(here, 4000 + 2 * 3900)  # within twice its longest silence
        assert totals(here) == (1 + 1 + 2, 1)
        look(here, 4000 + 2 * 3900 + 1)
        assert totals(here) == (5, 2)


def test_a_report_that_lay_in_a_queue_is_no_news_about_the_present() -> None:
    """A device died at 200 s. It is missed, its last report is read after that, and it is not missed a second time."""
    with town(running=rollout()) as here:
        activated(here, CANARY)
        look(here, 1300)
        take(here, reports(CANARY, window(2), at=T0 + 200), now=T0 + 1400)
        assert here.fleet.counts("r1")[0].silent_t == 1
        look(here, 1600)
        look(here, 9000)
        assert totals(here) == (2, 1)


def test_a_report_that_comes_twice_is_no_sign_of_life() -> None:
    with town(running=rollout()) as here:
        activated(here, CANARY)
        take(here, reports(CANARY, window(1), at=T0 + 1250), now=T0 + 1250)
        look(here, 1300)
        assert totals(here) == (2, 1)


def test_a_control_that_takes_the_version_in_a_later_stage_is_not_missed_as_a_control() -> None:
    with town(running=rollout()) as here:
        take(here, announce(REST, "placebo", role="control"), now=T0)
        heard(here, REST, 1, 100, cohorts=(cohort(role="control"),))
        look(here, 1000)
        heard(here, REST, 2, 1100, cohorts=())
        look(here, 9000)
        assert totals(here, role="control") == (1, 0)
        assert here.fleet.counts("r1")[0].silent_c == 0


def test_a_device_that_reports_and_is_never_used_is_counted_as_unused() -> None:
    with town(running=rollout()) as here:
        take(here, announce(CANARY, "activating"), now=T0)
        heard(here, CANARY, 1, 100, sessions=0, inferences=0)
        assert here.fleet.counts("r1")[0].unused_t == 1
        heard(here, CANARY, 2, 400)
        heard(here, CANARY, 3, 700, sessions=0, inferences=0)
        assert here.fleet.counts("r1")[0].unused_t == 0


def test_two_servers_that_look_at_once_count_a_silent_device_once() -> None:
    """The second one finds it missed already."""
    with town(running=rollout()) as here:
        activated(here, CANARY)
        look(here, 1300)
        look(here, 1300.5)
        assert totals(here)[1] == 1
