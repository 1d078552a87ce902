"""How does a model change, between sessions and with its set? Swaps forward, together, and back.

1. Before it activates it is as fresh as the policy asks, decides again, and says so.
2. A set is swapped behind all its locks, by one record (`sets`).
3. Going back asks for no network, no permission and no probe; only for the end of the sessions, and whole files.
"""

from contextlib import ExitStack

from whimbrel import limits
from whimbrel.agent import sets
from whimbrel.agent.marks import between_sessions, harvest
from whimbrel.agent.places import Places
from whimbrel.agent.surroundings import Surroundings
from whimbrel.agent.wishes import Wishes
from whimbrel.device import effects, events, slots
from whimbrel.device.journal import Journal, unseal
from whimbrel.device.slots import Pointer
from whimbrel.device.states import State
from whimbrel.device.step import announcement_of, say
from whimbrel.errors import Unavailable, UntrustedInput


class Swaps(Wishes):
    """The swaps of one model."""

    def __init__(self, model: str, places: Places, around: Surroundings) -> None:
        super().__init__(model, places, around)
        self._announced: tuple[int, int] | None = None

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
        members: list[Swaps] = [self]
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
        if not 0 <= age_s <= most_s and self.model not in trust.memory.bundled:  # a stick is as old as it is
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
        if candidate.held is None or not self.places.integrity.intact(candidate.held):
            return events.Corrupt("the files in the slot are not whole any more"), ""
        return None, ""

    def _announce_swap(self, members: list["Swaps"]) -> None:
        for member in members:
            candidate = member.journal.candidate
            with between_sessions(member.places) as safe:
                pass
            what = (candidate.serial if candidate else 0, self._around.trust.policies[member.model].sequence)
            if (safe or member._asked_to_swap()) and member._announced != what:
                member._announced = what
                member._keep(say(member.journal, announcement_of(member.journal, "activating")))
        self._around.flush()  # outside of the locks: a slow network keeps no session from starting

    def _swap_together(self, members: list["Swaps"]) -> None:
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

    def end_set(self) -> None:
        """Every pointer says what the record says: it goes, and durably, before any of them says something else."""
        self._around.disk.remove(self.places.set_record)
        self._around.disk.sync(self.places.set_record.parent)

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
        if fallback is None or not self.places.integrity.intact(fallback):
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
