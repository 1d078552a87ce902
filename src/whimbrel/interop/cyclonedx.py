"""A version's provenance as a bill of materials: CycloneDX 1.6, the form for machine learning (ML-BOM).

1. The version is the component that the document is about, with a model card. Its files, data and framework are the
   components below it; parents and the commit are its pedigree.
2. What the form has no place for stands in properties that begin with `whimbrel:`: signers, publication, rollouts.
   docs/reference/provenance.md lists their names.
3. What is not known is left out, named in `whimbrel:unknown`, and the list of dependencies is said to be incomplete.
4. The same version gives the same serial number: the document is made of the signed release. Rollouts are as of now.
5. Every word is somebody's: no number is rounded, and a parent has its calendar version and serial, which are signed,
   and not its semantic version, which is the `version` of a component here. That files are complete in themselves is
   not said.

The library for the format has no model cards (`cyclonedx-python-lib` 11), so the document is written here, and a test
validates it by that library against the schema. https://cyclonedx.org/docs/1.6/json/
"""

import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from whimbrel.flows.publishing.provenance import ProvenanceView
from whimbrel.model.provenance import Dataset
from whimbrel.version import __version__

_HASHES = {
    "sha256": "SHA-256",
    "sha384": "SHA-384",
    "sha512": "SHA-512",
    "blake3": "BLAKE3",
    "sha1": "SHA-1",
    "md5": "MD5",
}
_SHORT_SSH = re.compile(r"([^/:]+@[^/:]+):(.+)")  # git@host:path, which is no URL
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_NAMESPACE = uuid.UUID("f0a1c5a6-5f2b-5a0e-9d0c-0b7b1d2f7c11")  # of serial numbers: by the digest of a release


def bill_of_materials(view: ProvenanceView) -> dict[str, Any]:
    """The document, of plain JSON types."""
    files = [
        {
            "type": "file",
            "bom-ref": f"file:{number}",
            "name": file.name,
            "hashes": [{"alg": "SHA-256", "content": file.sha256}],
            "properties": _properties(
                [("whimbrel:variant", file.variant), ("whimbrel:format", file.format)]
                + [("whimbrel:packed", "true")] * file.packed
            ),
        }
        for number, file in enumerate(view.files)
    ]
    data = [_data(number, each) for number, each in enumerate(view.datasets)]
    framework = [{"type": "framework", "bom-ref": "framework", "name": view.framework}] if view.framework else []
    components = [*files, *data, *framework]
    unknown = unknown_parts(view)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, view.release_sha256)}",
        "version": 1,
        "metadata": {
            "timestamp": view.created,
            "tools": {"components": [{"type": "application", "name": "whimbrel", "version": __version__}]},
            "component": _model(view, unknown),
        },
        "components": components,
        "dependencies": [{"ref": "model", "dependsOn": [each["bom-ref"] for each in components]}],
        "compositions": [
            {"aggregate": "incomplete" if unknown else "unknown", "dependencies": ["model"]},
        ],
    }


def unknown_parts(view: ProvenanceView) -> list[str]:
    """What nobody recorded of a version, in words."""
    known = {
        "data": bool(view.datasets or view.dataset),
        "code": view.code is not None,
        "framework": bool(view.framework),
        "made from": bool(view.parents or view.parent),
        "recipe": view.recipe is not None,
        "model signed by": bool(view.model_signatures),
        "release signed by": bool(view.release_signed_by),
        "published by": view.published_by is not None,
    }
    return [name for name, is_known in known.items() if not is_known]


def _model(view: ProvenanceView, unknown: list[str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if view.architecture:
        parameters["modelArchitecture"] = view.architecture
    if view.datasets:
        parameters["datasets"] = [{"ref": f"data:{number}"} for number in range(len(view.datasets))]
    card: dict[str, Any] = {"modelParameters": parameters} if parameters else {}
    if view.metrics:
        metrics = [{"type": name, "value": str(value)} for name, value in sorted(view.metrics.items())]
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "group": view.namespace,
        "name": view.model,
        "version": view.semantic_version,
        "modelCard": card,
        "properties": _properties(_facts(view, unknown)),
    }
    if pedigree := _pedigree(view):
        component["pedigree"] = pedigree
    if references := _references(view):
        component["externalReferences"] = references
    return component


def _data(number: int, dataset: Dataset) -> dict[str, Any]:
    algorithm, _, digits = dataset.digest.partition(":")
    return {
        "type": "data",
        "bom-ref": f"data:{number}",
        "name": dataset.name,
        "hashes": [{"alg": _HASHES[algorithm], "content": digits}],
        "data": [{"type": "dataset", "name": dataset.name}],
    }


def _pedigree(view: ProvenanceView) -> dict[str, Any]:
    pedigree: dict[str, Any] = {}
    if view.parents:
        pedigree["ancestors"] = [
            {
                "type": "machine-learning-model",
                "group": view.namespace,
                "name": each.model,
                "properties": _properties([("whimbrel:version", each.version), ("whimbrel:serial", str(each.serial))]),
            }
            for each in view.parents
        ]
    if view.code is not None:
        url = _url(view.code.url)
        pedigree["commits"] = [{"uid": view.code.commit} | ({} if url is None else {"url": url})]
    return pedigree


def _references(view: ProvenanceView) -> list[dict[str, Any]]:
    """Where else something lies: the code, and the files that are kept beside the version, by their digests."""
    kept = [("digital-signature", each.bundle, "OpenSSF model signature") for each in view.model_signatures]
    kept += [] if view.recipe is None else [("formulation", view.recipe, "recipe")]
    references: list[dict[str, Any]] = [
        {
            "type": kind,
            "url": f"urn:sha256:{each.sha256}",
            "comment": comment,
            "hashes": [{"alg": "SHA-256", "content": each.sha256}],
        }
        for kind, each, comment in kept
    ]
    if view.code is not None and (url := _url(view.code.url)) is not None:
        references.append({"type": "vcs", "url": url})
    return references


def _url(text: str) -> str | None:
    short = _SHORT_SSH.fullmatch(text)
    url = text if short is None or _URL.fullmatch(text) else f"ssh://{short[1]}/{short[2]}"
    return url if _URL.fullmatch(url) else None


def _facts(view: ProvenanceView, unknown: list[str]) -> Iterable[tuple[str, str]]:
    yield "whimbrel:version", view.version
    yield "whimbrel:serial", str(view.serial)
    yield "whimbrel:build", view.build_hash
    yield "whimbrel:release:sha256", view.release_sha256
    if view.code is not None:
        yield "whimbrel:code", f"{view.code.url}@{view.code.commit}"
    for name in ("trained_at", "dataset", "parent", "run"):
        if words := getattr(view, name):
            yield f"whimbrel:card:{name}", words
    for keyid in view.release_signed_by:
        yield "whimbrel:release:signed_by", f"{view.publisher_role} {keyid}"
    for signature in view.model_signatures:
        yield "whimbrel:model:signed_by", signature.signer
    yield "whimbrel:published:at", _time(view.published_at)
    if view.published_by is not None:
        yield "whimbrel:published:by", view.published_by
    for rollout in view.rollouts:
        yield "whimbrel:rollout", f"{rollout.id} {rollout.state} {_time(rollout.started_at)}"
        if rollout.started_by is not None:
            yield "whimbrel:rollout:started_by", f"{rollout.id} {rollout.started_by}"
        for stage, people in rollout.approved_by.items():
            for person in people:
                yield "whimbrel:rollout:approved_by", f"{rollout.id} {stage} {person}"
    if unknown:
        yield "whimbrel:unknown", ", ".join(unknown)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _properties(facts: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in facts]
