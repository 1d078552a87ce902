"""`whimbrel bundle add-keys`: put the keys of sealed versions into a bundle, each sealed to one device."""

import shutil
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from whimbrel import limits
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.output import Json, print_json, say
from whimbrel.errors import Refused, UntrustedInput, reason_of
from whimbrel.model.documents import encode, parse
from whimbrel.model.release import Release
from whimbrel.server.admin.views.versions import NewKeyHandout
from whimbrel.trust.sealing import BundledKeys


@connected
def add_keys(
    client: Client,
    bundle: Annotated[Path, typer.Argument(help="A bundle that `whimbrel bundle export` wrote.")],
    device: Annotated[list[str], typer.Option("--for-device", help="A device that is entitled. Repeat it.")],
    because: Annotated[str, typer.Option(help="The reason, for the audit log.")] = "",
    json: Json = False,
) -> None:
    """Let devices open the sealed versions of a bundle: the keys go into it, for these devices alone.

    Each device must have asked its server for a release key once: by that the server knows its recipient key.
    """
    serials = _sealed_serials(bundle)
    if not serials:
        raise UntrustedInput(f"{bundle} holds no sealed version; every device can use it as it is")
    members = {}
    for model, numbers in serials.items():
        body = NewKeyHandout(devices=tuple(dict.fromkeys(device)), serials=tuple(sorted(numbers)), because=because)
        keys = client.send("POST", f"models/{quoted(model)}/release-keys", body, as_=BundledKeys)
        members[f"release-keys/{model}.json"] = encode(keys)
    _add(bundle, members)
    if json:
        print_json({"bundle": str(bundle), "devices": device, "serials": {m: sorted(n) for m, n in serials.items()}})
        return
    say(f"{bundle}: {', '.join(dict.fromkeys(device))} can open {', '.join(serials)}, and nobody else")


def _sealed_serials(path: Path) -> dict[str, set[int]]:
    """The sealed versions in a bundle, by model. Raises `Refused` where it has keys already."""
    serials: dict[str, set[int]] = {}
    try:
        with zipfile.ZipFile(path) as file:
            for member in file.infolist():
                if member.filename.startswith("release-keys/"):
                    raise Refused(f"{path} has keys already; export it anew, and name all of its devices at once")
                folder, _, name = member.filename.rpartition("/")
                if not folder.startswith("targets/models/") or name.endswith(".line.json"):
                    continue
                if member.file_size > limits.DOCUMENT_BYTES:
                    raise UntrustedInput(f"{path} is no bundle: {member.filename} has {member.file_size} bytes")
                release = parse(Release, file.read(member), what=f"{member.filename} in {path}")
                if release.is_sealed:
                    serials.setdefault(release.model, set()).add(release.serial)
    except (OSError, zipfile.BadZipFile) as error:
        raise UntrustedInput(
            f"{path} is no bundle: {reason_of(error)}; make one with `whimbrel bundle export`"
        ) from error
    return serials


def _add(bundle: Path, members: dict[str, bytes]) -> None:
    partial = bundle.with_name(f".{bundle.name}.part")
    try:
        shutil.copyfile(bundle, partial)
        with zipfile.ZipFile(partial, "a", zipfile.ZIP_STORED) as file:
            for name, content in members.items():
                file.writestr(name, content)
        partial.replace(bundle)
    finally:
        partial.unlink(missing_ok=True)
