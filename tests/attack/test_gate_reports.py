"""Reports that are missing, late, duplicated, contradictory or forged never make a rollout pass."""

from build import HOUR, T0, Town, announce, cohort, devices_in, plan, reports, rollout, stage, town, window
from whimbrel.flows.advance import advance
from whimbrel.flows.ingest import ingest
from whimbrel.flows.records import Record, RolloutRecord
from whimbrel.rollout.gate import Verdict

LATER = T0 + 30 * HOUR
CANARY = devices_in(0, 50_000, 6)
OTHERS = devices_in(50_000, 1_000_000, 40)


def running() -> RolloutRecord:
    return rollout(plan=plan(stage(error_rate_max=0.05), stage("all", 100), min_reports=6))


def judged(here: Town, *records: Record, now: float = T0 + 400) -> Verdict:
    ingest(here.registry, here.fleet, records, now=now)
    return advance(here.registry, here.fleet, here.registry.rollout("r1"), now=LATER)


def activated(devices: list[str]) -> list[Record]:
    return [announce(device, "activating") for device in devices]


def test_honest_reports_pass() -> None:
    """What the others are compared with: else nothing here would show anything."""
    with town(running=running()) as here:
        said = [reports(device, window()) for device in CANARY]
        assert judged(here, *activated(CANARY), *said).move == "advance"


def test_missing_reports_hold() -> None:
    with town(running=running()) as here:
        assert judged(here, *activated(CANARY)).move == "hold"


def test_one_device_that_reports_for_all_is_one_device() -> None:
    with town(running=running()) as here:
        said = [reports(CANARY[0], *(window(n) for n in range(1, 61)))]
        assert judged(here, *activated(CANARY), *said).move == "hold"


def test_the_same_report_again_counts_once() -> None:
    with town(running=running()) as here:
        assert judged(here, *activated(CANARY), *([reports(CANARY[0], window())] * 50)).move == "hold"
        assert sum(cell.at_risk for cell in here.cells()) == 1


def test_controls_that_claim_the_new_version_count_nowhere() -> None:
    with town(running=running()) as here:
        said = [reports(device, window(cohorts=(cohort("treated"),))) for device in OTHERS]
        assert judged(here, *activated(OTHERS), *said).move == "hold"
        assert here.cells() == []


def test_a_device_in_both_arms_counts_in_none_that_its_bucket_denies() -> None:
    with town(running=running()) as here:
        said = [reports(d, window(cohorts=(cohort("control"), cohort("control", stage=1)))) for d in CANARY]
        assert judged(here, *activated(CANARY), *said).move == "hold"


def test_reports_of_another_rollout_do_not_help_this_one() -> None:
    with town(running=running()) as here:
        said = [reports(d, window(cohorts=(cohort("treated", rollout="r0"),))) for d in CANARY]
        assert judged(here, *activated(CANARY), *said).move == "hold"


def test_reports_that_come_after_the_look_do_not_change_it() -> None:
    with town(running=running()) as here:
        late = [reports(device, window()) for device in CANARY]
        ingest(here.registry, here.fleet, activated(CANARY), now=T0 + 400)
        ingest(here.registry, here.fleet, late, now=LATER)  # in the window that is open: it is not judged yet
        verdict = advance(here.registry, here.fleet, here.registry.rollout("r1"), now=LATER)
        assert verdict.move == "hold"
        assert "nothing about it was reported" in verdict.because


def test_unreadable_reports_are_no_reports() -> None:
    with town(running=running()) as here:
        junk = [Record(namespace="default", device_id=d, kind="reports", body=b"{]", at=T0) for d in CANARY]
        assert judged(here, *activated(CANARY), *junk).move == "hold"
