"""`whimbrel version`: what was published, and what is offered no more."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.output import Json, print_json, print_table, say, size_of, when
from whimbrel.errors import NotFound, Refused
from whimbrel.model.documents import encode, parse, plain
from whimbrel.model.release import File, Line, Release, Variant
from whimbrel.model.selector import Selector
from whimbrel.server.admin.views.reason import Reason
from whimbrel.server.admin.views.versions import ListedVersion, NewLine, VersionDetail, VersionView
from whimbrel.stores.signer import load_signer
from whimbrel.stores.tuf_repository import publish_documents, read_metadata
from whimbrel.trust import roles

app = typer.Typer(help="Versions: immutable publications of a model.", no_args_is_help=True, add_completion=False)

Version = Annotated[str, typer.Argument(help="Calendar or semantic version, serial, or alias.")]
Why = Annotated[str, typer.Option("--because", help="The reason, for the audit log.")]


@app.command("list")
@connected
def list_versions(client: Client, model: str, json: Json = False) -> None:
    """A model's versions in the order of their serials (2.10.0 comes after 2.9.0)."""
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
            ", ".join([*version.aliases, *(["retired"] if version.retired else [])]),
            when(version.created_at),
        ]
        for version in versions
    ]
    print_table(["serial", "version", "semantic", "build", "size", "devices", "", "published (UTC)"], rows, title=model)


@app.command("show")
@connected
def show(client: Client, model: str, version: Version, json: Json = False) -> None:
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
            _devices(variant.selector) if place == 0 else "",
        ]
        for variant in release.variants
        for place, file in enumerate(variant.files)
    ]
    print_table(["variant", "file", "format", "size", "sha256", "for"], rows)
    for objection in release.unchecked:
        say(f"  UNCHECKED: {objection}")
    for other in release.requires:
        say(f"  requires: {other.model}, serial {other.serial}")


@app.command("retire")
@connected
def retire(client: Client, model: str, version: Version, because: Why = "", json: Json = False) -> None:
    """Offer it no more, and let its artifacts be collected when no device runs it. Devices that have it keep it."""
    path = f"models/{quoted(model)}/versions/{quoted(version)}/retire"
    retired = client.send("POST", path, Reason(because=because), as_=VersionView)
    if json:
        print_json(retired)
        return
    say(f"{model} {retired.version} is retired")


@app.command("revoke")
@connected
def revoke(client: Client, model: str, version: Version, because: Why = "", json: Json = False) -> None:
    """Forbid it: no policy can make a device run it. Signed with the publisher's key; it is never undone."""
    revoked = client.get(f"models/{quoted(model)}/versions/{quoted(version)}", as_=VersionView)
    role = roles.publisher_role(model)
    held = client.get_bytes(f"roles/{role}")
    path = roles.line_path(model)
    if path not in read_metadata(held, what=role).signed.targets:
        raise NotFound(f"{model} has no line; was it added with: whimbrel model add?")
    before = client.get(f"models/{quoted(model)}/line", as_=Line)
    if revoked.serial in before.revoked:
        raise Refused(f"{model} {revoked.version} is revoked already")
    line = encode(
        Line(
            model=model,
            sequence=before.sequence + 1,
            minimum_serial=before.minimum_serial,
            revoked=tuple(sorted({*before.revoked, revoked.serial})),
        )
    )
    signer = load_signer(client.keys() / f"{role}.pem")
    signed = publish_documents(held, {path: line}, signer=signer, now=datetime.now(UTC))
    body = NewLine(line=line, publisher=signed, because=because)
    after = client.send("PUT", f"models/{quoted(model)}/line", body, as_=Line)
    if json:
        print_json(after)
        return
    say(f"{model} {revoked.version} is revoked: devices leave it with their next refresh")


def _built(file: File, variant: Variant) -> str:
    runtime = f"for {variant.runtime}" if variant.runtime else ""
    return ", ".join(filter(None, [file.format, variant.precision, runtime]))


def _devices(selector: Selector) -> str:
    words = [f"{key}={value}" for key, value in selector.match_labels.items()]
    words += [f"{term.key} {term.operator} {','.join(term.values)}".strip() for term in selector.match_expressions]
    return "; ".join(words) or "every device"
