"""The durable state of one model on this device: its journal and its pointer. Nobody else writes them.

1. The journal is on the disk before this process believes what it says: where the disk is full, nothing is done that is
   not written down.
2. What cannot be read is not guessed at: a torn journal goes back to what the pointer says was committed.
3. Where the process ended between the pointers of a set, this model follows the set's record when it is loaded.
"""

import msgspec

from whimbrel.agent import sets
from whimbrel.agent.locks import locked
from whimbrel.agent.marks import open_in
from whimbrel.agent.places import Places, read_departures
from whimbrel.agent.run_history import RunHistory
from whimbrel.device import events, slots
from whimbrel.device.departure import names
from whimbrel.device.journal import Journal, recovered, seal, unseal
from whimbrel.device.slots import Pointer, SlotName
from whimbrel.device.states import State
from whimbrel.device.step import step
from whimbrel.errors import UntrustedInput


class ModelState:
    """One model's journal and pointer. Read them; change them by the methods, which write first."""

    def __init__(self, model: str, places: Places, runs: RunHistory) -> None:
        self.model = model
        self.places = places
        self._runs = runs
        self.journal = Journal(model=model)
        self.pointer = Pointer(model=model)
        self._disk = places.disk
        self._loaded: tuple[object, object] | None = None

    def load(self, *, now: float) -> None:
        """Read journal and pointer, unless they are what was read or written last."""
        if self._loaded == self._stamps() and self._disk.size(self.places.set_record) is None:
            return
        self.places.make()
        self.pointer = self._read_pointer()
        content = self._disk.read(self.places.journal)
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
        self._follow_set_record(now)
        self._loaded = self._stamps()

    def take(self, event: events.Event) -> None:
        """Step, and save."""
        journal, _ = step(self.journal, event)
        self._save(journal)

    def keep(self, journal: Journal) -> None:
        """Save a journal that changed without a step: cohorts, announcements, bytes."""
        if journal != self.journal:
            self._save(journal)

    def point(self, pointer: Pointer, *, late: bool = False) -> None:
        """Write the pointer: apps open what it says from now on. `late`: a record made them do so before."""
        if pointer == self.pointer:
            return
        self._disk.write(self.places.pointer, seal(pointer))
        self.pointer = pointer
        self._loaded = self._stamps()
        self._runs.changed(self, late=late)

    def free_inactive(self, slot: SlotName) -> bool:
        """Forget what the inactive slot holds, so that it may be emptied; False while an app opens it, or may do so."""
        with locked(self.places.swap_lock, disk=self._disk):
            if open_in(self.places, slot) or names(read_departures(self.places).get(self.model), self.pointer.active):
                return False
            self.point(slots.without_inactive(self.pointer))
        return True

    def announced(self) -> None:
        """The first announcement is out. Not saved at once: sent again after a restart, it changes nothing."""
        self.journal = msgspec.structs.replace(self.journal, outbox=self.journal.outbox[1:])

    def request_swap(self) -> bool:
        """See `Agent.swap_now`. Reads and writes files only; any process may do it."""
        content = self._disk.read(self.places.journal)
        pointer = self._read_pointer()
        try:
            journal = unseal(Journal, content, what="the journal") if content else None
        except UntrustedInput:
            return False
        if journal is None or journal.state not in {State.READY, State.ON_TRIAL, State.GOING_BACK}:
            return False
        if journal.state is State.ON_TRIAL and journal.candidate and pointer.serial == journal.candidate.serial:
            return False  # it was swapped
        self._disk.replace(self.places.swap_request, str(pointer.serial).encode())
        return True

    @property
    def is_swap_requested(self) -> bool:
        """Whether an app asked not to wait for sessions of the version that is active now."""
        return self._disk.read(self.places.swap_request) == str(self.pointer.serial).encode()

    def _stamps(self) -> tuple[object, object]:
        return self._disk.stamp(self.places.journal), self._disk.stamp(self.places.pointer)

    def _read_pointer(self) -> Pointer:
        content = self._disk.read(self.places.pointer)
        if content is None:
            return Pointer(model=self.model)
        try:
            return unseal(Pointer, content, what="the pointer")
        except UntrustedInput:
            return Pointer(model=self.model)  # nothing is known to be whole: it is fetched again

    def _follow_set_record(self, now: float) -> None:
        # The process ended between two pointers: this one follows the record that sessions believe already.
        held = sets.decode(self._disk.read(self.places.set_record)).get(self.model)
        candidate = self.journal.candidate
        if held is None or self.pointer.active == held:
            return
        is_candidate = candidate is not None and candidate.held == held
        if is_candidate and self.journal.state is State.READY:
            self.take(events.Activated(at=now))
        self.point(slots.swapped(self.pointer, held), late=True)
        if not (is_candidate and self.journal.state is State.ON_TRIAL):
            self._save(recovered(self.pointer, reason="the journal was lost while a set was swapped"))

    def _save(self, journal: Journal) -> None:
        self._disk.write(self.places.journal, seal(journal))
        self.journal = journal  # only now: where the disk is full, nothing is done that is not written down
        self._loaded = self._stamps()
