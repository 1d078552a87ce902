"""A server whose model demands a signer asks of every variant, also of a folder that travels packed."""

import asyncio
from pathlib import Path

import pytest

from support.model_signing import NOW, key_files, sign_model
from whimbrel.cli.publish_provenance import unpacked_contents
from whimbrel.cli.sources import Artifact
from whimbrel.errors import Refused, UntrustedInput
from whimbrel.flows.wording import signer_words
from whimbrel.interop.model_signing.coverage import uncovered
from whimbrel.model.documents import digest_of
from whimbrel.model.provenance import Kept, ModelSignature, ModelSigner
from whimbrel.model.release import File, Release, Variant
from whimbrel.packing import pack
from whimbrel.server.model_signatures import check_signed
from whimbrel.stores.blobs import Blobs


class Team:
    """A package that was signed, packed and stored. `kept`: the bundle."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.package = place / "tiny.mlpackage"
        (self.package / "Data").mkdir(parents=True)
        (self.package / "Manifest.json").write_text("{}")
        (self.package / "Data" / "weights").write_bytes(b"weights")
        private, public = key_files(place / "keys")
        self.signer = ModelSigner(method="key", anchor=public.read_text())
        self.says = signer_words(self.signer)
        self.bundle = sign_model(self.package, private, place / "model.sig").read_bytes()
        self.blobs = Blobs.open("blobs", base=place)

    def kept(self, content: bytes) -> Kept:
        digest = digest_of(content)
        asyncio.run(self.blobs.put(f"default/artifacts/{digest}", content))
        return Kept(sha256=digest, size_bytes=len(content))

    def packed(self) -> Artifact:
        pack(self.package, archive := self.place / "archive.tar")
        kept = self.kept(archive.read_bytes())
        file = File(name="tiny.mlpackage", size_bytes=kept.size_bytes, sha256=kept.sha256, format="coreml", packed=True)
        return Artifact(file, archive)

    def release(self, *, signed: bool = True) -> Release:
        signature = ModelSignature(
            method="key",
            signer=self.says,
            bundle=self.kept(self.bundle),
            anchor=self.kept(self.signer.anchor.encode()),
            variants=("ios",),
        )
        return Release(
            model="wake",
            serial=1,
            version="2026.03.05.1",
            semantic_version="1.0.0",
            build_hash=12 * "a",
            created="2026-03-05T10:00:00Z",
            variants=(Variant(name="ios", files=(self.packed().file,)),),
            model_signatures=(signature,) * signed,
        )

    def check(self, release: Release) -> None:
        asyncio.run(check_signed(self.blobs, "default", release, self.signer, now=NOW.timestamp()))


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


def test_a_packed_folder_is_compared_file_by_file(team: Team) -> None:
    team.check(team.release())
    (team.package / "Data" / "weights").write_bytes(b"others")
    with pytest.raises(UntrustedInput, match=r"not over the variant ios: 'Data/weights' has the SHA-256"):
        team.check(team.release())


def test_a_version_without_a_signature_is_refused(team: Team) -> None:
    with pytest.raises(Refused, match="the variant ios has none"):
        team.check(team.release(signed=False))


def test_a_bundle_that_is_not_stored_is_asked_for(team: Team) -> None:
    release = team.release()
    asyncio.run(team.blobs.delete(f"default/artifacts/{digest_of(team.bundle)}"))
    with pytest.raises(Refused, match="send it first"):
        team.check(release)


def test_a_publisher_compares_what_was_packed(team: Team, tmp_path: Path) -> None:
    signed = {"Manifest.json": digest_of(b"{}"), "Data/weights": digest_of(b"weights")}
    assert uncovered(unpacked_contents((team.packed(),), tmp_path), signed) is None
    (team.package / "Data" / "weights").write_bytes(b"others")
    assert uncovered(unpacked_contents((team.packed(),), tmp_path), signed) is not None


def test_a_release_that_names_another_signer_than_the_real_one_is_refused(team: Team) -> None:
    """Whoever holds a publisher's key wrote "ceo@example.com": people read that as who signed."""
    team.says = "ceo@example.com"
    with pytest.raises(UntrustedInput, match=r"says that ceo@example\.com signed the model, and it was key sha256:"):
        team.check(team.release())
