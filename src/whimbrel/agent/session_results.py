"""The results of one model's sessions: they go into the judgement of a trial, and into a report window.

1. A crash that takes the process along is found by its mark at the next look.
2. What is written down is forgotten, durably: a session that came back would be counted again.
3. Crashes of the active version are in its durable count (`crash_counts`) before they are forgotten.
4. What ended before a swap, and before the device began to count in a cohort, is told with the cohorts of its time.
   So the first window of a treated device and that of a control (of its placebo) hold nothing from before.
"""

from whimbrel.agent.crash_counts import count_crashes
from whimbrel.agent.device_context import DeviceContext
from whimbrel.agent.labels import public_labels
from whimbrel.agent.locks import locked
from whimbrel.agent.marks import Ended, forget, harvest
from whimbrel.agent.model_state import ModelState
from whimbrel.agent.recent_sessions import add_sessions
from whimbrel.agent.spool import WindowPlace
from whimbrel.device import cohorts, events
from whimbrel.device.journal import Candidate
from whimbrel.device.states import State
from whimbrel.model.local_limits import LocalLimits


class SessionResults:
    """The results of one model's sessions."""

    def __init__(self, state: ModelState, device: DeviceContext) -> None:
        self._state = state
        self._device = device

    def collect(self, local: LocalLimits = LocalLimits()) -> None:
        """Look at the sessions that ended: they speak for or against a trial, and go into the next window.

        `local`: the signed limits of this device; their figures are kept where one of them needs any.
        """
        ended = harvest(self._state.places)
        if not ended:
            return
        new = self._device.spool.new_of(ended)
        self._count_crashes(ended)
        if local.looks_at_sessions and self._state.pointer.active is not None:
            add_sessions(self._state.places, self._state.pointer.active, ended)
        state, candidate = self._state.journal.state, self._state.journal.candidate
        event: events.Event | None = None
        if state is State.ON_TRIAL and candidate is not None:
            event = trial_sessions(new, candidate)
        elif state is State.SHADOWING and candidate is not None:
            event = shadow_crashes(new, candidate)
        if event is not None:
            self._state.take(event)
        self._write_down(ended)

    def _count_crashes(self, ended: list[Ended]) -> None:
        active, places = self._state.pointer.active, self._state.places
        crashed = [session.name for session in ended if session.crashed and active and session.serial == active.serial]
        if active is not None and crashed:
            with locked(places.swap_lock, disk=places.disk):
                count_crashes(places, active, crashed)

    def finish_before_swap(self) -> None:
        """Close the window before another version is active: what is left belongs to the cohorts of now."""
        ended = harvest(self._state.places)
        if ended:
            self._write_down(ended)
        self._close_open_window()

    def finish_window(self, local: LocalLimits = LocalLimits()) -> None:
        """Close the window before the device counts in another cohort, after a last look. `local`: as in `collect`."""
        self.collect(local)
        self._close_open_window()

    def _close_open_window(self) -> None:
        if self._device.api.known and self._device.spool.has_open(self._state.model):
            self.close_window()

    def close_window(self) -> None:
        """Close the report window."""
        self._device.spool.cut(self._state.model, serial=self._state.pointer.serial, place=self._place())

    def _place(self) -> WindowPlace:
        policy = self._device.trust.policies.get(self._state.model)
        labels = public_labels(self._device.labels, self._device.trust.policies.values())
        hardware_class, slices = policy.reported_labels(labels) if policy else ("", {})
        counted = cohorts.cohorts(self._state.journal, now=self._device.now())
        return WindowPlace(cohorts=counted, hardware_class=hardware_class, slices=slices)

    def _write_down(self, ended: list[Ended]) -> None:
        names = [session.name for session in ended]
        spool = self._device.spool
        if self._device.api.known:
            spool.add(self._state.model, spool.new_of(ended), names=names, place=self._place())
        forget(self._state.places, names)


def trial_sessions(ended: list[Ended], candidate: Candidate) -> events.SessionsSeen | None:
    """What sessions say of the version on trial; None where no session of that version says anything."""
    own = [session for session in ended if session.serial == candidate.serial]
    healthy = sum(session.closed is not None and session.closed.healthy for session in own)
    failed = sum(session.closed is not None and session.closed.failed for session in own)
    # Crashes of one moment are one event; those of a loop came one after the other.
    failed += max((session.crashes_before + 1 for session in own if session.crashed), default=0)
    return events.SessionsSeen(healthy=healthy, failed=failed) if healthy or failed else None


def shadow_crashes(ended: list[Ended], candidate: Candidate) -> events.ShadowSeen | None:
    """How often the version in the shadow ended its worker; None where it did not."""
    shadows = [session.closed.shadow for session in ended if session.closed is not None and session.closed.shadow]
    crashed = sum(shadow.crashed for shadow in shadows if shadow.serial == candidate.serial)
    return events.ShadowSeen(crashed=crashed) if crashed else None
