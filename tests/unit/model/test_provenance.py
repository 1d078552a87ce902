"""Where a version comes from, as people write it: understood or refused. And how it is made again."""

import re
from typing import Any

import pytest

from whimbrel.model.provenance import Dataset, ModelSigner, SourceCode, read_code, read_dataset
from whimbrel.model.recipe import Input, Output, Recipe

SHA = 64 * "a"
MD5 = 32 * "b"


def refusal(said: str) -> str:
    """A pattern of the whole sentence."""
    return f"^{re.escape(said)}$"


@pytest.mark.parametrize(
    ("text", "name", "digest"),
    [
        (f"speech@sha256:{SHA}", "speech", f"sha256:{SHA}"),
        (f"speech@{SHA}", "speech", f"sha256:{SHA}"),
        (f"speech@{SHA.upper()}", "speech", f"sha256:{SHA}"),
        (f"a@b@md5:{MD5}", "a@b", f"md5:{MD5}"),
    ],
)
def test_a_dataset_is_its_name_and_digest(text: str, name: str, digest: str) -> None:
    assert read_dataset(text) == Dataset(name=name, digest=digest)


@pytest.mark.parametrize("text", ["speech", "", f"@{SHA}", "speech@", "@"])
def test_what_is_no_dataset_is_refused_in_words(text: str) -> None:
    said = f"{text!r} is not understood; expected NAME@DIGEST, as speech-2026@sha256:9f86d0..."
    with pytest.raises(ValueError, match=refusal(said)):
        read_dataset(text)


@pytest.mark.parametrize("digest", [f"md5:{SHA}", f"sha256:{MD5}", SHA[:-1], "latest"])
def test_a_digest_of_no_algorithm_is_refused_with_those_that_are_known(digest: str) -> None:
    digits = {"sha256": 64, "sha384": 96, "sha512": 128, "blake3": 64, "sha1": 40, "md5": 32}
    known = ", ".join(f"{name} ({number} digits)" for name, number in digits.items())
    with pytest.raises(ValueError, match=refusal(f"the digest {digest!r} of 'speech' is none of {known}")):
        read_dataset(f"speech@{digest}")


@pytest.mark.parametrize(
    ("text", "url", "commit"),
    [
        ("https://git.example.com/wake@1f3b5a7", "https://git.example.com/wake", "1f3b5a7"),
        (f"ssh://git@git.example.com/wake@{SHA.upper()}", "ssh://git@git.example.com/wake", SHA),
        ("git@git.example.com:ml/wake@1F3B5A7", "git@git.example.com:ml/wake", "1f3b5a7"),
    ],
)
def test_code_is_its_url_and_commit(text: str, url: str, commit: str) -> None:
    assert read_code(text) == SourceCode(url=url, commit=commit)


@pytest.mark.parametrize("text", ["https://x/wake", "https://x/wake@main", "https://x/wake@1f3b5a", f"u@{SHA}a", "u@"])
def test_a_branch_is_no_commit(text: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(repr(text))} is not understood; expected URL@COMMIT with the"):
        read_code(text)


@pytest.mark.parametrize(
    "url",
    [
        "https://ann@git.example.com/wake",
        "HTTP://ann@git.example.com/wake",
        "https://ann:secret@git.example.com/wake",
        "ssh://ann:secret@git.example.com/wake",
    ],
)
def test_a_login_in_the_url_of_the_code_is_refused(url: str) -> None:
    said = "the URL of the code holds a user name or password, which every device would get; leave it out"
    with pytest.raises(ValueError, match=refusal(said)):
        SourceCode(url=url, commit="1f3b5a7")


@pytest.mark.parametrize(
    "url", ["ssh://git@git.example.com/wake", "https://git.example.com/a@b", "https://x?u=a@b", "git@x:a"]
)
def test_an_address_that_names_nobody_is_no_login(url: str) -> None:
    assert SourceCode(url=url, commit="1f3b5a7").url == url


@pytest.mark.parametrize("url", ["a b", "https://x/\u202e", "a\tb"])
def test_characters_that_no_url_has_are_refused(url: str) -> None:
    said = f"the URL of the code, {url!r}, holds characters that no URL has"
    with pytest.raises(ValueError, match=refusal(said)):
        SourceCode(url=url, commit="1f3b5a7")


def test_a_root_certificate_names_whose_certificate_it_must_be() -> None:
    assert ModelSigner(method="key", anchor="a").identity == ""
    assert ModelSigner(method="certificate", anchor="a", identity="ml@example.com").method == "certificate"
    with pytest.raises(ValueError, match=refusal("a root vouches for many; say whose certificate it must be")):
        ModelSigner(method="certificate", anchor="a")


# --- recipes ---


def recipe(*command: str, made: tuple[str, ...] = ("out",), given: tuple[str, ...] = (), **more: Any) -> Recipe:
    return Recipe(
        command=command or ("make",),
        outputs=tuple(Output(name=name, variant="cpu", file="m.onnx") for name in made),
        inputs=tuple(Input(name=name, sha256=SHA, size_bytes=1) for name in given),
        **more,
    )


def test_a_recipe_lists_files_and_folders_beside_each_other() -> None:
    made = recipe(
        "python", "train.py", "", made=("model", "a/out"), given=("train.py", "a/lock.txt"), lock="a/lock.txt"
    )
    assert (made.lock, made.command[2]) == ("a/lock.txt", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"command": ("", "x")}, "command: it names no program, or holds a zero byte"),
        ({"command": ("make", "a\0b")}, "command: it names no program, or holds a zero byte"),
        ({"made": ("../out",)}, "the name '../out' has an empty, '.' or '..' part; expected a path below the folder"),
        ({"given": ("/etc/x",)}, "the name '/etc/x' is an absolute path; expected one below the folder"),
        ({"given": ("out",)}, "inputs and outputs: 'out' is there twice"),
        ({"given": ("a", "A")}, "inputs and outputs: 'a' and 'A' are one name on some systems"),
        ({"given": ("out/x",)}, "inputs and outputs: 'out' is both a file and a folder"),
        ({"lock": "lock.txt"}, "lock: 'lock.txt' is not among the inputs"),
        ({"lock": "out"}, "lock: 'out' is not among the inputs"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=refusal(said)):
        recipe(*changes.pop("command", ()), **changes)
