"""Bring a version's files into a slot: room, download, hashes, unpacking. Nothing here looks at policies.

1. Room is asked for before a byte is fetched. Where there is too little, the other slot's old version goes first; then
   it waits, and says how much is missing.
2. Length and SHA-256 are checked before anything else looks at the bytes.
3. A slot is emptied only when no session has a file of it open, and after the pointer no longer names it.
4. Where slots stay sealed (`sealed_at_rest`), the age file itself is staged, after a look that it opens to what the
   release names. It is one file then: what a session opens in memory has no folder.
5. A file that the active version has as well is copied from there: only files that changed are fetched.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.agent.assembly import Assembly, as_artifact
from whimbrel.agent.disk import Disk
from whimbrel.agent.download import Download
from whimbrel.agent.places import Places
from whimbrel.agent.progress import Expected, together
from whimbrel.device import events
from whimbrel.device.journal import Candidate
from whimbrel.device.ports import MeasuredDisk
from whimbrel.device.slots import Content, Held, Opened
from whimbrel.errors import Refused, Unavailable, UntrustedInput
from whimbrel.health.report import WayName
from whimbrel.model.release import File, Reference
from whimbrel.model.ways import Step


class Interrupted(msgspec.Struct, frozen=True):
    """The bytes are not all here yet: what came, and why. `unopened`: a sealed file did not open."""

    moved: int
    moved_by: dict[WayName, int]
    error: Unavailable
    unopened: bool = False


class Staging:
    """The two slots of one model. `quota_bytes`: of `home`, the agent's whole folder; None: what the disk has."""

    def __init__(
        self,
        places: Places,
        *,
        disk: Disk,
        download: Download,
        home: Path | None = None,
        quota_bytes: int | None = None,
        sealed_at_rest: bool = False,
    ) -> None:
        self._places = places
        self._disk = disk
        self._download = download
        self._home = home
        self._quota_bytes = quota_bytes
        self._opens = not sealed_at_rest
        self.fetching: set[str] = set()  # digests of patches and of what they make, while they are on their way

    # --- room ---

    def lacking(self, candidate: Candidate, steps: tuple[Step, ...], active: Held | None) -> int:
        """Bytes of room that are missing for `candidate`; 0 where there is enough, or nobody can tell."""
        assembly = Assembly(self._download, disk=self._disk, opens=self._opens)
        here = {each.sha256 for each in active.contents} if active else set()
        needed = sum(
            assembly.room(file, steps, here) for file in {file.sha256: file for file in candidate.files}.values()
        )
        if not needed:
            return 0
        needed += int(needed * limits.ROOM_SHARE)
        lacking = 0
        if isinstance(self._disk, MeasuredDisk):
            lacking = needed + limits.ROOM_BYTES - self._disk.free_bytes(self._places.folder)
        if self._quota_bytes is not None and self._home is not None:
            lacking = max(lacking, needed + self._used() - self._quota_bytes)
        return max(0, lacking)

    def room_bytes(self, slot: str) -> int | None:
        """The bytes that a version in `slot` may have at most, when what is there is gone; None: nobody can tell."""
        rooms = []
        if isinstance(self._disk, MeasuredDisk):
            rooms.append(self._disk.free_bytes(self._places.folder) - limits.ROOM_BYTES)
        if self._quota_bytes is not None and self._home is not None:
            rooms.append(self._quota_bytes - self._used())
        folder = self._places.slot(slot)
        there = sum(self._disk.size(folder / name) or 0 for name in self._disk.files_below(folder))
        return max(0, min(rooms) + there) if rooms else None

    def empty(self, slot: str) -> None:
        """Remove what a slot holds. The pointer must not name it any more."""
        for name in self._disk.names(self._places.slot(slot)):
            self._disk.remove(self._places.slot(slot) / name)

    def _used(self) -> int:
        if self._home is None:
            return 0
        places = self._home / "models", self._home / "incoming"  # the rest is small, and bounded elsewhere
        return sum(self._disk.size(place / name) or 0 for place in places for name in self._disk.files_below(place))

    # --- bytes ---

    def fetch(
        self,
        candidate: Candidate,
        steps: tuple[Step, ...],
        active: Held | None,
        *,
        release_key: Callable[[], str] | None = None,
    ) -> events.Fetched | Interrupted:
        """Bring all files of `candidate` into the folder of downloads. `release_key`: gives what opens sealed ones."""
        self.fetching = {digest for step in steps for digest in (step.sha256, step.target)}
        assembly = Assembly(self._download, disk=self._disk, release_key=release_key, opens=self._opens)
        try:
            for file in {file.sha256: file for file in candidate.files}.values():
                if self._kept(file, candidate.slot):
                    continue  # from a time when it was tried in the shadow
                here = self._here(file, active)
                if not self._copied(file, here):
                    assembly.bring(file, steps, here)
        except Unavailable as error:
            return Interrupted(assembly.moved, assembly.moved_by, error)
        except (UntrustedInput, Refused) as error:  # nothing of it is here, and it says nothing about the version
            unopened = isinstance(error, UntrustedInput) and any(file.sealed is not None for file in candidate.files)
            return Interrupted(assembly.moved, assembly.moved_by, Unavailable(str(error)), unopened=unopened)
        return events.Fetched(bytes_moved=assembly.moved, moved_by=assembly.moved_by)

    def expected(self, candidate: Candidate, steps: tuple[Step, ...], active: Held | None) -> Expected:
        """What a fetch of `candidate` begins with."""
        assembly = Assembly(self._download, disk=self._disk, opens=self._opens)
        here = {each.sha256 for each in active.contents} if active else set()
        files = {file.sha256: file for file in candidate.files}.values()
        return together([assembly.expected(file, steps, here) for file in files])

    def _kept(self, file: File, slot: str) -> bool:
        """Whether the slot still holds this file, whole, and nothing of it came anew."""
        file = self._as_kept(file)
        if file.packed or self._disk.size(self._download.path(file)) is not None:
            return False
        place = self._places.slot(slot) / file.name
        return self._disk.size(place) == file.size_bytes and self._disk.sha256(place) == file.sha256

    def _copied(self, file: File, here: Mapping[str, Path]) -> bool:
        """Whether the active version has this file, whole, and it was copied from there: now, or in an earlier pass."""
        file = self._as_kept(file)
        source, copy = here.get(file.sha256), self._download.path(file)
        if source is None:
            return False
        if self._disk.size(copy) == file.size_bytes:
            return True  # its hash is looked at before it is staged
        if self._disk.sha256(source) != file.sha256:
            return False
        self._copy(source, copy)
        return True

    def _copy(self, source: Path, target: Path) -> None:
        """Copy a file, of any size. Not durable before a `sync` of `target`."""
        self._disk.make_folder(target.parent)
        self._disk.remove(target)
        with self._disk.lend(source, made=target) as (real_source, real_target):
            shutil.copyfile(real_source, real_target)

    def _here(self, file: File, active: Held | None) -> dict[str, Path]:
        """Artifacts that the active slot holds, by digest; a folder is packed again, as it was when it travelled."""
        if active is None:
            return {}
        slot = self._places.slot(active.slot)
        here = {each.sha256: slot / each.name for each in active.contents if not each.folder}
        if file.packed:
            from whimbrel import packing  # here: tarfile is for folders only, which few devices have

            for each in active.contents:
                archive = self._download.path(file).with_suffix(".base")
                if each.folder and each.name == file.name:
                    self._disk.remove(archive)
                    with self._disk.lend(slot / each.name, made=archive) as (source, made):
                        packing.pack(source, made)
                    here[self._disk.sha256(archive)] = archive
        return here

    # --- the slot ---

    def stage(
        self, candidate: Candidate, *, reference: Reference | None = None
    ) -> events.Staged | events.Corrupt | events.InstallFailed:
        """Fill the slot from the folder of downloads. The pointer must not name it any more."""
        disk, slot = self._disk, self._places.slot(candidate.slot)
        disk.make_folder(slot)
        self._keep_only({file.name for file in candidate.files}, slot)
        contents = []
        folders = {slot}
        staged: dict[str, Path] = {}  # a variant may hold the same bytes under two names
        for named in candidate.files:
            file = self._as_kept(named)
            part, target = self._download.path(file), slot / file.name
            disk.make_folder(target.parent)
            folders |= {parent for parent in target.parents if parent.is_relative_to(slot)}
            if disk.size(part) is not None:
                actual = disk.sha256(part)
                if actual != file.sha256:
                    self._download.refuse(file)
                    return events.Corrupt(f"{file.name} has SHA-256 {actual}; the release says {file.sha256}")
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
                self._copy(twin, target)
                disk.sync(target)
            elif file.packed or disk.size(target) is None or disk.sha256(target) != file.sha256:
                return events.Corrupt(f"{file.name} is not here any more")
            digest = self._places.integrity.tree_digest(target) if file.packed else file.sha256
            opens_to = None if file is named else Opened(sha256=named.sha256, size_bytes=named.size_bytes)
            contents.append(Content(name=file.name, sha256=digest, folder=file.packed, opens_to=opens_to))
            staged.setdefault(file.sha256, target)
        for folder in sorted(folders, reverse=True):
            disk.sync(folder)
        return events.Staged(
            Held(
                slot=candidate.slot,
                serial=candidate.serial,
                version=candidate.version,
                entry=candidate.files[0].name,
                contents=tuple(contents),
                reference=reference,
                sealed=any(file.sealed is not None for file in candidate.files),
            )
        )

    def _as_kept(self, file: File) -> File:
        """What a slot holds of `file`: the file, or its age file."""
        return file if self._opens else as_artifact(file)

    def _keep_only(self, names: set[str], folder: Path, *, above: str = "") -> None:
        """Remove what a slot holds besides the files, or unpacked folders, of these names."""
        parents = {name[:cut] for name in names for cut, char in enumerate(name) if char == "/"}
        for each in self._disk.names(folder):
            path = f"{above}{each}"
            if path in parents and self._disk.names(folder / each):
                self._keep_only(names, folder / each, above=f"{path}/")
            elif path not in names:  # also a file, or an empty folder, where a folder is to be
                self._disk.remove(folder / each)

    def _unpack(self, archive: Path, folder: Path) -> None:
        from whimbrel import packing  # here: see `_here`

        disk = self._disk
        with disk.lend(archive, made=folder) as (source, made):
            packing.unpack(source, made)
        places = {folder}
        for name in disk.files_below(folder):
            disk.sync(folder / name)
            places |= {parent for parent in (folder / name).parents if parent.is_relative_to(folder)}
        for place in sorted(places, reverse=True):
            disk.sync(place)
