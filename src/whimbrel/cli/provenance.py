"""`whimbrel version provenance`: where a version comes from, who signed it, and who let it out.

1. What nobody recorded is said to be unknown.
2. `--verify` fetches the model signatures that were kept and verifies them here, over the digests of the release; also
   that the release is the one that the publisher's keys sign, and says what is shown. Of what the server says, only who
   may sign is believed (`whimbrel keys status` shows that), and what no release can say: publication and rollouts.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.options import ModelName
from whimbrel.cli.output import Json, counted, print_json, say, when
from whimbrel.cli.signer_files import signer_of
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.flows.publishing.provenance import ProvenanceView, contradiction
from whimbrel.interop.cyclonedx import bill_of_materials
from whimbrel.interop.model_signing.bundle import read_bundle
from whimbrel.interop.model_signing.coverage import contents_of, uncovered
from whimbrel.interop.model_signing.signature import utc, verify_signature
from whimbrel.model.documents import digest_of, parse, plain
from whimbrel.model.provenance import Kept, ModelSignature, ModelSigner
from whimbrel.model.release import Release, Variant
from whimbrel.server.admin.views.versions import VersionDetail
from whimbrel.stores.signed_metadata import read_metadata, verify
from whimbrel.trust import roles
from whimbrel.trust.role_keys import short

Version = Annotated[str, typer.Argument(help="Calendar or semantic version, serial, or alias.")]
_UNKNOWN = "unknown"
_WIDTH = 17


class Verified(msgspec.Struct, frozen=True):
    """A model signature that was looked at again. `not_again`: folders that travel packed, which were verified at
    publication; `problem`: why it proves nothing, or None.
    """

    bundle: str
    signer: str
    not_again: list[str]
    problem: str | None


@connected
def provenance(
    client: Client,
    version: Version,
    model: ModelName,
    form: Annotated[
        Literal["text", "cyclonedx"],
        typer.Option("--format", help="cyclonedx: a bill of materials (CycloneDX 1.6 ML-BOM), as JSON."),
    ] = "text",
    verify_again: Annotated[
        bool, typer.Option("--verify", help="Fetch the model signatures that were kept, and verify them here.")
    ] = False,
    model_signature_key: Annotated[
        Path | None, typer.Option(help="Verify with this public key, instead of the one that the publisher recorded.")
    ] = None,
    certificate_chain: Annotated[Path | None, typer.Option(help="Or with these root certificates.")] = None,
    model_signature_identity: Annotated[
        str | None, typer.Option(help="Whom the signer's certificate must name.")
    ] = None,
    json: Json = False,
) -> None:
    """Where a version comes from: data, code, framework, parents, recipe; who signed, published and approved it.

    What nobody recorded is unknown. Exit status 2: a signature proves nothing.
    """
    path = f"models/{quoted(model)}/versions/{quoted(version)}"
    view = client.get(f"{path}/provenance", as_=ProvenanceView)
    verified = None
    asked = _asked(model_signature_key, certificate_chain, model_signature_identity)
    if verify_again:
        verified = _verify_all(client, path, view, asked)
    elif asked is not None:
        raise UntrustedInput("it is said who must have signed, and nothing is verified: add --verify")
    if form == "cyclonedx":
        print_json(bill_of_materials(view))
    elif json:
        print_json(plain(view) | ({} if verified is None else {"verified": verified}))
    else:
        _tell(view)
        for each in verified or []:
            _tell_verified(each, is_asked=asked is not None)
    if bad := [each for each in verified or [] if each.problem is not None]:
        raise UntrustedInput(f"{counted(len(bad), 'model signature')} of {model} {view.version}: {bad[0].problem}")


def _tell(view: ProvenanceView) -> None:
    say(f"{view.model} {view.version} ({view.semantic_version}), serial {view.serial}")
    _line("data", [f"{each.name} ({each.digest})" for each in view.datasets] or _on_a_card(view.dataset))
    _line("code", [] if view.code is None else [f"{view.code.url} at {view.code.commit}"])
    _line("framework", [view.framework] if view.framework else [])
    _line("made from", [f"{each.model} {each.version}" for each in view.parents] or _on_a_card(view.parent))
    if view.run:
        _line("run", _on_a_card(view.run))
    if view.trained_at:
        _line("trained", _on_a_card(view.trained_at))
    _line(
        "recipe", [] if view.recipe is None else [f"recorded ({view.recipe.sha256[:16]}...); whimbrel version rebuild"]
    )
    _line("model signed by", [_signature_words(each) for each in view.model_signatures])
    _line("release signed by", [f"{view.publisher_role}, key {short(each)}" for each in view.release_signed_by])
    published = f"{view.published_by}, {when(view.published_at)} UTC" if view.published_by else ""
    _line("published by", [published] if published else [])
    for rollout in view.rollouts:
        by = rollout.started_by or _UNKNOWN
        say(f"rollout {rollout.id}: {rollout.state}, started {when(rollout.started_at)} UTC by {by}")
        for stage, people in rollout.approved_by.items():
            say(f"  stage {stage}: approved by {', '.join(people)}")
    if not view.rollouts:
        say("no rollout of it is recorded (a first version, a pin or a policy brings one to devices without)")


def _line(name: str, values: list[str]) -> None:
    for index, value in enumerate(values or [_UNKNOWN]):
        say(f"  {name if index == 0 else '':<{_WIDTH}} {value}")


def _on_a_card(words: str) -> list[str]:
    return [f"{words} (its card's words)"] if words else []


def _signature_words(signature: ModelSignature) -> str:
    return f"{signature.signer}; over {', '.join(signature.variants)}; as the publisher verified it"


def _tell_verified(each: Verified, *, is_asked: bool) -> None:
    if each.problem is not None:
        return
    against = "what you named" if is_asked else "what the publisher recorded"
    say(f"the model signature by {each.signer} is over these files: good, verified here against {against}")
    for name in each.not_again:
        say(f"  but for {name}, which travels packed: its files were compared at publication, and were not now")


def _asked(key: Path | None, chain: Path | None, identity: str | None) -> ModelSigner | None:
    if key is not None and chain is not None:
        raise UntrustedInput("give one of --model-signature-key and --certificate-chain")
    if identity is not None and chain is None:
        raise UntrustedInput(
            "an identity is one of a certificate: give the roots that may vouch, --certificate-chain FILE"
        )
    if key is not None:
        return signer_of(key, method="key", identity="")
    return None if chain is None else signer_of(chain, method="certificate", identity=identity or "")


def _verify_all(client: Client, path: str, view: ProvenanceView, asked: ModelSigner | None) -> list[Verified]:
    """Each model signature of the release, looked at again. Raises `UntrustedInput` where the release is not signed."""
    release = signed_release(client, path, view)
    if not release.model_signatures:
        raise NotFound("no model signature was given when it was published; there is nothing to verify")
    return [_verified(client, path, release, each, asked) for each in release.model_signatures]


def signed_release(client: Client, path: str, view: ProvenanceView) -> Release:
    """The release, as the publisher's role lists it."""
    content = bytes(client.get(path, as_=VersionDetail).release)
    role = read_metadata(client.get_bytes(f"roles/{view.publisher_role}"), what=view.publisher_role)
    targets = read_metadata(client.get_bytes(f"roles/{roles.TARGETS}"), what=roles.TARGETS)
    verify(targets.signed, view.publisher_role, role, now=None)
    listed: Any = role.signed.targets.get(roles.release_path(view.model, view.serial))
    if listed is None or listed.hashes.get("sha256") != digest_of(content):
        raise UntrustedInput(f"the release of {view.model} {view.version} is not the one that its publisher signed")
    release = parse(Release, content, what="the release")
    if field := contradiction(view, release, content):
        raise UntrustedInput(
            f"the server's answer on {view.model} {view.version} contradicts the release that its publisher signed: "
            f"its {field} is another one"
        )
    return release


def _verified(
    client: Client, path: str, release: Release, signature: ModelSignature, asked: ModelSigner | None
) -> Verified:
    variants = [each for each in release.variants if each.name in signature.variants]
    packed = sorted({file.name for variant in variants for file in variant.files if file.packed})
    try:
        signer = asked or _recorded(client, path, signature)
        bundle = read_bundle(kept_file(client, path, signature.bundle))
        signed = verify_signature(bundle, signer, at=utc(release.created))
        problem = next((wrong for each in variants if (wrong := _uncovered(each, signed.files))), None)
    except (UntrustedInput, NotFound) as error:
        return Verified(signature.bundle.sha256, signature.signer, packed, str(error))
    return Verified(signature.bundle.sha256, signed.signer, packed, problem)


def _uncovered(variant: Variant, signed: dict[str, str]) -> str | None:
    contents = [contents_of(file) for file in variant.files if not file.packed]
    return uncovered(contents, signed) if contents else None


def _recorded(client: Client, path: str, signature: ModelSignature) -> ModelSigner:
    anchor = kept_file(client, path, signature.anchor).decode("ascii", errors="replace")
    identity = signature.signer if signature.method == "certificate" else ""
    return ModelSigner(method=signature.method, anchor=anchor, identity=identity)


def kept_file(client: Client, path: str, kept: Kept) -> bytes:
    """A file that is kept beside the version. Raises `UntrustedInput` where it is not the one that is signed."""
    content = client.get_bytes(f"{path}/provenance/{kept.sha256}")
    if digest_of(content) != kept.sha256:
        raise UntrustedInput(f"another file came for {kept.sha256}")
    return content
