"""The versions of a policy from the command line: what each changed, and one that comes back under the next number."""

import shutil
from pathlib import Path

import pytest

from support.server import done, plan_file, repository, whimbrel


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose settings changed, and that had a rollout."""
    folder = repository(tmp_path_factory.mktemp("template") / "repo")
    done("model", "set", "wake", "--charging", "-R", folder)
    rollout = done("rollout", "start", plan_file(folder.parent), "-R", folder)["id"]
    done("rollout", "abort", rollout, "-R", folder)
    done("model", "set", "wake", "--no-charging", "--report-s", 600, "-R", folder)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "repo"))


def sequence_with(folder: Path, words: str) -> int:
    """The number of the policy that changed something."""
    policies = done("policy", "list", "wake", "-R", folder)
    (found,) = [each["sequence"] for each in policies if any(words in change for change in each["changes"])]
    return int(found)


def test_every_policy_is_listed_with_what_it_changed(folder: Path) -> None:
    policies = done("policy", "list", "wake", "-R", folder)
    numbers = [each["sequence"] for each in policies]
    assert numbers == sorted(numbers, reverse=True)
    assert all(each["signed_at"] > 1e9 for each in policies)
    told = [change for each in reversed(policies) for change in each["changes"]]
    for words in ("the baseline is", "while charging", "begins: 5% on", "has no say any more", "report_s is 600.0"):
        assert any(words in change for change in told), words
    assert [each["sequence"] for each in done("policy", "list", "wake", "--limit", 2, "-R", folder)] == numbers[:2]
    said = whimbrel("policy", "list", "wake", "-R", folder)
    assert (said.status, "what changed" in said.out) == (0, True)


def test_a_policy_is_shown_and_compared(folder: Path) -> None:
    charging = sequence_with(folder, "while charging")
    shown = done("policy", "show", "wake", "--sequence", charging, "-R", folder)
    assert shown["policy"]["conditions"] == {"charging": True}
    newest = done("policy", "show", "wake", "-R", folder)
    assert newest["sequence"] > charging
    assert newest["policy"]["report_s"] == 600
    compared = done("policy", "diff", "wake", charging, newest["sequence"], "-R", folder)
    assert compared["changes"] == done("policy", "diff", "wake", charging, "-R", folder)["changes"]
    assert any("at any time" in change for change in compared["changes"])
    assert "both say the same" in whimbrel("policy", "diff", "wake", charging, charging, "-R", folder).out
    assert "the baseline is" in whimbrel("policy", "show", "wake", "-R", folder).out


def test_a_policy_is_restored_under_the_next_number(folder: Path) -> None:
    charging = sequence_with(folder, "while charging")
    newest = done("policy", "show", "wake", "-R", folder)["sequence"]
    said = whimbrel("policy", "restore", "wake", "--sequence", charging, "-R", folder)
    assert (said.status, "give --yes" in said.err) == (4, True)
    answer = done("policy", "restore", "wake", "--sequence", charging, "--yes", "-R", folder)
    assert (answer["restored"], answer["sequence"]) == (charging, newest + 1)
    assert any("while charging" in change for change in answer["changes"])
    after = done("policy", "show", "wake", "-R", folder)
    assert (after["sequence"], after["policy"]["conditions"]) == (newest + 1, {"charging": True})
    assert done("audit", "--action", "restore_policy", "-R", folder)[0]["evidence"]["sequence"] == charging
    said = whimbrel("policy", "restore", "wake", "--sequence", charging, "--yes", "-R", folder)
    assert (said.status, "already" in said.err) == (4, True)


def test_nothing_is_restored_while_a_rollout_runs(folder: Path) -> None:
    charging = sequence_with(folder, "while charging")
    done("rollout", "start", plan_file(folder.parent), "-R", folder)
    said = whimbrel("policy", "restore", "wake", "--sequence", charging, "--yes", "-R", folder)
    assert (said.status, "whimbrel rollout rollback" in said.err) == (4, True)


def test_a_number_that_is_none_is_said_in_one_sentence(folder: Path) -> None:
    said = whimbrel("policy", "show", "wake", "--sequence", 999, "-R", folder)
    assert (said.status, "no policy with sequence 999; see: whimbrel policy list wake" in said.err) == (4, True)
    assert "there is no model 'sleep'" in whimbrel("policy", "list", "sleep", "-R", folder).err
