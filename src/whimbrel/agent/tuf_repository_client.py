"""A client of any TUF repository, by the trust code of the agent: what a foreign test suite can drive.

The agent itself reads repositories of Whimbrel (tuf_client.py), with sequences and a time that it learned. Here targets
have any name, and the time is the machine's.
"""

from pathlib import Path
from urllib.parse import quote

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import TargetFile

from whimbrel import limits
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.metadata_fetcher import MetadataFetcher, fits
from whimbrel.agent.transport import HttpNetwork
from whimbrel.agent.trust_problems import problem_of
from whimbrel.agent.tuf_internals import DiskUpdater, file_name
from whimbrel.device.ports import Network
from whimbrel.errors import NotFound, UntrustedInput

_ROOT = "root.json"


class TufRepositoryClient:
    """The trusted metadata of one repository, in a folder, as `ROLE.json`."""

    def __init__(self, folder: Path, *, network: Network | None = None) -> None:
        self._folder = folder
        self._disk = RealDisk()
        self._network = network or HttpNetwork()

    def init(self, root: bytes) -> None:
        """Trust this root from now on."""
        self._disk.write(self._folder / _ROOT, root)

    def refresh(self, url: str) -> DiskUpdater:
        """Bring the metadata of the top level up to date. Raises `UntrustedInput`, `Unavailable`, `NotFound`."""
        root = self._disk.read(self._folder / _ROOT)
        if root is None:
            raise NotFound(f"{self._folder} has no {_ROOT}: begin with `init` and the root that you were given")
        try:
            updater = DiskUpdater(
                self._folder,
                url.rstrip("/") + "/",
                disk=self._disk,
                fetcher=MetadataFetcher(self._network),
                shipped_root=root,
                root_place=self._folder / _ROOT,
            )
            updater.refresh()
        except (DownloadError, RepositoryError, OSError, ValueError) as error:
            raise problem_of(error, "the signed metadata") from error
        return updater

    def download(self, updater: DiskUpdater, name: str, *, url: str, into: Path) -> Path:
        """A target below `url`, verified, as a file in the folder `into`; where it is there already nothing is fetched.

        Raises `NotFound` where nothing signed names it; `UntrustedInput`, `Unavailable`.
        """
        try:
            target = updater.get_targetinfo(name)
            if target is None:
                raise NotFound(f"no signed metadata names the target {name!r}")
            place = into / file_name(name)
            kept = self._disk.read(place) if self._disk.size(place) == target.length else None
            if kept is None or not fits(target, kept):
                content = self._fetch(target, url.rstrip("/"), by_hash=updater.names_have_hashes)
                target.verify_length_and_hashes(content)
                self._disk.write(place, content)
        except (DownloadError, RepositoryError, OSError, ValueError) as error:
            raise problem_of(error, name) from error
        return place

    def _fetch(self, target: TargetFile, url: str, *, by_hash: bool) -> bytes:
        if target.length > limits.TUF_TARGET_BYTES:
            raise UntrustedInput(
                f"{target.path} has {target.length} bytes; this command holds a file in memory, and takes at most "
                f"{limits.TUF_TARGET_BYTES}"
            )
        folder, _, name = target.path.rpartition("/")
        if by_hash:
            digest = target.hashes.get("sha256") or next(iter(target.hashes.values()))
            name = f"{digest}.{name}"
        address = f"{url}/{quote(folder)}/{quote(name)}" if folder else f"{url}/{quote(name)}"
        answer = self._network.ask("GET", address, bytes_max=max(target.length, limits.ANSWER_BYTES))
        if answer.status != 200:
            raise DownloadHTTPError(f"{address} answered {answer.status}", answer.status)
        return answer.body
