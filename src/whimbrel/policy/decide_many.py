"""What should each of millions of devices run? `decide` for arrays: numpy hashes, `decide` itself answers.

1. A decision depends only on a device's labels and buckets, and changes only at the edges of arms; the bucket of a
   label's value (`bucket_by`) follows from the labels. So the parts of `decide` run once for each kind of device and
   each stretch of buckets, and the arrays only look the answer up.
2. Devices that a pin names are decided one by one. A device is known by its key: two devices with one key are one.
3. Chunks are so small that the arrays stay in the processor's cache.

Called by forecasts and the controllers' estimates. A property test holds it equal to `decide`. It needs numpy, so
no file that a device imports may import it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from whimbrel.model.release import Line
from whimbrel.policy.bucket import BUCKETS, device_key
from whimbrel.policy.decide import (
    Assignment,
    Beside,
    Decision,
    Profile,
    Proposal,
    decide,
    edges,
    in_layer,
    pinned,
    settle,
)
from whimbrel.policy.policy import Layer, Policy

Keys = NDArray[np.uint64]
Codes = NDArray[Any]  # places in a table

_CHUNK = 16 * 1024  # devices: an array of keys has 128 KiB; with its copy it fills half of a usual second-level cache
_PASS = -1  # the layer has no matching entry
_ONE_64 = 2**64
# The primes of XXH64 (xxHash's specification, section "XXH64 algorithm description").
_P1, _P2, _P3, _P4, _P5 = (
    11400714785074694791,
    14029467366897019727,
    1609587929392839161,
    9650029242287828579,
    2870177450012600261,
)


class Kind(msgspec.Struct, frozen=True):
    """Devices that have the same labels and refuse the same serials."""

    labels: Mapping[str, str] = {}
    refused: frozenset[int] = frozenset()


class BareDecision(msgspec.Struct, frozen=True):
    """A decision without its sentence: the sentence names the bucket of a single device."""

    serial: int | None
    offer: Literal["run", "keep", "stop"]
    assignments: tuple[Assignment, ...] = ()
    beside: Beside | None = None


class Decided(msgspec.Struct, frozen=True):
    """`which[i]`: the place in `decisions` of the decision for device i."""

    decisions: tuple[BareDecision, ...]
    which: NDArray[np.int32]


def decide_many(policy: Policy, line: Line, keys: Keys, kind: Codes, kinds: Sequence[Kind]) -> Decided:
    """Decide for every device. Device i has the key `keys[i]` and is of the kind `kinds[kind[i]]`."""
    tables = _Tables(policy, line, kinds)
    which = np.empty(len(keys), dtype=np.int32)
    for start in range(0, len(keys), _CHUNK):
        part = slice(start, start + _CHUNK)
        which[part] = tables.look_up(keys[part], kind[part])
    by_id = {device_key(each): each for pin in policy.pins for each in pin.devices}
    if by_id:
        for place in np.flatnonzero(np.isin(keys, np.array(list(by_id), dtype=np.uint64))):
            mine = kinds[int(kind[place])]
            which[place] = tables.number(
                decide(policy, line, Profile(by_id[int(keys[place])], mine.labels, mine.refused))
            )
    return Decided(tuple(tables.decisions), which)


class _Tables:
    """The scalar answers of every layer, kind and stretch of buckets, numbered."""

    def __init__(self, policy: Policy, line: Line, kinds: Sequence[Kind]) -> None:
        self.policy, self.line = policy, line
        self.decisions: dict[BareDecision, int] = {}
        profiles = [Profile("", kind.labels, kind.refused) for kind in kinds]  # no pin names the empty id
        pins = [pinned(policy, profile) for profile in profiles]
        rest = Proposal(policy.baseline, (), "the baseline")
        self.rest = np.array(
            [self._settled(profile, pin or rest) for profile, pin in zip(profiles, pins, strict=True)], dtype=np.int32
        )
        self.layers = [self._layer(layer, profiles, pins) for layer in policy.layers if layer.entries]

    def look_up(self, keys: Keys, kind: Codes) -> NDArray[np.int32]:
        """The numbers of a chunk. The first layer with a matching entry decides, so the last one is written first."""
        numbers = self.rest[kind]
        for salt, stretch, table in reversed(self.layers):
            places = buckets(keys, salt=salt)
            row = kind.astype(np.int64) * table.shape[1] + stretch[places]
            decided = table.ravel()[row]
            numbers = decided if not (decided == _PASS).any() else np.where(decided == _PASS, numbers, decided)
        return numbers

    def number(self, decision: Decision) -> int:
        """The place of a decision without its sentence."""
        bare = BareDecision(decision.serial, decision.offer, decision.assignments, decision.beside)
        return self.decisions.setdefault(bare, len(self.decisions))

    def _settled(self, profile: Profile, proposal: Proposal) -> int:
        return self.number(settle(self.policy, self.line, profile, proposal))

    def _layer(
        self, layer: Layer, profiles: Sequence[Profile], pins: Sequence[Proposal | None]
    ) -> tuple[int, Codes, NDArray[np.int32]]:
        starts = sorted({0, *(edge for edge in edges(layer) if edge < BUCKETS)})
        lengths = np.diff([*starts, BUCKETS])
        small = np.uint8 if len(starts) <= 256 else np.uint16
        stretch = np.repeat(np.arange(len(starts), dtype=small), lengths)
        table = np.full((len(profiles), len(starts)), _PASS, dtype=np.int32)
        for row, (profile, pin) in enumerate(zip(profiles, pins, strict=True)):
            for column, place in enumerate(starts):
                proposal = pin or in_layer(self.policy, layer, place, profile)
                if proposal is not None:
                    table[row, column] = self._settled(profile, proposal)
        return layer.salt, stretch, table


def buckets(keys: Keys, *, salt: int) -> NDArray[np.int64]:
    """`bucket` for an array of keys."""
    hashes = xxh64(keys, seed=salt)
    hashes -= hashes // np.uint64(BUCKETS) * np.uint64(BUCKETS)  # numpy is faster at this than at a remainder
    return hashes.view(np.int64)


def xxh64(values: Keys, *, seed: int) -> Keys:
    """XXH64 of each value's 8 bytes, little-endian."""
    lane = values * np.uint64(_P2)
    _turn(lane, 31)
    lane *= np.uint64(_P1)
    lane ^= np.uint64((seed + _P5 + 8) % _ONE_64)
    _turn(lane, 27)
    lane *= np.uint64(_P1)
    lane += np.uint64(_P4)
    lane ^= lane >> np.uint64(33)
    lane *= np.uint64(_P2)
    lane ^= lane >> np.uint64(29)
    lane *= np.uint64(_P3)
    lane ^= lane >> np.uint64(32)
    return lane


def _turn(lane: Keys, bits: int) -> None:
    high = lane >> np.uint64(64 - bits)
    lane <<= np.uint64(bits)
    lane |= high
