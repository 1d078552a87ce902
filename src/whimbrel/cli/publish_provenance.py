"""The options of `whimbrel publish` that say where a version comes from, and the parts of its release that they make.

1. What an option says goes over what the card says. What nobody says stays unsaid.
2. Model signatures are verified here, over the digests of the very bytes that are published, before anything is sent.
3. The recipe, bundles and what verified them are kept beside the version, as artifacts that no device fetches.

Called by `whimbrel publish`.
"""

import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from whimbrel import limits
from whimbrel.cli.connect import Client, quoted
from whimbrel.cli.signer_files import read_bytes, signer_of
from whimbrel.cli.sources import Artifact, Source
from whimbrel.cli.text_file import read_text
from whimbrel.errors import Refused, UntrustedInput, reason_of
from whimbrel.flows.files.recipe_file import complete, read_recipe
from whimbrel.flows.wording import signer_words
from whimbrel.interop.model_signing.bundle import read_bundle
from whimbrel.interop.model_signing.coverage import Contents, contents_of, uncovered
from whimbrel.interop.model_signing.signature import read_anchor, verify_signature
from whimbrel.model.documents import digest_of, encode
from whimbrel.model.paths import shown
from whimbrel.model.provenance import Kept, ModelSignature, ModelSigner, Parent, read_code, read_dataset
from whimbrel.model.release import Training, Variant
from whimbrel.packing import unpack
from whimbrel.plan.plan import VersionName
from whimbrel.server.admin.views.models import ModelView
from whimbrel.server.admin.views.versions import VersionView

_PANEL = "Where it comes from"


def _option(kind: Any, *names: str, text: str) -> Any:
    return Annotated[kind, typer.Option(*names, help=text, rich_help_panel=_PANEL, show_default=False)]


_OPTIONS: dict[str, Any] = {
    "dataset": _option(
        list[str] | None, text="NAME@DIGEST of data that it was trained on; 64 digits are SHA-256. Repeat it."
    ),
    "code": _option(str | None, text="URL@COMMIT of the code that made it."),
    "framework": _option(str | None, text="What it was trained with, such as: pytorch 2.9."),
    "parent": _option(
        list[str] | None, text="MODEL@VERSION that it was made from; that must be published here. Repeat it."
    ),
    "recipe": _option(
        Path | None, text="A YAML file that says how its files are made again (whimbrel version rebuild)."
    ),
    "model_signature": _option(
        list[Path] | None,
        text="An OpenSSF model signature over the files (model.sig); it must be good. Repeat it: the nth is over the "
        "nth model.",
    ),
    "model_signature_key": _option(Path | None, text="The public key that must have signed (PEM)."),
    "certificate_chain": _option(
        Path | None, text="Or the root certificates, one of which must vouch for the signer (PEM)."
    ),
    "model_signature_identity": _option(
        str | None, text="Whom the signer's certificate must name: an e-mail address, URI or host name."
    ),
}


class GivenProvenance(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say; see `_OPTIONS`."""

    dataset: list[str]
    code: str | None
    framework: str | None
    parent: list[str]
    recipe: Path | None
    model_signature: list[Path]
    model_signature_key: Path | None
    certificate_chain: Path | None
    model_signature_identity: str | None


class Provenance(msgspec.Struct, frozen=True):
    """What goes into the release. `kept`: by digest, where the bytes of files lie that are kept beside the version."""

    training: Training
    signatures: tuple[ModelSignature, ...]
    kept: dict[str, Path]


def with_provenance(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options, and what they say as its argument `given`."""

    @functools.wraps(command)
    def run(*positional: Any, **arguments: Any) -> None:
        options = {name: arguments.pop(name) for name in _OPTIONS}
        options |= {name: options[name] or [] for name in ("dataset", "parent", "model_signature")}
        command(*positional, given=GivenProvenance(**options), **arguments)

    own = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.name != "given"]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _OPTIONS.items()
    ]
    named = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own[2:]]
    run.__signature__ = inspect.Signature([*own[:2], *named, *options])  # type: ignore[attr-defined]
    return run


def provenance_of(
    client: Client,
    model: str,
    given: GivenProvenance,
    training: Training,
    built_of: dict[str, Source],
    variants: Sequence[Variant],
    scratch: Path,
) -> Provenance:
    """What the options and the card say together. `built_of`: by variant; `scratch`: a folder for files to be kept.

    Raises `UntrustedInput` for what is not so, and `Refused` where the model demands a signature that is not there.
    """
    (shelf := _Shelf(scratch / "kept")).folder.mkdir(parents=True, exist_ok=True)
    try:
        changes: dict[str, Any] = {
            "datasets": tuple(map(read_dataset, given.dataset)) or training.datasets,
            "code": read_code(given.code) if given.code else training.code,
            "framework": given.framework or training.framework,
        }
    except ValueError as error:
        raise UntrustedInput(f"{error}. Nothing was published") from error
    if given.parent:
        changes["parents"] = tuple(_parent(client, each) for each in given.parent)
    if given.recipe is not None:
        changes["recipe"] = shelf.keep(_recipe(given.recipe, variants))
    demanded = client.get(f"models/{quoted(model)}", as_=ModelView).settings.model_signer
    signatures = _verified(given, demanded, built_of, shelf, scratch, model=model)
    changed = msgspec.structs.replace(training, **changes)
    return Provenance(msgspec.convert(msgspec.to_builtins(changed), Training), signatures, shelf.places)


class _Shelf:
    """Files that are to be kept, in a folder, by their digests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[str, Path] = {}

    def keep(self, content: bytes) -> Kept:
        digest = digest_of(content)
        self.places[digest] = self.folder / digest
        self.places[digest].write_bytes(content)
        return Kept(sha256=digest, size_bytes=len(content))


def _parent(client: Client, text: str) -> Parent:
    """A version that is published here. Raises `UntrustedInput`, and `NotFound`."""
    try:
        name = VersionName.parse(text)
    except ValueError as error:
        raise UntrustedInput(f"--parent {text!r} is not understood; expected MODEL@VERSION: {error}") from error
    version = client.get(f"models/{quoted(name.model)}/versions/{quoted(name.text)}", as_=VersionView)
    return Parent(model=version.model, serial=version.serial, version=version.version)


def _recipe(path: Path, variants: Sequence[Variant]) -> bytes:
    def measure(name: str) -> tuple[str, int]:
        try:
            with (path.parent / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        except OSError as error:
            raise UntrustedInput(
                f"the input {shown(name)} of {path.name} cannot be read beside it: {reason_of(error)}"
            ) from error

    content = encode(
        complete(read_recipe(read_text(path, "the recipe"), what=path.name), variants, measure, what=path.name)
    )
    if len(content) > limits.PROVENANCE_FILE_BYTES:
        raise UntrustedInput(
            f"{path.name} takes {len(content)} bytes; a recipe has at most {limits.PROVENANCE_FILE_BYTES}"
        )
    return content


def _verified(
    given: GivenProvenance,
    demanded: ModelSigner | None,
    built_of: dict[str, Source],
    shelf: _Shelf,
    scratch: Path,
    *,
    model: str,
) -> tuple[ModelSignature, ...]:
    """The signatures that were given, each verified over the builds that it is about."""
    signer = _signer(given, demanded, model=model)
    if signer is None:
        return ()
    sources = list(dict.fromkeys(id(source) for source in built_of.values()))
    if len(given.model_signature) not in {1, len(sources)}:
        raise UntrustedInput(
            f"{len(given.model_signature)} model signatures for {len(sources)} models; give one over all of them, "
            "or one for each in their order"
        )
    signatures = []
    for index, path in enumerate(given.model_signature):
        about = set(sources if len(given.model_signature) == 1 else sources[index : index + 1])
        content = read_bytes(path, limits.PROVENANCE_FILE_BYTES, what="the model signature")
        signed = verify_signature(read_bundle(content), signer, at=datetime.now(UTC))
        variants = {name: source for name, source in built_of.items() if id(source) in about}
        for source in variants.values():
            if wrong := uncovered(unpacked_contents(source.artifacts, scratch), signed.files):
                raise UntrustedInput(f"{path.name} is not over what would be published: {wrong}. Nothing was published")
        signatures.append(
            ModelSignature(
                method=signer.method,
                signer=signed.signer,
                bundle=shelf.keep(content),
                anchor=shelf.keep(signer.anchor.encode()),
                variants=tuple(variants),
            )
        )
    return tuple(signatures)


def _signer(given: GivenProvenance, demanded: ModelSigner | None, *, model: str) -> ModelSigner | None:
    """By whom signatures must be: as the model demands, or as the options say. None: there is none to verify."""
    key, chain, identity = given.model_signature_key, given.certificate_chain, given.model_signature_identity
    if not given.model_signature:
        if demanded is not None:
            raise Refused(
                f"{model} demands a model signature by {signer_words(demanded)}; sign the files with "
                "model_signing and give it with --model-signature FILE. Nothing was published"
            )
        if key or chain or identity:
            raise UntrustedInput("it is said who must have signed, and no signature is given: --model-signature FILE")
        return None
    if key is not None and chain is not None:
        raise UntrustedInput(
            "a model was signed with a key or with a certificate: give one of --model-signature-key and "
            "--certificate-chain"
        )
    place = key or chain
    if place is None:
        if demanded is None:
            raise UntrustedInput(
                "who must have signed? Give --model-signature-key FILE, or --certificate-chain FILE with "
                "--model-signature-identity"
            )
        return demanded
    asked = signer_of(place, method="key" if key is not None else "certificate", identity=identity or "")
    if demanded is not None and asked != _written_anew(demanded):
        raise Refused(f"{model} demands another signer than the one that is named here; leave the options of it out")
    return asked


def _written_anew(signer: ModelSigner) -> ModelSigner:
    """A signer that may have been set by an older version, with its anchor as files are read now."""
    anchor = read_anchor(signer.anchor.encode(), method=signer.method, what="the signer that the model demands")
    return msgspec.structs.replace(signer, anchor=anchor)


def unpacked_contents(artifacts: Sequence[Artifact], scratch: Path) -> list[Contents]:
    """The files of a build as their signer saw them: what was packed is unpacked again, as devices do it."""
    contents = []
    for artifact in artifacts:
        folder = scratch / "unpacked" / artifact.file.sha256
        if artifact.file.packed and not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            unpack(artifact.bytes_at, folder)
        contents.append(contents_of(artifact.file, folder if artifact.file.packed else None))
    return contents
