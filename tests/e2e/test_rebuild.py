"""A version is made again by its recipe, and compared by digests; and what a recipe cannot do."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from support.repository import onnx_model
from support.server import Said, done, repository, whimbrel

pytestmark = pytest.mark.long
MODEL = onnx_model(factor=3.0)
DIGEST = hashlib.sha256(MODEL).hexdigest()
COMMANDS = {  # by semantic version; the input `weights.bin` is the model itself
    "2.0.0": (sys.executable, "-c", "import shutil; shutil.copy('weights.bin', 'wake.onnx')"),
    "3.0.0": (sys.executable, "-c", "open('wake.onnx', 'w').write('other')"),
    "4.0.0": (sys.executable, "-c", "import sys; print('no data'); sys.exit(3)"),
    "5.0.0": ("no-such-program-here",),
    "6.0.0": ("ln", "-s", "weights.bin", "wake.onnx"),  # a link is no file that it made
}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a version for each recipe."""
    place = tmp_path_factory.mktemp("rebuild")
    made, team = repository(place / "repo", versions=1), place / "team"
    handed_over(team)
    (recipe := team / "recipe.yaml").touch()
    for version, command in COMMANDS.items():
        recipe.write_text(f"command: {json.dumps(command)}\ninputs: [weights.bin]\noutputs: [wake.onnx]\n")
        options = ("--recipe", recipe, "--semantic-version", version, "--no-deltas")
        done("publish", "-m", "wake", team / "wake.onnx", *options, "-R", made)
    return made


def handed_over(folder: Path) -> Path:
    """A folder with the model and the recipe's input."""
    folder.mkdir()
    (folder / "wake.onnx").write_bytes(MODEL)
    (folder / "weights.bin").write_bytes(MODEL)
    return folder


@pytest.fixture
def team(tmp_path: Path) -> Path:
    return handed_over(tmp_path / "team")


def rebuild(repo: Path, version: str, inputs: Path, *options: object) -> Said:
    return whimbrel("version", "rebuild", version, "-m", "wake", "--inputs", inputs, "-R", repo, *options)


def test_the_same_bytes_are_the_same(repo: Path, team: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    answer = rebuild(repo, "2.0.0", team, "--keep", kept, "--yes", "--json")
    assert answer.status == 0, answer
    (compared,) = answer.json["files"]
    assert (compared["result"], compared["published"], compared["rebuilt"]) == ("same", DIGEST, DIGEST)
    assert sorted(each.name for each in kept.iterdir()) == ["wake.onnx", "weights.bin"]
    assert "exists already" in rebuild(repo, "2.0.0", team, "--keep", kept, "--yes").err


def test_other_bytes_differ(repo: Path, team: Path) -> None:
    answer = rebuild(repo, "3.0.0", team, "--yes", "--json")
    assert (answer.status, answer.json["same"]) == (1, False)
    assert [(each["result"], each["rebuilt"]) for each in answer.json["files"]] == [
        ("differs", hashlib.sha256(b"other").hexdigest())
    ]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("4.0.0", "status 3"),
        ("5.0.0", "did not start: there is no program"),
        ("6.0.0", "does not make the same bytes"),
    ],
)
def test_what_a_command_does_not_make_is_missing(repo: Path, team: Path, version: str, words: str) -> None:
    answer = rebuild(repo, version, team, "--yes")
    assert answer.status == 1
    assert words in answer.out
    assert "missing" in answer.out
    assert "Traceback" not in answer.out + answer.err


def test_an_input_that_differs_runs_nothing(repo: Path, team: Path, tmp_path: Path) -> None:
    (team / "weights.bin").write_bytes(b"poisoned")
    answer = rebuild(repo, "2.0.0", team, "--yes")
    assert answer.status == 2
    assert "'weights.bin' has the SHA-256" in answer.err
    assert "Nothing was run" in answer.err
    assert "--inputs DIR" in " ".join(rebuild(repo, "2.0.0", tmp_path, "--yes").err.split())


def test_nothing_runs_without_consent(repo: Path, team: Path) -> None:
    answer = rebuild(repo, "2.0.0", team)
    assert answer.status != 0
    assert "runs code of its publisher's on this machine" in " ".join(answer.err.split())
    assert "no recipe of wake" in rebuild(repo, "1", team, "--yes").err
