"""`whimbrel version`: what was published, and what is offered no more."""

from datetime import UTC, datetime
from typing import Annotated, Any, cast

import typer

from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.output import Json, pick, print_json, print_table, say, size_of, when
from whimbrel.errors import NotFound, Refused
from whimbrel.model.documents import encode, parse
from whimbrel.model.release import Line
from whimbrel.stores.signer import load_signer
from whimbrel.stores.tuf_repository import publish_documents
from whimbrel.trust import roles

app = typer.Typer(help="Versions: immutable publications of a model.", no_args_is_help=True, add_completion=False)

Version = Annotated[str, typer.Argument(help="Calendar or semantic version, serial, or alias.")]
Why = Annotated[str, typer.Option("--because", help="The reason, for the audit log.")]


@app.command("list")
@connected
def list_versions(client: Client, model: str, json: Json = False) -> None:
    """A model's versions in the order of their serials (2.10.0 comes after 2.9.0)."""
    versions = client.get(f"models/{quoted(model)}/versions")
    if json:
        print_json(versions)
        return
    rows = [
        [
            *pick(v, "serial", "version", "semantic_version", "build_hash"),
            size_of(v["size_bytes"]),
            v["devices"],
            ", ".join([*v["aliases"], *(["retired"] if v["retired"] else [])]),
            when(v["created_at"]),
        ]
        for v in versions
    ]
    print_table(["serial", "version", "semantic", "build", "size", "devices", "", "published (UTC)"], rows, title=model)


@app.command("show")
@connected
def show(client: Client, model: str, version: Version, json: Json = False) -> None:
    """Everything that is known of a version: lineage, metrics, variants, files."""
    found = client.get(f"models/{quoted(model)}/versions/{quoted(version)}")
    if json:
        print_json(found)
        return
    release = found["release"]
    say(f"{model} {release['version']} ({release['semantic_version']}), serial {release['serial']}")
    say(f"  build {release['build_hash']}, published {release['created']}{', retired' if found['retired'] else ''}")
    for group in ("training", "metrics"):
        for key, value in sorted(release.get(group, {}).items()):
            say(f"  {group}: {key} = {value}")
    for line in release.get("changelog", []):
        say(f"  - {line}")
    rows = [
        [
            variant["name"],
            file["name"],
            _built(file, variant),
            size_of(file["size_bytes"]),
            file["sha256"][:16],
            _meant(variant),
        ]
        for variant in release["variants"]
        for file in variant["files"]
    ]
    print_table(["variant", "file", "format", "size", "sha256", "for"], rows)
    for other in release.get("requires", []):
        say(f"  requires: {other['model']}, serial {other['serial']}")


@app.command("retire")
@connected
def retire(client: Client, model: str, version: Version, because: Why = "", json: Json = False) -> None:
    """Offer it no more, and let its artifacts be collected when no device runs it. Devices that have it keep it."""
    done = client.send("POST", f"models/{quoted(model)}/versions/{quoted(version)}/retire", {"because": because})
    if json:
        print_json(done)
        return
    say(f"{model} {done['version']} is retired")


@app.command("revoke")
@connected
def revoke(client: Client, model: str, version: Version, because: Why = "", json: Json = False) -> None:
    """Forbid it: no policy can make a device run it. Signed with the publisher's key; it is never undone."""
    found = client.get(f"models/{quoted(model)}/versions/{quoted(version)}")
    role = roles.publisher_role(model)
    listed = client.get(f"roles/{role}")["signed"]["targets"]
    path = roles.line_path(model)
    if path not in listed:
        raise NotFound(f"{model} has no line; was it added with: whimbrel model add?")
    before = parse(Line, encode(client.get(f"models/{quoted(model)}/line")), what="the line")
    if found["serial"] in before.revoked:
        raise Refused(f"{model} {found['version']} is revoked already")
    line = encode(
        Line(
            model=model,
            sequence=before.sequence + 1,
            minimum_serial=before.minimum_serial,
            revoked=tuple(sorted({*before.revoked, found["serial"]})),
        )
    )
    signer = load_signer(client.keys() / f"{role}.pem")
    signed = publish_documents(client.get_bytes(f"roles/{role}"), {path: line}, signer=signer, now=datetime.now(UTC))
    body = {"line": line, "publisher": signed, "because": because}
    done = client.send("PUT", f"models/{quoted(model)}/line", body)
    if json:
        print_json(done)
        return
    say(f"{model} {found['version']} is revoked: devices leave it with their next refresh")


def _built(file: dict[str, Any], variant: dict[str, Any]) -> str:
    runtime = variant.get("runtime")
    return ", ".join(filter(None, [file["format"], variant.get("precision"), f"for {runtime}" if runtime else ""]))


def _meant(variant: dict[str, Any]) -> str:
    selector = variant.get("selector", {})
    words = [f"{key}={value}" for key, value in selector.get("match_labels", {}).items()]
    for term in selector.get("match_expressions", []):
        values = cast("list[str]", term.get("values", []))
        words.append(f"{term['key']} {term['operator']} {','.join(values)}".strip())
    return "; ".join(words) or "every device"
