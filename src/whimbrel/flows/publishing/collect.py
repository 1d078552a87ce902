"""Forget an artifact that nothing holds, so that its bytes may be deleted. Called by the admin API, an artifact a time.

The row is forgotten first: a file without a row is sent again at the next publication, a row without a file is not.
"""

from whimbrel.flows.audit import audit
from whimbrel.flows.ports import ArtifactsPort, PatchesPort


def forget_unheld(
    artifacts: ArtifactsPort, patches: PatchesPort, digest: str, *, older_than: float, actor: str, now: float
) -> bool:
    """Forget the artifact and the patches to it. `older_than`: POSIX seconds; a younger upload waits for its version.

    Returns whether it was forgotten: a version that was published meanwhile may hold it again.
    """
    size_bytes = dict(artifacts.collectable(older_than=older_than)).get(digest)
    if size_bytes is None:
        return False
    artifacts.forget_artifact(digest)
    patches.forget_target(digest)
    audit(
        artifacts,
        actor=actor,
        action="collect_artifact",
        because=f"nothing refers to {digest[:12]}",
        now=now,
        evidence={"sha256": digest, "size_bytes": size_bytes},
    )
    return True
