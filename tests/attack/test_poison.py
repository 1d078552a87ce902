"""poison: figures that no device can have spoil no sum, and no verdict that others are judged by."""

import math

import pytest

from support.values import T0, cohort, devices_in, plan, reports, rollout, stage, town, window
from whimbrel.errors import UntrustedInput
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.reports.ingest import ingest
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import GateInput
from whimbrel.health.report import Batch, Summary
from whimbrel.model.documents import parse

TREATED = devices_in(0, 50_000, 20)
CONTROLS = devices_in(50_000, 1_000_000, 60)
PLAN = plan(stage(accuracy_min=0.5), stage("all", 100), min_reports=6)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-1e16"])
def test_a_sum_that_is_no_bounded_number_is_refused(value: str) -> None:
    body = (
        b'{"epoch":"0123456789abcdef","windows":[{"model":"wake","serial":2,"first":1,"last":1,'
        b'"metrics":{"accuracy":{"n":1,"sum":%s,"sumsq":1}}}]}' % value.encode()
    )
    with pytest.raises(UntrustedInput, match="a batch of reports cannot be read"):
        parse(Batch, body, what="a batch of reports")
    with town(running=rollout(plan=PLAN)) as here:
        message = DeviceMessage(namespace="default", device_id=TREATED[0], kind="reports", body=body, at=T0)
        assert ingest(here.registry, here.fleet, [message], now=T0 + 400).unreadable == 1
        assert here.cells() == []


@pytest.mark.parametrize("total", [1e15, -1e15, 0.0, 2.0])
def test_one_device_with_an_absurd_metric_moves_nothing(total: float) -> None:
    """A share outside of 0 to 1 is left out; and what is within is one value a window."""
    with town(running=rollout(plan=PLAN)) as here:
        for number in range(1, 13):
            said = []
            for role, devices in (("treated", TREATED), ("control", CONTROLS)):
                for device in devices:
                    lies = device == TREATED[0]
                    told = Summary(n=1, sum=total, sumsq=min(1e30, total * total)) if lies else Summary.of(0.9)
                    metrics = {"accuracy": told, "temperature_c": Summary.of(1e15) if lies else Summary.of(40.0)}
                    of = window(number, serial=2 if role == "treated" else 1, cohorts=(cohort(role),), metrics=metrics)
                    said.append(reports(device, of))
            ingest(here.registry, here.fleet, said, now=T0 + 300 * number)
        cells = here.cells()
        verdict = judge(PLAN, GateInput(stage=0, soaked_s=60, counts={}, cells=cells), Ledger(PLAN))
        assert verdict.move not in {"roll_back", "slice_back"}, verdict.because
        assert math.isfinite(verdict.evidence["log_e"])
