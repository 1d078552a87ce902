"""A model of several files is read as one: what is missing beside its entry, or cut, is found on the device."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from support import model_files
from whimbrel import limits
from whimbrel.agent.probes import ProbeServer
from whimbrel.agent.probes.formats import PROBES
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.model.formats import HEAD_BYTES, Format, recognise_file
from whimbrel.model.release import Probe, Tensor

SEVERAL: dict[Format, Callable[[Path], Path]] = {
    "onnx": model_files.onnx_external,
    "safetensors": model_files.safetensors_sharded,
    "gguf": model_files.gguf_split,
}


@pytest.fixture(scope="module")
def server() -> Iterator[ProbeServer]:
    running = ProbeServer()
    yield running
    running.close()


def probed(server: ProbeServer, path: Path, kind: Format, probe: Probe | None = None) -> ProbeResult:
    return server.probe(ProbeRequest(path=str(path), format=kind, signature=None, probe=probe))


@pytest.mark.parametrize("kind", SEVERAL)
def test_entry_names_all_files_of_its_model_the_entry_first(kind: Format, tmp_path: Path) -> None:
    path = SEVERAL[kind](tmp_path)
    parts = PROBES[kind].parts(path)
    assert parts[0] == path.name
    assert sorted(parts) == sorted(each.name for each in tmp_path.iterdir())
    PROBES[kind].structure(path)


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_any_shard_names_the_same_files(kind: Format, tmp_path: Path) -> None:
    path = SEVERAL[kind](tmp_path)
    parts = PROBES[kind].parts(path)
    assert PROBES[kind].parts(path.with_name(parts[1])) == parts


@pytest.mark.parametrize("kind", SEVERAL)
def test_probe_passes_with_all_files_and_fails_without_one(kind: Format, tmp_path: Path, server: ProbeServer) -> None:
    path = SEVERAL[kind](tmp_path)
    assert probed(server, path, kind).passed
    missing = path.with_name(PROBES[kind].parts(path)[1])
    missing.unlink()
    result = probed(server, path, kind)
    assert not result.passed
    assert missing.name in result.reason


@pytest.mark.parametrize("kind", SEVERAL)
def test_file_beside_the_entry_that_was_cut_is_found(kind: Format, tmp_path: Path, server: ProbeServer) -> None:
    path = SEVERAL[kind](tmp_path)
    beside = path.with_name(PROBES[kind].parts(path)[1])
    beside.write_bytes(beside.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"ends? at byte|lies at"):
        PROBES[kind].structure(path)
    assert not probed(server, path, kind).passed


def test_weights_in_another_file_are_run_with_golden_values(tmp_path: Path, server: ProbeServer) -> None:
    path = model_files.onnx_external(tmp_path, factor=3.0)
    ones, threes = (Tensor("float32", (1, 64), (value,) * 64) for value in (1.0, 3.0))
    result = probed(server, path, "onnx", Probe(inputs={"x": ones}, outputs={"y": threes}))
    assert (result.passed, result.how) == (True, "ran"), result.reason
    assert not probed(server, path, "onnx", Probe(inputs={"x": ones}, outputs={"y": ones})).passed


@pytest.mark.parametrize("location", ["../outside.data", "/etc/passwd", "a/../../outside.data"])
def test_weights_outside_of_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    import onnx

    path = model_files.onnx_external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    for check in (PROBES["onnx"].structure, PROBES["onnx"].parts):
        with pytest.raises(ValueError, match="outside of its folder"):
            check(path)


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"encoder.weight": "../model-00001-of-00002.safetensors"}, None),
        ({"encoder.weight": "model-00001-of-00002.safetensors", "x": "model-00003.safetensors"}, "not beside it"),
        ({"encoder.weight": "model-00001-of-00002.safetensors", "x": "../x.safetensors"}, "not beside it"),
        ({"other": "model-00001-of-00002.safetensors"}, "'other' lies in"),
        (["model-00001-of-00002.safetensors"], "no index of tensors"),
    ],
)
def test_index_that_does_not_fit_its_shards_is_refused(weight_map: object, reason: str | None, tmp_path: Path) -> None:
    path = model_files.safetensors_sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    if reason is None:  # an index of other files
        assert PROBES["safetensors"].parts(path) == (path.name,)
        return
    with pytest.raises(ValueError, match=reason):
        PROBES["safetensors"].structure(path)


def test_executorch_program_is_recognised_and_probed(tmp_path: Path, server: ProbeServer) -> None:
    path = model_files.executorch(tmp_path / "m.pte")
    content = path.read_bytes()
    assert recognise_file(content[:HEAD_BYTES], len(content), lambda at, size: content[at : at + size]) == "executorch"
    result = probed(server, path, "executorch")
    assert (result.passed, result.how) == (True, "structure"), result.reason


def test_executorch_program_that_was_cut_or_changed_is_refused(tmp_path: Path) -> None:
    path = model_files.executorch(tmp_path / "m.pte")
    content = path.read_bytes()
    for size in range(8, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"\w"):
            PROBES["executorch"].structure(path)
    chance = np.random.default_rng(5)
    for _ in range(300):  # whatever the bytes, no other error, no hang
        bad = bytearray(content)
        for place in chance.integers(8, len(bad) - 100, 4):
            bad[place] = chance.integers(256)
        path.write_bytes(bad)
        with contextlib.suppress(ValueError):
            PROBES["executorch"].structure(path)


def test_executorch_program_without_an_extended_header_has_no_segments(tmp_path: Path) -> None:
    path = model_files.executorch(tmp_path / "m.pte")
    content = path.read_bytes()
    root = int.from_bytes(content[:4], "little") - 24
    path.write_bytes(root.to_bytes(4, "little") + content[4:8] + content[32:])
    with pytest.raises(ValueError, match="a segment of its data"):
        PROBES["executorch"].structure(path)


def test_extended_header_of_an_executorch_program_is_believed_within_the_file_only(tmp_path: Path) -> None:
    path = model_files.executorch(tmp_path / "m.pte")
    content = path.read_bytes()
    size = len(content)

    def problem(at: int, value: int, width: int) -> str:
        path.write_bytes(content[:at] + value.to_bytes(width, "little") + content[at + width :])
        try:
            PROBES["executorch"].structure(path)
        except ValueError as error:
            return str(error)
        return ""

    program, base = (int.from_bytes(content[at : at + 8], "little") for at in (16, 24))
    assert problem(12, 24, 4) == ""
    assert problem(12, 23, 4) == "its extended header says that it has 23 bytes; it has at least 24"
    for value in (7, size + 1, program + 2**56):  # the last: no byte of the number is left out
        assert problem(16, value, 8) == (
            f"its program has {value} bytes and its data begin at {base}; the file has {size} bytes"
        )
    assert problem(16, size, 8) == ""
    for value in (size + 1, base + 2**56):
        assert problem(24, value, 8) == (
            f"its program has {program} bytes and its data begin at {value}; the file has {size} bytes"
        )
    assert problem(24, size, 8).startswith("a segment of its data ends at byte ")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_all_files_of_a_split_gguf_model_are_named_and_no_other(number: int) -> None:
    names = [f"m-0000{each}-of-00003.gguf" for each in (1, 2, 3)]
    assert list(PROBES["gguf"].parts(Path(f"m-0000{number}-of-00003.gguf"))) == names
    assert PROBES["gguf"].parts(Path("m.gguf")) == ("m.gguf",)


def test_a_split_gguf_model_with_a_number_that_cannot_be_is_refused() -> None:
    most = limits.FILES
    assert len(PROBES["gguf"].parts(Path(f"m-00001-of-{most:05d}.gguf"))) == most
    for name in ("m-00000-of-00003.gguf", "m-00004-of-00003.gguf", f"m-00001-of-{most + 1:05d}.gguf"):
        with pytest.raises(ValueError, match=r"\w"):
            PROBES["gguf"].parts(Path(name))
