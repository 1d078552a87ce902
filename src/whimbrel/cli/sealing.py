"""Seal a release on the publisher's machine: its files and patches become age files to a key of its own.

1. The key is made here, for this release alone. It goes to the server sealed to the server's sealing key, and is not
   kept here.
2. Nothing that is not sealed is sent: neither a file nor a patch.
3. Patches are made here, since only here are the plain bytes: from the files of earlier versions that the publisher
   gives (`--delta-from`), and of the whole file in compressed form. One that does not pay is left out.

Called by `whimbrel publish`.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from whimbrel import agefile, limits
from whimbrel.cli.connect import Client, quoted
from whimbrel.cli.output import waiting
from whimbrel.errors import Refused, UntrustedInput, reason_of
from whimbrel.flows.publishing.build_deltas import like_of, worth_keeping
from whimbrel.flows.publishing.publish import with_sealed
from whimbrel.model.documents import parse
from whimbrel.model.release import File, Release, Sealed
from whimbrel.model.ways import NOTHING, Step
from whimbrel.packing import pack
from whimbrel.server.admin.views.models import ModelView
from whimbrel.server.admin.views.repository import SealingKeyView
from whimbrel.server.admin.views.versions import DeltaView, ListedVersion, SealedParts, VersionDetail
from whimbrel.stores.deltas import EncodeTask, codec_is_installed, encode_patch
from whimbrel.stores.sealing_key import keep_release_key

_LOOKED_BACK = 20  # versions whose files a patch may begin at


class SealedRelease(msgspec.Struct, frozen=True):
    """A release that is ready to be signed. `artifacts`: where the bytes to send are, by their digests."""

    release: Release
    artifacts: dict[str, Path]
    parts: SealedParts
    patches: list[DeltaView]


class Sealing:
    """How the versions of one model are sealed. `delta_from`: files and folders of earlier versions."""

    def __init__(self, client: Client, model: str, scratch: Path, *, delta_from: list[Path], recipient: str) -> None:
        self._client, self._model = client, model
        self._scratch = scratch / "sealed"
        self._delta_from = delta_from
        self._recipient = recipient

    def seal(self, release: Release, places: Mapping[str, Path], earlier: list[ListedVersion]) -> SealedRelease:
        """Seal the files of `release`, which lie at `places` by their digests, and the patches to them."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        identity = agefile.new_identity()
        recipient = agefile.recipient_of(identity)
        artifacts: dict[str, Path] = {}
        sealed: dict[str, Sealed] = {}
        with waiting("sealing the files"):
            for sha256, place in places.items():
                sealed[sha256] = self._seal(place, f"{sha256}.age", recipient, artifacts)
        steps, patches = [], []
        for base, base_sha256, from_version, file in self._bases(release, earlier):
            with waiting(f"making a patch of {file.name} from {from_version}"):
                made = self._patch(base, base_sha256, places[file.sha256], file, recipient, artifacts)
            if made is None:
                continue
            step, advice = made
            if not worth_keeping(step.size_bytes, target_bytes=file.size_bytes, whole_bytes=None):
                del artifacts[step.sha256]
                continue
            steps.append(step)
            patches.append(_view(release, step, advice, from_version=from_version, file=file))
        kept = keep_release_key(
            identity,
            self._recipient,
            namespace=self._client.namespace,
            model=self._model,
            serial=release.serial,
        )
        parts = SealedParts(release_key=kept, steps=tuple(steps[: limits.SEALED_PATCHES]))
        return SealedRelease(with_sealed(release, sealed), artifacts, parts, patches)

    def _seal(self, place: Path, name: str, recipient: str, artifacts: dict[str, Path]) -> Sealed:
        target = self._scratch / name
        digest, size_bytes = agefile.seal_file(place, target, recipient=recipient)
        artifacts[digest] = target
        return Sealed(sha256=digest, size_bytes=size_bytes)

    def _patch(
        self, base: Path, base_sha256: str, target: Path, file: File, recipient: str, artifacts: dict[str, Path]
    ) -> tuple[Step, str] | None:
        if file.size_bytes == 0 or not codec_is_installed():
            return None
        plain = self._scratch / "patch"
        encoded = asyncio.run(encode_patch(EncodeTask(str(base), str(target), str(plain))))
        sealed = self._seal(plain, f"{base_sha256[:16]}-{file.sha256}.patch.age", recipient, artifacts)
        plain.unlink()
        step = Step(
            base=base_sha256,
            target=file.sha256,
            target_bytes=file.size_bytes,
            sha256=sealed.sha256,
            size_bytes=sealed.size_bytes,
            sealed=True,
        )
        return step, "" if base_sha256 == NOTHING else encoded.advice

    def _bases(self, release: Release, earlier: list[ListedVersion]) -> Iterator[tuple[Path, str, str, File]]:
        """Where patches begin: place and digest of a base, the version that it is of, and the file it leads to."""
        files = {file.sha256: file for variant in release.variants for file in variant.files}
        nothing = self._scratch / NOTHING
        nothing.touch()
        for file in files.values():
            yield nothing, NOTHING, "nothing", file
        given = dict(self._given())
        used: set[str] = set()
        newest = sorted(earlier, key=lambda each: each.serial, reverse=True)[:_LOOKED_BACK] if given else []
        pairs: set[tuple[str, str]] = set()
        for version in newest:
            before = self._release(version)
            used |= before.digests & given.keys()
            for old in before.variants:
                for variant in (each for each in release.variants if each.name == old.name):
                    for file in variant.files:
                        base = like_of(file, variant, old)
                        pair = (base.sha256, file.sha256) if base is not None else None
                        if base is None or pair in pairs or base.sha256 == file.sha256 or base.sha256 not in given:
                            continue
                        pairs.add((base.sha256, file.sha256))
                        yield given[base.sha256], base.sha256, version.version, file
        if unknown := [path for sha256, path in given.items() if sha256 not in used]:
            raise UntrustedInput(
                f"--delta-from {unknown[0]} is no file of the newest {_LOOKED_BACK} versions of {self._model}, so no "
                "device could use a patch from it; give files as they were published. Nothing was published"
            )

    def _given(self) -> Iterator[tuple[str, Path]]:
        for path in self._delta_from:
            if path.is_dir() and path.name.endswith(".mlpackage"):
                archive = self._scratch / f"{path.name}.tar"
                pack(path, archive)
                yield _digest(archive), archive
            elif path.is_dir():
                for each in sorted(each for each in path.rglob("*") if each.is_file() and each.name[:1] != "."):
                    yield _digest(each), each
            elif path.is_file():
                yield _digest(path), path
            else:
                raise UntrustedInput(f"--delta-from {path}: there is no such file or folder")

    def _release(self, version: ListedVersion) -> Release:
        path = f"models/{quoted(self._model)}/versions/{quoted(version.version)}"
        detail = self._client.get(path, as_=VersionDetail)
        return parse(Release, bytes(detail.release), what=f"the release of {version.version}")


def sealing_of(client: Client, model: str, scratch: Path, *, delta_from: list[Path]) -> Sealing | None:
    """How versions of `model` are sealed; None where they are not. Raises `Refused` where they cannot be."""
    settings = client.get(f"models/{quoted(model)}", as_=ModelView).settings
    if not settings.sealed:
        if delta_from:
            raise Refused(
                f"{model} is not sealed, so the server makes its patches by itself: leave --delta-from out, or seal "
                f"the model with: whimbrel model set {model} --sealed"
            )
        return None
    recipient = client.get("keys/sealing", as_=SealingKeyView).recipient
    if recipient is None:
        raise Refused(
            f"{model} is sealed, and the server has no sealing key to keep the keys of releases with; make it with: "
            "whimbrel keys make-sealing-key"
        )
    return Sealing(client, model, scratch, delta_from=delta_from, recipient=recipient)


def _view(release: Release, step: Step, advice: str, *, from_version: str, file: File) -> DeltaView:
    variant = next(each.name for each in release.variants if file in each.files)
    return DeltaView(
        model=release.model,
        base=step.base,
        target=step.target,
        target_bytes=step.target_bytes,
        sha256=step.sha256,
        size_bytes=step.size_bytes,
        advice=advice,
        listed=True,
        from_version=from_version,
        file=f"{variant}/{file.name}",
    )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UntrustedInput(f"--delta-from {path} cannot be read: {reason_of(error)}") from error
