"""Golden values come from a file that is believed no more than any other."""

import io
import random
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model.documents import encode
from whimbrel.model.release import Probe, Tensor
from whimbrel.stores.golden_file import read_golden

GOLDEN = Probe(
    inputs={"x": Tensor(dtype="float32", shape=(1, 2), values=(0.5, 1.0))},
    outputs={"label": Tensor(dtype="int64", shape=(1,), values=(3,))},
)


def _npz(path: Path, **arrays: object) -> Path:
    np.savez_compressed(path, **{key.replace("__", "/"): value for key, value in arrays.items()})
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(UntrustedInput) as caught:
        read_golden(path)
    return str(caught.value)


def test_npz_is_read(tmp_path: Path) -> None:
    x, label = np.array([[0.5, 1]], np.float32), np.array([3])
    assert read_golden(_npz(tmp_path / "golden.npz", inputs__x=x, outputs__label=label)) == GOLDEN


def test_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "golden.json").write_bytes(encode(GOLDEN))
    assert read_golden(tmp_path / "golden.json") == GOLDEN


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="check the path that the card names"):
        read_golden(tmp_path / "golden.npz")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    array = np.array([{"a": 1}], dtype=object)
    assert "no whole .npz" in _refusal(_npz(tmp_path / "golden.npz", inputs__x=array, outputs__y=array))


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    zeros = np.zeros(40_000_000, np.uint8)
    path = _npz(tmp_path / "golden.npz", inputs__x=zeros, outputs__y=zeros)
    assert path.stat().st_size < 200_000
    assert "unpacks to more than" in _refusal(path)


def test_an_array_that_claims_a_tebibyte_is_not_made(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**37,)})
    with zipfile.ZipFile(tmp_path / "golden.npz", "w") as archive:
        archive.writestr("inputs/x.npy", header.getvalue())
    assert "golden.npz" in _refusal(tmp_path / "golden.npz")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros(1)}, "expected names such as inputs/x"),
        ({"inputs__x": np.zeros(1)}, "no golden inputs or no outputs"),
        ({"inputs__x": np.array([1j]), "outputs__y": np.zeros(1)}, "is of type complex128"),
        ({"inputs__x": np.array([np.nan]), "outputs__y": np.zeros(1)}, "not finite"),
        ({"inputs__x": np.zeros(200_001), "outputs__y": np.zeros(1)}, "holds 200001 values"),
        ({"inputs__x": np.zeros(150_000), "outputs__y": np.zeros(150_000)}, "holds 300000 values"),
    ],
)
def test_what_no_release_can_hold_is_refused(tmp_path: Path, arrays: dict[str, object], said: str) -> None:
    assert said in _refusal(_npz(tmp_path / "golden.npz", **arrays))


@pytest.mark.parametrize("content", [b"", b"x", b"PK", b"PK\x03\x04" + bytes(100), b"[]", b'{"inputs": 1}'])
def test_what_is_no_golden_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "golden.npz").write_bytes(content)
    assert "golden.npz" in _refusal(tmp_path / "golden.npz")


def test_damaged_npz_is_refused_or_read(tmp_path: Path) -> None:
    path = _npz(tmp_path / "golden.npz", inputs__x=np.arange(99.0), outputs__y=np.arange(9))
    content = path.read_bytes()
    chance = random.Random(5)
    for _ in range(200):
        bad = bytearray(content)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        with suppress(UntrustedInput):
            read_golden(path)


def test_truncated_npz_is_refused(tmp_path: Path) -> None:
    path = _npz(tmp_path / "golden.npz", inputs__x=np.arange(99.0), outputs__y=np.arange(9))
    content = path.read_bytes()
    for size in range(0, len(content), 41):
        path.write_bytes(content[:size])
        _refusal(path)
