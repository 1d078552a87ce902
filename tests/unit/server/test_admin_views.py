"""What the admin API answers: views that lose nothing, and that a command reads without the server's libraries."""

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from litestar import Litestar, Router
from litestar.di import Provide

from support.experiments import Devices, village, written
from support.values import HOUR, T0, cell, gate_input, healthy, plan, seen, shadow_plan, shadowed
from whimbrel.flows.experiments.judge import experiment_verdict_for
from whimbrel.gate.gate import judge
from whimbrel.gate.verdict import Counts, GateInput
from whimbrel.health.tally import Cell
from whimbrel.plan.plan import Plan
from whimbrel.server.admin.alerts import ALERT_ROUTES
from whimbrel.server.admin.experiments import EXPERIMENT_ROUTES, experiment_verdict_view, experiment_view
from whimbrel.server.admin.rollouts import ROLLOUT_ROUTES
from whimbrel.server.admin.tickets import TICKET_ROUTES
from whimbrel.server.admin.views.experiments import ExperimentVerdictView, ExperimentView
from whimbrel.server.admin.views.verdicts import GateEvidence, VerdictView, evidence_of, verdict_view

VIEWS = ("alerts", "devices", "experiments", "rollouts", "tickets", "verdicts")
IN_SHADOW = Counts(
    assigned_t=10, assigned_c=10, activated_t=10, placebo_c=10, reported_t=10, reported_c=10, shadowed_t=10
)


def crashing(windows: int = 6, **more: Any) -> list[Cell]:
    return [
        each
        for number in range(windows)
        for each in (cell("treated", number, n=100, crashed=10, **more), cell("control", number, n=1900, crashed=19))
    ]


def crashing_on_one_class() -> list[Cell]:
    cells: list[Cell] = []
    for number in range(20):
        for name in ("pi4", "pi5", "jetson", "phone"):
            crashed = 20 if name == "pi4" else 1
            cells.append(cell("treated", number, n=100, crashed=crashed, hardware_class=name))
            cells.append(cell("control", number, n=100, crashed=1, hardware_class=name))
    return cells


def in_shadow(*cells: Cell) -> GateInput:
    return GateInput(stage=0, soaked_s=25 * HOUR, cells=cells, counts={0: IN_SHADOW})


VERDICTS: dict[str, tuple[Plan, GateInput]] = {
    "promoted": (plan(), gate_input(*healthy())),
    "proof is asked for": (plan(promote="when_proven"), gate_input(*healthy())),
    "not soaked": (plan(), gate_input(soaked_s=60)),
    "few devices": (plan(), gate_input(counts={0: Counts(reported_t=1)})),
    "harm": (plan(), gate_input(*crashing())),
    "harm in one slice": (plan(), gate_input(*crashing_on_one_class())),
    "a slice is out": (plan(), gate_input(*healthy(), without=("pi4",))),
    "in the shadow": (shadow_plan(), in_shadow(*shadowed())),
    "harm in the shadow": (shadow_plan(), in_shadow(*shadowed(one=seen(100, agreed=50)))),
}


@pytest.mark.parametrize(("plan_", "looked_at"), VERDICTS.values(), ids=VERDICTS)
def test_no_figure_of_a_verdict_is_lost_in_its_view(plan_: Plan, looked_at: GateInput) -> None:
    verdict = judge(plan_, looked_at)
    view = verdict_view(verdict)
    answer = msgspec.json.encode(view)
    assert json.loads(answer) == {"move": verdict.move, "because": verdict.because, "evidence": verdict.evidence}
    assert msgspec.json.decode(answer, type=VerdictView) == view


def test_an_estimate_that_is_a_number_of_devices_stays_a_whole_number() -> None:
    evidence = judge(plan(), gate_input(*healthy())).evidence
    view = evidence_of(evidence)
    assert msgspec.json.encode(view.estimates) == msgspec.json.encode(evidence["estimates"])


def test_what_the_gate_did_not_look_at_is_absent() -> None:
    view = evidence_of(judge(plan(), gate_input(*healthy())).evidence)
    assert "shadow" not in json.loads(msgspec.json.encode(view))
    assert msgspec.convert(msgspec.to_builtins(view), type=GateEvidence) == view


@pytest.mark.parametrize("changes", [{}, {"primary_metric": "crash_rate"}, {"minimum_sample_size": 10_000}])
def test_no_figure_of_an_experiments_verdict_is_lost_in_its_view(changes: dict[str, Any]) -> None:
    with village(plan=written(**changes)) as here:
        Devices(here, 80).run(5)
        ports = {"registry": here.town.registry, "fleet": here.town.fleet}
        verdict = experiment_verdict_for(here.record, **ports, now=T0 + 4000)
        view = experiment_verdict_view(verdict)
        answer = msgspec.json.encode(view)
        assert json.loads(answer) == json.loads(msgspec.json.encode(verdict))
        assert msgspec.json.decode(answer, type=ExperimentVerdictView) == view


def test_the_metric_that_decides_is_told_with_its_direction() -> None:
    with village(plan=written(primary_metric={"name": "crash_rate", "minimum_effect": 0.1})) as here:
        view = experiment_view(here.town.stores, here.record)
    primary = msgspec.to_builtins(view.primary)
    assert primary == {"name": "crash_rate", "minimum_effect": 0.1, "direction": "decrease"}
    assert msgspec.json.decode(msgspec.json.encode(view), type=ExperimentView) == view


def test_views_are_read_without_the_servers_libraries() -> None:
    modules = ", ".join(f"whimbrel.server.admin.views.{name}" for name in VIEWS)
    heavy = "{'litestar', 'sqlalchemy', 'numpy', 'yaml', 'httpx'}"
    script = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_every_route_tells_what_it_answers() -> None:
    routes = (*ROLLOUT_ROUTES, *TICKET_ROUTES, *EXPERIMENT_ROUTES, *ALERT_ROUTES)
    router = Router(
        "/{namespace:str}/admin/v1",
        route_handlers=list(routes),
        dependencies={
            "operations": Provide(lambda: None, sync_to_thread=False),
            "caller": Provide(lambda: None, sync_to_thread=False),
        },
    )
    schema = Litestar([router]).openapi_schema.to_schema()
    answers = [
        (f"{method} {path}", answer["content"])
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        for status, answer in operation["responses"].items()
        if status.startswith("2")
    ]
    assert len(answers) == len(routes)
    for name, content in answers:
        described = content.get("application/json", {}).get("schema", {})
        assert "$ref" in described.get("items", described) or name.endswith("{form}"), name
    rollout = schema["components"]["schemas"]["RolloutView"]
    assert {"verdict", "stages", "counts"} <= set(rollout["properties"])
    assert "verdict" not in rollout["required"]
