"""`whimbrel delta` as a person or a script sees it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from support.delta import model, safetensors
from whimbrel.cli.delta import app


@pytest.fixture
def files(tmp_path):
    before, after = model(np.random.default_rng(5), "f16", 1200, 512)
    (tmp_path / "base").write_bytes(safetensors(before))
    (tmp_path / "target").write_bytes(safetensors(after))
    run(tmp_path, "encode", "base", "target", "patch")
    return tmp_path


def run(folder, command, *arguments):
    paths = [
        argument if argument.startswith("-") or argument.isdigit() else str(folder / argument) for argument in arguments
    ]
    result = CliRunner().invoke(app, [command, *paths])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_encode_prints_what_scripts_need(files):
    found = json.loads(run(files, "encode", "base", "target", "again", "--json"))
    assert found["patch_bytes"] == (files / "again").stat().st_size
    assert found["target_bytes"] == (files / "target").stat().st_size
    assert found["ratio"] == pytest.approx(found["patch_bytes"] / found["target_bytes"], abs=1e-6)
    assert found["seconds"] > 0


def test_encode_says_what_kind_of_change_it_is_when_asked(files):
    assert "This looks like a full fine-tune" in run(files, "encode", "base", "target", "again", "--advise")
    found = json.loads(run(files, "encode", "base", "target", "again", "--advise", "--json"))
    assert found["advice"]["kind"] == "a full fine-tune"


def test_apply_makes_the_target(files):
    found = json.loads(run(files, "apply", "base", "patch", "out", "--json", "--threads", "2", "--memory", "64"))
    assert found["target_bytes"] == (files / "target").stat().st_size
    assert (files / "out").read_bytes() == (files / "target").read_bytes()


def test_inspect_has_a_line_a_tensor(files):
    found = json.loads(run(files, "inspect", "patch", "--json"))
    lines = {line["name"]: line for line in found["ranges"]}
    assert {name: line["mode"] for name, line in lines.items() if name[0] != "("} == {
        "embed": "float",
        "dense": "float",
        "bias": "float",
    }
    assert sum(line["target_bytes"] for line in found["ranges"]) == found["target_bytes"]
    assert "dense" in run(files, "inspect", "patch")


def test_wrong_base_is_said_on_stderr_with_its_exit_code(files):
    command = [sys.executable, "-m", "whimbrel.cli.delta", "apply", files / "target", files / "patch", files / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the patch is for another base" in done.stderr
    assert done.stdout == ""
    assert not (files / "out").exists()


def test_help_of_every_command_says_what_it_does():
    for command in ("encode", "apply", "inspect"):
        assert "PATCH" in CliRunner().invoke(app, [command, "--help"]).stdout


def test_whimbrel_itself_needs_no_numpy():
    code = "import sys, whimbrel, whimbrel.errors, whimbrel.cli.delta; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
