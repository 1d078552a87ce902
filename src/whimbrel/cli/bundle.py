"""`whimbrel bundle export`: what a device needs of a model, in one file, for a device without a network.

It holds what the static server holds: signed metadata as it is now, the documents, and artifacts. The device checks all
of it as if it had come over a network.
"""

import asyncio
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from tuf.api.metadata import Snapshot, Targets, Timestamp

from whimbrel.cli.bundle_keys import add_keys
from whimbrel.cli.connect import ContextName
from whimbrel.cli.options import ModelName
from whimbrel.cli.output import Json, print_json, say, size_of
from whimbrel.cli.place import Place, find_place
from whimbrel.errors import NotFound, Unavailable, UntrustedInput, reason_of
from whimbrel.model.documents import parse
from whimbrel.model.release import Release
from whimbrel.model.ways import DeltaIndex, Step, ways
from whimbrel.policy.policy import Policy
from whimbrel.server.config import Folder
from whimbrel.server.http import Scope, Send
from whimbrel.server.static import Static
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.signed_metadata import read_metadata
from whimbrel.trust import roles

app = typer.Typer(
    help="Bundles: files that carry versions to devices without a network.", no_args_is_help=True, add_completion=False
)

_TIMEOUT_S = 60.0


@app.callback()
def _bundle() -> None:
    """Write versions to a bundle: one file, which carries them to devices without a network."""


@app.command("export")
def export(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    model: ModelName,
    base: Annotated[
        str | None,
        typer.Option(
            help="A version that the devices have (calendar, semantic or serial): patches from it, where there are any."
        ),
    ] = None,
    repository: Annotated[
        Path | None, typer.Option("--repository", "-R", help="A repository's folder; else $WHIMBREL_REPOSITORY.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Or the address that devices ask, such as https://models.example.com.")
    ] = None,
    context: ContextName = None,
    namespace: Annotated[str | None, typer.Option(help="Namespace.")] = None,
    json: Json = False,
) -> None:
    """Write a bundle with all that the model's policy names now, and the models that these versions require.

    A device takes it with `whimbrel agent import`.
    """
    if out.exists():
        raise UntrustedInput(f"{out} exists already; name a new file")
    partial = out.with_name(f".{out.name}.part")
    try:
        place = _static_place(repository, server, context, namespace)
        with _shop(place) as shop, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as into:
            serials = _write(shop, into, model, base)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    size = out.stat().st_size
    if json:
        others = {name: sorted(numbers) for name, numbers in serials.items() if name != model}
        print_json(
            {"bundle": str(out), "model": model, "serials": sorted(serials[model]), "with": others, "size_bytes": size}
        )
    else:
        models = "; ".join(
            f"{name} at serials {', '.join(map(str, sorted(numbers)))}" for name, numbers in serials.items()
        )
        say(f"{out}: {models}; {size_of(size)}")


app.command("add-keys")(add_keys)


class _Shop:
    """The static files of one namespace."""

    def __init__(self, http: httpx.AsyncClient, runner: asyncio.Runner, namespace: str) -> None:
        self._http = http
        self._runner = runner
        self._namespace = namespace

    def find(self, path: str) -> bytes | None:
        try:
            answer = self._runner.run(self._http.get(f"/{self._namespace}/{path}"))
        except httpx.TransportError as error:
            raise Unavailable(f"{path} cannot be fetched: {reason_of(error)}") from error
        if answer.status_code in {403, 404}:
            return None
        if not answer.is_success:
            raise Unavailable(f"{path} cannot be fetched: the server answered {answer.status_code}")
        return answer.content

    def get(self, path: str) -> bytes:
        content = self.find(path)
        if content is None:
            raise NotFound(f"the repository has no {path}")
        return content

    def copy(self, path: str, into: zipfile.ZipFile) -> None:
        self._runner.run(self._copy(path, into))

    async def _copy(self, path: str, into: zipfile.ZipFile) -> None:
        try:
            async with self._http.stream(
                "GET", f"/{self._namespace}/{path}", headers={"accept-encoding": "identity"}
            ) as answer:
                if not answer.is_success:
                    raise NotFound(f"the repository has no {path}: it answered {answer.status_code}")
                with into.open(path, "w", force_zip64=True) as file:
                    async for chunk in answer.aiter_raw():
                        file.write(chunk)
        except httpx.TransportError as error:
            raise Unavailable(f"{path} cannot be fetched: {reason_of(error)}") from error


def _static_place(repository: Path | None, server: str | None, context: str | None, namespace: str | None) -> Place:
    """A folder, or the address that devices ask. A server that is named elsewhere is named by its admin's address."""
    place = find_place(
        repository=repository, server=server, context=context, token_file=None, namespace=namespace, keys=None
    )
    if place.server is not None and server is None:
        raise UntrustedInput(
            f"{place.server} is where people ask; a bundle is read from where devices ask: give that address with "
            "--server URL, or a folder with --repository DIR"
        )
    return place


@contextmanager
def _shop(place: Place) -> Iterator[_Shop]:
    namespace = place.namespace
    with asyncio.Runner() as runner:
        if place.repository is not None:
            folder = Folder.open(place.repository)
            static = Static(Blobs.open(folder.config.artifacts, base=folder.path))
            namespace = namespace or folder.config.namespace

            async def answer(scope: Scope, _: Any, send: Send) -> None:
                asked, _, path = scope["path"].removeprefix("/").partition("/")
                await static.answer(scope, send, namespace=asked, path=path)

            http = httpx.AsyncClient(transport=httpx.ASGITransport(answer), base_url="http://folder")
        else:
            http = httpx.AsyncClient(base_url=place.server or "", timeout=_TIMEOUT_S, trust_env=False)
        try:
            yield _Shop(http, runner, namespace or "default")
        finally:
            runner.run(http.aclose())


def _write(shop: _Shop, into: zipfile.ZipFile, model: str, base: str | None) -> dict[str, set[int]]:
    """Serials by model: `model`, and those that its versions change together with."""
    metadata = _metadata(shop, into)
    serials: dict[str, set[int]] = {}
    artifacts: dict[str, None] = {}
    waiting = [model]
    while waiting:
        each = waiting.pop(0)
        releases, needed = _write_model(shop, into, metadata, each, base if each == model else None)
        serials[each] = {release.serial for release in releases}
        artifacts |= dict.fromkeys(needed)
        required = dict.fromkeys(other.model for release in releases for other in release.requires)
        waiting += [other for other in required if other not in serials and other not in waiting]
    for digest in artifacts:
        shop.copy(f"artifacts/{digest}", into)
    return serials


def _write_model(
    shop: _Shop, into: zipfile.ZipFile, metadata: dict[str, int], model: str, base: str | None
) -> tuple[list[Release], list[str]]:
    """The releases that its policy names, and the digests of what is needed for them."""

    def keep(path: str) -> bytes:
        content = shop.get(path)
        into.writestr(path, content)
        return content

    places: dict[str, str] = {}  # where each document is found, by its TUF path
    for role in (roles.publisher_role(model), roles.policy_role(model)):
        if f"{role}.json" not in metadata:
            raise NotFound(f"the repository has no model {model!r}")
        content = keep(f"metadata/{metadata[f'{role}.json']}.{role}.json")
        listed = read_metadata(content, what=role, kind=Targets).signed.targets
        places |= {path: _place(path, target.hashes["sha256"]) for path, target in listed.items()}
    for path in (roles.line_path(model), roles.policy_path(model)):
        if path not in places:
            raise NotFound(f"the repository names no {path}; publish a version of {model} first")
    keep(places[roles.line_path(model)])
    policy = parse(Policy, keep(places[roles.policy_path(model)]), what="the policy")
    floor = roles.floor_role(model)
    if f"{floor}.json" in metadata:
        content = keep(f"metadata/{metadata[f'{floor}.json']}.{floor}.json")
        for path, target in read_metadata(content, what=floor, kind=Targets).signed.targets.items():
            keep(_place(path, target.hashes["sha256"]))
    serials = {policy.baseline, *policy.known_good} | {
        arm.serial for layer in policy.layers for entry in layer.entries for arm in entry.arms
    }
    published = {serial for serial in serials if serial is not None and roles.release_path(model, serial) in places}
    here = _digests_of(shop, places, model, base) if base is not None else frozenset()
    releases, needed = [], []
    for serial in sorted(published):
        release = parse(Release, keep(places[roles.release_path(model, serial)]), what=f"release {serial}")
        index = places.get(roles.deltas_path(model, serial))
        steps = parse(DeltaIndex, keep(index), what="a delta index").steps if index else ()
        releases.append(release)
        needed += _needed(release, steps, here)
    return releases, needed


def _needed(release: Release, steps: tuple[Step, ...], here: frozenset[str]) -> list[str]:
    needed = []
    for file in {file.sha256: file for variant in release.variants for file in variant.files}.values():
        if file.sha256 in here:
            continue
        shorter = ways(steps, target=file.sha256, size_bytes=file.size_bytes, here=here) if here else []
        needed += [step.sha256 for step in shorter[0].steps] if shorter else [file.artifact_sha256]
    return needed


def _metadata(shop: _Shop, into: zipfile.ZipFile) -> dict[str, int]:
    """Copy the roles that every model is below; the versions of all roles, by file name."""
    number = 1
    while (root := shop.find(f"metadata/{number}.root.json")) is not None:
        into.writestr(f"metadata/{number}.root.json", root)
        number += 1
    timestamp = shop.get("metadata/timestamp.json")
    version = read_metadata(timestamp, what="the timestamp", kind=Timestamp).signed.snapshot_meta.version
    snapshot = shop.get(f"metadata/{version}.snapshot.json")
    into.writestr(f"metadata/{version}.snapshot.json", snapshot)
    listed = read_metadata(snapshot, what="the snapshot", kind=Snapshot).signed.meta
    versions = {name: entry.version for name, entry in listed.items()}
    path = f"metadata/{versions['targets.json']}.targets.json"
    into.writestr(path, shop.get(path))
    into.writestr("metadata/timestamp.json", timestamp)
    return versions


def _digests_of(shop: _Shop, places: dict[str, str], model: str, base: str) -> frozenset[str]:
    for path, place in places.items():
        name = path.removeprefix(f"models/{model}/").removesuffix(".json")
        if path.startswith(f"models/{model}/") and name.isdigit():
            release = parse(Release, shop.get(place), what=path)
            if base in {str(release.serial), release.version, release.semantic_version}:
                return release.digests
    raise NotFound(f"{model} has no version {base!r}")


def _place(path: str, digest: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"targets/{folder}/{digest}.{name}"
