"""Publishing opens a model as devices will: what cannot work is refused with its reason, and nothing is stored."""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support import model_files
from support.repository import onnx_model
from support.server import done, whimbrel

pytestmark = pytest.mark.long

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d" * 32 + "\nsize 131072\n"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("any") / "repo"
    done("init", folder)
    return folder


@pytest.fixture
def model(repo: Path, request: pytest.FixtureRequest) -> str:
    """A new model of this test's own."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[-60:].strip("-")
    done("model", "add", name, "-R", repo)
    return name


def artifacts(repo: Path) -> set[str]:
    return {path.name for path in (repo / "files" / "default" / "artifacts").rglob("*") if path.is_file()}


def refused(repo: Path, model: str, path: Path, *more: str, status: int = 2) -> str:
    """What publishing says, which must store nothing."""
    before = artifacts(repo)
    answer = whimbrel("publish", "-m", model, path, "-R", repo, "--no-deltas", *more)
    assert answer.status == status, answer
    assert artifacts(repo) == before
    assert done("version", "list", "-m", model, "-R", repo) == []
    return answer.err


def published(repo: Path, model: str, path: Path, *more: object) -> str:
    answer = whimbrel("publish", "-m", model, path, "-R", repo, "--no-deltas", *more)
    assert answer.status == 0, answer
    return answer.out


def onnx_of(node: str, shape: list[int], constant: np.ndarray, *, opset: int = 17, ir_version: int = 8) -> bytes:
    """y = node(x, c)."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node(node, ["x", "c"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(constant.astype(np.float32), "c")],
    )
    opsets = [helper.make_opsetid("", opset)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version).SerializeToString()
    return content


# --- files that are not whole ---


def gguf_cut(folder: Path) -> Path:
    path = model_files.gguf(folder / "cut.gguf")
    path.write_bytes(path.read_bytes()[:-60])
    return path


def pointer(folder: Path) -> Path:
    (folder / "model.onnx").write_text(POINTER)
    return folder / "model.onnx"


def package_with_pointer(folder: Path) -> Path:
    package = model_files.coreml_program(folder)
    next(package.rglob("weight.bin")).write_text(POINTER)
    return package


def package_without_weights(folder: Path) -> Path:
    package = model_files.coreml_program(folder)
    next(package.rglob("weight.bin")).unlink()
    return package


def package_with_cut_weights(folder: Path) -> Path:
    package = model_files.coreml_program(folder)
    weights = next(package.rglob("weight.bin"))
    weights.write_bytes(weights.read_bytes()[:300])
    return package


def one_shard(folder: Path) -> Path:
    return model_files.gguf(folder / "renamed.gguf", shard=(0, 2))


def one_shard_by_name(folder: Path) -> Path:
    return model_files.safetensors(folder / "model-00001-of-00003.safetensors")


def weights_elsewhere(folder: Path) -> Path:
    import onnx

    path = folder / "big.onnx"
    model = onnx.load(model_files.onnx(folder / "small.onnx"))
    onnx.save(model, path, save_as_external_data=True, location="big.onnx.data", size_threshold=0)
    return path


# --- files that do not work ---


def shapes_do_not_fit(folder: Path) -> Path:
    (folder / "shapes.onnx").write_bytes(onnx_of("MatMul", [1, 4], np.ones((5, 4))))
    return folder / "shapes.onnx"


def newer_opset(folder: Path) -> Path:
    (folder / "opset.onnx").write_bytes(onnx_of("Mul", [1, 4], np.ones(4), opset=60))
    return folder / "opset.onnx"


def newer_ir(folder: Path) -> Path:
    (folder / "ir.onnx").write_bytes(onnx_of("Mul", [1, 4], np.ones(4), ir_version=60))
    return folder / "ir.onnx"


def answers_nan(folder: Path) -> Path:
    (folder / "nan.onnx").write_bytes(onnx_of("Mul", [1, 4], np.full(4, np.nan)))
    return folder / "nan.onnx"


Write = Callable[[Path], Path]
NOT_WHOLE: list[tuple[Write, str]] = [
    (gguf_cut, "the file was cut"),
    (package_with_pointer, r"weight\.bin is a Git LFS pointer.*run: git lfs pull"),
    (package_without_weights, r"weight\.bin are missing from the package"),
    (package_with_cut_weights, "they were cut"),
    (one_shard, "shard 1 of 2 of one model"),
    (one_shard_by_name, "shard 1 of 3 of one model"),
    (shapes_do_not_fit, "fails the probe that devices run .with onnxruntime .*Incompatible dimensions"),
    (newer_opset, "is of a newer form .opset, IR version. than the runtime"),
    (newer_ir, "is of a newer form .opset, IR version. than the runtime"),
    (answers_nan, "output 'y' has values that are not finite, for zeros and for random inputs"),
]


@pytest.mark.parametrize(("write", "sentence"), NOT_WHOLE, ids=[each[0].__name__ for each in NOT_WHOLE])
def test_what_cannot_work_is_refused_or_published_unchecked(
    repo: Path, model: str, tmp_path: Path, write: Write, sentence: str
) -> None:
    path = write(tmp_path)
    error = refused(repo, model, path)
    assert re.search(sentence, error), error
    assert error.rstrip().endswith("Nothing was published; --unchecked publishes it as it is")
    out = published(repo, model, path, "--unchecked")
    assert re.search(f"UNCHECKED: .*{sentence}", out), out
    shown = whimbrel("version", "show", "1", "-m", model, "-R", repo).out
    assert re.search(f"UNCHECKED: .*{sentence}", shown), shown


def without_data(folder: Path) -> Path:
    path = weights_elsewhere(folder)
    (folder / "big.onnx.data").unlink()
    return path


def test_files_of_a_model_that_are_not_there_are_named(repo: Path, model: str, tmp_path: Path) -> None:
    error = refused(repo, model, without_data(tmp_path))
    assert "needs 'big.onnx.data' beside it, which is not there" in error


def test_weights_beside_the_model_are_published_and_tried_with_it(repo: Path, model: str, tmp_path: Path) -> None:
    out = published(repo, model, weights_elsewhere(tmp_path))
    assert "with big.onnx.data" in out
    assert "tried here with made-up inputs" in out


def test_a_pointer_is_no_model_whoever_says_so(repo: Path, model: str, tmp_path: Path) -> None:
    for more in ([], ["--unchecked"]):
        error = refused(repo, model, pointer(tmp_path), *more)
        assert "model.onnx is a Git LFS pointer, which stands for 131072 bytes; run: git lfs pull" in error


def test_golden_values_and_a_card_that_are_pointers_are_said(
    repo: Path, model: str, tmp_path: Path, doubling: Path
) -> None:
    (tmp_path / "golden.npz").write_text(POINTER)
    described = card(tmp_path, probe={"golden": "golden.npz"})
    assert "golden.npz is a Git LFS pointer" in refused(repo, model, doubling, "--card", str(described))
    described.write_text(POINTER)
    assert "card.json is a Git LFS pointer" in refused(repo, model, doubling, "--card", str(described))


# --- what only a device's runtime can judge ---


def test_gguf_that_no_library_here_knows_is_published_and_said(repo: Path, model: str, tmp_path: Path) -> None:
    path = model_files.gguf(tmp_path / "big.gguf", big_endian=True)
    assert "note: it is big-endian" in published(repo, model, path)
    newer = model_files.gguf(tmp_path / "newer.gguf", file_type=None)
    entry = b"w" + struct.pack("<IQQI", 2, 4, 8, 1)
    newer.write_bytes(newer.read_bytes().replace(entry, entry[:-4] + struct.pack("<I", 9999)))
    assert "does not know the type of tensors 9999" in published(repo, model, newer)


def test_a_vocabulary_of_a_million_entries_is_published(repo: Path, model: str, tmp_path: Path) -> None:
    out = published(repo, model, model_files.gguf(tmp_path / "large.gguf", tokens=1_000_000))
    assert "large.gguf, gguf" in out


# --- golden values, ranges, budgets ---


def card(folder: Path, **content: object) -> Path:
    (folder / "card.json").write_text(json.dumps(content))
    return folder / "card.json"


def tensor(*values: float) -> dict[str, object]:
    return {"dtype": "float32", "shape": [1, len(values)], "values": values}


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """y = 2x, of four numbers."""
    (tmp_path / "double.onnx").write_bytes(onnx_model())
    return tmp_path / "double.onnx"


@pytest.mark.parametrize(
    ("probe", "sentence"),
    [
        (
            {"inputs": {"x": tensor(1, 2, 3, 4)}, "outputs": {"y": tensor(2, 4, 6, 9)}},
            "output 'y' is wrong in 1 of 4 values, first at 3: 8.0 and not 9.0",
        ),
        ({"output_ranges": {"y": [0, 0.5]}}, "the release says 0 to 0.5, for made-up inputs"),
        ({"latency_ms_max": 1e-6}, "ms an inference; at most|an inference takes .* ms; at most 1e-06 ms"),
    ],
)
def test_what_devices_would_refuse_is_refused_here(
    repo: Path, model: str, tmp_path: Path, doubling: Path, probe: dict[str, object], sentence: str
) -> None:
    assert re.search(sentence, refused(repo, model, doubling, "--card", str(card(tmp_path, probe=probe))))


def test_what_was_tried_is_said(repo: Path, model: str, tmp_path: Path, doubling: Path) -> None:
    out = published(repo, model, doubling)
    assert re.search(r"tried here with made-up inputs: [0-9.e-]+ ms an inference, \d+ MiB of memory", out), out
    golden = {"inputs": {"x": tensor(1, 2, 3, 4)}, "outputs": {"y": tensor(2, 4, 6, 8)}}
    out = published(repo, model, doubling, "--card", card(tmp_path, probe=golden))
    assert "tried here with the probe's inputs" in out
    out = published(repo, model, doubling, "--card", card(tmp_path, probe={"smoke": False}))
    assert "not run here, its structure was checked: the card says smoke: false" in out


def test_golden_values_prove_nothing_where_their_runtime_is_not_installed(
    repo: Path, model: str, tmp_path: Path
) -> None:
    tokens = {"dtype": "int32", "shape": [1, 1], "values": [1]}
    described = card(tmp_path, probe={"inputs": {"tokens": tokens}, "outputs": {"logits": tensor(1)}})
    out = published(repo, model, model_files.gguf(tmp_path / "m.gguf"), "--card", described)
    assert "not run here, its structure was checked: llama_cpp is not installed" in out


def test_a_module_beside_the_model_is_not_imported(
    repo: Path, model: str, tmp_path: Path, doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "onnxruntime", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)\n")
    monkeypatch.chdir(tmp_path)
    assert "tried here with made-up inputs" in published(repo, model, doubling)


# --- the same again, another interface, the pipeline's words ---


def test_the_same_files_and_card_again_change_nothing(repo: Path, model: str, tmp_path: Path, doubling: Path) -> None:
    described = card(tmp_path, metadata={"accuracy": 0.9})
    first = done("publish", "-m", model, doubling, "-R", repo, "--card", described)
    assert not first["already_published"]
    for more in ([], ["--semantic-version", "1.0.0"], ["--unchecked"]):
        again = done("publish", "-m", model, doubling, "-R", repo, "--card", described, *more)
        assert (again["already_published"], again["version"], again["serial"]) == (True, first["version"], 1)
    assert "already published" in published(repo, model, doubling, "--card", described)
    assert len(done("version", "list", "-m", model, "-R", repo)) == 1


def test_another_card_another_number_or_a_revoked_version_is_a_new_version(
    repo: Path, model: str, tmp_path: Path, doubling: Path
) -> None:
    done("publish", "-m", model, doubling, "-R", repo)
    assert done("publish", "-m", model, doubling, "-R", repo, "--semantic-version", "3.0.0")["serial"] == 2
    described = card(tmp_path, metadata={"accuracy": 0.9})
    assert done("publish", "-m", model, doubling, "-R", repo, "--card", described)["serial"] == 3
    done("version", "retire", "3.0.1", "-m", model, "--yes", "-R", repo)
    assert done("publish", "-m", model, doubling, "-R", repo, "--card", described)["serial"] == 4


def test_another_interface_is_refused_unless_it_is_meant(
    repo: Path, model: str, tmp_path: Path, doubling: Path
) -> None:
    published(repo, model, doubling)
    other = tmp_path / "other.onnx"
    other.write_bytes(onnx_model(size=5))
    answer = whimbrel("publish", "-m", model, other, "-R", repo)
    assert answer.status == 4
    assert "its input 'x' was float32 1x4 and becomes float32 1x5" in answer.err
    assert "publish it with --interface-change" in answer.err
    assert "serial 2" in published(repo, model, other, "--interface-change")


def test_a_wrong_precision_is_refused(repo: Path, model: str, doubling: Path) -> None:
    error = refused(repo, model, doubling, "--variant", "precision=int8")
    assert "double.onnx: the variant's precision is int8, and most weights of the file are fp32" in error
    assert "serial 1" in published(repo, model, doubling, "--variant", "precision=float32")


def test_the_pipelines_own_words_are_kept_shown_and_checked(
    repo: Path, model: str, tmp_path: Path, doubling: Path
) -> None:
    described = card(
        tmp_path,
        build_hash="a1b2c3",
        framework="pytorch_2.1",
        target_hardware=["pi-4", "pi-5"],
        metadata={"training_samples": 2347891},
    )
    error = refused(repo, model, doubling, "--card", str(described), "--variant", "hardware=jetson", status=4)
    assert "is for hardware=jetson, and the card's target_hardware is pi-4, pi-5" in error
    out = published(repo, model, doubling, "--card", described)
    assert "target_hardware chooses no devices; --variant hardware=NAME does" in out
    shown = whimbrel("version", "show", "1", "-m", model, "-R", repo).out
    for line in (
        "training: the pipeline's build_hash = a1b2c3",
        "training: framework = pytorch_2.1",
        "training: target_hardware = pi-4, pi-5",
        "metrics: training_samples = 2347891\n",
    ):
        assert line in shown
