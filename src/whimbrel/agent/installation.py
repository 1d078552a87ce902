"""One model on this device: the shell around `device.intent` and `device.step`.

1. `intent` says what to do about the difference between decision and journal, which becomes an event here; the step
   says what follows. `preparation` does what concerns the inactive slot, `swaps` what concerns the active one.
2. The journal is durable before an effect is performed. An effect that cannot be done now returns a `Wait`, and is
   asked for again in a later pass.
3. A pass settles the active slot first: a trial that is over is over before something else is wanted.
"""

import functools
from collections.abc import Callable, Mapping

import msgspec

from whimbrel import limits
from whimbrel.agent.device_context import DeviceContext
from whimbrel.agent.leaving import Leaving
from whimbrel.agent.model_state import ModelState
from whimbrel.agent.places import Places
from whimbrel.agent.preparation import Preparation
from whimbrel.agent.recent_sessions import recent_of
from whimbrel.agent.rechecks import Rechecks
from whimbrel.agent.session_results import SessionResults
from whimbrel.agent.standings import standing_of
from whimbrel.agent.swaps import Swaps, mates
from whimbrel.device import cohorts, effects, events, placebo, slots
from whimbrel.device.conditions import Wait
from whimbrel.device.intent import (
    Follow,
    Intent,
    MemberVersions,
    Offer,
    Recall,
    Rest,
    Stay,
    Withdraw,
    destination,
    intend,
    is_tried,
    is_wanted,
    leave_with_set,
    missing_member,
    offered,
    unmet,
)
from whimbrel.device.journal import Candidate, Membership
from whimbrel.device.limit_checks import broken_limit
from whimbrel.device.states import PREPARING, RESTING, State
from whimbrel.device.step import effects_of
from whimbrel.device.swap_group import Standing
from whimbrel.errors import InvariantBroken, NotFound, Unavailable, UntrustedInput
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.release import Requirement
from whimbrel.policy.decide import Decision, Profile
from whimbrel.policy.decide_set import ModelToDecide, SetDecisions, decide_set, wanted
from whimbrel.policy.policy import Policy

_replace = msgspec.structs.replace
_Performs = Callable[[effects.Effect], events.Event | Wait | None]


class Installation:
    """One model on this device. `waits_for`: what holds it up, in words; `again_s`: when to look again (None: with the
    next refresh). `models`: all of this device by name, this one among them.
    """

    def __init__(
        self, model: str, places: Places, device: DeviceContext, *, swaps: Swaps, models: Mapping[str, "Installation"]
    ) -> None:
        self.state = ModelState(model, places, device.runs)
        self.results = SessionResults(self.state, device)
        self.preparation = Preparation(self.state, device)
        self.leaving = Leaving(self.state, device)
        self.rechecks = Rechecks(self.state, device)
        self.decision: Decision | None = None
        self.waits_for = ""
        self.again_s: float | None = None
        self._device = device
        self._swaps = swaps
        self._models = models
        self._own_limits: dict[int, LocalLimits] = {}  # of the active version's release
        self._requires: dict[int, tuple[Requirement, ...]] = {}
        self._unfit: set[int] = set()  # no variant for this device's labels; neither changes while it runs
        self._is_held_by_set = False  # ready, and others of its set are not
        self._held_back_at = 0.0  # when the conditions last kept a placebo back

    @property
    def is_behind(self) -> bool:
        """Whether the model is at rest, and another version than the active one is decided."""
        wanted = self.decision.serial if self.decision else None
        return self.state.journal.state in RESTING and wanted is not None and wanted != self.state.pointer.serial

    @property
    def is_held_in_vain(self) -> bool:
        """Whether the model waited for others of its set, and need not any more: they were refused, or withdrawn."""
        candidate = self.state.journal.candidate
        if not self._is_held_by_set or self.state.journal.state is not State.READY or candidate is None:
            return False
        return not isinstance(self._swaps.group_of(self, candidate, self._models), Wait)

    @property
    def is_overtaken(self) -> bool:
        """Whether another version is decided than in this model's turn, since another model of its set failed."""
        if len(self._models) < 2 or self.decision is None or self.state.journal.state not in RESTING:
            return self.is_held_in_vain
        decision = self.decide()
        return decision is not None and decision.serial != self.decision.serial

    # --- one pass ---

    def check_active(self) -> None:
        """Leave an active version whose files were changed behind our back: for the one before, else for nothing."""
        active, fallback, state = self.state.pointer.active, self.state.pointer.fallback, self.state.journal.state
        if active is None or state is State.GOING_BACK or self.state.places.integrity.holds(active):
            return
        if state in PREPARING:
            self.state.take(events.Withdrawn())
        reason = f"the files of serial {active.serial} were changed on the disk"
        to = fallback.serial if fallback is not None else None
        self.state.take(events.Recalled(to=to, leaves=active.serial, reason=reason))

    def look_at_sessions(self) -> None:
        """What the sessions that ended say: of a trial, in the next window, and of the limits of this device."""
        self.results.collect(self.local_limits())

    def leave_by_itself(self) -> None:
        """Leave the active version where it crashes again and again or breaks a signed limit; write down what was left
        while no cycle ran.
        """
        local, pointer, places = self.local_limits(), self.state.pointer, self.state.places

        def broken() -> str:
            if pointer.active is None or not local.looks_at_sessions:
                return ""
            return broken_limit(local, recent_of(places, pointer.active).sessions)

        self.leaving.look(local, reasons=(broken, lambda: self.rechecks.reason_to_leave(local)))

    def check_again(self) -> None:
        """Run the active version's probe again, where it is time and the device is idle."""
        self.rechecks.run_when_due(self.local_limits())

    def write_down(self) -> None:
        """At the end of a pass: what sessions must know when no cycle runs, and no record of what is done."""
        self.leaving.write_orders(self.local_limits(), self._profile(), self._set_mates())
        self.leaving.finish()

    def local_limits(self) -> LocalLimits:
        """By which limits this device decides of the active version: the policy's, over those of its release."""
        serial, policy = self.state.pointer.serial, self._device.trust.policies.get(self.state.model)
        if serial is not None and serial not in self._own_limits:
            release = self._device.trust.kept_release(self.state.model, serial)
            if release is not None:
                self._own_limits = {serial: release.local_limits or LocalLimits()}
        own = self._own_limits.get(serial or 0, LocalLimits())
        return policy.local_limits.over(own) if policy is not None and policy.local_limits is not None else own

    def advance(self, *, prepare: bool, refresh: Callable[[], None], flush: Callable[[], None]) -> None:
        """Go as far as possible now. `prepare` False: only what concerns the active slot. `refresh` asks the server for
        newer policies, `flush` sends the announcements that wait.

        Raises `Unavailable`, `UntrustedInput`, `Refused`: what could not be done; it is tried again.
        """
        self.waits_for, self.again_s, self._is_held_by_set = "", None, False
        policy = self._device.trust.policies.get(self.state.model)
        self._settle()
        self.leave_with_set()
        self.decision = decision = self.decide()
        self.leaving.write_orders(self.local_limits(), self._profile(), self._set_mates())
        if decision is None or policy is None:
            return self._work(prepare=prepare, refresh=refresh, flush=flush)
        self._act_on(decision, policy, prepare=prepare)
        self._enter_cohorts(decision)
        flush()
        self._work(prepare=prepare, refresh=refresh, flush=flush)
        self._stand_in(decision, policy)
        return None

    # --- deciding ---

    def decide(self) -> Decision | None:
        """What the policies say for this device and its sets; None where no policy of this model is known."""
        return self._decide_set().decisions.get(self.state.model)

    def to_decide(self) -> ModelToDecide:
        """What a decision over all models of this device must know of this one."""
        trust, model = self._device.trust, self.state.model
        return ModelToDecide(
            trust.policies.get(model), trust.lines.get(model), self._profile(), self.state.pointer.serial
        )

    def requires(self, serial: int) -> tuple[Requirement, ...]:
        """What a serial of this model requires of others; nothing, while its release cannot be read."""
        return self._read_requires(serial) or ()

    def wants(self, serial: int) -> tuple[Requirement, ...]:
        """What a serial of this model wants of others: what it requires, and the versions that led its sets."""
        models = {name: other.to_decide() for name, other in self._of_device().items()}
        return wanted(models, self.state.model, serial, self.requires(serial))

    def _of_device(self) -> dict[str, "Installation"]:
        return {**self._models, self.state.model: self}

    def _read_requires(self, serial: int) -> tuple[Requirement, ...] | None:
        if serial not in self._requires:
            try:
                release = self._device.trust.release(self.state.model, serial, self._device.now())
            except (Unavailable, UntrustedInput, NotFound):
                return None
            self._requires[serial] = release.requires
        return self._requires[serial]

    def _decide_set(self) -> SetDecisions:
        models = self._of_device()
        return decide_set(
            {name: other.to_decide() for name, other in models.items()},
            lambda name, serial: models[name].requires(serial),
        )

    def _profile(self) -> Profile:
        refused = frozenset(refusal.serial for refusal in self.state.journal.refused)
        device = self._device
        return device.api.placed(Profile(device.device_id, device.labels, refused, frozenset(self._unfit)))

    def _intend(self, decision: Decision, policy: Policy, *, prepare: bool) -> Intent:
        return intend(
            self.state.journal,
            self.state.pointer,
            decision,
            policy,
            self._device.trust.lines[self.state.model],
            profile=self._profile(),
            now=self._device.now(),
            trusted_now=self._device.trust.trusted_time(self._device.now()),
            prepare=prepare,
        )

    def _act_on(self, decision: Decision, policy: Policy, *, prepare: bool) -> None:
        intent = self._intend(decision, policy, prepare=prepare)
        if isinstance(intent, Withdraw):
            self.state.take(events.Withdrawn())
            if not intent.ask_again:
                return
            intent = self._intend(decision, policy, prepare=prepare)
        match intent:
            case Stay(because=because):
                self.waits_for = because
            case Follow():
                self._follow(intent)
            case Recall():
                self._recall(intent)
            case Offer():
                self._offer(intent, policy)
            case Rest():
                lacking = self._decide_set().lacking(self.state.model)
                if lacking is not None:
                    self.waits_for = f"{lacking.words}, which serial {lacking.serial} requires"
            case _:
                raise InvariantBroken(f"nothing follows from {intent!r}")

    def _follow(self, intent: Follow) -> None:
        if intent.ends_shadow:
            self.state.take(events.ShadowEnded())
        candidate = self.state.journal.candidate
        if candidate is not None:
            moved = _replace(candidate, rollout=intent.rollout, stage=intent.stage, shadow=intent.shadow)
            self.state.keep(_replace(self.state.journal, candidate=moved))

    def _recall(self, intent: Recall) -> None:
        recalled = events.Recalled(
            to=intent.to, leaves=intent.leaves, reason=intent.because, stopped_at=intent.stopped_at
        )
        self.state.take(recalled)

    def _offer(self, offer: Offer, policy: Policy) -> None:
        release = self._device.trust.release(self.state.model, offer.serial, self._device.now())
        variant = self.preparation.choose(release)
        if variant is None:
            self._next_best(offer.serial, policy)
            return
        if offer.beside is None:  # the answers of what is only tried are compared, and go nowhere
            members = {model: other.as_member() for model, other in self._models.items() if other is not self}
            missing = missing_member(release, members)
            if missing is not None:
                self.waits_for = missing.because
                return
        slot, now = self.state.pointer.inactive, self._device.now()
        self.state.take(offered(offer, release, variant, slot=slot, policy_sequence=policy.sequence, at=now))

    def _next_best(self, serial: int, policy: Policy) -> None:
        """No build of `serial` is for this device: what the policy says of the others, each looked at once."""
        self._unfit.add(serial)
        self.decision = decision = self.decide()
        if decision is not None:
            self._act_on(decision, policy, prepare=True)
        self.waits_for = self.waits_for or f"a variant of serial {serial} that fits this device's labels"

    def as_member(self) -> MemberVersions:
        """What the others of a set see of this model."""
        return MemberVersions(self.state.pointer.serial, destination(self.state.journal, self.decide()))

    # --- cohorts ---

    def _enter_cohorts(self, decision: Decision) -> None:
        state = self.state
        assignments = cohorts.entered(state.journal, state.pointer, decision)
        now, before = self._device.now(), self._device.spool.before(state.model)
        serial = cohorts.tried_serial(decision)
        state.keep(cohorts.assigned(state.journal, assignments, serial=serial, at=now, before=before))

    def _stand_in(self, decision: Decision, policy: Policy) -> None:
        state = self.state
        for membership in placebo.due(state.journal, state.pointer, decision, policy):
            now = self._device.now()
            turn = self._turn(membership, policy, now)
            if turn.permitted:
                state.keep(cohorts.permitted(state.journal, membership, at=now))
            if turn.held_back:
                self._held_back_at = now
            if turn.wait is not None:
                self._wait_as_well(turn.wait)
            if turn.at is not None:
                self.results.finish_window(self.local_limits())  # as before a swap: it tells of no time before
                state.keep(cohorts.stand_in(state.journal, membership, serial=state.pointer.serial, at=turn.at))

    def _turn(self, membership: Membership, policy: Policy, now: float) -> placebo.Turn:
        conditions = policy.conditions_of(membership.rollout, role="control", stage=membership.stage)
        entries = (entry for layer in policy.layers for entry in layer.entries)
        hardware_class, _ = policy.reported_labels(self._device.labels)
        return placebo.turn(
            membership,
            conditions,
            self._device.situation_for(conditions),
            delays_s=next(
                (entry.delays_of(hardware_class) for entry in entries if entry.rollout == membership.rollout), ()
            ),
            model=self.state.model,
            device_id=self._device.device_id,
            now=now,
            offline=self._device.network.offline,
            held_back_at=self._held_back_at,
        )

    # --- effects ---

    def _settle(self) -> None:
        """Go as far as possible with the active slot."""
        self._go_on(self._perform_on_active, until=PREPARING)

    def _work(self, *, prepare: bool, refresh: Callable[[], None], flush: Callable[[], None]) -> None:
        if prepare:
            self._go_on(functools.partial(self._perform, refresh=refresh, flush=flush))
        else:
            self._settle()

    def _go_on(self, perform: _Performs, *, until: frozenset[State] = frozenset()) -> None:
        for _ in range(limits.STEPS_A_PASS):
            if self.state.journal.state in until:
                return
            event = self._first_event(perform)
            if event is None:
                return
            if isinstance(event, events.Corrupt):
                event = _replace(event, at=self._device.now())
            self.state.take(event)
            if isinstance(event, events.Corrupt):
                raise Unavailable(event.reason)  # a bad cache on the way is as a rule better later

    def _first_event(self, perform: _Performs) -> events.Event | None:
        for effect in effects_of(self.state.journal):
            result = perform(effect)
            if isinstance(result, events.Event):
                return result
            if isinstance(result, Wait):
                self._wait(result)
        return None

    def _perform(
        self, effect: effects.Effect, *, refresh: Callable[[], None], flush: Callable[[], None]
    ) -> events.Event | Wait | None:
        match effect:
            case effects.AwaitConditions(candidate=candidate):
                self.waits_for = ""
                return self.preparation.begin(candidate)
            case effects.Fetch(candidate=candidate):
                self.waits_for = ""
                flush()  # that it begins is said before it does
                return self.preparation.fetch(candidate)
            case effects.Stage(candidate=candidate):
                return self.preparation.stage(candidate)
            case effects.RunProbe(candidate=candidate):
                return self.preparation.probe(candidate)
            case effects.Activate(candidate=candidate):
                return self._activate(candidate, refresh=refresh, flush=flush)
            case effects.BeginShadow(candidate=candidate):
                return self._begin_shadow(candidate)
            case effects.KeepShadow(candidate=candidate):
                whole = candidate.held is not None and self.state.places.integrity.holds(candidate.held)
                return None if whole else events.Corrupt("the files that apps try in the shadow were changed")
        return self._perform_on_active(effect)

    def _perform_on_active(self, effect: effects.Effect) -> events.Event | Wait | None:
        match effect:
            case effects.Then(event=event):
                return event
            case effects.PointTo(held=held):
                return self._swaps.point(self, slots.swapped(self.state.pointer, held))
            case effects.Commit():
                self.state.point(slots.committed(self.state.pointer))
                return None
            case effects.SwapBack(going_back=going_back):
                return self._swaps.back(self, going_back, self._models)
        raise InvariantBroken(f"nothing performs {effect!r}")

    def _activate(
        self, candidate: Candidate, *, refresh: Callable[[], None], flush: Callable[[], None]
    ) -> events.Event | Wait | None:
        if is_wanted(candidate, self.decide()):  # while others are not ready, no server is asked before the swap
            group = self._swaps.group_of(self, candidate, self._models)
            if isinstance(group, Wait):
                self._is_held_by_set = True
                return group
        return self._swaps.activate(self, candidate, self._models, refresh=refresh, flush=flush)

    def _begin_shadow(self, candidate: Candidate) -> events.Event:
        decision = self.decide()
        if not is_tried(candidate, self.state.pointer, decision):
            self.decision = decision
            return events.Withdrawn()
        if not self.preparation.is_whole(candidate):
            return events.Corrupt("the files in the slot are not whole any more")
        self.results.finish_window(self.local_limits())
        return events.ShadowBegun(at=self._device.now())

    # --- its set ---

    def objection_to_swap(self) -> events.Event | Wait | None:
        """Why the candidate may not be swapped in now: an event that ends or repeats the try, or what it waits for."""
        candidate, decision = self.state.journal.candidate, self.decide()
        if candidate is None or not is_wanted(candidate, decision):
            self.decision = decision
            return events.Withdrawn()
        wait = self.preparation.wait_for_conditions(candidate)
        if wait is None and not self.preparation.is_whole(candidate):
            return events.Corrupt("the files in the slot are not whole any more")
        return wait

    def leave_with_set(self) -> None:
        """Go back as well, where what is active here needs a version that another model left."""
        pointer, fallback = self.state.pointer, self.state.pointer.fallback
        if pointer.active is None or fallback is None or self.state.journal.state not in RESTING | {State.ON_TRIAL}:
            return
        left = self._unmet(pointer.active.serial)
        if left and not self._unmet(fallback.serial):
            self._recall(leave_with_set(pointer, left[0]))
            self._settle()

    def return_with_set(self) -> None:
        """Go back as well, where the policy says so: another model of the set just did."""
        policy, decision = self._device.trust.policies.get(self.state.model), self.decide()
        if policy is None or decision is None or self.state.journal.state not in RESTING | {State.ON_TRIAL}:
            return
        intent = self._intend(decision, policy, prepare=False)
        if isinstance(intent, Recall):
            self._recall(intent)
            self._settle()

    def standing(self) -> Standing:
        """What a swap must know of this model."""
        return standing_of(
            self.state,
            self._device.trust,
            self.decide(),
            self._profile(),
            requires=self._read_requires,
            waits_for=self.waits_for,
        )

    def _set_mates(self) -> dict[str, int]:
        """The serials of the models that leave with the active version, as they belong to a set with it."""
        serials = {mate.state.model: mate.state.pointer.serial for mate in mates(self, self._models)}
        return {model: serial for model, serial in serials.items() if serial is not None}

    def _unmet(self, serial: int) -> tuple[Requirement, ...]:
        if len(self._models) < 2:
            return ()
        return unmet(self.wants(serial), {name: other.state.pointer.serial for name, other in self._models.items()})

    # --- what it waits for ---

    def _wait(self, wait: Wait) -> None:
        self.waits_for = wait.because
        self.again_s = wait.again_s if wait.again_s is not None else self.again_s

    def _wait_as_well(self, wait: Wait) -> None:
        self.waits_for = self.waits_for or wait.because
        times = [seconds for seconds in (self.again_s, wait.again_s) if seconds is not None]
        self.again_s = min(times, default=None)
