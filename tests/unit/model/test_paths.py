"""A variant's files have names that every device can hold, below the folder of the variant."""

import pytest

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import convert
from whimbrel.model.paths import clash, file_and_folder, path_objection, shown
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


SPACED = "has a part that begins or ends with a space, or ends with a dot"
PARTS = "has an empty, '.' or '..' part; expected a path below the folder"
FORBIDDEN = "has a character that some systems cannot hold"
RESERVED = "is a reserved word on some systems"


@pytest.mark.parametrize(
    ("path", "objection"),
    [
        ("a/b", None),
        ("", "is an absolute path; expected one below the folder"),
        ("/a", "is an absolute path; expected one below the folder"),
        ("/".join(["a" * 30] * 33), "is more than 32 folders deep"),
        ("/".join(["a" * 30] * 32), None),
        ("/".join(["a" * 127] * 8) + "b", None),
        ("/".join(["a" * 127] * 8) + "bc", "is longer than 1024 characters"),
        *[(path, PARTS) for path in (".", "..", "a//b", "a/", "a/../b", "./a")],
        *[(f"a{character}b", FORBIDDEN) for character in '<>:"|?*\\\0\x1f\x7f'],
        *[(path, SPACED) for path in ("a.", "a ", " a", "b/a./c", "b/ a")],
        *[(path, None) for path in (".a", "a b", "a.b", "-a")],
        *[(path, RESERVED) for path in ("con", "AUX", "b/nul.x.y", "PRN.txt", "com1", "lpt9", "a/Com5.bin")],
        *[(path, None) for path in ("com0", "lpt0", "com10", "cons", "x.con", "com")],
        ("a" * 255, None),
        ("a" * 256, "has a part longer than 255 bytes"),
        ("\u00e9" * 127, None),
        ("\u00e9" * 128, "has a part longer than 255 bytes"),
        ("a\ud800", "is not UTF-8"),
    ],
)
def test_an_objection_says_why(path: str, objection: str | None) -> None:
    assert path_objection(path) == objection


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (["a", "b", "a"], "'a' is there twice"),
        (["Model", "model"], "'Model' and 'model' are one name on some systems"),
        (["a/B/x", "a/b/y"], "'a/B' and 'a/b' are one name on some systems"),
        (["\u00e9", "e\u0301"], "'\\xe9' and 'e\\u0301' are one name on some systems"),
        (["a/b", "a/b/c", "a/b"], "'a/b' is there twice"),
        (["a/b", "a", "a/c"], None),
        ([], None),
    ],
)
def test_the_first_two_paths_that_clash_are_named(paths: list[str], sentence: str | None) -> None:
    assert clash(paths) == sentence


def test_the_first_file_that_is_a_folder_too_is_named() -> None:
    assert file_and_folder(["b/c", "b", "a/b/c", "a/b"]) == "a/b"
    assert file_and_folder(["ab", "a/b", "abc/d"]) is None
    assert file_and_folder([]) is None


@pytest.mark.parametrize(
    ("path", "told"),
    [("a", "'a'"), ("\u202e", "'\\u202e'"), ("a" * 80, repr("a" * 80)), ("a" * 81, repr("a" * 77 + "..."))],
)
def test_a_path_of_somebody_else_is_told_in_ascii_and_cut(path: str, told: str) -> None:
    assert shown(path) == told
