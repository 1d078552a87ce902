"""How does one model on this device get from what it is to what the policy says? The shell around `device.step`.

1. It compares the decision with the journal and makes events of the difference; the step says what follows.
2. The journal is durable before an effect is performed. An effect that cannot be done now answers with None, says what
   it waits for, and is asked for again in a later pass.
3. Going back asks for no network, no permission and no probe; only for the end of the sessions, and whole files.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.agent import sets
from whimbrel.agent.benchmarks import Benchmarks
from whimbrel.agent.disk import Disk
from whimbrel.agent.download import Download
from whimbrel.agent.session import Ended, Places, between_sessions, forget, harvest, open_in
from whimbrel.agent.spool import Spool
from whimbrel.agent.staging import Interrupted, Staging
from whimbrel.agent.tuf_client import TrustClient
from whimbrel.device import cohorts, effects, events, slots
from whimbrel.device.conditions import Situation, permit, start_jitter
from whimbrel.device.journal import Candidate, Journal, Membership, recovered, seal, unseal
from whimbrel.device.ports import Prober, ProbeRequest
from whimbrel.device.shadowing import shadowing_of
from whimbrel.device.slots import Pointer
from whimbrel.device.states import PREPARING, RESTING, State
from whimbrel.device.step import announcement_of, effects_of, moved, say, step
from whimbrel.errors import InvariantBroken, NotFound, Unavailable, UntrustedInput
from whimbrel.model.release import Release, Requirement, Variant
from whimbrel.model.ways import Step
from whimbrel.rollout.decide import Assignment, Beside, Decision, Profile, decide, objection
from whimbrel.rollout.policy import Conditions, Policy

_replace = msgspec.structs.replace


class Surroundings(msgspec.Struct):
    """What all models of a device share."""

    device_id: str
    labels: dict[str, str]
    home: Path
    quota_bytes: int | None
    disk: Disk
    trust: TrustClient
    download: Download
    prober: Callable[[], Prober]
    spool: Spool
    now: Callable[[], float]
    situation: Callable[[], Situation]
    refresh: Callable[[], None]  # raises Unavailable, UntrustedInput
    flush: Callable[[], None]  # says what waits in the outboxes; best effort
    others: Callable[[], Mapping[str, "Installation"]]  # all models of this device, by name
    telemetry: Callable[[], bool]
    offline: Callable[[], bool]  # a bundle is imported: somebody is here, and no network is used


class Installation:
    """One model on this device."""

    def __init__(self, model: str, places: Places, around: Surroundings) -> None:
        self.model = model
        self.places = places
        self.journal = Journal(model=model)
        self.pointer = Pointer(model=model)
        self.decision: Decision | None = None
        self.waits_for = ""
        self.again_s: float | None = None  # when to look again at what it waits for; None: with the next refresh
        self._around = around
        self._staging = Staging(
            places, disk=around.disk, download=around.download, home=around.home, quota_bytes=around.quota_bytes
        )
        self._benchmarks = Benchmarks(places.folder / "benchmarks", disk=around.disk)
        self._requires: dict[int, tuple[Requirement, ...]] = {}
        self._loaded: tuple[object, object] | None = None
        self._announced: tuple[int, int] | None = None
        self._held_back_at = 0.0  # when the conditions last kept a placebo back
        self._unfit: set[int] = set()  # no variant for this device's labels; neither changes while it runs

    @property
    def fetching(self) -> set[str]:
        """Digests of patches and of what they make, while they are on their way."""
        return self._staging.fetching

    # --- what is remembered ---

    def load(self) -> None:
        """Read journal and pointer, unless they are what was read or written last."""
        stamps = self._stamps()
        if self._loaded == stamps and self._around.disk.size(self.places.set_record) is None:
            return
        self.places.make()
        self.pointer = self._read_pointer()
        content = self._around.disk.read(self.places.journal)
        try:
            if content is None:
                journal = recovered(self.pointer, reason="the journal is gone")
            else:
                journal = unseal(Journal, content, what="the journal")
        except UntrustedInput as error:
            journal = recovered(self.pointer, reason=str(error))
        self.journal = journal
        if journal.state is State.PROBING:
            self.take(events.Restarted())
        elif content is None and journal.state is not State.IDLE:
            self._save(journal)
        self._finish_set()
        self._loaded = self._stamps()

    def _stamps(self) -> tuple[object, object]:
        disk = self._around.disk
        return disk.stamp(self.places.journal), disk.stamp(self.places.pointer)

    def _read_pointer(self) -> Pointer:
        content = self._around.disk.read(self.places.pointer)
        if content is None:
            return Pointer(model=self.model)
        try:
            return unseal(Pointer, content, what="the pointer")
        except UntrustedInput:
            return Pointer(model=self.model)  # nothing is known to be whole: it is fetched again

    def take(self, event: events.Event) -> None:
        """Step, and save."""
        journal, _ = step(self.journal, event)
        self._save(journal)

    def _save(self, journal: Journal) -> None:
        self._around.disk.write(self.places.journal, seal(journal))
        self.journal = journal  # only now: where the disk is full, nothing is done that is not written down
        self._loaded = self._stamps()

    def _point(self, pointer: Pointer) -> None:
        if pointer == self.pointer:
            return
        self._around.disk.write(self.places.pointer, seal(pointer))
        self.pointer = pointer
        self._loaded = self._stamps()

    def _keep(self, journal: Journal) -> None:
        if journal != self.journal:
            self._save(journal)

    # --- what happened ---

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
        hardware_class, slices = policy.told_of(self._around.labels) if policy else ("", {})
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

    # --- what should be ---

    def decide(self) -> Decision | None:
        """What the policy says for this device; None where no policy is known."""
        policy, line = self._around.trust.policies.get(self.model), self._around.trust.lines.get(self.model)
        if policy is None or line is None:
            return None
        return decide(policy, line, self._profile())

    def _profile(self) -> Profile:
        refused = frozenset(refusal.serial for refusal in self.journal.refused)
        return Profile(self._around.device_id, self._around.labels, refused, frozenset(self._unfit))

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

    def _better(self, policy: Policy) -> bool:
        """Whether the active version may run no longer, and the other slot's may: it is here at once, unlike others."""
        line, profile = self._around.trust.lines[self.model], self._profile()
        active, fallback = self.pointer.serial, self.pointer.fallback
        if active is None or fallback is None or objection(policy, line, profile, active) is None:
            return False
        return objection(policy, line, profile, fallback.serial) is None

    def _trial_goes_on(self, active: int, policy: Policy) -> bool:
        # A newer version may wait: taking it now would cost the fallback while the active one is still unproven.
        candidate, line = self.journal.candidate, self._around.trust.lines[self.model]
        if candidate is None or self._around.now() - candidate.offered_at > limits.TRIAL_MOST_S:
            return False
        return objection(policy, line, self._profile(), active) is None

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

    # --- effects ---

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
                whole = candidate.held is not None and self.places.wholeness.holds(candidate.held)
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
        if candidate.held is None or not self.places.wholeness.intact(candidate.held):
            return events.Corrupt("the files in the slot are not whole any more")
        return events.ShadowBegun(at=self._around.now())

    def _activate(self, effect: effects.Activate) -> events.Event | None:
        candidate, now = effect.candidate, self._around.now()
        trust = self._around.trust
        if not 0 <= now - trust.confirmed_at(self.model) < limits.FRESH_S:
            try:
                self._around.refresh()
            except (Unavailable, UntrustedInput):
                self._check_age(now)
            else:
                self._check_age(self._around.now())
        members = [self]
        release = trust.release(self.model, candidate.serial, now)
        for each in release.requires:
            other = self._around.others()[each.model]
            if other.pointer.serial == each.serial:
                continue
            if not other.is_ready(each.serial):
                self.waits_for = f"{each.model} to be ready at serial {each.serial}: both change together"
                return None
            members.append(other)
        for member in members:
            event, because = member.objection_to_swap()
            if member is self and event is not None:
                return event
            if event is not None or because:
                self.waits_for = because if member is self else f"{member.model}, which waits: {because or event}"
                self.again_s = member.again_s
                return None
        self._announce_swap(members)
        self._swap_together(members)
        return None

    def _check_age(self, now: float) -> None:
        # Metadata may have come without the documents that it names: then the policy here is the one before.
        trust = self._around.trust
        age_s, most_s = now - trust.confirmed_at(self.model), trust.policies[self.model].activate_max_age_s
        if not 0 <= age_s <= most_s and not trust.memory.bundled:  # a stick is as old as it is
            why = trust.problems.get(self.model, "the server was not heard since")
            raise Unavailable(
                f"the policy was last confirmed {age_s:.0f} s ago; at most {most_s:g} s are allowed: {why}"
            )

    def is_ready(self, serial: int) -> bool:
        """Whether `serial` is staged, probed and waits for its swap."""
        candidate = self.journal.candidate
        return self.journal.state is State.READY and candidate is not None and candidate.serial == serial

    def objection_to_swap(self) -> tuple[events.Event | None, str]:
        """Why the candidate may not be swapped in now: an event that ends or repeats the try, or what it waits for."""
        candidate = self.journal.candidate
        decision = self.decide()
        if candidate is None or decision is None or decision.serial != candidate.serial:
            self.decision = decision
            return events.Withdrawn(), ""
        because = self._forbidden(self._asked_of(candidate))
        if because:
            return None, because
        if candidate.held is None or not self.places.wholeness.intact(candidate.held):
            return events.Corrupt("the files in the slot are not whole any more"), ""
        return None, ""

    def _announce_swap(self, members: list["Installation"]) -> None:
        for member in members:
            candidate = member.journal.candidate
            with between_sessions(member.places) as safe:
                pass
            what = (candidate.serial if candidate else 0, self._around.trust.policies[member.model].sequence)
            if (safe or member._asked_to_swap()) and member._announced != what:
                member._announced = what
                member._keep(say(member.journal, announcement_of(member.journal, "activating")))
        self._around.flush()  # outside of the locks: a slow network keeps no session from starting

    def _swap_together(self, members: list["Installation"]) -> None:
        disk = self._around.disk
        with ExitStack() as locks:
            for member in sorted(members, key=lambda each: each.model):
                safe = locks.enter_context(between_sessions(member.places))
                if not safe and not member._asked_to_swap():
                    self._await_sessions()
                    return
            held = {
                member.model: found.held for member in members if (found := member.journal.candidate) and found.held
            }
            if len(members) > 1:
                disk.write(self.places.set_record, sets.encode(held))
            for member in members:
                member._cut_before_swap()
                member.take(events.Activated(at=self._around.now()))
                member._point(slots.swapped(member.pointer, held[member.model]))
            if len(members) > 1:
                self.end_set()
        for member in members:
            disk.remove(member.places.swap_request)

    def _finish_set(self) -> None:
        # The process ended between two pointers: this one follows the record that sessions believe already.
        held = sets.decode(self._around.disk.read(self.places.set_record)).get(self.model)
        candidate = self.journal.candidate
        if held is None or self.pointer.active == held:
            return
        known = candidate is not None and candidate.held == held
        if known and self.journal.state is State.READY:
            self.take(events.Activated(at=self._around.now()))
        self._point(slots.swapped(self.pointer, held))
        if not (known and self.journal.state is State.ON_TRIAL):
            self._save(recovered(self.pointer, reason="the journal was lost while a set was swapped"))

    def end_set(self) -> None:
        """Every pointer says what the record says: it goes, and durably, before any of them says something else."""
        self._around.disk.remove(self.places.set_record)
        self._around.disk.sync(self.places.set_record.parent)

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

    def _swap(self, pointer: Pointer) -> bool:
        if pointer == self.pointer:
            return True
        with between_sessions(self.places) as safe:
            done = safe or self._asked_to_swap()
            if done:
                self._cut_before_swap()
                self._point(pointer)
            else:
                self._await_sessions()
        if done:
            self._around.disk.remove(self.places.swap_request)
        return done

    def _asked_to_swap(self) -> bool:
        """Whether an app said `swap_now` of what is active now: open sessions go on with the files that they have."""
        return self._around.disk.read(self.places.swap_request) == str(self.pointer.serial).encode()

    def request_swap(self) -> bool:
        """See `Agent.swap_now`. Reads and writes files only; any process may do it."""
        disk = self._around.disk
        content = disk.read(self.places.journal)
        pointer = self._read_pointer()
        try:
            journal = unseal(Journal, content, what="the journal") if content else None
        except UntrustedInput:
            return False
        if journal is None or journal.state not in {State.READY, State.ON_TRIAL, State.GOING_BACK}:
            return False
        if journal.state is State.ON_TRIAL and journal.candidate and pointer.serial == journal.candidate.serial:
            return False  # it was swapped
        disk.replace(self.places.swap_request, str(pointer.serial).encode())
        return True

    def _await_sessions(self) -> None:
        self.waits_for, self.again_s = "the end of the open sessions", limits.WAIT_FOR_SESSION_S

    def _swap_back(self, effect: effects.SwapBack) -> events.Event | None:
        going = effect.going_back
        done = events.Returned() if going.by_policy else events.WentBack()
        if going.by_policy and going.to is None:
            return events.Emptied() if self._swap(slots.emptied(self.pointer)) else None
        if self.pointer.serial != going.leaves:
            return done  # it was swapped before the process ended
        fallback = self.pointer.fallback
        if fallback is None or not self.places.wholeness.intact(fallback):
            if going.by_policy:
                self._point(slots.without_inactive(self.pointer))
                return events.FallbackLost()
            return done if self._swap(slots.emptied(self.pointer)) else None
        if not self._swap(slots.back(self.pointer)):
            return None
        for other in self._around.others().values():
            if other is not self:
                other.keep_set()
        return done

    def _cut_before_swap(self) -> None:
        # What is left is told of with the cohorts of its time.
        found = harvest(self.places)
        if found:
            self._write_down(found)
        if self._around.telemetry() and self._around.spool.has_open(self.model):
            self.cut()


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
