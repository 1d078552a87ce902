"""The private parts of python-tuf that we use: all of them, in this one file.

python-tuf 7 has no port for the cache, the clock, or the set of verified metadata. So this file replaces the Updater's
file methods, sets its time, and reads what it verified. Nothing else in this project names anything of python-tuf that
begins with an underscore, so a new python-tuf is tried here first.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Root
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig
from tuf.ngclient._internal import trusted_metadata_set

from whimbrel.agent.disk import Disk
from whimbrel.errors import InvariantBroken
from whimbrel.model import documents
from whimbrel.trust import roles

CONFIG = UpdaterConfig(max_root_rotations=64)


class DiskUpdater(Updater):
    """python-tuf's client with its cache on our disk.

    The newest root that was verified is durable, so that no power cut brings an old key back; it belongs to the root
    that this device was given. The rest is a cache: what is lost or torn is fetched and verified again.
    """

    def __init__(
        self,
        cache: Path,
        url: str,
        *,
        disk: Disk,
        fetcher: FetcherInterface,
        shipped_root: bytes,
        root_place: Path | None = None,
    ) -> None:
        """`root_place`: where the newest root is kept, where that is not the cache's own name for it."""
        self._disk = disk
        self._cache = cache
        self._root_place = root_place or cache / f"root-{documents.digest_of(shipped_root)[:16]}.json"
        kept = disk.read(self._root_place)
        try:
            super().__init__(str(cache), url, fetcher=fetcher, config=CONFIG, bootstrap=kept or shipped_root)
        except RepositoryError:
            if kept is None:
                raise
            super().__init__(str(cache), url, fetcher=fetcher, config=CONFIG, bootstrap=shipped_root)

    def set_time(self, now: float) -> None:
        """Judge by `now`. The Updater takes the machine's clock and offers no other way."""
        if not hasattr(self._trusted_set, "reference_time"):
            raise InvariantBroken("this python-tuf keeps its reference time elsewhere")
        self._trusted_set.reference_time = datetime.fromtimestamp(now, UTC)

    @property
    def names_have_hashes(self) -> bool:
        """Whether files of targets are named by their hashes (TUF 1.0, section 6.2)."""
        return bool(self._trusted_set.root.consistent_snapshot)

    @property
    def root_version(self) -> int:
        """Of the newest root that was verified."""
        return self._trusted_set.root.version

    @property
    def timestamp(self) -> str:
        """The verified timestamp: its version, and the keys that the root gives to its role."""
        root: Root = self._trusted_set.root
        return f"{self._trusted_set.timestamp.version} {' '.join(sorted(root.roles[roles.TIMESTAMP].keyids))}"

    @property
    def timestamp_expires(self) -> float:
        """When the verified timestamp expires."""
        return self._trusted_set.timestamp.expires.timestamp()

    @property
    def expires(self) -> float:
        """When the first of all verified metadata expires."""
        return min(signed.expires.timestamp() for signed in self._trusted_set)

    @property
    def others_expire(self) -> float:
        """When the first of the verified metadata expires that another key than the timestamp's signed."""
        return min(signed.expires.timestamp() for signed in self._trusted_set if signed.type != roles.TIMESTAMP)

    def keys_of(self, role: str) -> str:
        """The keys that the verified targets role gives to a role that it delegates; "" where it has none such."""
        delegations = self._trusted_set.targets.delegations
        delegated = delegations.roles.get(role) if delegations and delegations.roles else None
        return " ".join(sorted(delegated.keyids)) if delegated else ""

    @property
    def models(self) -> tuple[str, ...]:
        """The models that the verified targets role delegates."""
        delegations = self._trusted_set.targets.delegations
        names = (roles.published_model(role) for role in (delegations.roles if delegations else None) or ())
        return tuple(name for name in names if name is not None)

    def _load_local_metadata(self, rolename: str) -> bytes:
        content = self._disk.read(self._cache / f"{file_name(rolename)}.json")
        if content is None:
            raise FileNotFoundError(rolename)
        return content

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        place = self._cache / f"{file_name(rolename)}.json"
        if self._disk.read(place) != data:
            self._disk.replace(place, data)

    def _persist_root(self, version: int, data: bytes) -> None:  # noqa: ARG002 (only the newest is kept)
        if self._disk.read(self._root_place) != data:
            self._disk.write(self._root_place, data)

    def _update_root_symlink(self) -> None:
        """There is one root file, and no link to it."""


@functools.lru_cache(maxsize=1024)  # the same few names in every cycle
def file_name(path: str) -> str:
    """The name of a file in the cache, as python-tuf makes it."""
    return quote(path, safe="")


@contextmanager
def reading_metadata_by(wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Within: metadata is read and verified by what `wrap` makes of python-tuf's own function. For the simulator.

    That function takes a role, the bytes, the delegator and the role's name, and gives what was read.
    """
    load = trusted_metadata_set._load_from_metadata
    trusted_metadata_set._load_from_metadata = wrap(load)
    try:
        yield
    finally:
        trusted_metadata_set._load_from_metadata = load
