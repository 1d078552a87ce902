"""An artifact that nothing holds is forgotten, with the patches to it, and the audit log says so."""

from support.values import T0, town
from whimbrel.flows.publishing.collect import forget_unheld


class Patches:
    """The patches that were tried."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def forget_target(self, sha256: str) -> None:
        self.forgotten.append(sha256)


def test_what_nothing_holds_is_forgotten_once() -> None:
    digest, patches = "e" * 64, Patches()
    with town() as here:
        here.registry.add_artifact(digest, size_bytes=77, at=T0)

        def forget(sha256: str = digest, *, older_than: float = T0 + 1) -> bool:
            return forget_unheld(here.registry, patches, sha256, older_than=older_than, actor="ada", now=T0 + 5)

        assert not forget(older_than=T0)  # an upload that is as young waits for its version
        assert not forget("a" * 64)  # the versions' own
        assert not forget("f" * 64)
        assert (patches.forgotten, here.registry.audit_log()) == ([], [])
        assert forget()
        assert (here.registry.artifact_size(digest), patches.forgotten) == (None, [digest])
        (entry,) = here.registry.audit_log()
        assert (entry.actor, entry.action, entry.because, entry.at) == (
            "ada",
            "collect_artifact",
            "nothing refers to eeeeeeeeeeee",
            T0 + 5,
        )
        assert entry.evidence == {"sha256": digest, "size_bytes": 77}
        assert not forget()
