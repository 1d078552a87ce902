"""How does one model on this device get from what it is to what the policy says? The shell around `device.step`.

1. It compares the decision with the journal and makes events of the difference; the step says what follows.
2. The journal is durable before an effect is performed. An effect that cannot be done now answers with None, says what
   it waits for, and is asked for again in a later pass.
3. Going back asks for no network, no permission and no probe; only for the end of the sessions, and whole files.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.agent.assembly import Assembly
from whimbrel.agent.disk import Disk
from whimbrel.agent.download import Download, Unfinished
from whimbrel.agent.session import Ended, Places, between_sessions, forget, harvest
from whimbrel.agent.spool import Spool
from whimbrel.agent.tuf_client import TrustClient
from whimbrel.device import cohorts, effects, events, slots
from whimbrel.device.conditions import Situation, permit, start_jitter
from whimbrel.device.journal import Candidate, Journal, recovered, seal, unseal
from whimbrel.device.ports import Prober, ProbeRequest
from whimbrel.device.slots import Content, Held, Pointer
from whimbrel.device.states import PREPARING, RESTING, State
from whimbrel.device.step import announcement_of, effects_of, say, step
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model.choose import choose_variant
from whimbrel.model.release import File, Release
from whimbrel.model.ways import Step
from whimbrel.rollout.decide import Assignment, Decision, Profile, decide, objection
from whimbrel.rollout.policy import Policy

_replace = msgspec.structs.replace


class Surroundings(msgspec.Struct):
    """What all models of a device share."""

    device_id: str
    labels: dict[str, str]
    artifacts_url: str
    disk: Disk
    trust: TrustClient
    download: Download
    prober: Callable[[], Prober]
    spool: Spool
    now: Callable[[], float]
    situation: Callable[[], Situation]
    refresh: Callable[[], None]  # raises Unavailable, UntrustedInput
    flush: Callable[[], None]  # says what waits in the outboxes; best effort
    serial_of: Callable[[str], int | None]  # what another model runs here
    telemetry: Callable[[], bool]


class Installation:
    """One model on this device."""

    def __init__(self, model: str, places: Places, around: Surroundings) -> None:
        self.model = model
        self.places = places
        self.journal = Journal(model=model)
        self.pointer = Pointer(model=model)
        self.decision: Decision | None = None
        self.waits_for = ""
        self.fetching: set[str] = set()  # digests of patches and of what they make, while they are on their way
        self.again_s: float | None = None  # when to look again at what it waits for; None: with the next refresh
        self._around = around
        self._loaded: tuple[object, object] | None = None
        self._announced: tuple[int, int] | None = None

    # --- what is remembered ---

    def load(self) -> None:
        """Read journal and pointer, unless they are what was read or written last."""
        stamps = self._stamps()
        if self._loaded == stamps:
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
            failed += any(each.crashed for each in mine)  # those of one moment are one event
            if healthy or failed:
                self.take(events.SessionsSeen(healthy=healthy, failed=failed))
        self._write_down(found)

    def _write_down(self, found: list[Ended]) -> None:
        names = [each.name for each in found]
        if self._around.telemetry():
            self._around.spool.add(self.model, self._around.spool.new_of(found), names=names)
        forget(self.places, names)

    def cut(self) -> None:
        """Close the report window."""
        policy = self._around.trust.policies.get(self.model)
        self._around.spool.cut(
            self.model,
            serial=self.pointer.serial,
            cohorts=cohorts.cohorts(self.journal, now=self._around.now()),
            hardware_class=self._around.labels.get(policy.hardware_label, "") if policy else "",
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
        return Profile(self._around.device_id, self._around.labels, refused)

    def advance(self, *, prepare: bool) -> None:
        """Go as far as possible now. `prepare` False: only what concerns the active slot.

        Raises `Unavailable`, `UntrustedInput`, `Refused`: what could not be done; it is tried again.
        """
        self.waits_for, self.again_s = "", None
        policy = self._around.trust.policies.get(self.model)
        self._work(prepare=False)  # a trial that is over is over before something else is wanted
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
        if state in PREPARING and candidate is not None:
            if wanted == candidate.serial:
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
            return
        fallback = self.pointer.fallback
        line = self._around.trust.lines[self.model]
        treated = _treated(decision, policy)
        back_to_it = fallback is not None and fallback.serial == wanted and treated is None
        trial = state is State.ON_TRIAL
        if trial and not back_to_it and active is not None and self._trial_goes_on(active, policy):
            self.waits_for = f"the end of the trial of serial {active}"
            return
        if fallback is not None and (back_to_it or (trial and line.allows(fallback.serial))):
            self.take(events.Recalled(to=fallback.serial, leaves=active, reason=decision.because))
        elif prepare:
            self._offer(wanted, treated, policy)

    def _trial_goes_on(self, active: int, policy: Policy) -> bool:
        # A newer version may wait: taking it now would cost the fallback while the active one is still unproven.
        candidate, line = self.journal.candidate, self._around.trust.lines[self.model]
        if candidate is None or self._around.now() - candidate.offered_at > limits.TRIAL_MOST_S:
            return False
        return objection(policy, line, self._profile(), active) is None

    def _offer(self, serial: int, treated: Assignment | None, policy: Policy) -> None:
        failed = next((refusal for refusal in self.journal.refused if refusal.serial == serial), None)
        if failed is not None and policy.sequence <= failed.policy_sequence:
            self.waits_for = f"a new policy: serial {serial} failed here again ({failed.reason})"
            return
        release = self._around.trust.release(self.model, serial, self._around.now())
        variant = choose_variant(release, self._around.labels)
        if variant is None:
            self.waits_for = f"a variant of serial {serial} that fits this device's labels"
            return
        missing = self._missing(release)
        if missing:
            self.waits_for = missing
            return
        self.take(
            events.Offered(
                serial=serial,
                version=release.version,
                slot=self.pointer.inactive,
                files=variant.files,
                policy_sequence=policy.sequence,
                at=self._around.now(),
                rollout=treated.rollout if treated else None,
                stage=treated.stage if treated else 0,
            )
        )

    def _missing(self, release: Release) -> str:
        for each in release.requires:
            if self._around.serial_of(each.model) != each.serial:
                return f"{each.model} at serial {each.serial}, which serial {release.serial} requires"
        return ""

    def _follow(self, decision: Decision, policy: Policy) -> None:
        # The same version, perhaps in another cohort by now.
        candidate = self.journal.candidate
        treated = _treated(decision, policy)
        if candidate is not None:
            moved = _replace(
                candidate, rollout=treated.rollout if treated else None, stage=treated.stage if treated else 0
            )
            self._keep(_replace(self.journal, candidate=moved))

    def _belong(self, decision: Decision) -> None:
        # A treated device is in its cohort from when there is something for it to try.
        known = {(member.rollout, member.stage) for member in self.journal.memberships}
        candidate = self.journal.candidate
        here = {self.pointer.serial, candidate.serial if candidate else None}
        belongs = [
            each
            for each in decision.assignments
            if each.role == "control" or decision.serial in here or (each.rollout, each.stage) in known
        ]
        self._keep(cohorts.assigned(self.journal, belongs, serial=decision.serial, at=self._around.now()))

    def _stand_in(self, decision: Decision, policy: Policy) -> None:
        if self.journal.state not in RESTING | {State.ON_TRIAL} or self.pointer.serial != decision.serial:
            return
        treated = _treated(decision, policy)
        for member in self.journal.memberships:
            if member.since is not None or (member.role == "treated" and treated is None):
                continue
            if member.role == "control":
                because = self._not_yet(policy, occasion=f"{member.rollout}/{member.stage}", since=member.assigned_at)
                if because:
                    self.waits_for = self.waits_for or because
                    continue
            self._keep(cohorts.stand_in(self.journal, member, serial=self.pointer.serial, at=self._around.now()))

    def _not_yet(self, policy: Policy, *, occasion: str, since: float) -> str:
        now = self._around.now()
        conditions = policy.conditions
        jitter = start_jitter(conditions, device_id=self._around.device_id, occasion=f"{self.model}/{occasion}")
        if 0 <= now - since < jitter:
            self.again_s = since + jitter - now
            return f"its turn: starts are spread over {conditions.start_jitter_s:g} s"
        return self._forbidden(policy)

    def _forbidden(self, policy: Policy) -> str:
        because = permit(policy.conditions, self._around.situation(), now=self._around.now()).because
        if because:
            self.again_s = limits.WAIT_FOR_CONDITIONS_S
        return because

    # --- effects ---

    def _perform(self, effect: effects.Effect) -> events.Event | None:
        match effect:
            case effects.Then(event=event):
                return event
            case effects.AwaitConditions(candidate=candidate):
                policy = self._around.trust.policies[self.model]
                occasion = f"{candidate.rollout}/{candidate.stage}" if candidate.rollout else str(candidate.serial)
                self.waits_for = self._not_yet(policy, occasion=occasion, since=candidate.offered_at)
                return None if self.waits_for else events.Begun()
            case effects.Fetch():
                return self._fetch(effect)
            case effects.Stage():
                return self._stage(effect)
            case effects.RunProbe():
                return self._probe(effect)
            case effects.Activate():
                return self._activate(effect)
            case effects.PointTo(held=held):
                self._swap(slots.swapped(self.pointer, held))
                return None
            case effects.Commit():
                self._point(slots.committed(self.pointer))
                return None
            case effects.SwapBack():
                return self._swap_back(effect)
        raise NotImplementedError(effect)

    def _fetch(self, effect: effects.Fetch) -> events.Event | None:
        moved = 0
        steps = self._steps(effect.candidate)
        assembly = Assembly(self._around.download, disk=self._around.disk, artifacts_url=self._around.artifacts_url)
        for file in {file.sha256: file for file in effect.candidate.files}.values():
            try:
                moved += assembly.bring(file, steps, self._here(file)).moved
            except UntrustedInput as error:
                return events.Corrupt(str(error), bytes_moved=moved)
            except Unfinished as error:
                total = effect.candidate.bytes_moved + moved + error.moved
                self._keep(_replace(self.journal, candidate=_replace(effect.candidate, bytes_moved=total)))
                raise
        return events.Fetched(bytes_moved=moved)

    def _steps(self, candidate: Candidate) -> tuple[Step, ...]:
        index = self._around.trust.deltas(self.model, candidate.serial, self._around.now())
        steps = index.steps if index else ()
        self.fetching = {digest for step in steps for digest in (step.sha256, step.target)}
        return steps

    def _here(self, file: File) -> dict[str, Path]:
        """Artifacts that the active slot holds, by digest; a folder is packed again, as it was when it travelled."""
        active = self.pointer.active
        if active is None:
            return {}
        slot = self.places.slot(active.slot)
        here = {each.sha256: slot / each.name for each in active.contents if not each.folder}
        if file.packed:
            for each in active.contents:
                archive = self._around.download.path(file).with_suffix(".base")
                if each.folder and each.name == file.name:
                    self._around.disk.remove(archive)
                    with self._around.disk.lend(slot / each.name, made=archive) as (source, made):
                        importlib.import_module("whimbrel.packing").pack(source, made)
                    here[self._around.disk.sha256(archive)] = archive
        return here

    def _stage(self, effect: effects.Stage) -> events.Event | None:
        disk, candidate = self._around.disk, effect.candidate
        slot = self.places.slot(candidate.slot)
        self._point(slots.without_inactive(self.pointer))
        disk.make_folder(slot)
        names = {file.name for file in candidate.files}
        for name in disk.names(slot):
            if name not in names:
                disk.remove(slot / name)
        contents = []
        staged: dict[str, Path] = {}  # a variant may hold the same bytes under two names
        for file in candidate.files:
            part, target = self._around.download.path(file), slot / file.name
            if disk.size(part) is not None:
                found = disk.sha256(part)
                if found != file.sha256:
                    self._around.download.discard(file)
                    return events.Corrupt(f"{file.name} has SHA-256 {found}; the release says {file.sha256}")
                disk.remove(target)
                if file.packed:
                    try:
                        self._unpack(part, target)
                    except UntrustedInput as error:
                        return events.InstallFailed(f"{file.name} cannot be unpacked: {error}")
                else:
                    disk.sync(part)  # here and not when it came: another process may have brought it, and ended
                    disk.move(part, target)
            elif (twin := staged.get(file.sha256)) is not None and not file.packed:
                disk.write(target, disk.read(twin) or b"")
            elif file.packed or disk.size(target) is None or disk.sha256(target) != file.sha256:
                return events.Corrupt(f"{file.name} is not here any more")
            digest = self.places.wholeness.tree_digest(target) if file.packed else file.sha256
            contents.append(Content(name=file.name, sha256=digest, folder=file.packed))
            staged.setdefault(file.sha256, target)
        disk.sync(slot)
        entry = candidate.files[0].name
        return events.Staged(
            Held(
                slot=candidate.slot,
                serial=candidate.serial,
                version=candidate.version,
                entry=entry,
                contents=tuple(contents),
            )
        )

    def _unpack(self, archive: Path, folder: Path) -> None:
        disk = self._around.disk
        unpack: Callable[[Path, Path], None] = importlib.import_module("whimbrel.packing").unpack
        with disk.lend(archive, made=folder) as (source, made):
            unpack(source, made)
        places = {folder}
        for name in disk.files_below(folder):
            disk.sync(folder / name)
            places |= {parent for parent in (folder / name).parents if parent.is_relative_to(folder)}
        for place in sorted(places, reverse=True):
            disk.sync(place)

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
        return events.ProbePassed() if result.passed else events.ProbeFailed(result.reason)

    def _activate(self, effect: effects.Activate) -> events.Event | None:
        candidate, now = effect.candidate, self._around.now()
        trust = self._around.trust
        if not 0 <= now - trust.memory.refreshed_at < limits.FRESH_S:
            try:
                self._around.refresh()
            except (Unavailable, UntrustedInput):
                if not 0 <= now - trust.memory.refreshed_at <= trust.policies[self.model].activate_max_age_s:
                    raise
        policy = trust.policies[self.model]
        decision = self.decide()
        if decision is None or decision.serial != candidate.serial:
            self.decision = decision
            return events.Withdrawn()
        self.waits_for = self._forbidden(policy)
        if self.waits_for:
            return None
        if candidate.held is None or not self.places.wholeness.intact(candidate.held):
            return events.Corrupt("the files in the slot are not whole any more")
        with between_sessions(self.places) as safe:
            pass
        if safe and self._announced != (candidate.serial, policy.sequence):
            self._announced = candidate.serial, policy.sequence
            self._keep(say(self.journal, announcement_of(self.journal, "activating")))
            self._around.flush()  # outside of the lock: a slow network keeps no session from starting
        with between_sessions(self.places) as safe:
            if not safe:
                self._await_sessions()
                return None
            self._cut_before_swap()
            self.take(events.Activated(at=self._around.now()))
            self._point(slots.swapped(self.pointer, candidate.held))
        return None

    def _swap(self, pointer: Pointer) -> bool:
        if pointer == self.pointer:
            return True
        with between_sessions(self.places) as safe:
            if safe:
                self._cut_before_swap()
                self._point(pointer)
            else:
                self._await_sessions()
        return safe

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
        return done if self._swap(slots.back(self.pointer)) else None

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
