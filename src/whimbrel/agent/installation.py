"""How does one model on this device get from what it is to what the policy says? The shell around `device.step`.

1. `wishes` makes events of the difference between decision and journal; the step says what follows; `swaps` does what
   concerns the active slot, and this file the rest.
2. The journal is durable before an effect is performed. An effect that cannot be done now answers with None, says what
   it waits for, and is asked for again in a later pass.
3. Where a member of a set went back, the others follow.

The layers below, one idea each: `remembered`, `witness`, `wishes`, `swaps`.
"""

import msgspec

from whimbrel import limits
from whimbrel.agent.marks import open_in
from whimbrel.agent.places import Places
from whimbrel.agent.staging import Interrupted, Staging
from whimbrel.agent.surroundings import Surroundings
from whimbrel.agent.swaps import Swaps
from whimbrel.device import effects, events, slots
from whimbrel.device.journal import Candidate
from whimbrel.device.ports import ProbeRequest
from whimbrel.device.states import PREPARING, RESTING, State
from whimbrel.device.step import effects_of, moved
from whimbrel.errors import InvariantBroken, NotFound, Unavailable, UntrustedInput
from whimbrel.model.release import Release, Requirement, Variant
from whimbrel.model.ways import Step

_replace = msgspec.structs.replace


class Installation(Swaps):
    """One model on this device."""

    def __init__(self, model: str, places: Places, around: Surroundings) -> None:
        super().__init__(model, places, around)
        self._staging = Staging(
            places, disk=around.disk, download=around.download, home=around.home, quota_bytes=around.quota_bytes
        )
        self._requires: dict[int, tuple[Requirement, ...]] = {}

    @property
    def fetching(self) -> set[str]:
        """Digests of patches and of what they make, while they are on their way."""
        return self._staging.fetching

    def advance(self, *, prepare: bool) -> None:
        """Go as far as possible now. `prepare` False: only what concerns the active slot.

        Raises `Unavailable`, `UntrustedInput`, `Refused`: what could not be done; it is tried again.
        """
        self.waits_for, self.again_s = "", None
        policy = self._around.trust.policies.get(self.model)
        self._work(prepare=False)  # a trial that is over is over before something else is wanted
        self.keep_set()
        self.decision = decision = self.decide()
        if decision is not None and policy is not None:
            self._intend(decision, policy, prepare=prepare)
            self._belong(decision)
            self._around.flush()
        self._work(prepare=prepare)
        if decision is not None and policy is not None:
            self._stand_in(decision, policy)

    def _work(self, *, prepare: bool) -> None:
        for _ in range(limits.STEPS_A_PASS):
            if self.journal.state in PREPARING and not prepare:
                return
            event = None
            for effect in effects_of(self.journal):
                event = self._perform(effect)
                if event is not None:
                    self.take(event)
                    break
            if isinstance(event, events.Corrupt):
                raise Unavailable(event.reason)  # a bad cache on the way is as a rule better later
            if event is None:
                return

    def keep_set(self) -> None:
        """Go back as well, where what is active here needs a version that another model left."""
        active, fallback = self.pointer.active, self.pointer.fallback
        if active is None or fallback is None or self.journal.state not in RESTING | {State.ON_TRIAL}:
            return
        unmet = self._unmet(active.serial)
        if unmet and not self._unmet(fallback.serial):
            reason = f"{unmet[0].model} left serial {unmet[0].serial}, which serial {active.serial} requires"
            self.take(events.Recalled(to=fallback.serial, leaves=active.serial, reason=reason))
            self._work(prepare=False)

    def _unmet(self, serial: int) -> tuple[Requirement, ...]:
        others = self._around.others()
        if len(others) < 2:
            return ()
        if serial not in self._requires:
            try:
                release = self._around.trust.release(self.model, serial, self._around.now())
            except (Unavailable, UntrustedInput, NotFound):
                return ()
            self._requires[serial] = release.requires
        return tuple(
            each
            for each in self._requires[serial]
            if (other := others.get(each.model)) is not None and other.pointer.serial != each.serial
        )

    def _perform(self, effect: effects.Effect) -> events.Event | None:
        match effect:
            case effects.Then(event=event):
                return event
            case effects.AwaitConditions(candidate=candidate):
                occasion = f"{candidate.rollout}/{candidate.stage}" if candidate.rollout else str(candidate.serial)
                asked = self._asked_of(candidate)
                self.waits_for = self._not_yet(asked, occasion=occasion, since=candidate.offered_at)
                return None if self.waits_for else events.Begun()
            case effects.Fetch():
                return self._fetch(effect)
            case effects.Stage():
                return self._stage(effect)
            case effects.RunProbe():
                return self._probe(effect)
            case effects.Activate():
                return self._activate(effect)
            case effects.BeginShadow():
                return self._begin_shadow(effect.candidate)
            case effects.KeepShadow(candidate=candidate):
                whole = candidate.held is not None and self.places.integrity.holds(candidate.held)
                return None if whole else events.Corrupt("the files that apps try in the shadow were changed")
            case effects.PointTo(held=held):
                self._swap(slots.swapped(self.pointer, held))
                return None
            case effects.Commit():
                self._point(slots.committed(self.pointer))
                return None
            case effects.SwapBack():
                return self._swap_back(effect)
        raise InvariantBroken(f"nothing performs {effect!r}")

    def _fetch(self, effect: effects.Fetch) -> events.Event | None:
        candidate, around = effect.candidate, self._around
        around.flush()  # that it begins is said before it does
        self.waits_for = self._forbidden(self._asked_of(candidate))
        if not self.waits_for and around.download.left_today() == 0:
            self.waits_for = "tomorrow: the day's budget of a metered network is used up"
            self.again_s = limits.WAIT_FOR_CONDITIONS_S
        if self.waits_for:
            return None
        index = around.trust.deltas(self.model, candidate.serial, around.now())
        steps = index.steps if index else ()
        self.waits_for = self._make_room(candidate, steps)
        if self.waits_for:
            return None
        found = self._staging.fetch(candidate, steps, self.pointer.active)
        if isinstance(found, Interrupted):
            self._keep(_replace(self.journal, candidate=moved(candidate, found.moved, found.moved_by)))
            raise found.error
        return found

    def _make_room(self, candidate: Candidate, steps: tuple[Step, ...]) -> str:
        lacking = self._staging.lacking(candidate, steps, self.pointer.active)
        if lacking and not open_in(self.places, candidate.slot):  # the old version there would go soon anyway
            self._point(slots.without_inactive(self.pointer))
            self._staging.empty(candidate.slot)
            lacking = self._staging.lacking(candidate, steps, self.pointer.active)
        if not lacking:
            return ""
        self.again_s = limits.WAIT_FOR_CONDITIONS_S
        return f"room: {-(-lacking // limits.MIB)} MiB more must be free for serial {candidate.serial}"

    def _stage(self, effect: effects.Stage) -> events.Event | None:
        if open_in(self.places, effect.candidate.slot):
            self._await_sessions()  # of the version before, that a swap did not wait for
            return None
        self._point(slots.without_inactive(self.pointer))
        release = self._around.trust.release(self.model, effect.candidate.serial, self._around.now())
        return self._staging.stage(effect.candidate, reference=release.reference)

    def _probe(self, effect: effects.RunProbe) -> events.Event | None:
        candidate = effect.candidate
        release = self._around.trust.release(self.model, candidate.serial, self._around.now())
        variant = next((each for each in release.variants if each.files == candidate.files), None)
        if variant is None:
            return events.ProbeFailed("the release no longer names these files")
        entry = candidate.files[0]
        with self._around.disk.lend(self.places.slot(candidate.slot) / entry.name) as (path,):
            request = ProbeRequest(
                path=str(path), format=entry.format, signature=variant.signature, probe=variant.probe
            )
            result = self._around.prober().probe(request)
        self._benchmarks.keep(variant, result, now=self._around.now())
        if result.over_budget and self._next_after(variant, release) is not None:
            return events.Withdrawn()  # the next pass offers the smaller one
        return events.ProbePassed() if result.passed else events.ProbeFailed(result.reason)

    def _next_after(self, variant: Variant, release: Release) -> Variant | None:
        chosen = self._benchmarks.choose(release, self._around.labels, now=self._around.now())
        return chosen if chosen is not None and chosen.files != variant.files else None

    def _begin_shadow(self, candidate: Candidate) -> events.Event:
        decision = self.decide()
        beside = decision.beside if decision is not None and decision.serial == self.pointer.serial else None
        if beside is None or beside.serial != candidate.serial:
            self.decision = decision
            return events.Withdrawn()
        if candidate.held is None or not self.places.integrity.intact(candidate.held):
            return events.Corrupt("the files in the slot are not whole any more")
        return events.ShadowBegun(at=self._around.now())
