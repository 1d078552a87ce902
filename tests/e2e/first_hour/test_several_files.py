"""Models of several files, from `whimbrel publish` to an app that runs them: names, patches, probes, sessions."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import model_files
from support.server import Running, done, serving
from whimbrel import Agent
from whimbrel.agent.options import AgentOptions
from whimbrel.agent.probes import ProbeServer
from whimbrel.device.journal import Journal, unseal

pytestmark = pytest.mark.long

SIZE = 256  # of the square of weights: 256 KiB, so that a patch pays
PLAN = """
rollout:
  model_version: "{model}@{version}"
  stages:
    - {{name: all, target_percent: 100, duration_hours: 1}}
  holdback_percent: 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    done("init", tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture(scope="module")
def probes() -> Iterator[ProbeServer]:
    running = ProbeServer()
    yield running
    running.close()


def added(folder: Path, model: str) -> str:
    done("model", "add", model, "-R", folder, "--refresh-s", 0.2, "--report-s", 0.2)
    return model


def opened(server: Running, home: Path, probes: ProbeServer, *models: str) -> Agent:
    return Agent.open(
        home,
        AgentOptions(
            server=server.devices,
            root=(server.folder / "root.json").read_bytes(),
            enrol_token=(server.folder / "enrol.token").read_text().strip(),
            models=models,
            probes=probes,
        ),
    )


def cycled(agent: Agent, model: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    for _ in range(60):
        found = agent.cycle(force=True).models[model]
        if until(found):
            return found
    raise AssertionError(found)


def answer(path: Path) -> float:
    """What the model makes of ones, by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.ones((1, SIZE), np.float32)})
    return round(float(np.asarray(y)[0, 0]), 3)


def golden(path: Path, factor: float) -> Path:
    ones = np.ones((1, SIZE), np.float32)
    np.savez(path, **{"inputs/x": ones, "outputs/y": ones * np.float32(factor)})
    return path


def exported(folder: Path, factor: float) -> Path:
    """An export with weights in a subfolder, a tokenizer and a README, as a training job leaves it."""
    folder.mkdir(exist_ok=True)
    model_files.onnx_external(folder, factor=factor, size=SIZE, location="weights/model.onnx.data")
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "empty.txt").touch()
    return folder


def test_onnx_with_external_data_is_updated_by_the_file_that_changed(
    folder: Path, probes: ProbeServer, tmp_path: Path
) -> None:
    model, card = added(folder, "external"), tmp_path / "card.yaml"
    first = exported(tmp_path / "one", 2.0)
    golden(tmp_path / "golden.npz", 2.0)
    card.write_text("probe: {golden: golden.npz}\n")
    done("publish", "-m", model, first, "-R", folder, "--card", card, "--semantic-version", "1.0.0")
    with serving(folder) as server, opened(server, tmp_path / "device", probes, model) as agent:
        cycled(agent, model, lambda found: found["serial"] == 1)
        with agent.session(model) as session:
            files = {
                path.relative_to(session.folder).as_posix() for path in session.folder.rglob("*") if path.is_file()
            }
            assert files == {"model.onnx", "weights/model.onnx.data", "tokenizer.json", "empty.txt"}
            assert session.path == session.folder / "model.onnx"
            assert answer(session.path) == 2.0
            session.record(latency_ms=1.0)
        for _ in range(3):
            with agent.session(model) as session:
                session.record(latency_ms=1.0)
        cycled(agent, model, lambda found: found["state"] == "committed")

        exported(tmp_path / "one", 3.0)
        golden(tmp_path / "golden.npz", 3.0)
        said = done("publish", "-m", model, first, "-R", folder, "--card", card, "--semantic-version", "2.0.0")
        patches = [each for each in said["deltas"] if each["from"] != "nothing"]
        assert [each["file"] for each in patches] == ["default/weights/model.onnx.data"]
        assert patches[0]["sha256"], "the patch of the weights does not pay"
        assert patches[0]["size_bytes"] < 0.75 * 4 * SIZE * SIZE, "the graph did not say where the weights lie"
        (tmp_path / "plan.yaml").write_text(PLAN.format(model=model, version="2.0.0"))
        done("rollout", "start", tmp_path / "plan.yaml", "-R", folder)
        cycled(agent, model, lambda found: found["serial"] == 2)
        with agent.session(model) as session:
            assert answer(session.path) == 3.0
            assert (session.folder / "tokenizer.json").read_text() == '{"version": "1.0"}'
        journal = unseal(Journal, (tmp_path / "device" / "models" / model / "journal").read_bytes(), what="the journal")
        assert journal.candidate is not None
        assert journal.candidate.bytes_moved == patches[0]["size_bytes"]
        print(f"weights of {SIZE * SIZE * 4} bytes travelled as a patch of {journal.candidate.bytes_moved} bytes")


def test_probe_opens_the_entry_with_its_siblings_and_refuses_what_answers_wrongly(
    folder: Path, probes: ProbeServer, tmp_path: Path
) -> None:
    model, card = added(folder, "external"), tmp_path / "card.yaml"
    golden(tmp_path / "golden.npz", 5.0)  # the model doubles
    card.write_text("probe: {golden: golden.npz}\n")
    done(
        "publish",
        "-m",
        model,
        exported(tmp_path / "one", 2.0),
        "-R",
        folder,
        "--card",
        card,
        "--no-deltas",
        "--unchecked",
    )
    with serving(folder) as server, opened(server, tmp_path / "device", probes, model) as agent:
        found = cycled(agent, model, lambda found: bool(found["refused"]))
        assert "is wrong in" in str(found["refused"])


def test_two_builds_of_the_same_files_have_probes_of_their_own(
    folder: Path, probes: ProbeServer, tmp_path: Path
) -> None:
    """The first build that has a candidate's files was taken for it, whatever its name."""
    model, card = added(folder, "external"), tmp_path / "card.yaml"
    path = exported(tmp_path / "one", 2.0)
    golden(tmp_path / "right.npz", 2.0)
    golden(tmp_path / "wrong.npz", 9.0)
    card.write_text(
        "probe: {golden: wrong.npz, absolute_tolerance: 0.5}\n"
        "variants: {slow: {probe: {golden: right.npz, latency_ms_max: 5000}}}\n"
    )
    done(
        *("publish", "-m", model, path, path, "-R", folder, "--card", card, "--no-deltas", "--unchecked"),
        *("--variant", "name=fast,hardware=fast", "--variant", "name=slow"),
    )
    release = done("version", "show", "1", "-m", model, "-R", folder)["release"]
    fast, slow = (variant["probe"] for variant in release["variants"])
    assert (fast["absolute_tolerance"], slow["absolute_tolerance"]) == (0.5, 0.5)
    assert (fast.get("latency_ms_max"), slow["latency_ms_max"]) == (None, 5000)
    with serving(folder) as server:
        for hardware, state in (("fast", "quarantined"), ("slow", "on trial")):
            home = tmp_path / hardware
            with opened(server, home, probes, model) as agent:
                agent.close()
            with Agent.open(home, AgentOptions(labels={"hardware": hardware}, probes=probes)) as agent:
                assert (
                    cycled(agent, model, lambda found: found["state"] in {"quarantined", "on trial"})["state"] == state
                )


@pytest.mark.parametrize(
    ("name", "made", "entry"),
    [
        ("shards", model_files.safetensors_sharded, "model-00001-of-00002.safetensors"),
        ("split", model_files.gguf_split, "m-00001-of-00002.gguf"),
        ("program", lambda folder: model_files.executorch(folder / "m.pte"), "m.pte"),
    ],
)
def test_other_models_arrive_whole_under_their_names(
    name: str, made: Callable[[Path], Path], entry: str, folder: Path, probes: ProbeServer, tmp_path: Path
) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    made(blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(os.path.relpath(path, snapshot))
    done("publish", "-m", added(folder, name), snapshot, "-R", folder, "--no-deltas")
    with serving(folder) as server, opened(server, tmp_path / "device", probes, name) as agent:
        cycled(agent, name, lambda found: found["serial"] == 1)
        with agent.session(name) as session:
            assert session.path == session.folder / entry
            here = {path.name: path.read_bytes() for path in session.folder.iterdir()}
            assert here == {path.name: path.read_bytes() for path in blobs.iterdir()}
