"""What the admin API answers about artifacts: bytes under their SHA-256."""

import msgspec


class ArtifactView(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that was stored."""

    sha256: str
    size_bytes: int


class CollectedView(msgspec.Struct, frozen=True, kw_only=True):
    """The digests of artifacts that were deleted, and how many bytes they had together."""

    collected: list[str]
    size_bytes: int
