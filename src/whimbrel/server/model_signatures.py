"""A model demands a signer: is every variant of a new version signed by him? The server asks before it accepts one.

The publisher's command asked the same; whoever holds a publisher's key may send what another program made. The files
are taken from the artifact store, by the digests that the release names. A folder that travels packed is fetched and
unpacked, as devices do it.

Called by the admin API, outside of any transaction.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from whimbrel import limits
from whimbrel.errors import NotFound, Refused, UntrustedInput
from whimbrel.flows.wording import signer_words
from whimbrel.interop.model_signing.bundle import read_bundle
from whimbrel.interop.model_signing.coverage import Contents, contents_of, uncovered
from whimbrel.interop.model_signing.signature import SignedFiles, verify_signature
from whimbrel.model.provenance import ModelSigner
from whimbrel.model.release import File, Release
from whimbrel.packing import unpack
from whimbrel.plain_text import one_line
from whimbrel.stores.blobs import Blobs


async def check_signed(blobs: Blobs, namespace: str, release: Release, signer: ModelSigner, *, now: float) -> None:
    """Raises `Refused` where a variant has no model signature, and `UntrustedInput` where one proves nothing.

    `now`: POSIX seconds. `Unavailable`: the library is not installed here.
    """
    at = datetime.fromtimestamp(now, UTC)
    unsigned = {variant.name for variant in release.variants}
    for signature in release.model_signatures:
        content = await _document(blobs, namespace, signature.bundle.sha256)
        signed = await asyncio.to_thread(_verified, content, signer, at)
        if signature.signer != signed.signer:
            raise UntrustedInput(
                f"the release says that {one_line(signature.signer)[:80]} signed the model, and it was {signed.signer}"
            )
        for variant in release.variants:
            if variant.name in signature.variants:
                contents = await _contents(blobs, namespace, variant.files)
                if wrong := uncovered(contents, signed.files):
                    raise UntrustedInput(f"the model signature is not over the variant {variant.name}: {wrong}")
        unsigned -= set(signature.variants)
    if unsigned:
        raise Refused(
            f"{release.model} demands a model signature by {signer_words(signer)}, and the variant {min(unsigned)} "
            "has none; publish with --model-signature FILE"
        )


def _verified(content: bytes, signer: ModelSigner, at: datetime) -> SignedFiles:
    return verify_signature(read_bundle(content), signer, at=at)


async def _document(blobs: Blobs, namespace: str, sha256: str) -> bytes:
    path = f"{namespace}/artifacts/{sha256}"
    try:
        size_bytes = (await blobs.head(path)).size_bytes
    except NotFound as error:
        raise Refused(f"the model signature {sha256} is not stored yet; send it first") from error
    if size_bytes > limits.PROVENANCE_FILE_BYTES:
        raise UntrustedInput(
            f"the model signature has {size_bytes} bytes; at most {limits.PROVENANCE_FILE_BYTES} are read"
        )
    return await blobs.get(path)


async def _contents(blobs: Blobs, namespace: str, files: Sequence[File]) -> list[Contents]:
    contents = []
    for file in files:
        if not file.packed:
            contents.append(contents_of(file))
            continue
        if file.sealed is not None:
            raise Refused(
                f"{file.name} is a sealed folder, and the server cannot look whether the model signature is over its "
                "files: of a model that demands a signer, publish files, or leave the demand or the sealing out"
            )
        with tempfile.TemporaryDirectory(prefix="whimbrel-") as scratch:
            archive, folder = Path(scratch, "archive"), Path(scratch, "folder")
            written = await asyncio.to_thread(archive.open, "wb")
            with written:
                path = f"{namespace}/artifacts/{file.sha256}"
                async for chunk in blobs.read(path, start=0, end=file.size_bytes):
                    await asyncio.to_thread(written.write, chunk)
            await asyncio.to_thread(unpack, archive, folder)
            contents.append(await asyncio.to_thread(contents_of, file, folder))
    return contents
