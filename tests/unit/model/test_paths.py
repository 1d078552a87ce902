"""A variant's files have names that every device can hold, below the folder of the variant."""

import pytest

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import convert
from whimbrel.model.paths import clash, file_and_folder, path_objection
from whimbrel.model.release import Variant


def variant(*names: str) -> Variant:
    files = [{"name": name, "size_bytes": 1, "sha256": "0" * 64, "format": "onnx"} for name in names]
    return convert(Variant, {"name": "cpu", "files": files}, what="the variant")


@pytest.mark.parametrize(
    "names",
    [
        ["model.onnx"],
        ["model.onnx", "model.onnx.data"],
        ["onnx/model.onnx", "config.json", "1_Pooling/config.json"],
        ["My Model (int8).onnx", "a~b,c=d+e@f"],
        ["/".join("abcdefgh")],
        [f"shard-{number}" for number in range(limits.FILES)],
    ],
)
def test_relative_paths_of_plain_names_are_taken(names: list[str]) -> None:
    assert [file.name for file in variant(*names).files] == names


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", ".hidden", "-x", " x", "x ", "x.", "a\\b", "model.onnx\n", "a:b", "C:/x", "a\0b", "\x1b[2J"),
        *("/etc/passwd", "../x", "a/../x", "a//b", "a/", "./a", "a/./b", "a/.git/x", "a/b./c"),
        *("nul", "CON.onnx", "a/aux/b", "lpt1.bin", "a/COM9"),
        *("é.onnx", "a\u202eb", "x" * 201, "/".join("abcdefghi")),
    ],
)
def test_names_that_lead_elsewhere_or_that_some_device_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(UntrustedInput):
        variant("model.onnx", name)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a", "a"], "there twice"),
        (["Model.onnx", "model.onnx"], "one name on some systems"),
        (["b/x", "B/y"], "one name on some systems"),
        (["a", "a/b"], "both a file and a folder"),
        (["a/b/c", "a/b"], "both a file and a folder"),
        ([f"shard-{number}" for number in range(limits.FILES + 1)], "256"),
    ],
)
def test_files_that_cannot_lie_beside_each_other_are_refused(names: list[str], reason: str) -> None:
    with pytest.raises(UntrustedInput, match=reason):
        variant(*names)


def test_every_path_of_a_list_is_compared_with_every_other() -> None:
    assert clash(["a/b", "c", "a/d"]) is None
    assert clash(["a", "a/b"]) is None  # a list may name a folder, and its files
    assert clash(["stra\u00dfe/x", "STRASSE/y"]) is not None
    assert file_and_folder(["a/b", "a"]) == "a"
    assert file_and_folder(["a/b"], beside=["a"]) is None
    assert file_and_folder(["a"], beside=["a/b"]) == "a"


def test_objection_says_why() -> None:
    assert path_objection("a/b") is None
    assert "reserved" in str(path_objection("a/Nul.txt"))
    assert "32 folders deep" in str(path_objection("/".join("x" * 33)))
