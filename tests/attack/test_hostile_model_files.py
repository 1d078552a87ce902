"""A model file that is made to harm costs a sentence: no crash, no hang, no flood."""

import os
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from support import model_files
from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import encode
from whimbrel.stores.inspection import inspect, recognise

WRITERS = [model_files.onnx, model_files.tflite, model_files.gguf, model_files.safetensors]


def _refusal(path: Path) -> str:
    with pytest.raises(UntrustedInput) as caught:
        inspect(path)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 1000
    return said


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"hello world, this is no model" * 9, b"\x89PNG\r\n", b"version https://git" * 9]
)
def test_what_is_no_model_is_refused_by_its_first_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    said = _refusal(tmp_path / "model.onnx")
    assert "expected GGUF, ONNX" in said or "none of GGUF, ONNX" in said


@pytest.mark.parametrize("write", WRITERS)
def test_truncated_models_are_refused(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    content = write(tmp_path / "good").read_bytes()
    for share in (0.2, 0.6, 0.9):
        (tmp_path / "bad").write_bytes(content[: int(len(content) * share)])
        _refusal(tmp_path / "bad")


@pytest.mark.parametrize("write", WRITERS)
def test_flipped_bits_are_refused_or_read_within_bounds(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    content = write(tmp_path / "good").read_bytes()
    chance = random.Random(11)
    for _ in range(5):
        bad = bytearray(content)
        for _ in range(8):
            bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        (tmp_path / "bad").write_bytes(bad)
        with suppress(UntrustedInput):
            assert len(encode(inspect(tmp_path / "bad"))) <= limits.DOCUMENT_BYTES


@pytest.mark.parametrize(
    "head",
    [b"GGUF\x03\0\0\0", b"\x20\0\0\0TFL3", struct.pack("<Q", 500) + b'{"'],
    ids=["gguf", "tflite", "safetensors"],
)
def test_random_bytes_behind_a_right_beginning_are_refused(tmp_path: Path, head: bytes) -> None:
    for seed in range(2):
        (tmp_path / "bad").write_bytes(head + random.Random(seed).randbytes(2000))
        _refusal(tmp_path / "bad")


def test_random_bytes_are_hardly_ever_taken_for_a_model(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    taken = 0
    for seed in range(500):
        path.write_bytes(random.Random(seed).randbytes(200))
        with suppress(UntrustedInput):
            recognise(path)
            taken += 1
    assert taken == 0


def test_gguf_that_claims_two_to_the_sixty_tensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60))
    _refusal(tmp_path / "bad")


def test_onnx_with_a_tensor_of_an_exbibyte_is_read_without_making_it(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(model_files.onnx(tmp_path / "good"))
    model.graph.initializer[0].dims[:] = [2**30, 2**30]
    (tmp_path / "bad").write_bytes(model.SerializeToString())
    with suppress(UntrustedInput):
        inspect(tmp_path / "bad")


def test_onnx_with_a_megabyte_of_a_name_is_refused(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(model_files.onnx(tmp_path / "good"))
    model.graph.input[0].name = model.graph.node[0].input[0] = "x" * limits.MIB
    (tmp_path / "bad").write_bytes(model.SerializeToString())
    assert "a name of 1048576 characters" in _refusal(tmp_path / "bad")


def test_metadata_without_end_is_cut(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(model_files.onnx(tmp_path / "good"))
    onnx.helper.set_model_props(model, {f"key{n:05}" * 50: "long" * 5000 for n in range(500)})
    (tmp_path / "big").write_bytes(model.SerializeToString())
    metadata = inspect(tmp_path / "big").metadata
    assert len(metadata) <= limits.INSPECTED_KEYS
    assert all(len(key) <= 128 and len(value) <= limits.INSPECTED_TEXT_CHARS for key, value in metadata.items())


def test_core_ml_package_that_points_outside_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "m.mlpackage"
    package.mkdir()
    (package / "Manifest.json").write_text(
        '{"fileFormatVersion": "1.0.0", "itemInfoEntries": {"a": {"author": "x", "description": "x", "name": "x", '
        '"path": "../../../../../../etc/passwd"}}, "rootModelIdentifier": "a"}'
    )
    _refusal(package)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("os.abort()", "died of signal 6"),
        ("bytearray(2**45)", "MiB of memory"),
        ("print('x' * 2**26)", "refuses it"),
        ("time.sleep(60)", "took more than 2 s"),
        ("raise RecursionError('a\\nb')", "RecursionError: a b"),
        ("raise ValueError('\\x1b[2J')", "ValueError: ?[2J"),
    ],
    ids=["aborts", "eats memory", "prints without end", "hangs", "raises", "clears the screen"],
)
def test_a_library_that_misbehaves_takes_only_its_child_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str, said: str
) -> None:
    path = model_files.gguf(tmp_path / "tiny")
    (tmp_path / "gguf.py").write_text(f"import os, time\n{deed}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(limits, "INSPECTION_WALL_S", 2.0)
    assert said in _refusal(path)


def test_gguf_that_claims_texts_without_end_is_refused_at_once(tmp_path: Path) -> None:
    key = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 2**60)
    (tmp_path / "bad").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + bytes(4096))
    assert "texts together" in _refusal(tmp_path / "bad")


def test_weights_of_core_ml_with_a_name_that_clears_the_screen_are_refused_in_print(tmp_path: Path) -> None:
    package = model_files.coreml_program(tmp_path)
    model = next(package.rglob("model.mlmodel"))
    name = b"weights/weight.bin"
    assert name in model.read_bytes()
    model.write_bytes(model.read_bytes().replace(name, b"\x1b[2J".ljust(len(name), b"x")))
    assert "are missing from the package" in _refusal(package)
