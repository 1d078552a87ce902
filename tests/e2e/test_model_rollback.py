"""`whimbrel model rollback`: the command on a folder, and real agents that come back from a completed version."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from support.server import done, model_file, plan_file, repository, whimbrel
from whimbrel.server.people import folder_caller

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture
def repo(template: Path, tmp_path: Path) -> Path:
    """Two versions; everybody's is the second, since its rollout is complete."""
    folder = Path(shutil.copytree(template, tmp_path / "repo"))
    begun = done("rollout", "start", plan_file(tmp_path), "-R", folder)
    done("rollout", "finish", begun["id"], "-R", folder)
    return folder


def listed(repo: Path) -> dict[str, dict[str, Any]]:
    return {each["semantic_version"]: each for each in done("version", "list", "-m", "wake", "-R", repo)}


def test_one_verb_takes_a_completed_version_back(repo: Path) -> None:
    why = "it stutters since the update"
    went = done("model", "rollback", "wake", "-R", repo, "--yes", "--because", why)
    assert (went["done"], went["leaves"]["semantic_version"], went["to"]["semantic_version"]) == (
        True,
        "2.0.0",
        "1.0.0",
    )
    left = went["leaves"]["version"]
    assert went["revoke_command"] == f"whimbrel version revoke {left} --model wake --because '{why}'"
    versions = listed(repo)
    assert (versions["1.0.0"]["baseline"], versions["1.0.0"]["aliases"]) == (True, ["champion"])
    assert [each["because"] for each in versions["2.0.0"]["quarantined"]] == [why]
    assert done("rollout", "status", went["rollout"], "-R", repo)["state"] == "rolled_back"
    assert [
        (each["actor"], each["because"]) for each in done("audit", "-R", repo) if each["action"] == "roll_back"
    ] == [(folder_caller().account, why)]


def test_the_command_that_it_prints_forbids_the_version(repo: Path) -> None:
    done("model", "rollback", "wake", "-R", repo, "--yes")
    done("version", "revoke", "2.0.0", "-m", "wake", "-R", repo, "--yes")
    assert listed(repo)["2.0.0"]["revoked"]


def test_without_a_person_it_asks_for_yes_and_does_nothing(repo: Path) -> None:
    said = whimbrel("model", "rollback", "wake", "-R", repo)
    assert (said.status, "changes what devices run, and nobody can be asked here; give --yes" in said.err) == (4, True)
    assert "wake goes back from" in said.out
    assert listed(repo)["2.0.0"]["baseline"]


def test_a_completed_rollout_is_taken_back_by_its_own_verb(repo: Path) -> None:
    """It asked nobody, and told neither the version nor the devices, nor how to revoke it."""
    (rollout,) = done("rollout", "list", "-R", repo)
    asks = whimbrel("rollout", "rollback", rollout["id"], "-R", repo)
    assert (asks.status, "nobody can be asked here; give --yes" in asks.err) == (4, True)
    assert "(2.0.0) to" in asks.out
    assert listed(repo)["2.0.0"]["baseline"]
    gone = done("rollout", "rollback", rollout["id"], "-R", repo, "--because", "slow", "--yes")
    assert (gone["because"].startswith("slow"), gone["state"]) == (True, "rolled_back")
    assert (gone["way_back"]["to"]["semantic_version"], gone["revoke_command"].split()[:3]) == (
        "1.0.0",
        ["whimbrel", "version", "revoke"],
    )
    assert listed(repo)["1.0.0"]["baseline"]
    again = whimbrel("rollout", "rollback", rollout["id"], "-R", repo)
    assert (again.status, "nothing can be asked of it any more" in again.err) == (4, True)


def test_what_a_rollback_of_a_completed_rollout_says_is_what_that_of_its_model_says(repo: Path) -> None:
    (rollout,) = done("rollout", "list", "-R", repo)
    of_rollout = whimbrel("rollout", "rollback", rollout["id"], "-R", repo)
    of_model = whimbrel("model", "rollback", "wake", "-R", repo)
    assert of_rollout.out == of_model.out != ""
    said = whimbrel("rollout", "rollback", rollout["id"], "-R", repo, "--yes")
    assert "whimbrel version revoke" in said.out
    assert f"Next: whimbrel rollout watch {rollout['id']}" in said.out


def test_a_selector_that_names_no_known_device_is_refused(repo: Path) -> None:
    """A typing error was counted as "no device", and taken back all the same."""
    said = whimbrel("model", "rollback", "wake", "-R", repo, "--yes", "-l", "hardware=zzz")
    assert (said.status, said.out) == (4, "")
    assert "no device with hardware=zzz is known of wake: no device told any of these labels yet" in said.err
    said = whimbrel("model", "rollback", "wake", "-R", repo, "--yes", "-l", "colour=red")
    assert (said.status, "devices do not tell the server their colour" in said.err) == (4, True)
    assert not listed(repo)["2.0.0"]["quarantined"]
    said = whimbrel("model", "rollback", "wake", "-R", repo, "--yes", "-l", "{}")
    assert (said.status, "names no label, so it is every device" in said.err) == (2, True)


def test_labels_take_back_their_devices_alone(repo: Path) -> None:
    some = ("--yes", "-l", "hardware in (pi3,pi4)", "--although-unknown")
    went = done("model", "rollback", "wake", "-R", repo, *some)
    assert went["selector"] == "hardware In pi3,pi4"
    assert "rollback of a slice: hardware In pi3,pi4" in " ".join(whimbrel("audit", "-R", repo).out.split())
    version = listed(repo)["2.0.0"]
    assert (version["baseline"], version["quarantined"][0]["devices"]) == (True, "hardware In pi3,pi4")
    said = whimbrel("model", "rollback", "wake", "-R", repo, "--yes", "-l", "hardware ~ pi3")
    assert (said.status, "is no term of a selector" in said.err) == (2, True)


def test_what_was_taken_back_comes_again_by_a_persons_word_alone(repo: Path, tmp_path: Path) -> None:
    done("model", "rollback", "wake", "-R", repo, "--yes", "--because", "it stutters")
    refused = whimbrel("rollout", "start", plan_file(tmp_path), "-R", repo)
    assert (refused.status, "was taken back before (it stutters)" in refused.err) == (4, True)
    files = model_file(tmp_path, 2)
    same = whimbrel("publish", "-m", "wake", files, "-R", repo, "--semantic-version", "2.0.0")
    assert (same.status, "it was taken back from every device: it stutters" in same.out) == (0, True)
    other = ("publish", "-m", "wake", files, "-R", repo, "--semantic-version", "2.0.1")
    refused = whimbrel(*other)
    assert refused.status == 4
    assert "which was taken back from every device: it stutters. Nothing was published" in refused.err
    done("version", "unquarantine", "2.0.0", "-m", "wake", "-R", repo, "--because", "the microphone", "--yes")
    assert listed(repo)["1.0.0"]["baseline"]
    assert done(*other)["semantic_version"] == "2.0.1"
    assert done("rollout", "start", plan_file(tmp_path), "-R", repo)["state"] == "running"
