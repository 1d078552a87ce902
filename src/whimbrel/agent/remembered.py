"""What does a model on this device remember, durably? Its journal and its pointer, and who writes them.

1. The journal is on the disk before this process believes what it says: where the disk is full, nothing is done that is
   not written down.
2. What cannot be read is not guessed at: a torn journal goes back to what the pointer says was committed.

The ground that `wishes`, `swaps` and `installation` stand on.
"""

from whimbrel.agent import sets
from whimbrel.agent.places import Places
from whimbrel.agent.surroundings import Surroundings
from whimbrel.device import events, slots
from whimbrel.device.journal import Journal, recovered, seal, unseal
from whimbrel.device.slots import Pointer
from whimbrel.device.states import State
from whimbrel.device.step import step
from whimbrel.errors import UntrustedInput
from whimbrel.policy.decide import Decision


class Remembered:
    """One model's journal and pointer. `waits_for`: what holds it up, in words; `again_s`: when to look again."""

    def __init__(self, model: str, places: Places, around: Surroundings) -> None:
        self.model = model
        self.places = places
        self.journal = Journal(model=model)
        self.pointer = Pointer(model=model)
        self.decision: Decision | None = None
        self.waits_for = ""
        self.again_s: float | None = None  # None: with the next refresh
        self._around = around
        self._loaded: tuple[object, object] | None = None

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
