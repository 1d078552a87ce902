"""Check that a slot's files are still the verified ones. A process hashes them once, and when a stamp changed.

A loader is no integrity check, and files change behind our back: a worn card, a restored backup, a curious hand. So a
session hashes what it is about to open once in its process, and the agent once in its own; after that a look at the
file's stamp is enough to see that nobody wrote to it.
"""

import hashlib
from pathlib import Path

from whimbrel.agent.disk import Disk
from whimbrel.device.slots import Content, Held


class Integrity:
    """The checks of one model's slots; remembers which files this process has hashed."""

    def __init__(self, folder: Path, *, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._hashed: dict[Held, object] = {}  # with the stamps that the files had then

    def holds(self, held: Held) -> bool:
        """Whether all files of `held` are whole; hashes only what this process did not hash, or what changed since."""
        stamps = self._stamps(held)
        if stamps is not None and self._hashed.get(held) == stamps:
            return True
        if not self.intact(held):
            return False
        self._hashed = dict([*self._hashed.items()][-1:]) | {held: stamps}  # of two slots, no more
        return True

    def intact(self, held: Held) -> bool:
        """Whether all files of `held` have the bytes that were verified; hashes all of them."""
        slot = self._folder / held.slot
        try:
            return all(self._digest(slot, content) == content.sha256 for content in held.contents)
        except OSError:
            return False

    def tree_digest(self, folder: Path) -> str:
        """One digest for names and bytes of all files below a folder."""
        tree = hashlib.sha256()
        for name in self._disk.files_below(folder):
            tree.update(f"{self._disk.sha256(folder / name)}  {name}\n".encode())
        return tree.hexdigest()

    def _digest(self, slot: Path, content: Content) -> str:
        place = slot / content.name
        return self.tree_digest(place) if content.folder else self._disk.sha256(place)

    def _stamps(self, held: Held) -> object:
        slot = self._folder / held.slot
        try:
            return [
                [(name, self._disk.stamp(slot / content.name / name)) for name in self._below(slot, content)]
                for content in held.contents
            ]
        except OSError:
            return None

    def _below(self, slot: Path, content: Content) -> list[str]:
        return self._disk.files_below(slot / content.name) if content.folder else [""]
