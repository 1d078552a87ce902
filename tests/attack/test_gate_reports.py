"""Reports that are missing, late, duplicated, contradictory or forged never make a rollout pass."""

import pytest

from support.values import (
    HOUR,
    T0,
    Town,
    announce,
    cohort,
    devices_in,
    plan,
    release,
    reports,
    rollout,
    stage,
    town,
    window,
)
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.user_reports import count_reports, file_reports
from whimbrel.flows.rollouts.advance import advance
from whimbrel.gate.verdict import Verdict
from whimbrel.health.report import Summary
from whimbrel.health.user_report import UserReport
from whimbrel.model.documents import encode
from whimbrel.model.release import Reference
from whimbrel.stores import schema

LATER = T0 + 30 * HOUR
CANARY = devices_in(0, 50_000, 6)
OTHERS = devices_in(50_000, 1_000_000, 40)


def running() -> RolloutRecord:
    return rollout(plan=plan(stage(error_rate_max=0.05), stage("all", 100), min_reports=6))


def judged(here: Town, *records: DeviceMessage, now: float = T0 + 400) -> Verdict:
    ingest(here.registry, here.fleet, records, now=now)
    return advance(here.registry, here.fleet, here.registry.rollout("r1"), now=LATER)


def activated(devices: list[str]) -> list[DeviceMessage]:
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
        assert "no window of its reports is closed yet" in verdict.because


def test_unreadable_reports_are_no_reports() -> None:
    with town(running=running()) as here:
        junk = [DeviceMessage(namespace="default", device_id=d, kind="reports", body=b"{]", at=T0) for d in CANARY]
        assert judged(here, *activated(CANARY), *junk).move == "hold"


# --- limits of means, feedback, tickets, drift ---

EVERYTHING = {"accuracy_min": 0.8, "feedback_min": 0.5, "metrics_max": {"watts": 5.0}, "drift_psi_max": 0.25}
REFERENCE = Reference(kind="classes", bins=(0, 1), shares=(0.5, 0.5))


def watched(**criteria: object) -> RolloutRecord:
    return rollout(plan=plan(stage(**(criteria or EVERYTHING)), stage("all", 100), min_reports=6))


def good(**changes: object) -> dict[str, object]:
    metrics = {"accuracy": Summary.of(0.9), "feedback": Summary.of(1.0), "watts": Summary.of(2.0)}
    return {"metrics": metrics, "predictions": {0: 5, 1: 5}} | changes


def there(here: Town) -> None:
    """Both versions were released with a reference."""
    for serial in (1, 2):
        document = release(serial, reference=REFERENCE)
        here.registry.connection.execute(
            schema.versions.update().where(schema.versions.c.serial == serial).values(release=encode(document))
        )


def test_honest_reports_of_everything_pass() -> None:
    with town(running=watched()) as here:
        there(here)
        said = [reports(device, window(**good())) for device in CANARY]
        assert judged(here, *activated(CANARY), *said).move == "advance"


@pytest.mark.parametrize("missing", ["accuracy", "feedback", "watts"])
def test_a_mean_that_is_left_out_holds(missing: str) -> None:
    with town(running=watched()) as here:
        there(here)
        metrics = {name: seen for name, seen in good()["metrics"].items() if name != missing}
        said = [reports(device, window(**good(metrics=metrics))) for device in CANARY]
        verdict = judged(here, *activated(CANARY), *said)
        assert verdict.move == "hold"
        assert "nothing about it was reported" in verdict.because


@pytest.mark.parametrize("share", ["accuracy", "feedback"])
@pytest.mark.parametrize("claimed", [1e9, 1.01, -0.5])
def test_one_device_cannot_lift_a_share_by_claiming_more_than_all(share: str, claimed: float) -> None:
    with town(running=watched(**{f"{share}_min": 0.8})) as here:
        low = good(metrics={share: Summary.of(0.1)})
        said = [reports(device, window(**low)) for device in CANARY[1:]]
        forged = reports(CANARY[0], window(metrics={share: Summary.of(claimed)}))
        verdict = judged(here, *activated(CANARY), *said, forged)
        assert verdict.move == "hold"
        assert f"the mean of {share} is 10%; at least 80% must be ({share}_min)" in verdict.because


def test_a_chatty_device_does_not_hide_the_drift_of_the_others() -> None:
    with town(running=watched(drift_psi_max=0.25)) as here:
        there(here)
        loud = reports(CANARY[0], window(inferences=10**6, predictions={0: 500_000, 1: 500_000}))
        said = [reports(device, window(predictions={0: 10})) for device in CANARY[1:]]
        verdict = judged(here, *activated(CANARY), *said, loud)
        assert verdict.move == "hold"
        assert "at most 0.25 may be (drift_psi_max" in verdict.because


@pytest.mark.parametrize("forged", [{"predictions": {40: 10}}, {"serial": 1, "predictions": {0: 5, 1: 5}}])
def test_bins_that_the_version_does_not_have_are_no_predictions(forged: dict[str, object]) -> None:
    with town(running=watched(drift_psi_max=0.25)) as here:
        there(here)
        said = [reports(device, window(**forged)) for device in CANARY]
        verdict = judged(here, *activated(CANARY), *said)
        assert verdict.move == "hold"
        assert "drift_psi_max asks for the stability index of the predictions, and nothing about it" in verdict.because


def test_predictions_that_come_again_count_once() -> None:
    with town(running=watched(drift_psi_max=0.25)) as here:
        there(here)
        ingest(here.registry, here.fleet, [reports(CANARY[0], window(**good()))] * 50, now=T0 + 400)
        assert [(cell.prediction_units, cell.predictions[0].sum) for cell in here.cells()] == [(1, 0.5)]


def test_tickets_of_the_control_alone_do_not_make_a_limit_of_tickets_reported() -> None:
    """No treated device was heard of: as many tickets as one likes say nothing of the new version."""
    with town(running=watched(user_reports_ratio_max=2.0)) as here:
        here.enrol(*CANARY, *OTHERS)
        rows = here.stores.tickets
        ingest(here.registry, here.fleet, [announce(d, "placebo", role="control") for d in OTHERS], now=T0 + 20)
        tickets = [UserReport(ticket=f"T-{n}", model="wake", device_id=d) for n, d in enumerate(OTHERS)]
        file_reports(here.registry, here.fleet, rows, tickets, now=T0 + 100)
        count_reports(here.registry, here.fleet, rows, now=T0 + 101)
        assert judged(here, *activated(CANARY)).move == "hold"
