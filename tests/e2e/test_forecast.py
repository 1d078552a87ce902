"""`whimbrel forecast` as a person calls it."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from support.server import done, model_file, plan_file, repository, whimbrel
from support.values import T0, cell, enrol
from whimbrel.flows.device_records import RunningVersion
from whimbrel.server.app import open_repository
from whimbrel.server.config import Folder
from whimbrel.stores.transaction import transaction

pytestmark = pytest.mark.long
HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PLAN = """
rollout:
  model_version: "detector-v3.2"
  stages:
    - {name: canary, target_percent: 5, duration_hours: 4}
    - {name: general, target_percent: 100, duration_hours: 1}
"""
FEW = ("--devices", "50000", "--runs", "4", "--processes", "1")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def run(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "whimbrel.cli", "forecast", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == status, done.stderr
    return done


def test_json_holds_the_answer_and_everything_that_was_assumed(plan: Path) -> None:
    found: dict[str, Any] = json.loads(
        run(
            plan,
            *FEW,
            "--json",
            "--effect",
            "latency=2x",
            "--effect-class",
            "pi4:crash=9x",
            "--traffic",
            HOWTO / "fleet.sample.yaml",
            "--prices",
            HOWTO / "prices.sample.yaml",
            "--size",
            "delta=2MB",
            "--size",
            "compressed=80MB",
        ).stdout
    )
    assert [each["name"] for each in found["stages"]] == ["canary", "general"]
    assert [each["effect"] for each in found["effects"]] == ["latency=2x", "pi4:crash=9x"]
    assert found["effects"][0]["caught"]["share"] == 1.0
    assert found["gate_gap"] < 1e-5
    assert found["shape"]["sessions_a_day"] == 40
    assert found["traffic"]["currency"] == "EUR"
    assert found["traffic"]["cost"] == pytest.approx(50_000 * (0.9 * 2e6 + 0.1 * 80e6) / 1e9 * 0.05 + 5 * 0.01)
    assert any("our estimate of November" in each for each in found["assumed"])


def test_people_read_tables_and_what_was_assumed_and_get_a_chart(plan: Path, tmp_path: Path) -> None:
    said = run(plan, *FEW, "-e", "crash=5x", "-o", tmp_path / "chart.png").stdout
    for words in ("Nothing wrong", "What is wrong", "crash=5x", "false alarms", "Assumed", "bytes and cost are not"):
        assert words in said
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    run(plan, *FEW, "-o", tmp_path / "chart.svg")
    assert "<svg" in (tmp_path / "chart.svg").read_text()


def test_the_how_tos_example_finishes_and_names_what_it_found(tmp_path: Path) -> None:
    """As the page has it, on fewer devices. It ended at "finished: 0%" under a plan in its form."""
    _, example, _, command, *_ = (HOWTO / "forecast-a-rollout.md").read_text().split("```")
    (tmp_path / "plan.yaml").write_text(textwrap.dedent(example.removeprefix("yaml\n")))
    words = command.replace("\\\n", " ").replace("10000000", "200000").split()
    assert words[:3] == ["whimbrel", "forecast", "plan.yaml"]
    given = ["--runs", "6", "--json", *words[3:]]
    answer = json.loads(run(tmp_path / "plan.yaml", *given).stdout)
    assert answer["finished"]["share"] == 1.0
    assert answer["finishes_h"]["median"] == pytest.approx(72, abs=2)
    assert answer["warnings"] == []
    harm = {each["effect"]: next(iter(each["harm"])) for each in answer["effects"]}
    assert harm["crash=2x"] == "crash"
    assert harm["latency=1.5x"].startswith("latency")
    assert (harm["accuracy=-0.04"], harm["bricked=2%"]) == ("accuracy", "silence")
    assert all(sum(each["harm"].values()) == each["caught"]["times"] == 6 for each in answer["effects"])


def test_a_plan_that_the_fleet_itself_breaks_says_so_first(plan: Path, tmp_path: Path) -> None:
    plan.write_text(PLAN.replace("duration_hours: 4", "duration_hours: 4, success_criteria: {error_rate_max: 0.001}"))
    (tmp_path / "fleet.yaml").write_text("error: 0.005\n")
    said = run(plan, *FEW, "--traffic", tmp_path / "fleet.yaml").stdout.splitlines()
    assert "stage canary holds whatever the version is" in said[1]
    assert "  finished: none of the rollouts" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-e", "crash"], "is no effect; expected one of crash=2x"),
        (["-e", "crash=2x", "-e", "crash=2x"], "is asked for twice"),
        (["--effect-class", "pi9:crash=2x"], "which are 'a', 'b', 'c', 'd'"),
        (["--size", "zip=2MB"], "expected WAY=SIZE"),
        (["--prices", "nowhere.yaml"], "the price table nowhere.yaml cannot be read"),
        (["--traffic", "plan.yaml"], "cannot be read"),
        (["-o", "chart.gif"], "neither .png nor .svg"),
        (["-o", "nowhere/chart.png"], "is not there"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_one_sentence(plan: Path, arguments: list[str], said: str) -> None:
    done = run(plan, *FEW, *arguments, status=2)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_price_table_with_an_unknown_key_is_refused_with_its_line(plan: Path, tmp_path: Path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text("currency: EUR\ntiers:\n  - {per_gb: 1}\nper_10k: 2\n")
    assert "prices.yaml:4" in run(plan, *FEW, "--prices", table, status=2).stderr


def test_a_plan_that_is_not_understood_is_never_forecast(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.replace("duration_hours: 4", "duration_hour: 4"))
    assert "duration_hour" in run(path, *FEW, status=2).stderr


def test_a_fleets_own_history_is_what_is_forecast(tmp_path: Path) -> None:
    """The numbers come through the admin API from the stored windows; the bytes from what was published."""
    folder = repository(tmp_path / "repo")
    plan = plan_file(tmp_path, more="  holdback_percent: 20\n")
    done("rollout", "start", plan, "-R", folder)
    with open_repository(Folder.open(folder)) as opened, transaction(opened.database, "default") as stores:
        fleet, registry = stores.fleet, stores.registry
        (running,) = registry.rollouts(model="wake")
        for index in range(30):
            enrol(stores, f"dev-{index}")
            kind = "pi4" if index % 3 else "pi5"
            fleet.note_running(
                RunningVersion(device_id=f"dev-{index}", model="wake", serial=1, hardware_class=kind, at=T0)
            )
        fleet.tally(running.id, [cell("control", 0, n=4000, crashed=40, latency={100: 4000})])
    found = done("forecast", plan, "-R", folder, "--from-history", "--runs", 2, "--processes", 1, "-D", 90_000)
    assert found["shape"]["crash"] == pytest.approx(0.01)
    assert found["shape"]["hardware"] == pytest.approx({"pi4": 2 / 3, "pi5": 1 / 3})
    assert "in 1 rollouts (4,000 reports of controls)" in found["shape"]["source"]
    assert found["traffic"]["total"] == pytest.approx(90_000 * model_file(tmp_path, 2).stat().st_size, rel=0.7)
    assert any("does not tell accuracy" in each for each in found["assumed"])
    asked = done("forecast", plan, "-R", folder, "--from-history", "-m", "wake", "--runs", 1, "--processes", 1)
    assert asked["devices"] == 30
    said = whimbrel("forecast", plan, "-R", folder, "--from-history", "-m", "nothing")
    assert (said.status, said.err.count("\n")) == (4, 1)
    said = whimbrel("forecast", plan, "--from-history", "--traffic", HOWTO / "fleet.sample.yaml")
    assert "keep one of them" in said.err
    assert "it goes with --from-history" in whimbrel("forecast", plan, "-m", "wake").err
