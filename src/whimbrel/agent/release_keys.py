"""The keys of sealed releases on this device: asked of the server, or taken from a bundle, and opened here.

1. A key is held in memory by the process that runs the cycles. It is on the disk only where slots stay sealed
   (`sealed_at_rest`): then as the server sent it, sealed to the recipient key, for as long as a slot holds the version.
2. A device that gets no key waits for it, and says why; that is never evidence against a version.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from whimbrel.agent.device_api import DeviceApi
from whimbrel.agent.disk import Disk
from whimbrel.agent.folder import PRIVATE_FILE
from whimbrel.agent.recipient_key import RecipientKey
from whimbrel.device.slots import Held
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model import documents
from whimbrel.trust.sealing import SealedReleaseKey, open_key, recipient_key_of

Bundled = Callable[[str, int], SealedReleaseKey | None]


class ReleaseKeys:
    """The release keys of one device. `keeps`: they stay on the disk. `bundled`: the key that a bundle holds, while one
    is imported.
    """

    def __init__(
        self,
        kept: "KeptReleaseKeys",
        api: DeviceApi,
        *,
        keeps: bool = False,
        offline: Callable[[], bool] = lambda: False,
        bundled: Bundled = lambda _model, _serial: None,
    ) -> None:
        self._kept, self._api = kept, api
        self._keeps, self._offline, self._bundled = keeps, offline, bundled
        self._open: dict[tuple[str, int], str] = {}

    def get(self, model: str, serial: int) -> str:
        """The age identity that opens a release. Raises `Unavailable`, `Refused`, `UntrustedInput`."""
        if (model, serial) not in self._open:
            self._open[model, serial] = self._kept.get(model, serial) or self._ask(model, serial)
        return self._open[model, serial]

    def ensure_kept(self, model: str, active: Held | None) -> None:
        """Have the key of an active version that its slot holds sealed, for sessions. Raises as `get` does."""
        if active is None or not active.is_sealed_at_rest or self._offline():
            return
        if self._kept.get(model, active.serial) is None:
            self.forget(model, active.serial)
            self.get(model, active.serial)

    def keep_only(self, versions: Collection[tuple[str, int]]) -> None:
        """Forget the keys of versions that no slot holds."""
        self._open = {version: key for version, key in self._open.items() if version in versions}
        self._kept.keep_only(versions)

    def forget(self, model: str, serial: int) -> None:
        """Ask for this key anew when it is next needed: the one that is here opens nothing."""
        self._open.pop((model, serial), None)
        self._kept.forget(model, serial)

    def _ask(self, model: str, serial: int) -> str:
        bundled = self._bundled(model, serial)
        if bundled is None and self._offline():
            raise Unavailable(
                f"{model} at serial {serial} is sealed, and this bundle has no key for this device; whoever made it "
                "adds one with: whimbrel bundle add-keys BUNDLE --for-device ID; or let the device ask its server"
            )
        recipient = recipient_key_of(self._kept.recipient.get())
        sealed = bundled or self._api.release_key(model, serial, recipient=recipient)
        identity = self._kept.opened(sealed, model, serial)
        if self._keeps:
            self._kept.keep(sealed, model, serial)
        return identity


class KeptReleaseKeys:
    """The keys of releases in the agent's folder, each sealed to the recipient key, which lies beside them.

    Sessions read them, in whatever process they are.
    """

    def __init__(self, folder: Path, *, namespace: str, device_id: str, disk: Disk) -> None:
        self._folder = folder / "release-keys"
        self._namespace, self._device_id, self._disk = namespace, device_id, disk
        self.recipient = RecipientKey(folder, device_id, disk=disk)

    def get(self, model: str, serial: int) -> str | None:
        """The key of a release; None where it is not kept, or not to be opened any more. Raises `OSError`."""
        content = self._disk.read(self._path(model, serial))
        if content is None:
            return None
        try:
            return self.opened(documents.parse(SealedReleaseKey, content, what="a kept release key"), model, serial)
        except UntrustedInput:
            return None  # it is asked for again

    def opened(self, sealed: SealedReleaseKey, model: str, serial: int) -> str:
        """What is sealed in `sealed`. Raises `UntrustedInput` for the key of another device or version."""
        return open_key(
            sealed,
            self.recipient.get(),
            namespace=self._namespace,
            model=model,
            serial=serial,
            device_id=self._device_id,
        )

    def keep(self, sealed: SealedReleaseKey, model: str, serial: int) -> None:
        """Keep it, for its owner alone."""
        self._disk.write(self._path(model, serial), documents.encode(sealed), mode=PRIVATE_FILE)

    def forget(self, model: str, serial: int) -> None:
        """Remove it."""
        self._disk.remove(self._path(model, serial))

    def keep_only(self, versions: Collection[tuple[str, int]]) -> None:
        """Remove the keys of all other versions."""
        names = {self._path(model, serial).name for model, serial in versions}
        for name in self._disk.names(self._folder):
            if name not in names:
                self._disk.remove(self._folder / name)

    def _path(self, model: str, serial: int) -> Path:
        return self._folder / f"{model}-{serial}.json"
