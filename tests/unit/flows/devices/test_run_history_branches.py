"""Where a part of a run history belongs, where heads are as old as those that are known."""

from support.run_histories import SignedLog
from support.values import T0, town
from whimbrel.flows.devices.take_run_history import take_run_history


def test_entries_lengthen_the_branch_that_they_follow_also_under_a_head_that_is_no_newer() -> None:
    """A restored folder signs heads with numbers that were used before; what it tells follows what is known."""
    log = SignedLog("dev-1")
    with town() as here:
        here.enrol("dev-1", public_key=log.public_key)

        def take(of: SignedLog, after: int) -> None:
            take_run_history(here.stores.run_histories, here.registry, "dev-1", of.part(after), at=T0)

        for serial in (1, 2):
            log.runs(serial)
        take(log, 0)
        restored = log.copy()
        take(log, 2)  # a second head of the same entries
        restored.runs(3)
        take(restored, 2)
        (branch,) = here.stores.run_histories.branches("dev-1")
        assert (branch.origin, branch.first, branch.last, branch.heads) == ("log", 1, 3, 2)
        assert here.registry.audit_log() == []
