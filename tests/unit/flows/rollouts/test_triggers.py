"""Every trigger of a rollback, from what devices send to the quarantine: real reports, tallied, judged, acted on."""

from typing import Any

import msgspec
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
from whimbrel.errors import Refused
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.judge_silence import judge_silence
from whimbrel.flows.reports.user_reports import count_reports, file_reports
from whimbrel.flows.rollouts.advance import advance
from whimbrel.flows.rollouts.judge import replay_rollout
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.gate.verdict import Verdict
from whimbrel.health.report import Summary
from whimbrel.health.sketch import key_of
from whimbrel.health.user_report import UserReport
from whimbrel.model.documents import encode
from whimbrel.model.release import Reference
from whimbrel.plan.rollout_states import State
from whimbrel.stores import schema

CANARY = devices_in(0, 50_000, 40)
OTHERS = devices_in(50_000, 1_000_000, 160)
PERIOD_S = 300.0
REFERENCE = Reference(bins=(0.5,), shares=(0.5, 0.5))

# What people write of such rollbacks: crashes over 2x, accuracy 5 points down, latency 50% up, battery 20% up, ...
LIMITS = {
    "crash_ratio_max": 2.0,
    "accuracy_drop_max": 0.05,
    "latency_increase_max": 0.5,
    "battery_increase_max": 0.2,
    "error_rate_max": 0.05,
    "feedback_min": 0.6,
    "user_reports_ratio_max": 2.0,
    "drift_psi_max": 0.25,
    "metrics_max": {"memory_mb": 50.0},
}


def healthy(index: int) -> dict[str, Any]:
    """A window of a device: right nine times in ten, 10 ms or so, 3% of the battery; every tenth one is unhappy."""
    return {
        "sessions": 2,
        "inferences": 20,
        "latency": {key_of(10 + index % 4): 2},
        "predictions": {0: 5, 1: 5},
        "metrics": {
            "accuracy": Summary.of(0.9 + 0.01 * (index % 5 - 2)),
            "battery": Summary.of(3.0 + 0.1 * (index % 5 - 2)),
            "feedback": Summary.of(0.0 if index % 10 == 0 else 1.0),
            "memory_mb": Summary.of(40.0 + index % 3),
        },
    }


def bad(index: int, trigger: str) -> dict[str, Any]:
    seen, means = healthy(index), healthy(index)["metrics"]
    match trigger:
        case "crash":
            return seen | {"crashed": 1 if index % 4 == 0 else 0}
        case "error":
            return seen | {"errors": 6}
        case "accuracy":
            return seen | {"metrics": means | {"accuracy": Summary.of(0.82 + 0.01 * (index % 5 - 2))}}
        case "latency":
            return seen | {"latency": {key_of(18 + index % 4): 2}}
        case "battery":
            return seen | {"metrics": means | {"battery": Summary.of(4.0 + 0.1 * (index % 5 - 2))}}
        case "feedback":
            return seen | {"metrics": means | {"feedback": Summary.of(0.0 if index % 3 else 1.0)}}
        case "memory_mb":
            return seen | {"metrics": means | {"memory_mb": Summary.of(70.0 + index % 3)}}
        case "drift":
            return seen | {"predictions": {0: 19, 1: 1}}
    return seen


def begun(here: Town) -> None:
    here.enrol(*CANARY, *OTHERS)
    for serial in (1, 2):
        document = release(serial, reference=REFERENCE)
        here.registry.connection.execute(
            schema.versions.update().where(schema.versions.c.serial == serial).values(release=encode(document))
        )
    said = [announce(device, "activating", at=T0 + 5) for device in CANARY]
    said += [announce(device, "placebo", role="control", serial=1, at=T0 + 5) for device in OTHERS]
    ingest(here.registry, here.fleet, said, now=T0 + 10)


LIVED = 6  # periods after which devices die that reported until then


def one_period(here: Town, number: int, trigger: str, *, dead: int = 0) -> Verdict:
    now = T0 + PERIOD_S * number + 100
    said: list[DeviceMessage] = []
    for index, device in enumerate(CANARY):
        if (trigger == "silence" and index % 2) or (number > LIVED and index < dead):
            continue
        mine = bad(index + number, trigger)  # devices take turns: 40 that always say the same prove little
        said.append(reports(device, window(number, serial=2, cohorts=(cohort(age_s=now - T0),), **mine), at=now))
    for index, device in enumerate(OTHERS):
        place = cohort("control", age_s=now - T0)
        seen = healthy(index + number) | {"crashed": 1 if index == number else 0}
        said.append(reports(device, window(number, serial=1, cohorts=(place,), **seen), at=now))
    ingest(here.registry, here.fleet, said, now=now)
    rows = here.stores.tickets
    rows.heard("wake", at=now)
    angry = CANARY[: 8 if trigger == "user_reports" else 0] + OTHERS[number : number + 1]
    tickets = [UserReport(ticket=f"Z-{number}-{d}", model="wake", device_id=d) for d in angry]
    file_reports(here.registry, here.fleet, rows, tickets, now=now)
    count_reports(here.registry, here.fleet, rows, now=now)
    judge_silence(here.fleet, here.registry.rollout("r1"), report_s=PERIOD_S, now=now)
    return advance(here.registry, here.fleet, here.registry.rollout("r1"), now=now + PERIOD_S)


def run(here: Town, trigger: str, *, periods: int = 20) -> Verdict:
    begun(here)
    for number in range(1, periods + 1):
        verdict = one_period(here, number, trigger)
        if verdict.move == "roll_back":
            break
    return verdict


WATCHED = rollout(plan=plan(stage(hours=1.4, **LIMITS), stage("all", 100)))


@pytest.mark.parametrize(
    ("trigger", "limit"),
    [
        ("crash", "crash_ratio_max"),
        ("error", "error_rate_max"),
        ("accuracy", "accuracy_drop_max"),
        ("latency", "latency_increase_max"),
        ("battery", "battery_increase_max"),
        ("feedback", "feedback_min"),
        ("memory_mb", "metrics_max.memory_mb"),
        ("user_reports", "user_reports_ratio_max"),
        ("drift", "drift_psi_max"),
        ("silence", ""),
    ],
)
def test_harm_that_devices_tell_of_takes_the_version_back(trigger: str, limit: str) -> None:
    with town(running=WATCHED) as here:
        verdict = run(here, trigger)
        assert verdict.move == "roll_back", verdict.because
        assert f"harm is proven: {trigger}" in verdict.because
        assert limit in verdict.because
        after = here.registry.rollout("r1")
        assert after.state is State.ROLLING_BACK
        assert [entry.serial for entry in here.registry.quarantines("wake")] == [2]
        assert all(each.same for each in replay_rollout(here.registry, here.fleet, "r1"))


def test_without_harm_the_same_rollout_advances() -> None:
    with town(running=WATCHED) as here:
        begun(here)
        moves = [one_period(here, number, "none") for number in range(1, 21)]
        assert {verdict.move for verdict in moves} <= {"wait", "advance", "hold"}
        assert "advance" in {verdict.move for verdict in moves}, moves[-1].because
        assert all(each.same for each in replay_rollout(here.registry, here.fleet, "r1"))


def test_devices_that_go_back_by_themselves_pull_the_kill_switch() -> None:
    with town(running=WATCHED) as here:
        begun(here)
        one_period(here, 1, "none")
        said = [announce(device, "went_back", at=T0 + 500) for device in CANARY[:6]]
        ingest(here.registry, here.fleet, said, now=T0 + 500)
        verdict = one_period(here, 2, "none")
        assert verdict.move == "roll_back"
        assert "the kill switch: 6 of 40" in verdict.because


def test_a_version_that_came_back_is_offered_again_only_with_a_reason_in_the_log() -> None:
    with town(running=WATCHED) as here:
        run(here, "crash")
        asked: dict[str, Any] = {"plan_text": "", "tag": "abcdef", "hour_s": HOUR, "actor": "me", "now": T0 + 10**6}
        wanted = plan(model_version="wake@2.0.0")
        with pytest.raises(Refused, match="was taken back before"):
            start_rollout(here.registry, here.fleet, wanted, **asked)
        start_rollout(here.registry, here.fleet, wanted, override="the crash was the app's", **asked)
        (entry,) = [each for each in here.registry.audit_log() if each.action == "override"]
        assert entry.because == "the crash was the app's"


@pytest.mark.parametrize("promote", ["advance", "when_proven"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_version_of_which_devices_die_later_never_goes_on(share: float, promote: str) -> None:
    """Each had reported before, and was never missed."""
    asked = plan(stage(hours=1.4), stage("all", 100))
    if promote != "advance":
        asked = msgspec.structs.replace(asked, promote=promote)
    with town(running=rollout(plan=asked)) as here:
        begun(here)
        dead = round(share * len(CANARY))
        for number in range(1, 21):
            verdict = one_period(here, number, "", dead=dead)
            if verdict.move == "roll_back":
                break
        assert verdict.move in {"hold", "roll_back"}, verdict.because
        assert here.registry.rollout("r1").stage == 0
        if verdict.move == "hold":
            assert (
                f"only {len(CANARY) - dead} of the {len(CANARY)} devices that reported are still heard"
                in verdict.because
            )
            assert "100.00% of the control's are" in verdict.because
        else:
            assert "harm is proven: silence" in verdict.because
