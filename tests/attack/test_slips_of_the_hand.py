"""Attack: a person who is in a hurry, or is told what to type: one slip must not cost a key, a way in, or a fleet."""

import shutil
from pathlib import Path

import pytest

from support.server import Said, done, repository, whimbrel


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that no test changes."""
    return repository(tmp_path_factory.mktemp("same") / "repo", versions=1)


@pytest.fixture
def repo(same: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(same, tmp_path / "repo"))


def refused(*arguments: object, status: int, words: str) -> Said:
    said = whimbrel(*arguments)
    assert (said.status, words in said.err) == (status, True), said
    return said


def keyid_of(repo: Path, role: str) -> str:
    (state,) = [each for each in done("keys", "status", "-R", repo)["roles"] if each["role"] == role]
    return str(state["keys"][0]["keyid"])


def test_one_letter_names_no_key(same: Path) -> None:
    """`keys revoke publisher-wake 3` took whichever key began with 3."""
    whole = keyid_of(same, "publisher-wake")
    for slip in (whole[:1], whole[:5]):
        refused("keys", "revoke", "publisher-wake", slip, "-R", same, status=2, words="is too short to name a key")
    refused("keys", "revoke", "publisher-wake", "abcdef", "-R", same, status=4, words=f"it has: {whole[:8]}")
    refused("keys", "rotate", "root", "--key", "ab", "-R", same, status=2, words="give at least 6 characters of")


def test_the_only_key_of_a_role_is_not_revoked(same: Path) -> None:
    """It said that 1 of 0 keys would have to sign."""
    for role in ("root", "publisher-wake"):
        words = f"is the only key of {role}, and nobody could sign it any more; replace it with: whimbrel keys rotate"
        refused("keys", "revoke", role, keyid_of(same, role)[:8], "--yes", "-R", same, status=4, words=words)


def test_a_draft_that_is_in_already_is_not_submitted_again(repo: Path, tmp_path: Path) -> None:
    """It said "somebody was first; try again", which a person then did."""
    offline, draft, late = repo / "keys" / "offline", tmp_path / "renew.json", tmp_path / "late.json"
    done("keys", "renew", "targets", "--draft", late, "-R", repo)
    done("keys", "renew", "root", "--draft", draft, "-R", repo)
    for each in (draft, late):
        done("keys", "sign", each, "--keys", offline, "--trusted-root", repo / "root.json", "--yes")
    done("keys", "submit", draft, "--yes", "-R", repo)
    refused("keys", "submit", draft, "-R", repo, status=4, words="was submitted already, and devices follow it")
    done("keys", "renew", "targets", "--yes", "-R", repo)
    refused("keys", "submit", late, "--yes", "-R", repo, status=4, words="another change came first")


def test_who_signs_without_a_root_to_trust_is_warned(repo: Path, tmp_path: Path) -> None:
    """With --yes nothing was said, and a forged past made a harmless change out of a harmful one."""
    mine, draft = tmp_path / "mine", tmp_path / "renew.json"
    shutil.copytree(repo / "keys" / "offline", mine)
    (mine / "trusted-root").unlink(missing_ok=True)
    done("keys", "renew", "root", "--draft", draft, "-R", repo)
    known = tmp_path / "known.json"
    shutil.copy(draft, known)
    untold = tmp_path / "untold.json"
    shutil.copy(draft, untold)
    first = whimbrel("keys", "sign", draft, "--keys", mine, "--yes")
    assert (first.status, "WARNING: nothing here says that root version 1 is yours" in first.err) == (0, True)
    (mine / "trusted-root").unlink()
    given = whimbrel("keys", "sign", known, "--keys", mine, "--trusted-root", repo / "root.json", "--yes")
    assert (given.status, given.err) == (0, "")
    (mine / "trusted-root").unlink()
    told = done("keys", "sign", untold, "--keys", mine, "--yes")
    assert "nothing here says that root version 1 is yours" in told["warning"]


def test_a_private_key_is_no_public_half(same: Path) -> None:
    """`keys add ROLE private.pem` said `JSON is malformed`, after which the file was passed on by mail."""
    private = same / "keys" / "offline" / "root.pem"
    refused("keys", "add", "root", private, "-R", same, status=2, words="is a private key, which its owner hands to")


@pytest.mark.parametrize(
    "command",
    [
        ("enrol-token", "revoke", "nothing"),
        ("token", "revoke", "nothing"),
        ("device", "remove", "nothing"),
        ("device", "allow-again", "nothing"),
        ("version", "retire", "9.9.9", "--model", "wake"),
        ("version", "revoke", "9.9.9", "--model", "wake"),
        ("version", "unquarantine", "9.9.9", "--model", "wake", "--because", "a slip"),
        ("model", "rollback", "nothing"),
        ("floor", "lift", "wake"),
        ("floor", "require", "nothing", "--expires-days", "9"),
        ("policy", "restore", "wake", "--sequence", "999"),
        ("keys", "revoke", "publisher-nothing", "abcdef"),
        ("keys", "submit", "nothing.json"),
    ],
    ids=" ".join,
)
def test_what_does_not_exist_is_said_before_anybody_is_asked(same: Path, command: tuple[str, ...]) -> None:
    """A person said yes to something irreversible, and then read that there was no such thing."""
    said = whimbrel(*command, "-R", same)
    assert said.status in {2, 4}, said
    assert "--yes" not in said.err
    assert " no " in said.err, said


def test_a_reason_and_a_question_go_with_what_costs_a_fleet(repo: Path) -> None:
    refused("floor", "require", "wake", "--expires-days", 9, "-R", repo, status=4, words="give --yes to do it")
    replace = ("keys", "replace-token-key", "--at-once", "--because", "it lay in a backup")
    refused(*replace, "-R", repo, status=4, words="give --yes to do it")
    done(*replace, "--yes", "-R", repo)
    newest = done("audit", "list", "--limit", 1, "-R", repo)[0]
    assert newest["because"] == "tokens of the old key are refused at once: it lay in a backup"
