"""The files of one model on the disk: its folders and marks, and the pointer to the version that apps open.

A model's folder is shared by the agent and by any number of apps. Everyone finds the files by `Places`; who uses them
now is in `marks`.
"""

from pathlib import Path

from whimbrel.agent import sets
from whimbrel.agent.disk import Disk
from whimbrel.agent.integrity import Integrity
from whimbrel.device.departure import Departure, Departures, believed
from whimbrel.device.journal import unseal
from whimbrel.device.slots import Held, Pointer
from whimbrel.errors import UntrustedInput


class Places:
    """Where the files of one model are."""

    def __init__(self, folder: Path, *, disk: Disk) -> None:
        self.folder = folder
        self.disk = disk
        self.journal = folder / "journal"
        self.pointer = folder / "pointer"
        self.swap_lock = folder / "swap.lock"
        self.swap_request = folder / "swap.now"
        self.warm = folder / "warm"  # the slot and serial that ran last: nothing of another one is in the caches
        self.set_record = sets.record_place(folder)
        self.departures = folder.parent / ".left"  # versions that were left while no cycle ran, of all models
        self.departures_lock = folder.parent / ".left.lock"
        self.crash_loop = folder / "crashes"
        self.load_failure = folder / "load-failure"
        self.recent = folder / "recent"
        self.recheck = folder / "recheck"
        self.orders = folder / "orders"
        self.marks = folder / "marks"
        self.summaries = folder / "sessions"
        self.integrity = Integrity(folder, disk=disk)

    def slot(self, name: str) -> Path:
        """A slot's folder."""
        return self.folder / name

    def entry(self, held: Held) -> Path:
        """What an app opens."""
        return self.slot(held.slot) / held.entry

    def make(self) -> None:
        """The folders that sessions write to."""
        self.disk.make_folder(self.marks)
        self.disk.make_folder(self.summaries)


def read_pointer(places: Places) -> Pointer | None:
    """What apps open of a model, or None where there is nothing yet: the pointer, and what was decided since it was
    written, also where that is the first version of all. Raises `UntrustedInput` for a pointer that is torn.
    """
    content, record = places.disk.read(places.pointer), places.disk.read(places.set_record)
    pointer = unseal(Pointer, content, what=str(places.pointer)) if content is not None else None
    if record is not None:
        model = pointer.model if pointer is not None else places.folder.name
        pointer = sets.believed(pointer, model, sets.decode(record))
    return believed(pointer, read_departures(places).get(pointer.model)) if pointer is not None else None


def read_departures(places: Places) -> dict[str, Departure]:
    """The versions that were left and that no cycle has written down yet, by model; none where that file is torn."""
    content = places.disk.read(places.departures)
    try:
        return dict(unseal(Departures, content, what=str(places.departures)).left) if content else {}
    except UntrustedInput:
        return {}
