"""Experiments from the command line, on a folder: what is said before, during and after, and what a report holds."""

import re
import shutil
from pathlib import Path

import pytest

from support.experiments import TEXT
from support.server import done, plan_file, repository, whimbrel
from support.values import SALT, announce, reports, window
from whimbrel.flows.reports.ingest import ingest
from whimbrel.health.report import Cohort, Summary
from whimbrel.policy.bucket import bucket, device_key
from whimbrel.server.app import open_repository
from whimbrel.server.config import Folder
from whimbrel.stores.transaction import transaction

COMMANDS = ("check", "start", "list", "status", "watch", "decide", "stop", "report", "replay")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture
def repo(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "repo"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "e.yaml"
    path.write_text(TEXT.replace("name: A larger encoder", "name: A <larger> encoder"))
    return path


def test_a_guardrail_that_stops_the_better_arm_is_told_before_and_at_the_start(repo: Path, tmp_path: Path) -> None:
    path = tmp_path / "recall.yaml"
    guard = "  guardrail_metrics: [{name: recall, direction: decrease, margin: 0.1}]\n"
    text = "\n".join(line for line in TEXT.splitlines() if "guardrail_metrics" not in line).rstrip()
    path.write_text(f"{text}\n{guard}")
    words = "guardrail recall is said to decrease where it gets better"
    assert words in whimbrel("experiment", "check", path, "-R", repo).out
    begun = whimbrel("experiment", "start", path, "-R", repo)
    assert (begun.status, f"Note: {words}" in begun.err) == (0, True)


def tell(folder: Path, *, windows: int = 5, gain: float = 3.0) -> None:
    """What 80 devices would have reported in the first windows of the experiment."""
    with open_repository(Folder.open(folder)) as opened, transaction(opened.database, "default") as stores:
        registry, fleet = stores.registry, stores.fleet
        rows = stores.experiments
        record = rows.one("e1")
        for number in range(1, windows + 1):
            at = record.created_at - 300 * (windows + 1 - number)
            moved = record.__class__(
                **{n: getattr(record, n) for n in record.__struct_fields__}
                | {"created_at": record.created_at - 300 * (windows + 1)}
            )
            said = []
            for index in range(1, 81):
                name = f"dev-{index}"
                role = "control" if bucket(device_key(name), salt=SALT) < 500_000 else "treated"
                value = index % 7 + (number * index % 3) / 3 + (gain if role == "treated" else 0)
                told = Cohort(rollout="e1", stage=0, role=role, age_s=9.0, before={"watch_time": index % 7 + 0.1})
                if number == 1:
                    step = "placebo" if role == "control" else "activated"
                    said.append(announce(name, step, rollout="e1", role=role, at=at))
                metrics = {"watch_time": Summary.of(value)}
                said.append(reports(name, window(number, cohorts=(told,), metrics=metrics), at=at))
            ingest(registry, fleet, said, now=at, experiments=[moved])
        rows.save(moved, before=record)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    said = whimbrel("experiment", command, "--help")
    assert said.status == 0
    assert len(said.out.split("Usage:")[1]) > 200


def test_what_would_happen_is_said_before_it_does(repo: Path, file: Path) -> None:
    told = done("experiment", "check", file, "-R", repo)
    assert told["devices"] == {"control": 0, "large": 0}
    assert "nothing is decided unless" in whimbrel("experiment", "check", file, "-R", repo).out
    assert done("experiment", "list", "-R", repo) == []


def test_a_file_that_is_not_understood_is_one_sentence_with_the_line(repo: Path, file: Path) -> None:
    file.write_text(TEXT.replace("primary_metric", "primry_metric"))
    for command in ("check", "start"):
        said = whimbrel("experiment", command, file, "-R", repo)
        assert (said.status != 0, said.out) == (True, "")
        assert re.match(r"whimbrel: e\.yaml:\d+: .*primry_metric", said.err)


def test_an_experiment_from_its_start_to_its_report(repo: Path, file: Path, tmp_path: Path) -> None:
    begun = done("experiment", "start", file, "-R", repo)
    assert (begun["id"], begun["phase"]) == ("e1", "running")
    said = whimbrel("rollout", "start", plan_file(tmp_path), "-R", repo)
    assert "experiment e1 of wake has devices" in said.err
    tell(repo)
    seen = done("experiment", "status", "e1", "-R", repo)
    assert seen["verdict"]["move"] == "ship"
    assert sum(arm["reported"] for arm in seen["arms"]) == 80
    assert "ship: large is better than control" in whimbrel("experiment", "status", "e1", "-R", repo).out
    decided = done("experiment", "decide", "e1", "--ship", "large", "--because", "clear", "-R", repo)
    assert (decided["phase"], decided["winner"]) == ("shipped", "large")
    assert "clear" in whimbrel("experiment", "watch", "e1", "-R", repo).out
    assert done("experiment", "replay", "e1", "-R", repo)["same"]
    for name in ("r.html", "r.md", "r.png"):
        done("experiment", "report", "e1", "-o", tmp_path / name, "-R", repo)
    page = (tmp_path / "r.html").read_text()
    assert "<svg" in page
    assert "A &lt;larger&gt; encoder" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    for words in ("What was asked", "What this cannot say", "Ship large", "variance explained", "clear"):
        assert words in page
    text = (tmp_path / "r.md").read_text()
    for plot in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (tmp_path / plot).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_of_an_experiment_nobody_reported_on_is_written_too(repo: Path, file: Path, tmp_path: Path) -> None:
    done("experiment", "start", file, "-R", repo)
    done("experiment", "report", "e1", "-o", tmp_path / "r.html", "-R", repo)
    assert "Still running" in (tmp_path / "r.html").read_text()
    said = whimbrel("experiment", "report", "e1", "-o", tmp_path / "r.pdf", "-R", repo)
    assert "expected one of .html, .md, .png" in said.err
    stopped = done("experiment", "stop", "e1", "--because", "a rehearsal", "-R", repo)
    assert stopped["phase"] == "stopped"
    assert "is over" in whimbrel("experiment", "decide", "e1", "--keep", "-R", repo).err
    assert "either --ship ARM or --keep" in whimbrel("experiment", "decide", "e1", "-R", repo).err
