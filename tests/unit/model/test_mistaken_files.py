"""Files that people take for a model are told by their first bytes, with what to do."""

import pytest

from whimbrel.model.mistaken_files import HEAD_BYTES, is_pointer, mistaken_for_a_model

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + 32 * b"4d" + b"\n"
PAGE = "is a web page; was it downloaded without a login? Download the file itself"
ANNEX = "is a git-annex pointer; run: git annex get"


@pytest.mark.parametrize(
    ("head", "words", "pointer"),
    [
        (LFS + b"size 12345\n", "is a Git LFS pointer, which stands for 12345 bytes; run: git lfs pull", True),
        (LFS, "is a Git LFS pointer; run: git lfs pull", True),
        (LFS + b"size 123456789012345678901\n", "is a Git LFS pointer; run: git lfs pull", True),
        (b"/annex/objects/SHA256E-s1--aa.onnx\n", ANNEX, True),
        (b"../../.git/annex/objects/XX/SHA256E-s1--aa", ANNEX, True),
        (b" \n<!DOCTYPE html><html>", PAGE, False),
        (b"<HTML lang=en>", PAGE, False),
        (
            b"PK\x03\x04\x14\0",
            "is a ZIP archive; unpack it, or export a model if it is a checkpoint of PyTorch or Keras",
            False,
        ),
        (b"GGUF\x03\0\0\0", "", False),
        (b"", "", False),
        (b"x" + LFS, "", False),
        (b"x/annex/objects/", "", False),
        (b"PK\x05\x06", "", False),
        (b"a <html>", "", False),
    ],
)
def test_what_is_no_model_is_told(head: bytes, words: str, pointer: bool) -> None:
    assert mistaken_for_a_model(head) == words
    assert is_pointer(head) is pointer


def test_a_whole_pointer_fits_into_the_head() -> None:
    assert len(LFS + b"size 12345\n") < HEAD_BYTES == 1024
