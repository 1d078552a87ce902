"""Which published files a signature covers; each objection names the file and both digests."""

from pathlib import Path

import pytest

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.interop.model_signing.bundle import _check_depth, read_bundle
from whimbrel.interop.model_signing.coverage import Contents, contents_of, uncovered
from whimbrel.interop.model_signing.signature import read_anchor
from whimbrel.model.documents import digest_of
from whimbrel.model.release import File

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
FILE = Contents("m.onnx", sha256=A)
DATA = Contents("m.data", sha256=B)
PACKED = Contents("m.mlpackage", inside={"Data/w": B, "Manifest.json": A})


@pytest.mark.parametrize(
    ("contents", "signed", "objection"),
    [
        ([FILE], {"m.onnx": A}, None),
        ([FILE], {"deep/er/m.onnx": A, "README": C}, None),
        ([FILE], {"m.onnx": B}, f"'m.onnx' has the SHA-256 {A}; signed was {B}"),
        ([FILE], {"xm.onnx": A}, "'m.onnx' is not among the files that were signed ('xm.onnx')"),
        (
            [FILE],
            {str(n): A for n in range(5)},
            "'m.onnx' is not among the files that were signed ('0', '1', '2', '3', '4')",
        ),
        (
            [FILE],
            {str(n): A for n in range(6)},
            "'m.onnx' is not among the files that were signed ('0', '1', '2', '3', '4', ...)",
        ),
        ([FILE], {".": A}, None),
        ([FILE], {".": B}, f"'m.onnx' has the SHA-256 {A}; signed was {B}"),
        ([FILE, DATA], {".": A}, "one file was signed, and 2 are published; sign their folder"),
        ([FILE, DATA], {"m.onnx": A, "m.data": B}, None),
        ([FILE, DATA], {"m.onnx": A}, "'m.data' is not among the files that were signed"),
        ([FILE, DATA], {"x/m.onnx": A, "y/m.data": B}, "'m.data' is not among the files that were signed"),
        ([FILE, DATA], {"x/m.onnx": A, "x/m.data": C}, f"'m.data' has the SHA-256 {B}; signed was {C}"),
        ([FILE, DATA], {"x/m.onnx": C, "y/m.onnx": A, "y/m.data": B}, None),
        ([PACKED], {"Manifest.json": A, "Data/w": B}, None),
        ([PACKED], {"Manifest.json": A, "Data/w": C}, f"'Data/w' has the SHA-256 {B}; signed was {C}"),
        ([PACKED], {"m.mlpackage/Manifest.json": A, "m.mlpackage/Data/w": B}, None),
        ([PACKED, FILE], {"m.mlpackage/Manifest.json": A, "m.mlpackage/Data/w": B, "m.onnx": A}, None),
        (
            [PACKED, FILE],
            {"Manifest.json": A, "Data/w": B, "m.onnx": A},
            "'m.mlpackage/Data/w' is not among the files that were signed ('Manifest.json', 'Data/w', 'm.onnx')",
        ),
    ],
)
def test_published_files_are_among_the_signed_ones(
    contents: list[Contents], signed: dict[str, str], objection: str | None
) -> None:
    assert uncovered(contents, signed) == objection


def test_a_packed_folder_is_told_by_the_files_in_it(tmp_path: Path) -> None:
    packed = File(name="m.mlpackage", format="coreml", size_bytes=1, sha256=A, packed=True)
    plain = File(name="m.onnx", format="onnx", size_bytes=1, sha256=A)
    (tmp_path / "z" / "y").mkdir(parents=True)
    for name in ("z/y/one", "two"):
        (tmp_path / name).write_text(name)
    assert contents_of(packed, tmp_path).digests == {
        "m.mlpackage/two": digest_of(b"two"),
        "m.mlpackage/z/y/one": digest_of(b"z/y/one"),
    }
    assert contents_of(plain, tmp_path).digests == {"m.onnx": A}
    with pytest.raises(UntrustedInput, match=r"m\.mlpackage travels packed, and was not unpacked"):
        contents_of(packed)


@pytest.mark.parametrize(
    "text", [b'{"a": [[[1]]]}', b'{"a": [[["[[[["]]]}', rb'{"a": [[["\"[[[["]]]}', b"[[[[]]]][[[[]]]]"]
)
def test_brackets_are_counted_to_the_limit_outside_of_texts(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(limits, "SIGNATURE_DEPTH", 4)
    _check_depth(text, what="it")
    monkeypatch.setattr(limits, "SIGNATURE_DEPTH", 3)
    with pytest.raises(UntrustedInput, match=r"^it is nested deeper than 3 levels$"):
        _check_depth(text, what="it")


def test_bundles_and_anchors_are_read_to_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROVENANCE_FILE_BYTES", 10)
    with pytest.raises(UntrustedInput, match="has 11 bytes; at most 10 are read"):
        read_bundle(b"x" * 11)
    with pytest.raises(UntrustedInput, match=r"^(?!.*at most 10 are read)"):
        read_bundle(b"x" * 10)
    monkeypatch.setattr(limits, "ANCHOR_BYTES", 10)
    with pytest.raises(
        UntrustedInput, match="the key has 11 bytes; a public key or root certificates have fewer than 10"
    ):
        read_anchor(b"x" * 11, method="key", what="the key")
    with pytest.raises(UntrustedInput, match="the key does not hold a public key in PEM"):
        read_anchor(b"x" * 10, method="key", what="the key")
    with pytest.raises(UntrustedInput, match="the roots does not hold root certificates in PEM"):
        read_anchor(b"x" * 10, method="certificate", what="the roots")
    with pytest.raises(UntrustedInput, match="the key is no PEM text; expected a public key, or certificates"):
        read_anchor("é".encode(), method="key", what="the key")
