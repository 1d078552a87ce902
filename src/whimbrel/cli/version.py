"""`whimbrel version`: what was published, and what is offered no more."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from whimbrel import limits
from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.fit import tell_fit
from whimbrel.cli.floor import floor_of
from whimbrel.cli.options import ModelName, Yes
from whimbrel.cli.output import Json, print_json, print_table, say, size_of, when
from whimbrel.cli.provenance import provenance
from whimbrel.cli.rebuild import rebuild
from whimbrel.cli.role_signers import proven_line, proven_roles, role_signers
from whimbrel.errors import NotFound, Refused, UntrustedInput
from whimbrel.flows.publishing.draft_revocations import DraftRevocation
from whimbrel.flows.version_fit import VersionFit
from whimbrel.flows.wording import selector_words
from whimbrel.model.documents import encode, parse, plain
from whimbrel.model.release import File, Line, Release, Variant
from whimbrel.server.admin.views.reason import Reason
from whimbrel.server.admin.views.versions import ListedVersion, NewLine, VersionDetail, VersionView
from whimbrel.stores.proven_roles import ProvenRoles
from whimbrel.stores.tuf_repository import publish_documents
from whimbrel.trust import roles

app = typer.Typer(help="Versions: immutable publications of a model.", no_args_is_help=True, add_completion=False)

Version = Annotated[str, typer.Argument(help="Calendar or semantic version, serial, or alias.")]
Why = Annotated[str, typer.Option("--because", help="The reason, for the audit log.")]


@app.command("list")
@connected
def list_versions(client: Client, model: ModelName, json: Json = False) -> None:
    """A model's versions in the order of their serials (2.10.0 comes after 2.9.0): their names and states.

    States: the baseline; revoked by its publisher; retired; quarantined since it was taken back.
    """
    versions = client.get(f"models/{quoted(model)}/versions", as_=list[ListedVersion])
    if json:
        print_json(versions)
        return
    rows = [
        [
            version.serial,
            version.version,
            version.semantic_version,
            version.build_hash,
            size_of(version.size_bytes),
            version.devices,
            ", ".join(version.aliases),
            _states(version),
            when(version.created_at),
        ]
        for version in versions
    ]
    heads = ["serial", "version", "semantic", "build", "size", "devices", "names", "state", "published (UTC)"]
    print_table(heads, rows, title=model)


@app.command("show")
@connected
def show(client: Client, version: Version, model: ModelName, json: Json = False) -> None:
    """Everything that is known of a version: lineage, metrics, variants, files."""
    path = f"models/{quoted(model)}/versions/{quoted(version)}"
    if json:
        print_json(client.get(path))  # the release key by key as it was signed
        return
    detail = client.get(path, as_=VersionDetail)
    release = parse(Release, bytes(detail.release), what=f"the release of {model} {detail.version}")
    say(f"{model} {release.version} ({release.semantic_version}), serial {release.serial}")
    say(f"  build {release.build_hash}, published {release.created}{', retired' if detail.retired else ''}")
    for key, value in sorted(plain(release.training).items()):
        words = {"build_hash": "the pipeline's build_hash"}.get(key, key)
        say(f"  training: {words} = {', '.join(value) if isinstance(value, list | tuple) else value}")
    for key, value in sorted(release.metrics.items()):
        say(f"  metrics: {key} = {value}")
    for line in release.changelog:
        say(f"  - {line}")
    rows = [
        [
            variant.name if place == 0 else "",
            file.name,
            _built(file, variant) if place == 0 else "beside it",
            size_of(file.size_bytes),
            file.sha256[:16],
            selector_words(variant.selector) if place == 0 else "",
        ]
        for variant in release.variants
        for place, file in enumerate(variant.files)
    ]
    print_table(["variant", "file", "format", "size", "sha256", "for"], rows)
    if release.is_sealed:
        say("  sealed: its files travel encrypted, and entitled devices get the key (whimbrel model show)")
    for objection in release.unchecked:
        say(f"  UNCHECKED: {objection}")
    for other in release.requires:
        say(f"  requires: {other.model}, serial {other.serial}")
    for draft in client.get(f"models/{quoted(model)}/revocations/drafts", as_=list[DraftRevocation]):
        if draft.serial == detail.serial:
            say(f"  TAKEN BACK, and not revoked: {draft.because}")
            say(f"  To forbid it for ever, where the publisher's key is: {revoke_words(draft)}")


app.command("provenance")(provenance)
app.command("rebuild")(rebuild)


@app.command("devices")
@connected
def devices(client: Client, version: Version, model: ModelName, json: Json = False) -> None:
    """Which devices of the model's fleet can run it: how many take each variant, how many none, and why."""
    fit = client.get(f"models/{quoted(model)}/versions/{quoted(version)}/devices", as_=VersionFit)
    if json:
        print_json(fit)
    else:
        tell_fit(fit, what=f"{model} {version}")


@app.command("retire")
@connected
def retire(
    client: Client, version: Version, model: ModelName, because: Why = "", yes: Yes = False, json: Json = False
) -> None:
    """Offer it no more, and let its artifacts be collected when no device runs it. Devices that have it keep it."""
    asked = client.get(f"models/{quoted(model)}/versions/{quoted(version)}", as_=VersionView)
    confirm(
        f"to retire {model} {asked.semantic_version} (serial {asked.serial})",
        consequence="it is offered no more, and its files may be deleted",
        yes=yes,
    )
    path = f"models/{quoted(model)}/versions/{asked.serial}/retire"
    retired = client.send("POST", path, Reason(because=because), as_=VersionView)
    if json:
        print_json(retired)
        return
    say(f"{model} {retired.version} is retired")


@app.command("unquarantine")
@connected
def unquarantine(
    client: Client,
    version: Version,
    model: ModelName,
    because: Annotated[str, typer.Option("--because", help="Why devices may run it again; it is logged.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Let devices run a version again that was taken back. A rollout of it does the same: rollout start --override.

    It brings the version to nobody by itself, but to devices that left it while it stayed the baseline.
    """
    path = f"models/{quoted(model)}/versions"
    asked = client.get(f"{path}/{quoted(version)}", as_=VersionView)
    listed = next(each for each in client.get(path, as_=list[ListedVersion]) if each.serial == asked.serial)
    if listed.quarantined:
        reasons = "; ".join(f"{each.devices}: {each.because}" for each in listed.quarantined)
        returns = ", and devices that left it return to it" if listed.baseline else ""
        confirm(
            f"to let devices run {model} {asked.semantic_version} again",
            consequence=f"it was taken back ({reasons}){returns}",
            nature="changes what devices may run",
            yes=yes,
        )
    reason = Reason(because=because)
    lifted = client.send("POST", f"{path}/{asked.serial}/unquarantine", reason, as_=VersionView)
    if json:
        print_json(lifted)
        return
    say(f"{model} {lifted.version} is quarantined no more")
    if not listed.baseline:
        say("No device runs it for that alone; a rollout of it brings it: whimbrel rollout start PLAN")


@app.command("revoke")
@connected
def revoke(
    client: Client,
    model: ModelName,
    version: Annotated[
        str | None, typer.Argument(help="Calendar or semantic version, serial, or alias; or --drafts.")
    ] = None,
    drafts: Annotated[
        bool, typer.Option("--drafts", help="All that were taken back for harm, and are forbidden by the policy alone.")
    ] = False,
    because: Why = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Forbid it: no policy can make a device run it. Signed with the publisher's key; it is never undone.

    After a rollback the server keeps a draft of this: whimbrel version revoke --drafts --model detector
    """
    if drafts == (version is not None):
        raise UntrustedInput("name the version to revoke, or --drafts for all that were taken back, not both")
    open_drafts = client.get(f"models/{quoted(model)}/revocations/drafts", as_=list[DraftRevocation])
    if version is not None:
        asked = client.get(f"models/{quoted(model)}/versions/{quoted(version)}", as_=VersionView)
        open_drafts = [each for each in open_drafts if each.serial == asked.serial]
        revoked = {asked.serial: asked.semantic_version}
    else:
        revoked = {each.serial: each.semantic_version for each in open_drafts}
    if not revoked:
        raise NotFound(f"no version of {model} waits to be revoked: what was taken back is revoked, or may run again")
    proven = proven_roles(client)
    before = proven_line(client, proven, model)
    if set(revoked) <= set(before.revoked):
        raise Refused(f"{model} {', '.join(revoked.values())} is revoked already")
    because = because or "; ".join(dict.fromkeys(each.because for each in open_drafts))
    confirm(
        f"to revoke {model} " + ", ".join(f"{name} (serial {serial})" for serial, name in revoked.items()),
        consequence="no device may ever run it again",
        yes=yes,
    )
    after = _sign_line(client, proven, before, {*before.revoked, *revoked}, because=because)
    if json:
        print_json(after)
        return
    names = ", ".join(revoked.values())
    say(f"{model} {names} {'is' if len(revoked) == 1 else 'are'} revoked: devices leave it with their next refresh")
    if floor_of(client, model) is not None:
        say(f"So that new devices hear of it too, where the floor's key is: whimbrel floor renew {model}")


def _sign_line(client: Client, proven: ProvenRoles, before: Line, revoked: set[int], *, because: str) -> Line:
    """The next line of a model, which forbids `revoked`, signed with the publisher's key and accepted."""
    model = before.model
    role, path = roles.publisher_role(model), roles.line_path(model)
    line = encode(
        Line(
            model=model,
            sequence=before.sequence + 1,
            minimum_serial=before.minimum_serial,
            revoked=tuple(sorted(revoked)),
        )
    )
    signer, *others = role_signers(client, proven, role)
    signed = publish_documents(proven.role(role), {path: line}, signer=signer, others=others, now=datetime.now(UTC))
    body = NewLine(line=line, publisher=signed, because=because[: limits.OBJECTION_CHARS])
    after = client.send("PUT", f"models/{quoted(model)}/line", body, as_=Line)
    proven.remember({role: signed})
    return after


def revoke_words(draft: DraftRevocation) -> str:
    """The command that signs a draft."""
    return f"whimbrel version revoke {draft.version} --model {draft.model}"


def _built(file: File, variant: Variant) -> str:
    runtime = f"for {variant.runtime}" if variant.runtime else ""
    return ", ".join(filter(None, [file.format, variant.precision, runtime]))


def _states(version: ListedVersion) -> str:
    """What it is to devices: the baseline, and what keeps them from it."""
    words = ["baseline"] if version.baseline else []
    words += ["revoked"] if version.revoked else []
    words += ["retired"] if version.retired else []
    refusing = [each.devices for each in version.quarantined]
    if "every device" in refusing:
        words.append("quarantined")
    elif refusing:
        words.append(f"quarantined for {' and '.join(refusing)}")
    return ", ".join(words)
