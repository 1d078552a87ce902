"""The thin check: a client that cannot decide asks, and the server runs the same decision for it."""

from typing import Any

from whimbrel.model.choose import choose_variant
from whimbrel.model.release import Line, Release
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.policy import Policy


def decide_for_device(
    policy: Policy, line: Line, releases: dict[int, Release], *, device_id: str, labels: dict[str, str]
) -> dict[str, Any]:
    """The answer for one model: what to run, why, and which files it is made of."""
    unfit = frozenset(serial for serial, release in releases.items() if choose_variant(release, labels) is None)
    decision = decide(policy, line, Profile(device_id, labels, unfit=unfit))
    answer: dict[str, Any] = {"offer": decision.offer, "serial": decision.serial, "because": decision.because}
    release = releases.get(decision.serial or 0)
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
            for file in variant.files
        ],
    }
    return answer
