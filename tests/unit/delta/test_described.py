"""Weights in a file beside their graph are patched as tensors: the graph says where they lie."""

from pathlib import Path

import numpy as np
import pytest

from support import model_files
from whimbrel.delta.artifact import Artifact, Description, Member
from whimbrel.delta.containers import find
from whimbrel.model.documents import digest_of
from whimbrel.patchfile import Described, apply_files, encode_files

SIZE = 256


def exported(folder: Path, *, noise: float) -> tuple[Path, Path]:
    """A graph, and its weights in a subfolder: every number differs with `noise`, as after a fine-tuning."""
    import onnx
    from onnx import numpy_helper

    folder.mkdir()
    graph = model_files.onnx_external(folder, size=SIZE, location="weights/w.bin")
    model = onnx.load(graph)
    weights = numpy_helper.to_array(model.graph.initializer[0])
    moved = weights + np.random.default_rng(2).normal(0, noise, weights.shape).astype(np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(moved.astype(np.float32), "w"))
    (folder / "weights" / "w.bin").unlink()
    onnx.save(model, graph, save_as_external_data=True, location="weights/w.bin", size_threshold=0)
    return graph, folder / "weights" / "w.bin"


def test_patch_of_weights_beside_a_graph_is_one_of_tensors_and_applies_without_the_graph(tmp_path: Path) -> None:
    (one, base), (two, target) = (exported(tmp_path / name, noise=noise) for name, noise in (("1", 0.0), ("2", 1e-4)))
    alone = encode_files(base, target, tmp_path / "alone").patch_bytes
    described = Described(one, "weights/w.bin"), Described(two, "weights/w.bin")
    patched = encode_files(base, target, tmp_path / "patch", described=described).patch_bytes
    print(f"{patched} bytes of {target.stat().st_size}; as plain bytes {alone}")
    assert patched < 0.75 * alone
    digest = digest_of(target.read_bytes())
    apply_files(base, tmp_path / "patch", tmp_path / "out", expect_sha256=bytes.fromhex(digest))
    assert (tmp_path / "out").read_bytes() == target.read_bytes()


@pytest.mark.parametrize("path", ["weights/w.bin", "w.bin", "../weights/w.bin", "", "weights"])
def test_graph_that_speaks_of_another_file_describes_nothing(path: str, tmp_path: Path) -> None:
    graph, weights = exported(tmp_path / "1", noise=0.0)
    member, spoken = (Member("", len(each), lambda at, size, each=each: each[at : at + size]) for each in (
        weights.read_bytes(), graph.read_bytes()))  # fmt: skip
    tensors = find(Artifact([member], description=Description(spoken, path)))
    assert [tensor.size_bytes for tensor in tensors] == ([4 * SIZE * SIZE] if path == "weights/w.bin" else [])


def test_hostile_description_is_plain_bytes_and_no_error(tmp_path: Path) -> None:
    graph, weights = exported(tmp_path / "1", noise=0.0)
    content = graph.read_bytes()
    member = Member("", weights.stat().st_size - 1, lambda at, size: weights.read_bytes()[at : at + size])
    for size in range(0, len(content) + 1, 5):
        spoken = Member("", size, lambda at, length, size=size: content[: min(size, at + length)][at:])
        assert find(Artifact([member], description=Description(spoken, "weights/w.bin"))) == []
