"""Signed documents as a device reads them. The first byte says which one it is."""

from collections.abc import Iterator
from typing import Any

from vectors.test_documents import LINE, POLICY, RELEASE
from whimbrel.errors import UntrustedInput
from whimbrel.model.choose import fitting_variants
from whimbrel.model.documents import encode, parse
from whimbrel.model.release import Floor, Line, Release
from whimbrel.model.ways import DeltaIndex, Step, ways
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.policy import Policy

_DIGEST = "a" * 64
_INDEX = DeltaIndex(
    model="wake",
    serial=2,
    steps=(
        Step(base="b" * 64, target=_DIGEST, sha256="c" * 64, size_bytes=10, target_bytes=100, codec="whimbrel-delta-1"),
    ),
)
_VALUES: tuple[Any, ...] = (RELEASE, LINE, POLICY, _INDEX, Floor(model="wake", sequence=4, days=30))
_PROFILE = Profile("dev-1", {"hardware": "pi3", "region": "NZ"})


def read(content: bytes) -> None:
    kind = type(_VALUES[content[0] % len(_VALUES)]) if content else Line
    try:
        value = parse(kind, content[1:], what="a document")
    except UntrustedInput:
        return
    if parse(kind, encode(value), what="the same") != value:
        raise AssertionError(f"{value!r} is another value after it was written and read")
    if isinstance(value, Policy):
        decide(value, LINE, _PROFILE)
    elif isinstance(value, Line):
        decide(POLICY, value, _PROFILE)
    elif isinstance(value, Release):
        fitting_variants(value, _PROFILE.labels)
    elif isinstance(value, DeltaIndex):
        ways(value.steps, target=_DIGEST, size_bytes=100, here={"b" * 64})


def seeds() -> Iterator[bytes]:
    for number, value in enumerate(_VALUES):
        yield bytes([number]) + encode(value)
