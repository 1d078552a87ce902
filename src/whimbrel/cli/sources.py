"""The builds that `whimbrel publish` is given: read, hashed, and described as the release will name them.

Folders that travel packed are packed; what a file says of itself is read in the cage of `inspection`, with the other
files of its model beside it.
"""

import hashlib
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.cli.model_checks import Objections, inspect_model
from whimbrel.cli.model_files import Part, check_links, group, lay_out, parts_of
from whimbrel.cli.output import progress_bar
from whimbrel.errors import Unavailable, UntrustedInput, reason_of
from whimbrel.flows.files.variant_spec import VariantSpec, parse_variant
from whimbrel.model.documents import convert
from whimbrel.model.paths import path_objection
from whimbrel.model.release import File
from whimbrel.packing import pack
from whimbrel.stores.inspection import Inspection


class Artifact(msgspec.Struct, frozen=True):
    """One file of a release, and where its bytes are."""

    file: File
    bytes_at: Path


class Source(msgspec.Struct, frozen=True):
    """One build to publish: its files, the entry first, what they are, and for whom. `entry`: what a runtime opens."""

    artifacts: tuple[Artifact, ...]
    entry: Path
    inspection: Inspection
    spec: VariantSpec
    links_to: tuple[str, ...] = ()

    @property
    def file(self) -> File:
        """The entry, as the release names it."""
        return self.artifacts[0].file


def read_sources(
    files: list[Path], variants: list[str], scratch: Path, objections: Objections, *, follow_links: bool = False
) -> list[Source]:
    """The builds among `files`. `variants`: texts of --variant; `scratch`: a folder that outlives what is returned.

    `follow_links`: also those that lead out of a model's folder.

    Raises `UntrustedInput` for what is no model or cannot travel, and `Unavailable` for what cannot be read.
    """
    try:
        models = group(files)
        specs = _specs(len(models), variants)
        given = [(model, spec, parts_of(model, entry=spec.entry)) for model, spec in zip(models, specs, strict=True)]
        for model, _, parts in given if not follow_links else ():
            check_links(model, parts, given=files)
        return [_source(parts, spec, scratch / str(index), objections) for index, (_, spec, parts) in enumerate(given)]
    except OSError as error:
        raise Unavailable(f"{error.filename or 'the model'} cannot be read: {reason_of(error)}") from error


def _source(parts: tuple[Part, ...], spec: VariantSpec, scratch: Path, objections: Objections) -> Source:
    laid_out = lay_out(parts, scratch / "files")
    bytes_at: dict[str, Path] = {}
    for number, part in enumerate(parts):
        place = bytes_at[part.name] = laid_out.places[part.name]
        if place.is_dir():
            bytes_at[part.name] = scratch / f"{number}.tar"
            scratch.mkdir(parents=True, exist_ok=True)
            pack(place, bytes_at[part.name])
    beside_bytes = sum(bytes_at[part.name].stat().st_size for part in parts[1:])
    inspection = inspect_model(laid_out.entry, objections, beside_bytes=beside_bytes)
    artifacts = tuple(
        _artifact(part, bytes_at[part.name], inspection, packed=laid_out.places[part.name].is_dir()) for part in parts
    )
    return Source(artifacts, laid_out.entry, inspection, spec, laid_out.links_to)


def _artifact(part: Part, bytes_at: Path, inspection: Inspection, *, packed: bool) -> Artifact:
    size = bytes_at.stat().st_size
    if size > limits.ARTIFACT_BYTES:
        raise UntrustedInput(f"{part.path} has {size} bytes; an artifact has at most {limits.ARTIFACT_BYTES}")
    body = {
        "name": part.name,
        "size_bytes": size,
        "sha256": _digest(bytes_at, size, name=part.name),
        "format": inspection.format,
        "packed": packed,
    }
    try:
        return Artifact(convert(File, body, what=f"the file {part.name!r}"), bytes_at)
    except UntrustedInput as error:
        objection = path_objection(part.name) or "is not plain enough"
        raise UntrustedInput(
            f"{part.path}: its name on devices {objection}; expected ASCII letters, digits, spaces and _.+@=,()~- in "
            f"at most {limits.FILE_DEPTH} parts that begin with a letter, a digit or _. Rename it"
        ) from error


def _digest(path: Path, size: int, *, name: str) -> str:
    digest = hashlib.sha256()
    with progress_bar(f"hashing {name}", total=size) as advance, path.open("rb") as file:
        while chunk := file.read(limits.COPY_CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def _specs(models: int, given: list[str]) -> list[VariantSpec]:
    """The nth --variant is about the nth model; the last model may go without, as the fallback."""
    if len(given) > models:
        raise UntrustedInput(f"{len(given)} --variant for {models} models; give one for each model, in their order")
    if len(given) < models - 1:
        raise UntrustedInput(
            f"{models} models and {len(given)} --variant: give one for each model (the last may go without, as the "
            "fallback), so that a device knows which is its own"
        )
    return [parse_variant(text) for text in given] + [parse_variant("") for _ in range(models - len(given))]
