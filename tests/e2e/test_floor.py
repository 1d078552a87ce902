"""`whimbrel floor` and `version revoke --drafts`: what waits for an offline key is told, and signed at once."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from support.agents import AllGood
from support.server import done, plan_file, repository, serving, whimbrel
from whimbrel import Agent, AgentOptions

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture
def repo(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "repo"))


def floors(repo: Path) -> list[tuple[str, int, int]]:
    return [(each["model"], each["sequence"], each["line_sequence"]) for each in done("floor", "show", "-R", repo)]


def actions(repo: Path) -> list[str]:
    return [entry["action"] for entry in done("audit", "-R", repo)]


def test_a_floor_is_required_renewed_by_its_own_key_and_lifted(repo: Path, tmp_path: Path) -> None:
    required = done("floor", "require", "wake", "--expires-days", 30, "--yes", "-R", repo)
    assert (required["sequence"], required["days"]) == (1, 30)
    offline = repo / "keys" / "offline"
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    (offline / "floor-wake.pem").rename(pipeline / "floor-wake.pem")
    assert done("floor", "renew", "--if-due", "-R", repo, "--keys", pipeline) == []
    done("version", "revoke", "2.0.0", "-m", "wake", "-R", repo, "--yes")
    assert floors(repo) == [("wake", 1, 2)]
    assert "floor_expires" in actions(repo)
    renewed = done("floor", "renew", "--if-due", "-R", repo, "--keys", pipeline)
    assert [each["sequence"] for each in renewed] == [2]
    again = whimbrel("floor", "require", "wake", "--expires-days", 5, "--yes", "-R", repo)
    assert (again.status, "wake has a floor already" in again.err) == (4, True)
    done("floor", "lift", "wake", "-R", repo, "--yes")
    assert floors(repo) == []
    nothing = whimbrel("floor", "renew", "wake", "-R", repo, "--keys", pipeline)
    assert "wake has no floor; begin with: whimbrel floor require wake" in nothing.err


def test_devices_of_a_model_with_a_floor_from_its_first_day_take_it(tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    done("init", folder)
    done("model", "add", "wake", "-R", folder, "--floor-expires-days", 30)
    made = repository(tmp_path / "files" / "repo", versions=1).parent / "wake-1.onnx"
    done("publish", "-m", "wake", made, "-R", folder)
    with serving(folder) as server:
        root = folder / "root.json"
        options = AgentOptions(server=server.devices, root=root, models=["wake"], probes=AllGood())
        with Agent.open(tmp_path / "device", options) as agent:
            assert agent.cycle(force=True).models["wake"]["serial"] == 1
            assert agent.cycle(force=True).problems == ()


def test_what_was_taken_back_is_a_draft_that_one_command_signs(repo: Path, tmp_path: Path) -> None:
    rollout = done("rollout", "start", plan_file(tmp_path), "-R", repo)["id"]
    nothing = whimbrel("version", "revoke", "--drafts", "-m", "wake", "-R", repo, "--yes")
    assert (nothing.status, "no version of wake waits to be revoked" in nothing.err) == (4, True)
    done("rollout", "rollback", rollout, "-R", repo, "--because", "it crashes", "--yes")
    told: list[dict[str, Any]] = [each for each in done("audit", "-R", repo) if each["action"] == "draft_revocation"]
    assert len(told) == 1
    assert "it crashes" in told[0]["because"]
    status = whimbrel("rollout", "status", rollout, "-R", repo).out
    assert "Only the policy forbids wake 2.0.0" in status
    assert (
        "TAKEN BACK, and not revoked: it crashes" in whimbrel("version", "show", "2.0.0", "-m", "wake", "-R", repo).out
    )
    line = done("version", "revoke", "--drafts", "-m", "wake", "-R", repo, "--yes")
    assert line["revoked"] == [2]
    assert "Only the policy" not in whimbrel("rollout", "status", rollout, "-R", repo).out
    because = next(each["because"] for each in done("audit", "-R", repo) if each["action"] == "set line")
    assert "it crashes" in because


def test_a_version_or_the_drafts_are_revoked(repo: Path) -> None:
    for words in (["version", "revoke"], ["version", "revoke", "2.0.0", "--drafts"]):
        said = whimbrel(*words, "-m", "wake", "-R", repo, "--yes")
        assert (said.status, "name the version to revoke, or --drafts" in said.err) == (2, True)
