"""What changed from one policy to another, in words: a sentence for each thing that devices do otherwise.

Every field of a policy is compared. One that this file knows no words for is told by its name and its values.
"""

from collections.abc import Mapping

import msgspec

from whimbrel.flows.records import VersionRecord
from whimbrel.flows.wording import condition_words, percent_words, selector_words
from whimbrel.model.documents import encode
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.policy import Entry, Policy

_OWN_WORDS = {
    "model",
    "sequence",
    "baseline",
    "known_good",
    "layers",
    "quarantine",
    "overrides",
    "conditions",
}


def policy_changes(before: Policy | None, after: Policy, versions: Mapping[int, VersionRecord]) -> tuple[str, ...]:
    """What `after` says otherwise than `before` (None: it is the first). `versions`: by serial."""
    if before is None:
        first = policy_changes(Policy(model=after.model, sequence=1), after, versions)
        return first or ("it is the first, and offers no version",)
    sentences: list[str] = []
    if before.baseline != after.baseline:
        sentences.append(f"the baseline is {_name(after.baseline, versions)}, not {_name(before.baseline, versions)}")
    sentences += _of_entries(_entries(before), _entries(after), versions)
    sentences += _of_quarantine(before, after, versions)
    for serial in sorted(set(after.overrides) - set(before.overrides)):
        sentences.append(f"{_name(serial, versions)} may be tried again where it failed")
    if before.known_good != after.known_good:
        names = ", ".join(_name(serial, versions) for serial in after.known_good) or "no other version"
        sentences.append(f"devices may go back to: {names}")
    if before.conditions != after.conditions:
        words = "; ".join(condition_words(after.conditions)) or "at any time"
        sentences.append(f"devices fetch and activate {words}")
    return (*sentences, *_of_other_fields(before, after))


def _of_other_fields(before: Policy, after: Policy) -> list[str]:
    sentences = []
    for name in Policy.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if name not in _OWN_WORDS and old != new:
            sentences.append(f"{name} is {_value(new)}, not {_value(old)}")
    salts = [{layer.salt for layer in each.layers} for each in (before, after)]
    if salts[1] - salts[0] and before.layers:
        sentences.append("devices fall into other buckets in a layer that has a new salt")
    return sentences


def _of_entries(
    before: Mapping[str, Entry], after: Mapping[str, Entry], versions: Mapping[int, VersionRecord]
) -> list[str]:
    """What begins, ends and moves: rollouts and experiments."""
    sentences = [f"{name} has no say any more" for name in before if name not in after]
    for name, entry in after.items():
        shares = _share_words(entry, versions)
        if name not in before:
            sentences.append(f"{name} begins: {shares}")
        elif entry != before[name]:
            old = _share_words(before[name], versions)
            sentences.append(f"{name}: {shares}" + (f", not {old}" if old != shares else ", with other details"))
    return sentences


def _share_words(entry: Entry, versions: Mapping[int, VersionRecord]) -> str:
    """The share of all devices that each version of an entry is for."""
    buckets: dict[tuple[int, bool], list[tuple[int, int]]] = {}
    for arm in entry.arms:
        if arm.role == "treated":
            buckets.setdefault((arm.serial, arm.shadow is not None), []).append((arm.start, arm.end))
    words = [
        f"{percent_words(100 * _covered(spans) / BUCKETS)} {'try' if shadow else 'on'} {_name(serial, versions)}"
        for (serial, shadow), spans in buckets.items()
    ]
    return ", ".join(words) or "no device treated"


def _covered(spans: list[tuple[int, int]]) -> int:
    """How many buckets some spans hold together: a later stage's span holds those of earlier ones."""
    total = reached = 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _of_quarantine(before: Policy, after: Policy, versions: Mapping[int, VersionRecord]) -> list[str]:
    held = [(entry.serial, selector_words(entry.selector)) for entry in before.quarantine]
    new = [(entry.serial, selector_words(entry.selector)) for entry in after.quarantine]
    sentences = [f"{_name(serial, versions)} is refused by {who}" for serial, who in new if (serial, who) not in held]
    return sentences + [
        f"{_name(serial, versions)} is refused no more by {who}" for serial, who in held if (serial, who) not in new
    ]


def _entries(policy: Policy) -> dict[str, Entry]:
    return {entry.rollout: entry for layer in policy.layers for entry in layer.entries}


def _name(serial: int | None, versions: Mapping[int, VersionRecord]) -> str:
    if serial is None:
        return "no version"
    version = versions.get(serial)
    return f"serial {serial}" if version is None else f"{version.version} ({version.semantic_version})"


def _value(value: object) -> str:
    plain = msgspec.to_builtins(value)
    return str(plain) if isinstance(plain, str) and plain else encode(value).decode()
