"""What did the sessions see, and who is told? Those that ended speak for or against a trial, and go into a window.

1. A crash that takes the process along is found by its mark at the next look.
2. What is written down is forgotten, durably; what is active and was changed behind our back is left.
"""

from whimbrel.agent.remembered import Remembered
from whimbrel.agent.session import Ended, forget, harvest
from whimbrel.device import cohorts, events
from whimbrel.device.states import PREPARING, State


class Witness(Remembered):
    """What happened to one model."""

    def observe(self) -> None:
        """Look at the sessions that ended: they speak for or against a trial, and are told in the next window."""
        found = harvest(self.places)
        if not found:
            return
        new = self._around.spool.new_of(found)
        candidate = self.journal.candidate
        if self.journal.state is State.ON_TRIAL and candidate is not None:
            mine = [each for each in new if each.serial == candidate.serial]
            healthy = sum(each.closed is not None and each.closed.healthy for each in mine)
            failed = sum(each.closed is not None and each.closed.failed for each in mine)
            # Those of one moment are one event; those of a loop came one after the other.
            failed += max((each.crashes_before + 1 for each in mine if each.crashed), default=0)
            if healthy or failed:
                self.take(events.SessionsSeen(healthy=healthy, failed=failed))
        if self.journal.state is State.SHADOWING and candidate is not None:
            tried = [each.closed.shadow for each in new if each.closed is not None and each.closed.shadow is not None]
            crashed = sum(seen.crashed for seen in tried if seen.serial == candidate.serial)
            if crashed:
                self.take(events.ShadowSeen(crashed=crashed))
        self._write_down(found)

    def _write_down(self, found: list[Ended]) -> None:
        names = [each.name for each in found]
        if self._around.telemetry():
            self._around.spool.add(self.model, self._around.spool.new_of(found), names=names)
        forget(self.places, names)

    def cut(self) -> None:
        """Close the report window."""
        policy = self._around.trust.policies.get(self.model)
        hardware_class, slices = policy.reported_labels(self._around.labels) if policy else ("", {})
        self._around.spool.cut(
            self.model,
            serial=self.pointer.serial,
            cohorts=cohorts.cohorts(self.journal, now=self._around.now()),
            hardware_class=hardware_class,
            slices=slices,
        )

    def look(self) -> None:
        """Leave an active version whose files were changed behind our back: for the one before, else for nothing."""
        active, fallback, state = self.pointer.active, self.pointer.fallback, self.journal.state
        if active is None or state is State.GOING_BACK or self.places.wholeness.holds(active):
            return
        if state in PREPARING:
            self.take(events.Withdrawn())
        reason = f"the files of serial {active.serial} were changed on the disk"
        to = fallback.serial if fallback is not None else None
        self.take(events.Recalled(to=to, leaves=active.serial, reason=reason))
