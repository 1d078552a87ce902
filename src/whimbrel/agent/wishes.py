"""What should a model on this device become, and may it begin now? The decision against the journal: events follow.

1. A trial that goes on is not disturbed; what is wanted is offered, withdrawn or recalled.
2. Memberships follow the decision: a treated device is in its cohort from when there is something to try, a control
   takes its placebo when an update would have been over.
3. Every "not now" is a sentence in `waits_for`.
"""

import msgspec

from whimbrel import limits
from whimbrel.agent.benchmarks import Benchmarks
from whimbrel.agent.places import Places
from whimbrel.agent.surroundings import Surroundings
from whimbrel.agent.witness import Witness
from whimbrel.device import cohorts, events
from whimbrel.device.conditions import permit, start_jitter
from whimbrel.device.journal import Candidate, Membership
from whimbrel.device.shadowing import shadowing_of
from whimbrel.device.states import PREPARING, RESTING, State
from whimbrel.model.release import Release
from whimbrel.policy.decide import Assignment, Beside, Decision, Profile, decide, objection
from whimbrel.policy.policy import Conditions, Policy

_replace = msgspec.structs.replace


class Wishes(Witness):
    """What one model should become."""

    def __init__(self, model: str, places: Places, around: Surroundings) -> None:
        super().__init__(model, places, around)
        self._benchmarks = Benchmarks(places.folder / "benchmarks", disk=around.disk)
        self._held_back_at = 0.0  # when the conditions last kept a placebo back
        self._unfit: set[int] = set()  # no variant for this device's labels; neither changes while it runs

    def decide(self) -> Decision | None:
        """What the policy says for this device; None where no policy is known."""
        policy, line = self._around.trust.policies.get(self.model), self._around.trust.lines.get(self.model)
        if policy is None or line is None:
            return None
        return decide(policy, line, self._profile())

    def _profile(self) -> Profile:
        refused = frozenset(refusal.serial for refusal in self.journal.refused)
        return Profile(self._around.device_id, self._around.labels, refused, frozenset(self._unfit))

    def _intend(self, decision: Decision, policy: Policy, *, prepare: bool) -> None:
        wanted, active, state = decision.serial, self.pointer.serial, self.journal.state
        candidate = self.journal.candidate
        beside = decision.beside if wanted is not None and wanted == active else None
        if state in PREPARING and candidate is not None:
            if candidate.serial == (beside.serial if beside is not None else wanted):
                self._follow(decision, policy)
                return
            self.take(events.Withdrawn())
            state = self.journal.state
        if state is State.GOING_BACK:
            return
        if wanted is None:
            if decision.offer == "stop" and active is not None:
                self.take(events.Recalled(to=None, leaves=active, reason=decision.because))
            return
        if wanted == active:
            if beside is not None and prepare and state in RESTING:
                self._offer(beside.serial, None, policy, beside=beside)
            return
        fallback = self.pointer.fallback
        line = self._around.trust.lines[self.model]
        treated = _treated(decision, policy)
        back_to_it = fallback is not None and fallback.serial == wanted and treated is None
        trial = state is State.ON_TRIAL
        if trial and not back_to_it and active is not None and self._trial_goes_on(active, policy):
            self.waits_for = f"the end of the trial of serial {active}"
            return
        if fallback is not None and (back_to_it or (trial and line.allows(fallback.serial)) or self._better(policy)):
            self.take(events.Recalled(to=fallback.serial, leaves=active, reason=decision.because))
        elif prepare:
            self._offer(wanted, treated, policy)

    def _trial_goes_on(self, active: int, policy: Policy) -> bool:
        # A newer version may wait: taking it now would cost the fallback while the active one is still unproven.
        candidate, line = self.journal.candidate, self._around.trust.lines[self.model]
        if candidate is None or self._around.now() - candidate.offered_at > limits.TRIAL_MOST_S:
            return False
        return objection(policy, line, self._profile(), active) is None

    def _better(self, policy: Policy) -> bool:
        """Whether the active version may run no longer, and the other slot's may: it is here at once, unlike others."""
        line, profile = self._around.trust.lines[self.model], self._profile()
        active, fallback = self.pointer.serial, self.pointer.fallback
        if active is None or fallback is None or objection(policy, line, profile, active) is None:
            return False
        return objection(policy, line, profile, fallback.serial) is None

    def _offer(self, serial: int, treated: Assignment | None, policy: Policy, *, beside: Beside | None = None) -> None:
        failed = next((refusal for refusal in self.journal.refused if refusal.serial == serial), None)
        if failed is not None and policy.sequence <= failed.policy_sequence:
            self.waits_for = f"a new policy: serial {serial} failed here again ({failed.reason})"
            return
        release = self._around.trust.release(self.model, serial, self._around.now())
        variant = self._benchmarks.choose(release, self._around.labels, now=self._around.now())
        if variant is None:
            self._next_best(serial, policy)
            return
        missing = self._missing(release) if beside is None else ""  # its answers are compared, and go nowhere
        if missing:
            self.waits_for = missing
            return
        counted = beside or treated
        self.take(
            events.Offered(
                serial=serial,
                version=release.version,
                slot=self.pointer.inactive,
                files=variant.files,
                policy_sequence=policy.sequence,
                at=self._around.now(),
                rollout=counted.rollout if counted else None,
                stage=counted.stage if counted else 0,
                despite=failed.reason if failed else "",
                shadow=shadowing_of(beside.shadow, variant) if beside is not None else None,
            )
        )

    def _next_best(self, serial: int, policy: Policy) -> None:
        """No build of `serial` is for this device: what the policy says of the others, each looked at once."""
        self._unfit.add(serial)
        self.decision = decision = self.decide()
        if decision is not None:
            self._intend(decision, policy, prepare=True)
        self.waits_for = self.waits_for or f"a variant of serial {serial} that fits this device's labels"

    def _missing(self, release: Release) -> str:
        for each in release.requires:
            other = self._around.others().get(each.model)
            if other is None or (other.pointer.serial != each.serial and not other.heads_for(each.serial)):
                return f"{each.model} at serial {each.serial}, which serial {release.serial} requires"
        return ""

    def heads_for(self, serial: int) -> bool:
        """Whether this model is on its way to `serial`, or will be."""
        candidate = self.journal.candidate
        if self.journal.state in PREPARING and candidate is not None:
            return candidate.serial == serial
        decision = self.decide()
        refused = any(each.serial == serial and each.overridden_by is None for each in self.journal.refused)
        return decision is not None and decision.serial == serial and not refused

    def _follow(self, decision: Decision, policy: Policy) -> None:
        # The same version, perhaps in another cohort by now.
        candidate = self.journal.candidate
        if candidate is None:
            return
        beside = decision.beside if candidate.serial != decision.serial else None
        if beside is not None and candidate.shadow is None:
            self.take(events.Withdrawn())  # it was to be run, and is only to be tried now
            return
        counted = beside or _treated(decision, policy)
        shadow = None
        if beside is not None and candidate.shadow is not None:
            shadow = _replace(candidate.shadow, how=beside.shadow)
        elif self.journal.state is State.SHADOWING:
            self.take(events.ShadowEnded())
        moved = _replace(
            candidate,
            rollout=counted.rollout if counted else None,
            stage=counted.stage if counted else 0,
            shadow=shadow,
        )
        self._keep(_replace(self.journal, candidate=moved))

    def _belong(self, decision: Decision) -> None:
        # A treated device is in its cohort from when there is something for it to try.
        known = {(member.rollout, member.stage) for member in self.journal.memberships}
        candidate = self.journal.candidate
        here = {self.pointer.serial, candidate.serial if candidate else None}
        tried = decision.beside.serial if decision.beside is not None else decision.serial
        belongs = [
            each
            for each in decision.assignments
            if each.role == "control" or tried in here or (each.rollout, each.stage) in known
        ]
        now, before = self._around.now(), self._around.spool.before(self.model)
        self._keep(cohorts.assigned(self.journal, belongs, serial=tried, at=now, before=before))

    def _stand_in(self, decision: Decision, policy: Policy) -> None:
        if self.journal.state not in RESTING | {State.ON_TRIAL} or self.pointer.serial != decision.serial:
            return
        treated = _treated(decision, policy)
        for member in self.journal.memberships:
            if member.since is not None or (member.role == "treated" and treated is None):
                continue
            at = self._around.now() if member.role == "treated" else self._placebo_at(member, policy)
            if at is not None:
                self._keep(cohorts.stand_in(self.journal, member, serial=self.pointer.serial, at=at))

    def _placebo_at(self, member: Membership, policy: Policy) -> float | None:
        # When a control took its placebo, had it been an update; None: it is not over yet.
        now = self._around.now()
        asked = policy.conditions_of(member.rollout, role="control", stage=member.stage)
        if member.permitted_at is None:
            because = self._not_yet(asked, occasion=f"{member.rollout}/{member.stage}", since=member.assigned_at)
            if because:
                self.waits_for = self.waits_for or because
                return None
            self._keep(cohorts.permitted(self.journal, member, at=now))
        permitted_at = now if member.permitted_at is None else member.permitted_at
        delays_s = next((e.delays_s for la in policy.layers for e in la.entries if e.rollout == member.rollout), ())
        wait_s = cohorts.placebo_wait(member, delays_s, model=self.model, device_id=self._around.device_id)
        because = self._forbidden(asked)
        if because:
            self._held_back_at = now
        elif 0 <= now - permitted_at < wait_s and not self._around.offline():
            because = f"its placebo: an update would take this device {wait_s:.0f} s"
            self.again_s = min(self.again_s or wait_s, permitted_at + wait_s - now)
        if because:
            self.waits_for = self.waits_for or because
            return None
        return min(now, max(permitted_at + wait_s, self._held_back_at))

    def _not_yet(self, conditions: Conditions, *, occasion: str, since: float) -> str:
        now = self._around.now()
        jitter = start_jitter(conditions, device_id=self._around.device_id, occasion=f"{self.model}/{occasion}")
        if 0 <= now - since < jitter and not self._around.offline():
            self.again_s = since + jitter - now
            return f"its turn: starts are spread over {conditions.start_jitter_s:g} s"
        return self._forbidden(conditions)

    def _asked_of(self, candidate: Candidate) -> Conditions:
        policy = self._around.trust.policies[self.model]
        return policy.conditions_of(candidate.rollout, role="treated", stage=candidate.stage)

    def _forbidden(self, conditions: Conditions) -> str:
        if conditions == Conditions():
            return ""
        asked = _replace(conditions, unmetered=False) if self._around.offline() else conditions
        because = permit(asked, self._around.situation(), now=self._around.now()).because
        if because:
            self.again_s = limits.WAIT_FOR_CONDITIONS_S
        return because


def _treated(decision: Decision, policy: Policy) -> Assignment | None:
    """The cohort that a decided version is tried in: None for a control, and for a device that fell back."""
    for assignment in decision.assignments:
        if assignment.role != "treated":
            continue
        for entry in (entry for layer in policy.layers for entry in layer.entries):
            if entry.rollout == assignment.rollout and any(
                (arm.role, arm.stage, arm.serial) == ("treated", assignment.stage, decision.serial)
                for arm in entry.arms
            ):
                return assignment
    return None
