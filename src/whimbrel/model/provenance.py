"""Where does a version come from? The parts of a release that say it, signed by the publisher with the rest.

1. A release travels to every device, so it holds names and digests; what they stand for (`Kept`) lies in the artifact
   store, and people fetch it.
2. What nobody gave is absent. Nothing here is guessed from a file or from an environment.
"""

import re
from typing import Annotated, Literal

from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import END, Digest, Name, Serial
from whimbrel.model.patterns import matching

Title = Annotated[str, Meta(min_length=1, max_length=256)]
ContentDigest = Annotated[
    str, matching("^[a-z0-9]{2,16}:[0-9a-f]{32,128}" + END, "a digest such as sha256:0a1b..., in lower case")
]
Commit = Annotated[str, matching("^[0-9a-f]{7,64}" + END, "a commit: 7 to 64 lower-case hexadecimal digits")]
HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128, "blake3": 64, "sha1": 40, "md5": 32}  # by algorithm
_LOGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^/?#]*)@")
_BARE = re.compile(r"[0-9a-f]{64}")


class Kept(Document, frozen=True):
    """A file that lies in the artifact store, and that no device fetches."""

    sha256: Digest
    size_bytes: Annotated[int, Meta(ge=0, le=limits.PROVENANCE_FILE_BYTES)]


class Dataset(Document, frozen=True):
    """Data that a version was trained on. `digest`: `sha256:...`, or another algorithm of `HEX_DIGITS`."""

    name: Title
    digest: ContentDigest

    def __post_init__(self) -> None:
        algorithm, _, digits = self.digest.partition(":")
        if HEX_DIGITS.get(algorithm) != len(digits):
            known = ", ".join(f"{name} ({length} digits)" for name, length in HEX_DIGITS.items())
            raise ValueError(f"the digest {self.digest!r} of {self.name!r} is none of {known}")


class SourceCode(Document, frozen=True):
    """The code that made a version: where its repository is, and the commit, as its hash."""

    url: Annotated[str, Meta(min_length=1, max_length=1024)]
    commit: Commit

    def __post_init__(self) -> None:
        if not self.url.isprintable() or " " in self.url:
            raise ValueError(f"the URL of the code, {self.url!r}, holds characters that no URL has")
        login = _LOGIN.match(self.url)
        if login is not None and (":" in login["user"] or login["scheme"].lower() in {"http", "https"}):
            raise ValueError(
                "the URL of the code holds a user name or password, which every device would get; leave it out"
            )


class Parent(Document, frozen=True):
    """The version that a version was made from: a fine-tuning of it, a quantisation, a merge."""

    model: Name
    serial: Serial
    version: Annotated[str, Meta(max_length=64)]  # its calendar version, for people


class ModelSignature(Document, frozen=True):
    """An OpenSSF model signature that the publisher verified over the files of `variants` before publishing.

    `signer`: whom it proves, as `whimbrel.interop.model_signing` words it. `anchor`: the public key, or the root
    certificates, that it was verified with (PEM). `bundle`: the Sigstore bundle, as it came.
    """

    method: Literal["key", "certificate"]
    signer: Annotated[str, Meta(min_length=1, max_length=limits.SIGNER_CHARS)]
    bundle: Kept
    anchor: Kept
    variants: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=limits.VARIANTS)]


class ModelSigner(Document, frozen=True):
    """Whose model signature every version of a model must have. `anchor`: a public key, or root certificates, in PEM.

    `identity`: of a certificate, an e-mail address, URI or host name in it (or its common name); of a key nothing more.
    """

    method: Literal["key", "certificate"]
    anchor: Annotated[str, Meta(min_length=1, max_length=limits.ANCHOR_BYTES)]
    identity: Annotated[str, Meta(max_length=limits.SIGNER_CHARS)] = ""

    def __post_init__(self) -> None:
        if self.method == "certificate" and not self.identity:
            raise ValueError("a root vouches for many; say whose certificate it must be")


def read_dataset(text: str) -> Dataset:
    """`NAME@DIGEST`, as people write it; a digest of 64 digits is SHA-256. Raises `ValueError`."""
    name, at, digest = text.rpartition("@")
    if not at or not name or not digest:
        raise ValueError(f"{text!r} is not understood; expected NAME@DIGEST, as speech-2026@sha256:9f86d0...")
    digest = digest.lower()
    return Dataset(name=name, digest=f"sha256:{digest}" if _BARE.fullmatch(digest) else digest)


def read_code(text: str) -> SourceCode:
    """`URL@COMMIT`, as people write it. Raises `ValueError`."""
    url, at, commit = text.rpartition("@")
    if not at or not re.fullmatch(r"[0-9a-f]{7,64}", commit.lower()):
        raise ValueError(
            f"{text!r} is not understood; expected URL@COMMIT with the commit's hash, as "
            "https://git.example.com/ml/detector@1f3b5a7 (a branch moves, and says nothing)"
        )
    return SourceCode(url=url, commit=commit.lower())
