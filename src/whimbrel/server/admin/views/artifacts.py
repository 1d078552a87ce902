"""What the admin API answers about artifacts: bytes under their SHA-256."""

import msgspec


class ArtifactView(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that was stored."""

    sha256: str
    size_bytes: int


class CollectedView(msgspec.Struct, frozen=True, kw_only=True):
    """The digests of artifacts that were deleted (with `dry_run`: would be), and how many bytes they have together."""

    collected: list[str]
    size_bytes: int
    dry_run: bool = False
