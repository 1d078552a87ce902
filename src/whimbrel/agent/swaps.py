"""The swaps of a device's models, forward and back: of a set that changes together, or of one model alone.

1. Before a version is activated the policy is as fresh as it asks to be, decides again, and the device says what it is
   about to do.
2. A set is swapped behind the locks of all its models, by one record (`sets`). Who belongs to it: `device/swap_group`.
3. Going back needs no network, no permission and no probe; only the end of the sessions, and whole files. Where a
   member of a set goes back, the others follow while the swap locks of all of them are held: no session begins between.
   The others go back that need what was left, and those that the policy takes back as well.

A swap that cannot be done now returns a `Wait`, and is asked for again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import msgspec

from whimbrel import limits
from whimbrel.agent import sets
from whimbrel.agent.device_context import DeviceContext
from whimbrel.agent.marks import between_sessions
from whimbrel.agent.model_state import ModelState
from whimbrel.agent.places import read_departures
from whimbrel.agent.session_results import SessionResults
from whimbrel.device import events, slots
from whimbrel.device.conditions import Wait
from whimbrel.device.departure import names
from whimbrel.device.journal import Candidate, GoingBack
from whimbrel.device.slots import Held, Pointer
from whimbrel.device.step import announcement_of, say
from whimbrel.device.swap_group import Standing, swap_group
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model.release import Requirement

_FOR_SESSIONS = Wait("the end of the open sessions", limits.WAIT_FOR_SESSION_S)


class SetMember(Protocol):
    """A model that may be swapped together with others."""

    @property
    def state(self) -> ModelState: ...

    @property
    def results(self) -> SessionResults: ...

    def objection_to_swap(self) -> events.Event | Wait | None:
        """Why the candidate may not be swapped in now: what ends or repeats the try, or what it waits for."""

    def leave_with_set(self) -> None:
        """Go back as well, where what is active needs a version that another model left."""

    def return_with_set(self) -> None:
        """Go back as well, where the policy says so: another model of the set just did."""

    def requires(self, serial: int) -> Sequence[Requirement]:
        """What a serial of this model requires of others."""

    def wants(self, serial: int) -> Sequence[Requirement]:
        """What a serial of this model requires of others, and the versions that led its sets."""

    def standing(self) -> Standing:
        """What a swap must know of this model."""


class Swaps:
    """The swaps of one device. Remembers which ones were announced: each is said once for a policy."""

    def __init__(self, device: DeviceContext) -> None:
        self._device = device
        self._announced: dict[str, tuple[int, int]] = {}  # model -> serial and sequence of the policy
        self._locked: set[str] = set()  # models whose swap locks are held for a set that goes back

    # --- forward ---

    def activate(
        self,
        member: SetMember,
        candidate: Candidate,
        models: Mapping[str, SetMember],
        *,
        refresh: Callable[[], None],
        flush: Callable[[], None],
    ) -> events.Event | Wait | None:
        """Swap `candidate` in, with its set. `models`: all of this device. Returns `Withdrawn`, `Corrupt`, a
        `Wait`, or None after the swap.

        Raises `Unavailable` where the policy is too old, `UntrustedInput`.
        """
        self._freshen(member.state.model, self._device.now(), refresh)
        self._device.trust.release(member.state.model, candidate.serial, self._device.now())  # what it requires
        objection = member.objection_to_swap()
        if objection is not None:
            return objection
        group = self.group_of(member, candidate, models)
        if isinstance(group, Wait):
            return group
        members = [member, *(models[name] for name in group[1:])]
        for other in members:
            objection = other.objection_to_swap()
            if objection is None:
                continue
            because = objection.because if isinstance(objection, Wait) else objection
            again_s = objection.again_s if isinstance(objection, Wait) else None
            return Wait(f"{other.state.model}, which waits: {because}", again_s)
        self._announce(members)
        flush()  # outside of the locks: a slow network keeps no session from starting
        return self._swap_together(members)

    def group_of(
        self, member: SetMember, candidate: Candidate, models: Mapping[str, SetMember]
    ) -> tuple[str, ...] | Wait:
        """Who changes together with `member`, which is ready: itself first; or who is not ready."""
        model, age_s = member.state.model, self._device.now() - candidate.offered_at
        standings = {name: other.standing() for name, other in models.items()}
        standings[model] = msgspec.structs.replace(
            member.standing(), changes_to=candidate.serial, next_requires=tuple(member.requires(candidate.serial))
        )
        return swap_group(model, standings, waits_for_unread=0 <= age_s < limits.UNREAD_RELEASE_S)

    def _freshen(self, model: str, now: float, refresh: Callable[[], None]) -> None:
        if 0 <= now - self._device.trust.confirmed_at(model) < limits.FRESH_S:
            return
        try:
            refresh()
        except (Unavailable, UntrustedInput):
            self._check_age(model, now)
        else:
            self._check_age(model, self._device.now())

    def _check_age(self, model: str, now: float) -> None:
        # Metadata may have come without the documents that it names: then the policy here is the one before.
        trust = self._device.trust
        age_s, most_s = now - trust.confirmed_at(model), trust.policies[model].activate_max_age_s
        if not 0 <= age_s <= most_s and model not in trust.memory.bundled:  # a stick is as old as it is
            why = trust.problems.get(model, "the server was not heard since")
            raise Unavailable(
                f"the policy was last confirmed {age_s:.0f} s ago; at most {most_s:g} s are allowed: {why}"
            )

    def _announce(self, members: Sequence[SetMember]) -> None:
        for member in members:
            state = member.state
            serial = state.journal.candidate.serial if state.journal.candidate else 0
            with between_sessions(state.places) as safe:
                pass
            swap = serial, self._device.trust.policies[state.model].sequence
            if (safe or state.is_swap_requested) and self._announced.get(state.model) != swap:
                self._announced[state.model] = swap
                state.keep(say(state.journal, announcement_of(state.journal, "activating")))

    def _swap_together(self, members: Sequence[SetMember]) -> Wait | None:
        with ExitStack() as locks:
            for member in sorted(members, key=lambda member: member.state.model):
                safe = locks.enter_context(between_sessions(member.state.places))
                if not safe and not member.state.is_swap_requested:
                    return _FOR_SESSIONS
            held = {member.state.model: held for member in members if (held := _held(member.state))}
            record = members[0].state.places.set_record
            if len(members) > 1:
                self._device.disk.write(record, sets.encode(held))
            for member in members:
                member.results.finish_before_swap()
                member.state.take(events.Activated(at=self._device.now()))
                member.state.point(slots.swapped(member.state.pointer, held[member.state.model]))
            if len(members) > 1:
                sets.remove_record(record, disk=self._device.disk)
        for member in members:
            self._device.disk.remove(member.state.places.swap_request)
        return None

    # --- one model, and back ---

    def point(self, member: SetMember, pointer: Pointer) -> Wait | None:
        """Swap one model's pointer between two sessions; nothing, where it says that already.

        It waits for no session of a version that was left by a record: apps have what the pointer will say.
        """
        state = member.state
        if pointer == state.pointer:
            return None
        with self._may_swap(state) as may_swap:
            if not may_swap:
                return _FOR_SESSIONS
            member.results.finish_before_swap()
            state.point(pointer)
        self._device.disk.remove(state.places.swap_request)
        return None

    def back(self, member: SetMember, going: GoingBack, models: Mapping[str, SetMember]) -> events.Event | Wait:
        """Swap back to the other slot or to nothing, and let the others of its set follow."""
        state = member.state

        def done() -> events.Event:
            return events.Returned() if going.by_policy else events.WentBack(to=state.pointer.serial)

        if going.by_policy and going.to is None:
            return self.point(member, self._without_active(state)) or events.Emptied()
        if state.pointer.active is None and going.leaves is None:
            return self._resume(member)
        if state.pointer.serial != going.leaves:
            return done()  # it was swapped before the process ended
        fallback = state.pointer.fallback
        if fallback is None or not state.places.integrity.intact(fallback):
            if going.by_policy:
                state.point(slots.without_inactive(state.pointer))
                return events.FallbackLost()
            return self.point(member, slots.emptied(state.pointer)) or done()
        target = slots.back(state.pointer) if going.by_policy else slots.left(state.pointer)
        with ExitStack() as locks:
            followers = list(mates(member, models))
            for other in sorted((member, *followers), key=lambda other: other.state.model):
                if not locks.enter_context(self._may_swap(other.state)):
                    return _FOR_SESSIONS
            self.point(member, target)
            for other in models.values():
                if other is not member:
                    other.leave_with_set()
            for other in followers if going.by_policy else ():  # what failed here is not in the decision yet
                other.return_with_set()
        return done()

    def _without_active(self, state: ModelState) -> Pointer:
        """The pointer of a model that offers no version. What may run again stays, while its files are whole."""
        line, kept = self._device.trust.lines.get(state.model), state.pointer.active or state.pointer.stopped
        if kept is None or line is None or not line.allows(kept.serial) or not state.places.integrity.intact(kept):
            return slots.emptied(state.pointer)
        return slots.stopped(state.pointer)

    def _resume(self, member: SetMember) -> events.Event | Wait:
        """Go on with what was stopped."""
        pointer = member.state.pointer
        if pointer.stopped is None or not member.state.places.integrity.intact(pointer.stopped):
            member.state.point(slots.emptied(pointer))
            return events.FallbackLost()
        return self.point(member, slots.resumed(pointer)) or events.Returned()

    @contextmanager
    def _may_swap(self, state: ModelState) -> Iterator[bool]:
        """Hold the swap lock of a model, once; gives whether no session hinders a swap.

        A session of a version that was left by a record hinders none.
        """
        if state.model in self._locked:
            yield True
            return
        with between_sessions(state.places) as safe:
            is_left = names(read_departures(state.places).get(state.model), state.pointer.active)
            self._locked.add(state.model)
            try:
                yield safe or is_left or state.is_swap_requested
            finally:
                self._locked.discard(state.model)


def mates(member: SetMember, models: Mapping[str, SetMember]) -> Iterator[SetMember]:
    """The models that run what the active version of `member` wants, or that want it."""
    for other in models.values():
        if other is not member and (_needs(member, other) or _needs(other, member)):
            yield other


def _needs(one: SetMember, other: SetMember) -> bool:
    ours, theirs = one.state.pointer.serial, other.state.pointer.serial
    wanted = one.wants(ours) if ours is not None else ()
    return any((each.model, each.serial) == (other.state.model, theirs) for each in wanted)


def _held(state: ModelState) -> Held | None:
    return state.journal.candidate.held if state.journal.candidate else None
