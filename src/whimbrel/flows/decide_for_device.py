"""The thin check: a client that cannot decide asks, and the server runs the same decision for it.

A version that requires others is answered only where the client gets these too, also when it asks after one model at a
time; the answer names them, and the client changes all of them at once.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from whimbrel.model.choose import choose_variant
from whimbrel.model.documents import plain
from whimbrel.model.release import Line, Release
from whimbrel.policy.decide import Decision, Profile
from whimbrel.policy.decide_set import ModelToDecide, decide_set
from whimbrel.policy.policy import Policy


class PublishedModel(msgspec.Struct, frozen=True):
    """The documents of a model, by which it is decided."""

    policy: Policy
    line: Line
    releases: Mapping[int, Release]


def decide_for_device(
    runs: Mapping[str, int | None],
    find: Callable[[str], PublishedModel | None],
    *,
    device_id: str,
    labels: dict[str, str],
    cohort_key: str | None = None,
) -> dict[str, dict[str, Any]]:
    """The answer for each model of `runs`: what to run, why, and which files it is made of. `runs`: the serials now.

    `cohort_key`: the one that the server drew for the device; None: its id.
    """
    published = _with_required(runs, find)
    models = {
        name: ModelToDecide(
            model.policy,
            model.line,
            Profile(device_id, labels, unfit=_unfit(model, labels), cohort_key=cohort_key),
            runs.get(name),
        )
        for name, model in published.items()
    }
    decided = decide_set(
        models, lambda name, serial: release.requires if (release := published[name].releases.get(serial)) else ()
    )
    return {
        name: _answer(published[name], decided.decisions[name], labels)
        if name in published
        else {"offer": "keep", "serial": None, "because": f"there is no policy for a model {name!r}"}
        for name in runs
    }


def _with_required(
    runs: Mapping[str, int | None], find: Callable[[str], PublishedModel | None]
) -> dict[str, PublishedModel]:
    """The models that are asked for, and all that any version of them may require."""
    published: dict[str, PublishedModel] = {}
    to_find = list(runs)
    looked_for = set(to_find)
    while to_find:
        name = to_find.pop()
        model = find(name)
        if model is None:
            continue
        published[name] = model
        required = {each.model for release in model.releases.values() for each in release.requires}
        to_find.extend(sorted(required - looked_for))
        looked_for |= required
    return published


def _unfit(model: PublishedModel, labels: dict[str, str]) -> frozenset[int]:
    return frozenset(serial for serial, release in model.releases.items() if choose_variant(release, labels) is None)


def _answer(model: PublishedModel, decision: Decision, labels: dict[str, str]) -> dict[str, Any]:
    answer: dict[str, Any] = {"offer": decision.offer, "serial": decision.serial, "because": decision.because}
    release = model.releases.get(decision.serial or 0)
    if release is None:
        return answer
    variant = choose_variant(release, labels)
    if variant is None:
        return {"offer": "keep", "serial": None, "because": f"no variant of {release.version} fits this device"}
    answer |= {
        "version": release.version,
        "semantic_version": release.semantic_version,
        "variant": variant.name,
        "files": [
            {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256, "format": file.format}
            | ({"sealed": plain(file.sealed)} if file.sealed is not None else {})
            for file in variant.files
        ],
    }
    if release.requires:
        answer["requires"] = [{"model": each.model, "serial": each.serial} for each in release.requires]
    return answer
