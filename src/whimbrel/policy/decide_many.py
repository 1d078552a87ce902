"""What should each of millions of devices run? `decide` for arrays: numpy hashes, `decide` itself answers.

1. What a policy says of a device depends on its labels and its buckets alone, and changes only at the edges of arms. So
   `decide`'s own parts are asked once for each kind of device and each stretch of buckets; arrays only look it up.
2. A device that a pin names is asked about by itself. Devices are known by their keys: two with the same key are one.
3. Chunks are small enough that what is computed stays in the processor's cache.

Called by forecasts and the controllers' estimates. Held equal to `decide` by a property test. Needs numpy; nothing that
a device imports imports this.
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
    Wanted,
    decide,
    edges,
    in_layer,
    pinned,
    settle,
)
from whimbrel.policy.policy import Layer, Policy

Keys = NDArray[np.uint64]
Codes = NDArray[Any]  # whole numbers that stand for something in a table

_CHUNK = 16 * 1024  # devices: 128 KiB an array of keys, half of a usual second-level cache with its copy
_PASS = -1  # a layer without a say
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
    """Devices of the same labels, which refuse the same serials."""

    labels: Mapping[str, str] = {}
    refused: frozenset[int] = frozenset()


class Outcome(msgspec.Struct, frozen=True):
    """A decision without its sentence, which names the single device's bucket."""

    serial: int | None
    offer: Literal["run", "keep", "stop"]
    assignments: tuple[Assignment, ...] = ()
    beside: Beside | None = None


class Decided(msgspec.Struct, frozen=True):
    """`which[i]`: the place in `outcomes` of what device i should run."""

    outcomes: tuple[Outcome, ...]
    which: NDArray[np.int32]


def decide_many(policy: Policy, line: Line, keys: Keys, kind: Codes, kinds: Sequence[Kind]) -> Decided:
    """What each device should run. `kind[i]`: the place in `kinds` of device i, whose key is `keys[i]`."""
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
    return Decided(tuple(tables.outcomes), which)


class _Tables:
    """The scalar answers of every layer, kind and stretch of buckets, numbered."""

    def __init__(self, policy: Policy, line: Line, kinds: Sequence[Kind]) -> None:
        self.policy, self.line = policy, line
        self.outcomes: dict[Outcome, int] = {}
        profiles = [Profile("", kind.labels, kind.refused) for kind in kinds]  # no pin names the empty id
        pins = [pinned(policy, profile) for profile in profiles]
        rest = Wanted(policy.baseline, (), "the baseline")
        self.rest = np.array(
            [self._settled(profile, pin or rest) for profile, pin in zip(profiles, pins, strict=True)], dtype=np.int32
        )
        self.layers = [self._layer(layer, profiles, pins) for layer in policy.layers if layer.entries]

    def look_up(self, keys: Keys, kind: Codes) -> NDArray[np.int32]:
        """The outcomes of a chunk: the first layer with a say has it, so the last is written first."""
        found = self.rest[kind]
        for salt, stretch, table in reversed(self.layers):
            places = buckets(keys, salt=salt)
            row = kind.astype(np.int64) * table.shape[1] + stretch[places]
            said = table.ravel()[row]
            found = said if not (said == _PASS).any() else np.where(said == _PASS, found, said)
        return found

    def number(self, decision: Decision) -> int:
        """The place of a decision's outcome."""
        outcome = Outcome(decision.serial, decision.offer, decision.assignments, decision.beside)
        return self.outcomes.setdefault(outcome, len(self.outcomes))

    def _settled(self, profile: Profile, wanted: Wanted) -> int:
        return self.number(settle(self.policy, self.line, profile, wanted))

    def _layer(
        self, layer: Layer, profiles: Sequence[Profile], pins: Sequence[Wanted | None]
    ) -> tuple[int, Codes, NDArray[np.int32]]:
        starts = sorted({0, *(edge for edge in edges(layer) if edge < BUCKETS)})
        lengths = np.diff([*starts, BUCKETS])
        small = np.uint8 if len(starts) <= 256 else np.uint16
        stretch = np.repeat(np.arange(len(starts), dtype=small), lengths)
        table = np.full((len(profiles), len(starts)), _PASS, dtype=np.int32)
        for row, (profile, pin) in enumerate(zip(profiles, pins, strict=True)):
            for column, place in enumerate(starts):
                wanted = pin or in_layer(self.policy, layer, place, profile)
                if wanted is not None:
                    table[row, column] = self._settled(profile, wanted)
        return layer.salt, stretch, table


def buckets(keys: Keys, *, salt: int) -> NDArray[np.int64]:
    """`bucket` for an array of keys."""
    found = xxh64(keys, seed=salt)
    found -= found // np.uint64(BUCKETS) * np.uint64(BUCKETS)  # numpy divides by one number faster than it takes rests
    return found.view(np.int64)


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
